"""`rlaif loop` for real, on tiny models: paused, gone on with, refused, restarted, stopped.

One story, told once and shared: each test looks at a part of it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rlaif.loop.spending import read_cost, total
from tests.loop.tiny_loop import BLOCK, QUIET, TinyLoop, make_models

LOOP = {"rounds": 2, "stop": QUIET, "lora": "continue"}
TRAIN = {"sft": None, "dpo": BLOCK, "lora": {"r": 4, "target_modules": "all-linear"}}
STEEPER = TRAIN | {"dpo": BLOCK | {"beta": 0.5}}
CAP = 3000


@dataclass(frozen=True, slots=True)
class Start:
    """One start of the command, and what it left."""

    status: int
    printed: str
    state: dict[str, Any]
    labels: dict[str, bytes]
    adapters: dict[str, str]
    tokens: int


def start(loop: TinyLoop, *options: str) -> Start:
    status, printed = loop.loop(*options)
    return Start(
        status, " ".join(printed.split()), loop.state(), loop.labels(), adapters(loop),
        total(read_cost(loop.run / "cost.jsonl")).tokens,
    )  # fmt: skip


def adapters(loop: TinyLoop) -> dict[str, str]:
    """The digest of each round's adapter."""
    files = sorted(loop.run.glob("rounds/*/models/dpo/adapter/*.safetensors"))
    return {f.parts[-5]: hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory, models: Path) -> dict[str, Start]:
    loop = TinyLoop(tmp_path_factory.mktemp("story"), models)
    told = {}
    loop.save(loop=LOOP, train=TRAIN, budget={"tokens": CAP})
    told["capped"] = start(loop)
    loop.save(loop=LOOP, train=TRAIN)
    told["raised"] = start(loop)
    loop.save(loop=LOOP, train=STEEPER)
    told["changed"] = start(loop)
    told["on purpose"] = start(loop, "--restart-from", "00/dpo")
    return told


def test_a_budget_pauses_the_run_before_it_is_passed(story: dict[str, Start]) -> None:
    capped = story["capped"]
    assert capped.status != 0 and "budget.tokens" in capped.printed and str(CAP) in capped.printed
    assert "Traceback" not in capped.printed
    assert capped.state["status"] == "paused" and 0 < capped.tokens <= CAP
    assert capped.labels, "what was paid for is kept"


def test_with_a_higher_budget_it_goes_on_and_does_nothing_twice(story: dict[str, Start]) -> None:
    raised, before = story["raised"], story["capped"].labels
    assert raised.status == 0 and raised.state["status"] == "finished"
    assert {name: raised.labels[name] for name in before} == before


def test_each_round_goes_on_with_the_last_one_s_adapter(story: dict[str, Start]) -> None:
    made = story["raised"].adapters
    assert set(made) == {"00", "01"} and made["00"] != made["01"]


def test_a_change_to_finished_work_is_refused_with_the_difference(story: dict[str, Start]) -> None:
    changed, before = story["changed"], story["raised"]
    assert changed.status != 0 and "dpo.beta was absent, is 0.5" in changed.printed
    assert "--restart-from 00/dpo" in changed.printed and "Traceback" not in changed.printed
    assert (changed.labels, changed.adapters) == (before.labels, before.adapters)
    assert changed.tokens == before.tokens and changed.state == before.state


def test_a_restart_on_purpose_does_that_stage_again_and_nothing_before_it(
    story: dict[str, Start],
) -> None:
    again, before = story["on purpose"], story["raised"]
    assert again.status == 0 and again.state["status"] == "finished"
    assert "00-sample" not in again.printed and "00-judge" not in again.printed
    for stage in ("00-dpo", "01-sample", "01-judge", "01-dpo"):
        assert f"{stage}: finished" in again.printed
    assert again.adapters["00"] != before.adapters["00"]
    first = {n for n in before.labels if n.startswith("rounds/00/") and "/evaluate/" not in n}
    assert {n: again.labels[n] for n in first} == {n: before.labels[n] for n in first}


def test_a_judge_that_falls_short_stops_the_run_before_anything_is_labelled(
    tmp_path: Path, models: Path
) -> None:
    loop = TinyLoop(tmp_path, models, loop=LOOP, train=TRAIN, gate={
        "data": "gate.jsonl", "min_accuracy": 0.95, "calibrate": None,
    })  # fmt: skip
    rows = [
        {"prompt": f"q {i}", "responses": [f"one {i}", f"two {i}"], "better": i % 2}
        for i in range(40)
    ]
    (tmp_path / "gate.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    stopped = start(loop)
    assert stopped.status == 0 and stopped.state["status"] == "stopped"
    assert stopped.state["stopped"]["rule"] == "judge" and "0.95" in stopped.printed
    assert not any("verdicts" in name for name in stopped.labels)
