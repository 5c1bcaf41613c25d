"""The card of a loop's best model: what it was taught, by whom, and what came of it.

    RUN/loop.json, RUN/rounds/NN/ → model_card → RUN/best/README.md

Every figure is one that the run has written down. No path of the machine is told: a model that came
from a folder is called by the folder's name.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from rlaif import strict_yaml
from rlaif.constitution import Constitution
from rlaif.loop.figures import Figure, Figures
from rlaif.loop.places import LoopFolder
from rlaif.loop.state import State
from rlaif.recipe import Model, Recipe

_TRAINED = ("soft_labels", "lora", "sft", "dpo", "reward", "dpo_pairs", "reward_pairs")


def model_card(folder: LoopFolder, recipe: Recipe, state: State, labels: str | None) -> str:
    """The card as Markdown, with the front matter that the hub reads.

    Args:
        folder: the loop's.
        recipe: the loop's.
        state: with a best round.
        labels: the labels' name on the hub; None where they are not there.
    """
    best = state.best
    assert best is not None
    constitution = Constitution.load(recipe.constitution)
    title = f"{named(recipe.student)}, aligned to {constitution.name}"
    parts = [
        front_matter(_facts(recipe, labels)),
        f"# {title}\n\nTrained by rlaif without human labels: "
        f"{judges(state, recipe)} labelled the model's own answers under a written constitution, "
        f"and it was trained on those labels, in {best.round + 1} "
        f"{'rounds' if best.round else 'round'}.",
        "## Before and after\n\n" + _before_and_after(state, best),
        principles(constitution, state.base, best),
        judged(folder, recipe, best.round),
        "## The labels\n\n" + counted(state, recipe),
        "## How it was made\n\n" + _made(recipe),
        "## Limits\n\n" + _limits(recipe, state),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def front_matter(facts: Mapping[str, Any]) -> str:
    """YAML between two rules, as cards begin."""
    return f"---\n{yaml.safe_dump(dict(facts), sort_keys=False, allow_unicode=True)}---"


def _facts(recipe: Recipe, labels: str | None) -> dict[str, Any]:
    train = recipe.train
    stages = [n for n in ("sft", "dpo") if getattr(train, n) is not None]
    facts: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-generation"}
    if on_hub(recipe.student):
        facts["base_model"] = str(recipe.student.model)
    if labels is not None:
        facts["datasets"] = [labels]
    return facts | {"tags": ["rlaif", "constitution", *stages, "trl"]}


def on_hub(model: Model) -> bool:
    """Whether a model is known by its name, and not by a folder of this machine."""
    name = str(model.model)
    return not Path(name).is_absolute() and not Path(name).exists() and name.count("/") <= 1


def named(model: Model) -> str:
    """What a model is called."""
    return str(model.model) if on_hub(model) else Path(model.model).name


def judges(state: State, recipe: Recipe) -> str:
    """Who labelled what the best model was trained on."""
    who = {one.judge for one in rounds_used(state, recipe)}
    names = {"teacher": f"the judge {named(recipe.teacher)}", "student": "the model itself"}
    return " and then ".join(names[one] for one in ("teacher", "student") if one in who)


def _before_and_after(state: State, best: Figures) -> str:
    base = state.base
    rows = []
    for name, measure in (
        ("held-out metric", "metric"),
        ("principles kept, by the judge", "kept"),
    ):
        before = None if base is None else getattr(base, measure)
        rows.append((name, told(before), told(getattr(best, measure))))
    before_tokens = None if base is None else base.mean_tokens
    rows.append(("mean tokens of an answer", _number(before_tokens), _number(best.mean_tokens)))
    for name, reading in (
        ("rare regions of the human texts reached", "tail_coverage"),
        ("drift from the human texts, nats", "drift"),
    ):
        before = None if base is None else base.collapsed(reading)
        rows.append((name, _number(before), _number(best.collapsed(reading))))
    shown = [row for row in rows if row[2]]
    text = table(("", "before", f"after round {best.round}"), shown) if shown else ""
    wins = [
        f"- round {one.round}: {told(one.win_rate)}"
        + (
            ""
            if one.length_controlled is None
            else f", at equal length {one.length_controlled:.3f}"
        )
        for one in state.rounds
        if one.win_rate is not None and one.round <= best.round
    ]
    if wins:
        text += (
            "\n\nHow often the teacher prefers a round's model to the one that the round began "
            "with, with 95 % intervals:\n\n" + "\n".join(wins)
        )
    return text or "Nothing was measured: the recipe has no evaluation prompts."


def principles(constitution: Constitution, base: Figures | None, after: Figures | None) -> str:
    """The constitution, with each principle's figures where they were measured."""
    columns = [("metric_by_principle", "metric"), ("kept_by_principle", "kept, by the judge")]
    measured = [(k, name) for k, name in columns if after is not None and getattr(after, k)]
    rows = []
    for p in constitution.principles:
        figures = [
            " → ".join(
                _number(getattr(f, key).get(p.id)) or "–" for f in (base, after) if f is not None
            )
            for key, _ in measured
        ]
        weight = f"{p.weight:g}" + (", a veto" if p.veto else "")
        rows.append((p.id, p.text, weight, *figures))
    names = ("id", "principle", "weight", *(name for _, name in measured))
    return (
        f"## The constitution\n\n{constitution.name}, fingerprint `{constitution.fingerprint}`."
        f"\n\n{table(names, rows)}"
    )


