"""What a run took, beside what it was estimated to take.

cost.jsonl, estimate.json, or a plain run's log → [cost] → page.py
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from rlaif.report.shards import read_json, read_json_lines
from rlaif.run_folder import RunFolder

FIGURES = ("seconds", "device_seconds", "requests", "computed_tokens", "generated_tokens", "money")
"""What is counted of a stage."""


class Line(NamedTuple):
    """A stage of a round: its estimated and its real figures, by the names of `FIGURES`."""

    round: int
    stage: str
    estimate: Mapping[str, float]
    real: Mapping[str, float]


class Cost(NamedTuple):
    """All of it: a line a stage and a round, and the sums."""

    lines: list[Line]
    estimate: Mapping[str, float]
    real: Mapping[str, float]
    label: Mapping[str, Any]


def read_cost(run: RunFolder) -> Cost:
    """The cost of a run so far. Lines of a stage that was killed and went on add up."""
    real = _added(read_json_lines(run.root / "cost.jsonl")) or _plain(run)
    told = read_json(run.root / "estimate.json")
    told = told if isinstance(told, dict) else {}
    estimate = _added(told.get("rows") or [])
    keys = list(dict.fromkeys([*estimate, *real]))
    keys.sort(key=lambda key: key[0])  # rounds in order; stages as they came
    if not any(one.get("money") for one in (*estimate.values(), *real.values())):
        for one in (*estimate.values(), *real.values()):
            one.pop("money", None)  # nothing has a price: that is no 0
    lines = [Line(*key, estimate.get(key, {}), real.get(key, {})) for key in keys]
    return Cost(lines, _sum(estimate.values()), _sum(real.values()), told.get("label") or {})


_Key = tuple[int, str]


def _added(rows: Iterable[Mapping[str, Any]]) -> dict[_Key, dict[str, float]]:
    found: dict[_Key, dict[str, float]] = {}
    for row in rows:
        sums = found.setdefault((int(row.get("round", 0)), str(row.get("stage", ""))), {})
        for name in FIGURES:
            if isinstance(row.get(name), (int, float)):
                sums[name] = sums.get(name, 0) + row[name]
    return found


def _sum(rows: Iterable[Mapping[str, float]]) -> dict[str, float]:
    sums: dict[str, float] = {}
    for row in rows:
        for name, value in row.items():
            sums[name] = sums.get(name, 0) + value
    return sums


def _plain(run: RunFolder) -> dict[_Key, dict[str, float]]:
    """Seconds alone: as they were kept by stage or, if they were not, of each shard in the log."""
    kept = {path.stem: read_json(path) for path in (run.root / "seconds").glob("*.json")}
    kept = {stage: value for stage, value in kept.items() if isinstance(value, (int, float))}
    if kept:
        order = ("judge", "label", "sft", "dpo", "reward", "evaluate")
        ranks = {stage: rank for rank, stage in enumerate(order)}
        stages = sorted(kept, key=lambda stage: (ranks.get(stage, len(ranks)), stage))
        return {(0, stage): {"seconds": float(kept[stage])} for stage in stages}
    shards = [e for e in read_json_lines(run.log_file) if e.get("event") == "shard"]
    return _added({"stage": _stage(e), "seconds": e.get("seconds")} for e in shards)


def _stage(event: Mapping[str, Any]) -> str:
    """The part of the flow that a logged shard belongs to."""
    top = str(event.get("stage", "")).split("/")[0]
    return {"samples": "sample", "revised": "revise", "picked": "pick", "sft": "pick",
            "pairs": "pick", "reviewed": "critic"}.get(top, top)  # fmt: skip
