"""The loop's own decisions, over whole loops of scripted models in this process."""

from __future__ import annotations

import errno
import itertools
import json
import os
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from rlaif.errors import BudgetError, JournalError, RecipeError, TrainError
from rlaif.loop import stage
from rlaif.loop.spending import read_cost, total
from tests.loop.scripted_loop import KilledError, ScriptedLoop

ROUND_0 = ["00-sample", "00-judge", "00-sft", "00-dpo", "00-evaluate"]
ROUND_1 = ["01-sample", "01-judge", "01-dpo", "01-evaluate"]


@pytest.fixture
def loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ScriptedLoop:
    return ScriptedLoop(tmp_path, monkeypatch)


def test_stages_come_in_order_and_a_finished_loop_does_none_again(loop: ScriptedLoop) -> None:
    state = loop.loop()
    assert loop.done == ROUND_0 + ROUND_1
    assert (state.status, [one.round for one in state.rounds]) == ("finished", [0, 1])
    told = loop.told()
    assert loop.loop() == state
    assert loop.done == [] and loop.told() == told


@pytest.mark.parametrize("moment", ["00-sample", "00-dpo", "00-evaluate", "01-judge"])
def test_a_loop_that_dies_before_a_stage_goes_on_at_that_stage(
    loop: ScriptedLoop, moment: str
) -> None:
    loop.kill = moment
    with pytest.raises(KilledError):
        loop.loop()
    first = loop.done
    state = loop.loop()
    assert first + loop.done == ROUND_0 + ROUND_1
    assert loop.done[0] == moment and state.status == "finished"


def test_training_blocks_that_have_passed_are_not_checked_again_and_others_are(
    loop: ScriptedLoop,
) -> None:
    loop.check = (2, 0.0, "rlaif: recipe.yaml: train.dpo.betta: unknown key")
    for _ in range(2):
        with pytest.raises(RecipeError, match="betta"):
            loop.loop()
    loop.check = (0, 0.0, "")
    loop.loop()
    loop.loop()
    assert loop.checks == 3
    loop.save(train={"sft": {}, "dpo": {}, "reward": {}})
    loop.loop()
    assert loop.checks == 4
    loop.save(loop={"rounds": 2, "metric": "mine:own"})  # its code may be another one each time
    for _ in range(2):
        with pytest.raises(RecipeError, match="metric was null"):
            loop.loop()
    assert loop.checks == 6


def test_more_rounds_are_added_to_a_finished_loop(loop: ScriptedLoop) -> None:
    loop.loop()
    loop.save(loop={"rounds": 3})
    assert [one.round for one in loop.loop().rounds] == [0, 1, 2]
    assert loop.done == ["02-sample", "02-judge", "02-dpo", "02-evaluate"]


@pytest.mark.parametrize("section", [{"sample": {"n": 3, "top_p": 0.5}}, {"constitution": "+"}])
def test_a_change_to_finished_work_is_refused_and_nothing_is_done(
    loop: ScriptedLoop, section: dict[str, Any]
) -> None:
    loop.loop()
    before = loop.files("data", "manifests", "models")
    told = told_of(loop.run)
    if "constitution" in section:
        loop.constitution(weight=3.0)
    else:
        loop.save(**section)
    with pytest.raises(RecipeError, match=r"would change 00-\w+, which is finished: .* was .* is"):
        loop.loop()
    assert loop.done == [] and loop.files("data", "manifests", "models") == before
    assert told_of(loop.run) == told, "what was run is still told as it was"


def told_of(run: Path) -> dict[str, bytes]:
    """What a run folder says of itself: recipes, constitution, state."""
    names = ("recipe.yaml", "constitution.yaml", "loop.json")
    return {str(p.relative_to(run)): p.read_bytes() for n in names for p in run.rglob(n)}


def test_a_refused_change_can_be_made_on_purpose_from_the_stage_on(loop: ScriptedLoop) -> None:
    loop.loop()
    loop.save(pick={"pairs": "best_worst", "pair_margin": 0.0})
    with pytest.raises(RecipeError, match=r"pick\.pairs was .*--restart-from 00/judge"):
        loop.loop()
    samples = loop.files("data/samples")
    loop.loop("00/judge")
    assert loop.done == ROUND_0[1:] + ROUND_1
    assert loop.files("data/samples").keys() == samples.keys()
    first = {k: v for k, v in samples.items() if k.startswith("rounds/00")}
    assert first.items() <= loop.files("data/samples").items(), "round 0 is not sampled again"


def test_a_change_to_what_is_still_to_come_is_no_change_to_what_is_finished(
    loop: ScriptedLoop,
) -> None:
    loop.kill = "00-dpo"
    with pytest.raises(KilledError):
        loop.loop()
    loop.save(train={"sft": {}, "dpo": {"beta": 0.3}})
    assert loop.loop().status == "finished"
    assert loop.done == ROUND_0[3:] + ROUND_1


