from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))
try:
    from loop_kills_run import Killable, Seen, moments_of
finally:
    sys.path.remove(str(SCRIPTS))

TIMELINE = [("", 0.0, 10.0), ("00-sample", 10.0, 40.0), ("00-sft", 40.0, 100.0)]


def test_moments_are_spread_over_the_whole_time_and_half_are_of_the_loop_alone() -> None:
    moments = moments_of(TIMELINE, 2000, random.Random(0))
    share = {s: sum(m.stage == s for m in moments) / 2000 for s, _, _ in TIMELINE}
    assert share == pytest.approx({"": 0.1, "00-sample": 0.3, "00-sft": 0.6}, abs=0.05)
    assert sum(m.whole for m in moments) == 1000
    assert moments[:1000] != sorted(moments[:1000], key=lambda m: m.whole)
    length = {stage: end - start for stage, start, end in TIMELINE}
    assert all(0 <= m.after <= length[m.stage] for m in moments)
    order = [[s for s, _, _ in TIMELINE].index(m.stage) for m in moments]
    assert order == sorted(order)


def killed(root: Path, *events: dict[str, Any]) -> Killable:
    """A loop whose first round has this log; it was started at second 0 and at second 100."""
    made = Killable(root / "recipe.yaml")
    log = root / "run" / "rounds" / "00" / "log.jsonl"
    log.parent.mkdir(parents=True)
    stamped = [{"time": f"1970-01-01T00:0{3 * i}:00+00:00"} | e for i, e in enumerate(events)]
    log.write_text("".join(json.dumps(event) + "\n" for event in stamped) + '{"cut')
    made._starts = [(0.0, {}), (100.0, {("00", "models/sft"): 8})]
    return made


def shard(number: int) -> dict[str, Any]:
    return {"event": "shard", "stage": "samples", "shard": number}


def train(resumed_from: str | None) -> dict[str, Any]:
    return {"event": "train", "stage": "models/sft", "resumed_from": resumed_from}


@pytest.mark.parametrize(
    ("events", "again"),
    [
        ([shard(0), shard(1)], 0),
        ([shard(0), shard(0)], 1),
        ([shard(0), shard(1), shard(1), shard(1)], 2),
        ([train(None), train("checkpoint-8")], 0),
        ([train(None), train("checkpoint-12")], 0),
        ([train(None), train("checkpoint-4")], 1),
        ([train(None), train(None)], 1),
        ([{"event": "trained", "stage": "models/sft"}] * 2, 1),
    ],
)
def test_finished_work_that_was_done_again_is_counted(
    tmp_path: Path, events: list[dict[str, Any]], again: int
) -> None:
    assert killed(tmp_path, *events)._done_again() == again


def test_of_two_loops_the_worst_is_kept() -> None:
    seen = Seen(done_again=1, largest_mib=10.0, segments_found=2, stages={"a"})
    seen.add(Seen(largest_mib=20.0, processes_left=3, segments_found=3, stages={"b"}))
    assert (seen.done_again, seen.largest_mib, seen.processes_left) == (1, 20.0, 3)
    assert (seen.segments_found, seen.stages) == (5, {"a", "b"})
