"""A probe with real stages in real processes, held to the loop that comes after it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rlaif.loop.estimate_report import beside
from tests.engines.openai.misbehaving_server import MisbehavingServer
from tests.loop.differing_judge import differing
from tests.loop.tiny_loop import TinyLoop, make_models
from tests.train.tiny_run import environment


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_models(tmp_path_factory.mktemp("models"))


def estimate(tiny: TinyLoop, prompts: int) -> str:
    """`rlaif estimate` in a process of its own; it says last what that process has imported."""
    code = (
        "import sys; from rlaif.cli import app; app(standalone_mode=False);"
        "print('HEAVY', sorted({'torch', 'transformers', 'datasets'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "estimate", str(tiny.file), "--prompts", str(prompts)],
        env=environment(), capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_requests_tokens_and_money_come_near_those_of_the_loop(
    tmp_path: Path, models: Path
) -> None:
    with MisbehavingServer(differing) as server:
        tiny = TinyLoop(
            tmp_path, models,
            teacher={
                "model": "m", "engine": "openai", "dtype": "auto",
                "engine_args": {"base_url": server.base_url, "prices": {"input": 1, "output": 2}},
            },
            train={"sft": None, "dpo": {"learning_rate": 0.0, "max_steps": 4}},
            costs={"gpu_hour": 0.0}, loop={"rounds": 1},
        )  # fmt: skip
        tiny.write_prompts("prompts", 24)
        tiny.write_prompts("held-out", 12)
        printed = estimate(tiny, 16)
        assert "HEAVY []" in printed
        assert "a person's: 0.05 to 1.5" in printed
        status, said = tiny.loop()
        assert status == 0, said
    assert "foreseen" in said  # the real figures are shown beside the estimate
    rows = beside(tiny.run)
    # One round: a student that learns nothing does not come to answer as its picks do, as the
    # rounds behind it are foreseen to.
    assert [r.stage for r in rows] == ["sample", "judge", "dpo", "evaluate"]
    for row in rows:
        assert row.real is not None and row.foreseen is not None
        assert row.foreseen.seconds > 0
        assert row.foreseen.requests == pytest.approx(row.real.requests, rel=0.25)
        assert row.foreseen.tokens == pytest.approx(row.real.tokens, rel=0.25)
        assert row.foreseen.money == pytest.approx(row.real.money, rel=0.25)
    told = json.loads((tiny.run / "estimate.json").read_text())
    assert told["label"]["money_each"] > 0 and 0 < told["label"]["pass_rate"] <= 1
    assert not (tiny.run / "estimate").exists()


def test_a_stage_that_would_fail_in_the_loop_fails_in_the_probe_and_says_so(
    tmp_path: Path, models: Path
) -> None:
    tiny = TinyLoop(tmp_path, models, train={"dpo": {"max_lenght": 5}})
    done = subprocess.run(
        [sys.executable, "-m", "rlaif.cli", "estimate", str(tiny.file)],
        env=environment(), capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 2
    assert "train.dpo.max_lenght" in done.stderr and "Traceback" not in done.stderr


def test_filters_seeds_and_gaps_are_probed_too(tmp_path: Path, models: Path) -> None:
    (tmp_path / "anchors.jsonl").write_text(
        "".join(
            json.dumps({"prompt": f"about {what} number {i}", "completion": f"{what} is {i}"})
            + "\n"
            for what in ("gardens", "boats", "bread", "stars")
            for i in range(16)
        )
    )
    (tmp_path / "seeds.jsonl").write_text(
        "".join(json.dumps({"prompt": f"say {i}", "completion": "yes"}) + "\n" for i in range(40))
    )
    judged = {"prompt": "say 1", "response": "no", "principle": "Be kind.", "keeps": False}
    (tmp_path / "judged.jsonl").write_text(f"{json.dumps(judged)}\n" * 40)
    seeds = {"instructions": "seeds.jsonl", "evaluations": "judged.jsonl", "evaluation_pairs": 40}
    tiny = TinyLoop(
        tmp_path, models,
        anchors={"path": "anchors.jsonl"},
        filter={"low": -1.0, "high": 1.0, "max_lost": None, "near_duplicates": None,
                "copy_overlap": None},
        topics={"cells": 4, "calls": 40, "max_tokens": 8},
        loop={"rounds": 2, "prompts": "gaps", "seeds": seeds},
    )  # fmt: skip
    estimate(tiny, 4)
    told = json.loads((tiny.run / "estimate.json").read_text())["rows"]
    assert [(r["round"], r["stage"]) for r in told] == [
        (-1, "seed"),
        *((0, s) for s in ("sample", "judge", "filter", "dpo", "evaluate")),
        *((1, s) for s in ("prompts", "sample", "judge", "filter", "dpo", "evaluate")),
    ]
    gaps = next(r for r in told if r["stage"] == "prompts")
    assert 0 < gaps["requests"] <= 40
