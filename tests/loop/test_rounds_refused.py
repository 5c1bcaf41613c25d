"""What a loop refuses, and what a refusal leaves as it was: over whole loops of scripted models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlaif.errors import RecipeError
from rlaif.loop import stage
from tests.loop.scripted_loop import ScriptedLoop

ROUND_0 = ["00-sample", "00-judge", "00-sft", "00-dpo", "00-evaluate"]
ROUND_1 = ["01-sample", "01-judge", "01-dpo", "01-evaluate"]
GROWN = {"rounds": 2, "retries": 1, "stop": {"max_length_growth": 2.0}}
"""Rolls a round back whose answers have grown."""


@pytest.fixture
def loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ScriptedLoop:
    return ScriptedLoop(tmp_path, monkeypatch)


def kept(run: Path) -> dict[str, bytes]:
    """What a loop's folder knows: records, state, recipes, the best model."""
    places = ("finished/*", "loop.json", "**/recipe.yaml", "constitution.yaml", "best/*")
    return {str(p.relative_to(run)): p.read_bytes() for one in places for p in run.glob(one)}


# A stage in front of what is finished


@pytest.mark.parametrize(
    ("sections", "label"),
    [
        ({"loop": {"rounds": 2, "sft": "every"}}, "01-dpo"),
        ({"loop": {"rounds": 2, "seeds": {"instructions": "seeds.jsonl"}}}, "00-sample"),
        ({"anchors": {"path": "anchors.jsonl"}, "filter": {"drift": None}}, "00-judge"),
        ({"train": {"sft": {}, "dpo": {}, "reward": {}}, "loop": {"rounds": 2, "sft": "every"}},
         "01-dpo"),
    ],
)  # fmt: skip
def test_a_stage_that_would_come_before_a_finished_one_is_refused_before_it_is_paid_for(
    loop: ScriptedLoop, sections: dict[str, Any], label: str
) -> None:
    (loop.root / "seeds.jsonl").write_text('{"prompt": "x", "completion": "y"}\n' * 4)
    (loop.root / "anchors.jsonl").write_text('{"prompt": "x", "completion": "y"}\n' * 4)
    loop.loop()
    before = kept(loop.run)
    loop.save(**sections)
    with pytest.raises(RecipeError, match=f"would change {label}, which is finished"):
        loop.loop()
    assert loop.done == [] and kept(loop.run) == before


def test_a_reward_model_can_be_added_to_what_is_finished(loop: ScriptedLoop) -> None:
    loop.loop()
    loop.save(train={"sft": {}, "dpo": {}, "reward": {}})
    assert loop.loop().status == "finished"
    assert loop.done == ["00-reward", "01-reward"]


def test_a_change_to_a_later_round_is_seen_before_a_damaged_shard_is_done_again(
    loop: ScriptedLoop,
) -> None:
    loop.loop()
    (loop.run / "rounds/00/data/samples/00001.parquet").write_bytes(b"damaged")
    loop.save(loop={"rounds": 2, "start": "first"})
    with pytest.raises(RecipeError, match="would change 01-dpo"):
        loop.loop()
    assert loop.done == []


def test_records_that_were_lost_are_made_again_and_what_follows_stays(loop: ScriptedLoop) -> None:
    loop.loop()
    for label in ("00-judge", "00-sft", "00-evaluate"):
        (loop.run / "finished" / f"{label}.json").unlink()
    assert loop.loop().status == "finished"
    assert loop.done == ["00-judge", "00-sft", "00-evaluate"]


# A restart


def test_a_restart_that_is_refused_forgets_nothing(loop: ScriptedLoop) -> None:
    loop.words = {-1: 3, 0: 3, 1: 30}
    loop.save(loop=GROWN)
    assert [one.round for one in loop.loop().rolled_back] == [1]
    before = kept(loop.run)
    loop.save(loop=GROWN, sample={"n": 2})
    with pytest.raises(RecipeError, match="would change 00-sample"):
        loop.loop("0/judge")
    assert loop.done == [] and kept(loop.run) == before


def test_a_restart_in_a_round_that_there_is_not_is_refused(loop: ScriptedLoop) -> None:
    with pytest.raises(RecipeError, match=r"--restart-from: no such round .*'2/sample'.* 0 to 1"):
        loop.loop("2/sample")
    assert not loop.run.exists()


def test_a_round_that_is_restarted_from_its_first_stage_begins_at_its_first_attempt(
    loop: ScriptedLoop,
) -> None:
    loop.words = {-1: 3, 0: 3, 1: 30}
    loop.save(loop=GROWN | {"retry": {"pick": {"pairs": "best_worst"}}})
    assert loop.loop().attempt(1) == 1
    state = loop.loop("1/sample")
    assert loop.done == ROUND_1 * 2, "tried, and tried again"
    assert [(one.round, one.attempt) for one in state.rolled_back] == [(1, 0)]
    loop.words = {}
    state = loop.loop("1/sample")
    assert loop.done == ROUND_1 and state.rolled_back == []
    assert loop.recipe(1)["pick"]["pairs"] == "all", "no retry's"


def test_a_round_that_is_restarted_in_its_middle_stays_at_its_attempt(loop: ScriptedLoop) -> None:
    loop.words = {-1: 3, 0: 3, 1: 30}
    loop.save(loop=GROWN)
    loop.loop()
    state = loop.loop("1/judge")
    assert loop.done == ROUND_1[1:] and state.attempt(1) == 1


# A recipe that turns out to be none


def test_a_retry_that_makes_no_recipe_is_refused_before_anything_is_paid_for(
    loop: ScriptedLoop,
) -> None:
    loop.save(loop=GROWN | {"retry": {"sample": {"n": 0}}})
    with pytest.raises(RecipeError, match=r"recipe\.yaml: loop\.retry\.sample\.n: out of range"):
        loop.loop()
    assert not loop.run.exists()


def test_an_input_that_has_vanished_meanwhile_undoes_nothing_of_what_was_done(
    loop: ScriptedLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    held_out = loop.root / "held-out.jsonl"
    text = held_out.read_text()
    real = stage._STAGES["evaluate"]  # type: ignore[attr-defined]

    def vanishes(job: stage.Job) -> None:
        real(job)
        held_out.unlink()

    with monkeypatch.context() as patched:
        patched.setitem(stage._STAGES, "evaluate", vanishes)  # type: ignore[attr-defined]
        with pytest.raises(RecipeError, match="no such file"):
            loop.loop()
    assert loop.done == ROUND_0
    assert [one["round"] for one in loop.told()["rounds"]] == [0]
    assert (loop.run / "recipe.yaml").is_file() and (loop.run / "best").is_dir()
    held_out.write_text(text)
    assert loop.loop().status == "finished" and loop.done == ROUND_1