def test_a_run_folder_that_was_moved_is_the_same_run(loop: ScriptedLoop, tmp_path: Path) -> None:
    loop.loop()
    loop.run.rename(tmp_path / "moved")
    loop.run = tmp_path / "moved"
    loop.save()
    assert loop.loop().status == "finished"
    assert loop.done == []


def test_a_stage_that_is_no_stage_is_refused_before_anything_is_touched(
    loop: ScriptedLoop,
) -> None:
    with pytest.raises(RecipeError, match="--restart-from: no such stage"):
        loop.loop("0/jugde")
    assert not loop.run.exists()


@pytest.mark.parametrize(
    ("train", "settings", "number"),
    [({"sft": None, "dpo": None}, {}, 0), ({"sft": {}, "dpo": None}, {}, 1),
     ({"sft": None, "dpo": None, "reward": {}}, {}, 0)],
)  # fmt: skip
def test_a_round_that_would_train_nothing_is_refused_before_anything_is_paid_for(
    loop: ScriptedLoop, train: dict[str, Any], settings: dict[str, Any], number: int
) -> None:
    loop.save(train=train, loop={"rounds": 2, **settings})
    with pytest.raises(RecipeError, match=f"train: round {number} would train no student"):
        loop.loop()
    assert not loop.run.exists()


def test_sft_in_every_round_needs_no_dpo(loop: ScriptedLoop) -> None:
    loop.save(train={"sft": {}, "dpo": None}, loop={"rounds": 2, "sft": "every"})
    assert loop.loop().status == "finished"


# Seeds


