"""Where a loop stops and what it rolls back, over whole loops of scripted models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.loop.scripted_loop import KilledError, ScriptedLoop

ROUND_0 = ["00-sample", "00-judge", "00-sft", "00-dpo", "00-evaluate"]
ROUND_1 = ["01-sample", "01-judge", "01-dpo", "01-evaluate"]


@pytest.fixture
def loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ScriptedLoop:
    return ScriptedLoop(tmp_path, monkeypatch)


def best(loop: ScriptedLoop) -> str:
    return (loop.run / "best" / "model.safetensors").read_text()


def final(loop: ScriptedLoop, round_: int) -> str:
    place = f"rounds/{round_:02d}/models/dpo/final/model.safetensors"
    return (loop.run / place).read_text()


def test_a_loop_stops_with_the_reason_and_leaves_the_best_round_s_model(
    loop: ScriptedLoop,
) -> None:
    loop.save(loop={"rounds": 3, "stop": {"max_length_growth": 2.0}})
    loop.words = {-1: 3, 0: 4, 1: 30, 2: 3}
    state = loop.loop()
    assert state.status == "stopped" and state.stopped is not None
    assert (state.stopped.round, state.stopped.rule) == (1, "length")
    assert loop.said[-1].startswith("stopped in round 1: answers have grown from")
    assert [line.partition("-")[0] for line in loop.done] == ["00"] * 5 + ["01"] * 4
    assert loop.told()["best"] == 0 and best(loop) == final(loop, 0)


def test_started_again_it_stops_at_the_same_place_and_goes_on_where_the_rule_is_loosened(
    loop: ScriptedLoop,
) -> None:
    loop.save(loop={"rounds": 3, "stop": {"max_length_growth": 2.0}})
    loop.words = {-1: 3, 0: 4, 1: 30, 2: 3}
    stopped = loop.loop()
    assert loop.loop() == stopped and loop.done == []
    loop.save(loop={"rounds": 3})
    assert loop.loop().status == "finished"
    assert {line.partition("-")[0] for line in loop.done} == {"02"}


def test_where_the_rule_is_loosened_the_stop_is_forgotten_and_the_round_may_be_the_best(
    loop: ScriptedLoop,
) -> None:
    loop.save(loop={"rounds": 2, "stop": {"max_length_growth": 2.0}})
    loop.words = {-1: 3, 0: 30}
    assert loop.loop().stopped is not None and not (loop.run / "best").exists()
    loop.save(loop={"rounds": 2})
    loop.kill = "01-sample"
    with pytest.raises(KilledError):
        loop.loop()
    told = loop.told()
    assert (told["status"], told["stopped"], told["best"]) == ("running", None, 0)
    assert best(loop) == final(loop, 0)


def test_a_loop_that_stops_in_its_first_round_has_no_best_one(loop: ScriptedLoop) -> None:
    loop.loop()
    assert (loop.run / "best").is_dir()
    loop.save(seed=9, loop={"rounds": 2, "stop": {"max_length_growth": 2.0}})
    loop.words = {-1: 3, 0: 30}
    assert loop.loop("0/sample").best is None, "and what was the best is none of this run's"
    assert not (loop.run / "best").exists() and loop.told()["best"] is None


def test_a_round_that_fails_its_checks_is_rolled_back_and_tried_again_with_other_filters(
    loop: ScriptedLoop,
) -> None:
    loop.words = {-1: 3, 0: 3, 1: 30}
    retry = {"pick": {"pairs": "best_worst"}}
    settings = {"rounds": 2, "retries": 2, "retry": retry, "stop": {"max_length_growth": 2.0}}
    loop.save(loop=settings)
    state = loop.loop()
    assert loop.done == ROUND_0 + ROUND_1 * 3
    assert [(r.round, r.attempt, r.rule) for r in state.rolled_back] == [
        (1, 0, "length"), (1, 1, "length"),
    ]  # fmt: skip
    assert state.status == "stopped" and state.stopped is not None
    assert state.stopped.attempt == 2
    assert loop.recipe(1)["pick"]["pairs"] == "best_worst"
    seeds = [json.loads(json.dumps(loop.recipe(1)["seed"]))]
    for attempt in (0, 1):
        kept = loop.run / "rounds" / f"01.rolled-back-{attempt}"
        assert json.loads((kept / "figures.json").read_text())["attempt"] == attempt
        assert (kept / "data/samples/00000.parquet").is_file()
        seeds.append((kept / "recipe.yaml").read_text().partition("seed: ")[2].split()[0])
    assert len(set(map(str, seeds))) == 3
    assert loop.loop() == state and loop.done == []


@pytest.mark.parametrize("moments", [["01-sample"], ["01-sample", "01-evaluate"]])
def test_a_rollback_that_is_cut_short_is_gone_on_with(
    loop: ScriptedLoop, moments: list[str]
) -> None:
    """The loop dies in its second attempt at a round; which attempt it was is not forgotten."""
    loop.words = {-1: 3, 0: 3, 1: 30}
    loop.save(loop={"rounds": 2, "retries": 1, "stop": {"max_length_growth": 2.0}})
    loop.kill_after = len(ROUND_0 + ROUND_1)
    for moment in moments:
        loop.kill = moment
        with pytest.raises(KilledError):
            loop.loop()
    state = loop.loop()
    assert [(r.round, r.attempt) for r in state.rolled_back] == [(1, 0)]
    assert sorted(p.name for p in (loop.run / "rounds").iterdir()) == [
        "00", "01", "01.rolled-back-0",
    ]  # fmt: skip


@pytest.mark.parametrize("step", ["before its record goes", "before it is moved"])
def test_a_death_between_the_steps_of_a_rollback_loses_nothing(
    loop: ScriptedLoop, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    from rlaif.loop.finished import Finished

    loop.words = {-1: 3, 0: 3, 1: 30}
    loop.save(loop={"rounds": 2, "retries": 1, "stop": {"max_length_growth": 2.0}})

    def die(*_: object) -> None:
        raise KilledError

    with monkeypatch.context() as patched:
        if step == "before its record goes":
            patched.setattr(Finished, "forget_from", die)
        else:
            patched.setattr(Path, "rename", _dying_for(loop.run / "rounds" / "01", Path.rename))
        with pytest.raises(KilledError):
            loop.loop()
    assert loop.told()["rolled_back"], "it was told before anything was moved"
    loop.loop()
    assert loop.done == ROUND_1
    kept = loop.run / "rounds" / "01.rolled-back-0"
    assert json.loads((kept / "figures.json").read_text())["attempt"] == 0


def _dying_for(folder: Path, real: Any) -> Any:
    def rename(self: Path, target: Path) -> Path:
        if self == folder:
            raise KilledError
        made: Path = real(self, target)
        return made

    return rename


def test_restarting_an_earlier_round_forgets_how_often_a_later_one_was_tried(
    loop: ScriptedLoop,
) -> None:
    loop.words = {-1: 3, 0: 3, 1: 30}
    loop.save(loop={"rounds": 2, "retries": 1, "stop": {"max_length_growth": 2.0}})
    assert loop.loop().attempt(1) == 1
    loop.words = {}
    state = loop.loop("0/evaluate")
    assert state.rolled_back == [] and state.status == "finished"
    assert state.rounds[1].attempt == 0


def gate(loop: ScriptedLoop, **limits: Any) -> dict[str, Any]:
    """A gate on forty comparisons, of which a scripted judge has about half right."""
    rows = [
        {"prompt": f"q {i}", "responses": [f"one {i}", f"two {i}"], "better": i % 2}
        for i in range(40)
    ]
    (loop.root / "gate.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"data": "gate.jsonl", "calibrate": None, **limits}


def test_a_judge_under_its_gate_stops_the_loop_before_anything_is_labelled(
    loop: ScriptedLoop,
) -> None:
    loop.save(gate=gate(loop, min_accuracy=0.95))
    state = loop.loop()
    assert state.status == "stopped" and state.stopped is not None
    assert (state.stopped.round, state.stopped.rule) == (0, "judge")
    assert "0.95" in state.stopped.reason or "95" in state.stopped.reason
    assert loop.done == ["00-sample"] and not loop.files("data")


def test_the_teacher_goes_on_until_the_student_passes_the_whole_gate(loop: ScriptedLoop) -> None:
    """The first student is accurate enough, but leaves more undecided than a judge may."""
    loop.silent = {0}
    limits = {"min_accuracy": 0.0, "max_calibration_error": 1.0, "max_undecided": 0.3}
    loop.save(loop={"rounds": 3, "judge": "hand_over"}, gate=gate(loop, **limits))
    state = loop.loop()
    assert (state.status, state.stopped) == ("finished", None)
    assert [one.judge for one in state.rounds] == ["teacher", "teacher", "student"]
    assert [one.student_passes for one in state.rounds] == [False, True, True]
    assert state.rounds[0].student_accuracy is not None


def test_figures_of_before_the_whole_gate_was_told_hand_over_as_they_did(
    loop: ScriptedLoop,
) -> None:
    limits = {"min_accuracy": 0.0, "max_calibration_error": 1.0}
    loop.save(loop={"rounds": 2, "judge": "hand_over"}, gate=gate(loop, **limits))
    before = loop.loop()
    file = loop.run / "rounds/00/figures.json"
    told = json.loads(file.read_text())
    del told["student_passes"]
    file.write_text(json.dumps(told))
    assert [one.judge for one in loop.loop().rounds] == [one.judge for one in before.rounds]
    assert before.rounds[1].judge == "student" and loop.done == []


def test_a_round_that_leaves_nothing_to_learn_from_is_an_honest_stop(loop: ScriptedLoop) -> None:
    loop.save(loop={"rounds": 2, "data": "replace"})
    loop.loop()
    best = loop.told()["best"]
    loop.save(loop={"rounds": 3, "data": "replace"}, pick={"pairs": "all", "pair_margin": 1e6})
    state = loop.loop(restart_from="00/sample")
    assert state.status == "stopped" and state.stopped is not None
    assert (state.stopped.round, state.stopped.rule) == (0, "rows")
    assert "`dpo`" in state.stopped.reason and best is not None
    assert "00-sft" not in loop.done and not (loop.run / "best").exists()
    loop.save(loop={"rounds": 1, "data": "replace"})
    assert loop.loop(restart_from="00/judge").status == "finished"


def test_rows_that_the_recipe_itself_names_are_something_to_learn_from(loop: ScriptedLoop) -> None:
    loop.loop()
    other = str(loop.run / "rounds/00")
    none_own = {"pick": {"pairs": "all", "pair_margin": 1e6}, "run": str(loop.root / "next")}
    loop.run = loop.root / "next"
    loop.save(loop={"rounds": 1}, train={"sft": None, "dpo": {}, "also": [other]}, **none_own)
    assert loop.loop().status == "finished"
    loop.save(loop={"rounds": 1}, train={"sft": None, "dpo": {}}, **none_own)
    stopped = loop.loop("0/dpo").stopped
    assert stopped is not None and stopped.rule == "rows"
