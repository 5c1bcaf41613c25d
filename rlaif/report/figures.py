"""What a run's files say of it in numbers: a loop's rounds, or a plain run as its only round.

    loop.json, rounds/NN/figures.json; evaluate/, judge/, summary.json → [figures] → page.py

A figure that is not there yet is None; the page says so.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from rlaif.report.shards import manifests, read_json
from rlaif.run_folder import RunFolder
from rlaif.train.plan import STAGES

Plain = Mapping[str, Any]
"""What a JSON or YAML object holds."""


class Fig(NamedTuple):
    """A figure, with its 95 % interval where that is known."""

    value: float
    low: float | None = None
    high: float | None = None


class Round(NamedTuple):
    """A round's number, its folder, and its figures where it is finished."""

    number: int
    run: RunFolder
    figures: Plain


@dataclass(frozen=True, slots=True)
class Story:
    """A run as the page tells it.

    Attributes:
        looped: whether it is a loop's.
        status: "running", "finished", "stopped" or "paused".
        rounds: in order, with the one that is being worked on.
        base: figures of the student before any round.
        best: number of the best round.
        stopped: why the loop stopped: its round, rule and reason.
        rolled_back: the attempts that failed their checks, likewise.
        anchors: the anchors' own figures of collapse, where they are known.
    """

    looped: bool
    status: str
    rounds: Sequence[Round]
    base: Plain
    best: int | None
    stopped: Plain | None
    rolled_back: Sequence[Plain]
    anchors: Plain

    @property
    def after(self) -> Plain:
        """Figures of the student that the run ends with: the best round's, or the last one's."""
        done = [r for r in self.rounds if r.figures]
        best = [r.figures for r in done if r.number == self.best]
        return best[0] if best else done[-1].figures if done else {}


def read_story(run: RunFolder) -> Story:
    """The story of a run folder, however far it has come."""
    loop = read_json(run.root / "loop.json")
    return _plain_story(run) if not isinstance(loop, dict) else _loop_story(run, loop)


def read_yaml(path: Path) -> Plain:
    """What a YAML file holds; nothing where there is none, or none that is whole."""
    try:
        found = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def fig(value: Any) -> Fig | None:
    """A figure as the files have it: a number, or an object with its interval."""
    if isinstance(value, Mapping):
        low, high = _number(value.get("low")), _number(value.get("high"))
        number = _number(value.get("value"))
        return None if number is None else Fig(number, low, high)
    number = _number(value)
    return None if number is None else Fig(number)


def _number(value: Any) -> float | None:
    known = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if known and math.isfinite(value) else None


def _loop_story(run: RunFolder, loop: Plain) -> Story:
    finished = {int(f["round"]): f for f in loop.get("rounds") or []}
    folders = {
        int(path.name): path for path in (run.root / "rounds").glob("*") if path.name.isdigit()
    }
    rounds = []
    for number in sorted(finished.keys() | folders.keys()):
        folder = folders.get(number, run.root / "rounds" / f"{number:02d}")
        figures = finished.get(number) or read_json(folder / "figures.json") or {}
        rounds.append(Round(number, RunFolder(folder), figures))
    return Story(
        looped=True,
        status=str(loop.get("status", "running")),
        rounds=rounds,
        base=loop.get("base") or {},
        best=loop.get("best"),
        stopped=loop.get("stopped"),
        rolled_back=loop.get("rolled_back") or [],
        anchors=loop.get("anchors") or _anchors(run),
    )


def _plain_story(run: RunFolder) -> Story:
    base, figures = _plain_figures(run)
    recipe = read_yaml(run.recipe)
    measures = bool((recipe.get("evaluate") or {}).get("prompts"))
    measured = not measures or bool(figures.get("win_rate"))
    done = measured and _is_labelled(run) and _is_trained(run, recipe)
    status = "finished" if done else "running"
    return Story(
        looped=False,
        status=status,
        rounds=[Round(0, run, read_json(run.root / "figures.json") or figures)],
        base=base,
        best=None,
        stopped=None,
        rolled_back=[],
        anchors=_anchors(run),
    )


def _is_labelled(run: RunFolder) -> bool:
    """Whether every shard of prompts has become one of pairs, which are picked last."""
    prompts, pairs = (len(manifests(run, stage)) for stage in ("prompts", "pairs"))
    return 0 < prompts == pairs


def _is_trained(run: RunFolder, recipe: Plain) -> bool:
    """Whether every model that the recipe trains is there."""
    train = recipe.get("train") or {}
    return set(trained_stages([run])) >= {s for s in STAGES if train.get(s) is not None}


def trained_stages(runs: Iterable[RunFolder]) -> list[str]:
    """The stages whose models are there, in any of a loop's rounds."""
    found = {stage for run in runs for stage in STAGES if (run.model(stage) / "final").is_dir()}
    return [stage for stage in STAGES if stage in found]


def _plain_figures(run: RunFolder) -> tuple[Plain, Plain]:
    """Before and after, in a loop's form, of what a plain run leaves in its folder."""
    base: dict[str, Any] = {}
    after: dict[str, Any] = {"round": 0}
    stage, won = _evaluated(run)
    if won:
        after["win_rate"] = {"value": won.get("win_rate"), "low": won.get("low"),
                             "high": won.get("high")}  # fmt: skip
        after["length_controlled"] = won.get("length_controlled")
        base["mean_tokens"] = won.get("mean_tokens_base")
        after["mean_tokens"] = won.get("mean_tokens_trained")
    card = scorecard(run)
    if card:
        after["judge_accuracy"] = card.get("accuracy")
    gold = (read_json(run.summary) or {}).get("gold")
    if isinstance(gold, dict) and stage in gold:
        for figures, model in ((base, "base"), (after, stage)):
            figures["metric"] = {"value": gold.get(model), "low": None, "high": None}
            figures["metric_by_principle"] = {
                id_: values.get(model) for id_, values in gold.get("by_principle", {}).items()
            }
    return base, after


def _evaluated(run: RunFolder) -> tuple[str, Plain]:
    """The last trained stage that was evaluated, and its win rate."""
    for stage in ("dpo", "sft"):
        found = read_json(run.root / "evaluate" / f"{stage}.json")
        if isinstance(found, dict):
            return stage, found
    return "", {}


def scorecard(run: RunFolder) -> Plain:
    """The judge's scorecard of a round; nothing where there is none, or no gate any more."""
    if read_yaml(run.recipe).get("gate") is None:
        return {}
    found = read_json(run.root / "judge" / "scorecard.json")
    card = found.get("scorecard") if isinstance(found, dict) else None
    return card if isinstance(card, dict) else {}


def _anchors(run: RunFolder) -> Plain:
    """The anchors' own row of a watch that was kept in the run."""
    found = read_json(run.root / "collapse" / "collapse.json")
    if not isinstance(found, dict):
        return {}
    rows = [row for arm in found.values() for row in arm if row.get("name") == "anchors"]
    return rows[0] if rows else {}