def judged(folder: LoopFolder, recipe: Recipe, number: int) -> str:
    """What the judge of a round was worth on labelled comparisons; empty without a gate."""
    if recipe.gate is None:  # an earlier one may have left its scorecard
        return ""
    file = folder.round(number).root / "judge" / "scorecard.json"
    try:
        card = json.loads(file.read_bytes())["scorecard"]
    except (OSError, ValueError, KeyError):
        return ""
    rows = [("accuracy", _rate(card["accuracy"]))]
    error = (card.get("calibrated") or card["raw"])["error"]
    rows.append(("calibration error", _number(error)))
    if card["mode"] == "pairwise":
        rows.append(("labels that turn round with the order", _rate(card["flip_rate"])))
    rows += [(f"accuracy: {k}", _rate(v)) for k, v in card["by_principle"].items()]
    shown = [row for row in rows if row[1]]
    return (
        f"## The judge\n\nAsked {card['mode']}, measured on {card['comparisons']} comparisons "
        f"whose better side is known, with 95 % intervals:\n\n{table(('', 'value'), shown)}\n\n"
        "A comparison under the whole constitution counts for each principle by what the judge "
        "said of that one alone."
    )


def counted(state: State, recipe: Recipe) -> str:
    """How many labels there were, and how many were kept aside and why."""
    rows, aside = [], []
    for one in rounds_used(state, recipe):
        labels = one.labels
        if labels is None:
            continue
        counts = ("prompts", "responses", "verdicts", "abstentions", "picks", "pairs")
        rows.append((str(one.round), one.judge, *(f"{labels[k]:,}" for k in counts)))
        aside += [
            (str(one.round), stage, reason, f"{count:,}")
            for stage, reasons in labels["dropped"].items()
            for reason, count in reasons.items()
        ]
    names = ("round", "judge", "prompts", "responses", "verdicts", "abstentions", "picks", "pairs")
    text = table(names, rows)
    if aside:
        text += "\n\nKept aside:\n\n" + table(("round", "stage", "reason", "rows"), aside)
    return text


def rounds_used(state: State, recipe: Recipe) -> list[Figures]:
    """The rounds whose labels the best model's weights were trained on, in any round."""
    best, loop = state.best, recipe.loop
    if best is None:
        return []
    if loop is not None and loop.data == "replace" and loop.start == "first":
        return [best]
    return [one for one in state.rounds if one.round <= best.round]


def _made(recipe: Recipe) -> str:
    train = recipe.train.model_dump(mode="json")
    shown = {k: train[k] for k in _TRAINED if train[k] is not None}
    kept = {
        "seed": recipe.seed,
        "sample": recipe.sample.model_dump(mode="json"),
        "judge": {"mode": recipe.judge.mode, "clip": recipe.judge.clip},
        "pick": recipe.pick.model_dump(mode="json"),
        "train": shown,
    }
    return (
        "Sampling, judging and training followed this part of the recipe; a training block holds "
        f"the arguments of TRL's config of its name.\n\n```yaml\n{strict_yaml.dump(kept)}```"
    )


def _limits(recipe: Recipe, state: State) -> str:
    limits = ["No person has read the labels or the answers."]
    if recipe.gate is None:
        limits.append(
            "The judge was not held against labelled comparisons: how often it is right is unknown."
        )
    if recipe.loop is None or recipe.loop.metric is None:
        limits.append(
            "What is better was decided by a model alone: there is no measure of its own beside it."
        )
    if recipe.anchors is None:
        limits.append("The answers were not compared with human texts: drift is unknown.")
    if any(one.judge == "student" for one in rounds_used(state, recipe)):
        limits.append("In some rounds the model labelled its own answers.")
    if state.stopped is not None:
        limits.append(f"The loop stopped in round {state.stopped.round}: {state.stopped.reason}.")
    limits += [
        f"Round {one.round} was rolled back once: {one.reason}." for one in state.rolled_back
    ]
    return "\n".join(f"- {one}" for one in limits)


def table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; what a cell says cannot end it."""
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def told(figure: Figure | None) -> str:
    """A value with its interval; empty for none."""
    return "" if figure is None else str(figure)


def _rate(rate: Mapping[str, Any]) -> str:
    if rate["value"] is None:
        return ""
    return told(Figure(rate["value"], rate["low"], rate["high"])) + f", {rate['rows']} labels"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
