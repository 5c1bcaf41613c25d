"""What comes first on the page: what was trained, is it better, are the labels right, the cost.

figures, counts, cost → [headline] → page.py
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import NamedTuple

from rlaif.report.browse import Read
from rlaif.report.cost import Cost
from rlaif.report.counts import REVISED, Passed
from rlaif.report.figures import Fig, Plain, Story, fig, trained_stages
from rlaif.report.formats import count, duration, interval, money, number, percent


class Tile(NamedTuple):
    """One large figure, with what it is and what else is to be known of it.

    `before` and `after` are shares, drawn as a track with the interval; None draws none.
    """

    label: str
    value: str
    notes: list[str]
    before: Fig | None = None
    after: Fig | None = None


class Headline(NamedTuple):
    """The sentence of the page, what was trained, and the tiles."""

    sentence: str
    trained: str
    tiles: list[Tile]


def headline(
    story: Story, card: Plain, cost: Cost, flow: Sequence[Passed], recipe: Plain, read: Read
) -> Headline:
    """The head of the page."""
    key = "metric" if fig(story.after.get("metric")) else "kept"
    before, after = fig(story.base.get(key)), fig(story.after.get(key))
    won = fig(story.after.get("win_rate"))
    kept = _kept(key, before, after, _missing(story))
    if key == "metric" and fig(story.after.get("kept")):
        kept.notes.append(_judged(fig(story.base.get("kept")), fig(story.after.get("kept"))))
    tiles = [kept, _won(story, won), _judge(card, story, recipe, read), _cost(cost)]
    return Headline(
        _sentence(story, before, after, won, flow), _trained(story, flow, recipe, read), tiles
    )


def _sentence(
    story: Story, before: Fig | None, after: Fig | None, won: Fig | None, flow: Sequence[Passed]
) -> str:
    if after and before and _overlap(before, after):
        said = f"The student keeps {percent(after)} of its principles, {percent(before)} before"
        return f"{said}: a difference that may be chance."
    if after and before:
        how = "up from" if after.value > before.value else "down from"
        how = "as before:" if f"{after.value:.3f}" == f"{before.value:.3f}" else how
        return f"The student keeps {percent(after)} of its principles, {how} {percent(before)}."
    if after:
        return f"The student keeps {percent(after)} of its principles."
    if won and won.low is not None and won.high is not None and won.low <= 0.5 <= won.high:
        said = f"wins {percent(won)} of the comparisons with its former self"
        return f"The trained student {said}, which may be chance."
    if won:
        return f"The trained student wins {percent(won)} of the comparisons with its former self."
    pairs = next((p.kept for p in reversed(_of_pairs(flow)) if p.there), 0)
    if pairs:
        return f"{count(pairs)} preference pairs so far; the student is not evaluated yet."
    return "This run has only begun."


def _of_pairs(flow: Sequence[Passed]) -> list[Passed]:
    """The stages that pairs go through, in order; those before them have prompts or picks."""
    return [p for p in flow if p.stage.startswith("preference")]


def _overlap(one: Fig, other: Fig) -> bool:
    """Whether two figures' intervals have a value in common; no where either has none."""
    ends = (one.low, one.high, other.low, other.high)
    if None in ends:
        return False
    low, high, other_low, other_high = (float(end or 0.0) for end in ends)
    return low <= other_high and other_low <= high


def _missing(story: Story) -> str:
    return "not measured yet" if story.status == "running" else "not measured"