def write_seeds(loop: ScriptedLoop, **seeds: Any) -> None:
    rows = [
        {"prompt": f"say {i}", "response": "no", "principle": "kind", "keeps": i % 2 == 0}
        for i in range(6)
    ]
    (loop.root / "judged.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = {"evaluations": "judged.jsonl"} | seeds
    loop.save(loop={"rounds": 2, "data": "replace", "seeds": given})


def test_verdicts_are_among_the_rows_of_every_round_also_where_seeds_are_not_repeated(
    loop: ScriptedLoop,
) -> None:
    write_seeds(loop, repeat=False, evaluation_pairs=4)
    assert loop.loop().status == "finished"
    for number in (0, 1):
        [also] = loop.recipe(number)["train"]["also"]
        rows = pq.read_table(Path(also) / "data" / "judgements").to_pylist()
        assert len(rows) == 4 and not (Path(also) / "data" / "sft").exists()
    with pytest.raises(RecipeError, match="evaluation_pairs was 4, is 5"):
        write_seeds(loop, repeat=False, evaluation_pairs=5)
        loop.loop()


@pytest.mark.parametrize(
    ("seeds", "train", "lacks"),
    [
        ({}, {"sft": {}, "dpo": None}, r"train\.dpo"),
        ({"evaluations": None, "instructions": "said.jsonl"}, {}, r"loop\.seeds\.evaluations"),
    ],
)
def test_verdicts_that_nothing_would_learn_from_are_refused(
    loop: ScriptedLoop, seeds: dict[str, Any], train: dict[str, Any], lacks: str
) -> None:
    (loop.root / "said.jsonl").write_text('{"prompt": "x", "completion": "y"}\n' * 4)
    write_seeds(loop, evaluation_pairs=4, **seeds)
    recipe = yaml.safe_load(loop.file.read_text())
    loop.save(loop=recipe["loop"] | {"sft": "every"}, train=train)
    with pytest.raises(RecipeError, match=rf"evaluation_pairs: pairs of verdicts without {lacks}"):
        loop.loop()
    assert not loop.run.exists()


# Stages that end badly


def test_a_stage_that_was_killed_is_started_again_once(loop: ScriptedLoop) -> None:
    loop.fail = {"00-judge": [-9]}
    assert loop.loop().status == "finished"
    assert loop.done == ["00-sample", "00-judge", *ROUND_0[1:], *ROUND_1]


def test_a_stage_that_is_killed_each_time_ends_the_loop_with_its_name(loop: ScriptedLoop) -> None:
    loop.fail = {"00-judge": [-9, -9]}
    with pytest.raises(TrainError, match=r"00-judge failed \(killed by signal 9\)"):
        loop.loop()
    assert loop.loop().status == "finished", "what was finished is kept"
    assert loop.done[0] == "00-judge"


def test_a_stage_that_fails_is_told_and_not_tried_again(loop: ScriptedLoop) -> None:
    loop.fail = {"00-dpo": [stage.FAILED]}
    with pytest.raises(TrainError, match=r"00-dpo\.txt: 00-dpo failed \(status 2\): it failed; "):
        loop.loop()
    assert loop.done.count("00-dpo") == 1
    assert loop.loop().status == "finished"


def test_while_a_loop_runs_it_is_told_to_be_running(loop: ScriptedLoop) -> None:
    loop.loop()
    loop.save(loop={"rounds": 3})
    loop.kill = "02-sample"
    with pytest.raises(KilledError):
        loop.loop()
    assert loop.told()["status"] == "running" and loop.told()["best"] is not None


def test_a_damaged_shard_is_done_again_and_what_follows_from_it_is_not(loop: ScriptedLoop) -> None:
    loop.loop()
    before = loop.files("data", "manifests")
    shard = loop.run / "rounds/00/data/samples/00001.parquet"
    shard.write_bytes(b"damaged")
    loop.loop()
    assert loop.done == ["00-sample"]
    assert loop.files("data", "manifests") == before


@pytest.mark.parametrize("after", [3, 40, 90])
def test_a_disk_that_is_full_for_a_while_costs_time_alone(
    loop: ScriptedLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """Full in the loop's own process or in a stage's, from some write on; then there is space."""
    real, synced = os.fsync, itertools.count()

    def full(descriptor: int) -> None:
        if next(synced) >= after:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises((JournalError, TrainError), match=r"No space left .*free some space"):
            loop.loop()
    assert next(synced) > after
    assert loop.loop().status == "finished"
    undisturbed = ScriptedLoop(tmp_path / "undisturbed", monkeypatch)
    undisturbed.loop()
    assert loop.files("data") == undisturbed.files("data")


# Budget


def spent(loop: ScriptedLoop) -> int:
    return total(read_cost(loop.run / "cost.jsonl")).tokens


def test_a_budget_pauses_a_run_before_it_is_passed_and_a_higher_one_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = ScriptedLoop(tmp_path / "free", monkeypatch)
    free.loop()
    whole = spent(free)
    again = ScriptedLoop(tmp_path / "paused", monkeypatch)
    for share in (0.25, 0.5, 0.75):
        cap = int(whole * share)
        again.save(budget={"tokens": cap})
        for _ in range(3):  # a supervisor that starts it again and again spends no more
            with pytest.raises(BudgetError, match=rf"budget\.tokens: .*got {cap}.*raise it"):
                again.loop()
            assert 0.2 * whole - 100 < spent(again) <= cap
        assert again.told()["status"] == "paused"
    again.save()
    assert again.loop().status == "finished"
    assert spent(again) == whole, "nothing was done twice"


# What is handed from round to round


def adapters(loop: ScriptedLoop, round_: int) -> Any:
    return loop.recipe(round_)["student"]["adapter"]


def test_an_adapter_is_carried_on_or_merged(loop: ScriptedLoop) -> None:
    train = {"sft": {}, "dpo": {}, "lora": {"r": 2}}
    loop.save(train=train, loop={"rounds": 2, "lora": "continue"})
    loop.loop()
    assert adapters(loop, 0) is None
    assert adapters(loop, 1) == str(loop.run / "rounds/00/models/dpo/adapter")
    assert loop.recipe(1)["student"]["model"] == str(loop.root / "student")
    loop.save(train=train, run=str(loop.root / "merged"))
    loop.run = loop.root / "merged"
    loop.loop()
    assert adapters(loop, 1) is None
    assert loop.recipe(1)["student"]["model"] == str(loop.run / "rounds/00/models/dpo/final")


@pytest.mark.parametrize(("data", "also"), [("accumulate", ["00"]), ("replace", [])])
def test_rounds_are_trained_on_all_rows_so_far_or_on_their_own(
    loop: ScriptedLoop, data: str, also: list[str]
) -> None:
    loop.save(loop={"rounds": 2, "data": data})
    loop.loop()
    assert [Path(p).name for p in loop.recipe(1)["train"]["also"]] == also


@pytest.mark.parametrize(
    ("judge", "second"), [("teacher", "teacher"), ("student", "rounds/00/models/dpo/final")]
)
def test_the_student_becomes_the_next_judge_where_the_recipe_says_so(
    loop: ScriptedLoop, judge: str, second: str
) -> None:
    loop.save(loop={"rounds": 2, "judge": judge})
    state = loop.loop()
    assert [one.judge for one in state.rounds] == [judge, judge]
    assert loop.recipe(1)["teacher"]["model"].endswith(second)


def test_a_recipe_without_a_loop_is_one_round(loop: ScriptedLoop) -> None:
    recipe = yaml.safe_load(loop.file.read_text())
    del recipe["loop"]
    loop.file.write_text(yaml.safe_dump(recipe))
    loop.loop()
    assert loop.done == ROUND_0