def _trained(story: Story, flow: Sequence[Passed], recipe: Plain, read: Read) -> str:
    by_stage = {p.stage: p for p in flow}
    picks = [p for p in flow if p.stage.startswith("picks")]
    pairs = _of_pairs(flow)
    student, teacher = (_named(recipe, who) for who in ("student", "teacher"))
    made = f"{count(picks[-1].kept)} picks and {count(pairs[-1].kept)} preference pairs"
    asked = count(by_stage["prompts"].kept)
    stages = trained_stages(one.run for one in story.rounds)
    names = {"sft": "SFT", "dpo": "DPO", "reward": "a reward model"}
    trained = f" Trained: {', '.join(names[s] for s in stages)}." if stages else ""
    revised = by_stage.get(REVISED)
    gave = f"gave {count(read.responses)} responses to {asked} prompts"
    if revised is not None and revised.there:  # whoever revises: they are judged alike
        gave = f"answered {asked} prompts: with revisions, {count(read.responses)} responses"
    return (
        f"The {student} {gave}. The {teacher} gave {count(read.verdicts)} verdicts on them, "
        f"{count(read.abstentions)} of them abstentions. That made {made}.{trained}"
    )


def _named(recipe: Plain, who: str) -> str:
    """A model by its role and, where that says more, its own name."""
    section = recipe.get(who)
    model = section.get("model") if isinstance(section, dict) else None
    name = PurePath(str(model)).name if model else who
    return who if name == who else f"{who} {name}"


def _kept(key: str, before: Fig | None, after: Fig | None, missing: str) -> Tile:
    label = "Principles kept"
    if after is None:
        return Tile(label, "–", [missing])
    notes = [f"95 % interval {interval(after)}"] if interval(after) else []
    notes.append("by a held-out metric" if key == "metric" else "by the judge")
    if before is not None:
        notes.insert(0, f"before: {percent(before)}" + _in_brackets(interval(before)))
    return Tile(label, percent(after), notes, before, after)


def _judged(before: Fig | None, after: Fig | None) -> str:
    """The judge's own count, where a held-out metric comes first."""
    said = f"by the judge {percent(after)}{_in_brackets(interval(after))}"
    return said if before is None else f"{said}, before {percent(before)}"


def _in_brackets(text: str) -> str:
    return f" ({text})" if text else ""


def _won(story: Story, won: Fig | None) -> Tile:
    if won is None:
        return Tile("Win rate", "–", [_missing(story)])
    over = "over the student the round began with" if story.looped else "over the student before"
    equal = fig(story.after.get("length_controlled"))
    notes = [over]
    if interval(won):
        notes.append(f"95 % interval {interval(won)}")
    if equal:
        notes.append(f"at equal length {percent(equal)}")
    lengths = [story.base.get("mean_tokens"), story.after.get("mean_tokens")]
    if all(fig(x) for x in lengths):
        notes.append(f"{number(lengths[0])} → {number(lengths[1])} tokens an answer")
    return Tile("Win rate", percent(won), notes, Fig(0.5), won)


def _judge(card: Plain, story: Story, recipe: Plain, read: Read) -> Tile:
    right = fig(card.get("accuracy")) or fig(story.after.get("judge_accuracy"))
    if right is None:
        asked = recipe.get("gate") is not None
        missing = "not measured yet" if asked else "not measured: the recipe has no gate"
        return Tile("Judge right", "–", [missing])
    rows = (card.get("accuracy") or {}).get("rows")
    notes = [f"95 % interval {interval(right)}"] if interval(right) else []
    if rows:
        notes.append(f"on {count(rows)} labelled comparisons")
    shown = card.get("calibrated") or card.get("raw") or {}
    if (error := fig(shown.get("error"))) is not None:
        notes.append(f"calibration error {error.value:.3f}")
    if read.calibrated is False:
        notes.append("the pairs' probabilities are not calibrated")
    return Tile("Judge right", percent(right), notes, Fig(0.5), right)


def _cost(cost: Cost) -> Tile:
    seconds, told = cost.real.get("seconds"), cost.estimate.get("seconds")
    notes = [f"estimated: {duration(told)}"] if told is not None else []
    if cost.real.get("money"):
        notes.append(f"money {money(cost.real['money'])}")
        if cost.estimate.get("money") is not None:
            notes[-1] += f", estimated {money(cost.estimate['money'])}"
    tokens = cost.real.get("computed_tokens", 0) + cost.real.get("generated_tokens", 0)
    if tokens:
        notes.append(f"{count(tokens)} tokens")
    return Tile("Cost", duration(seconds), notes or ["wall-clock time of all stages"])
