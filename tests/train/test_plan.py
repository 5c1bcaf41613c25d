from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlaif.errors import DataError, RecipeError, TrainError
from rlaif.train.plan import Plan
from tests.tiny_models import tiny_model_folder
from tests.train.tiny_run import TinyRun, pairs, write_rows

Make = Callable[..., TinyRun]


def test_a_stage_without_a_block_is_not_trained(tiny_run: Make) -> None:
    with pytest.raises(RecipeError, match=r"train\.reward"):
        tiny_run(sft={}).plan("reward")


@pytest.mark.parametrize("key", ["resume_from_checkpoint", "save_only_model"])
def test_what_the_run_folder_decides_is_not_the_recipe_s(tiny_run: Make, key: str) -> None:
    with pytest.raises(RecipeError, match=rf"train\.sft\.{key}"):
        tiny_run(sft={key: True}).plan("sft")


@pytest.mark.parametrize(("stage", "data"), [("sft", "sft"), ("dpo", "pairs"), ("reward", "pairs")])
def test_without_data_the_command_to_run_is_named(tiny_run: Make, stage: Any, data: str) -> None:
    run = tiny_run(**{stage: {}})
    shutil.rmtree(run.folder / "data" / data)
    with pytest.raises(DataError, match=r"rlaif label .*recipe\.yaml"):
        run.plan(stage)


def test_dpo_waits_for_the_sft_that_the_recipe_asks_for(tiny_run: Make) -> None:
    with pytest.raises(TrainError, match="run sft first"):
        tiny_run(sft={}, dpo={}).plan("dpo")


def test_without_sft_the_student_is_the_start(tiny_run: Make) -> None:
    assert tiny_run(dpo={}).plan("dpo").start.model.endswith("student")


CHANGES: dict[str, Callable[[TinyRun], object]] = {
    "block": lambda run: run.train["dpo"].update(beta=0.2),
    "lora": lambda run: run.train.update(lora={"r": 2}),
    "soft_labels": lambda run: run.train.update(soft_labels=False),
    "evaluation of another stage": lambda run: run.train.update(reward={"eval_strategy": "epoch"}),
    "data": lambda run: write_rows(run.folder / "data" / "pairs", pairs(26)),
    "start": lambda run: (run.root / "student" / "config.json").open("a").write("\n"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_decides_the_weights_is_in_the_fingerprint(
    tiny_run: Make, change: Callable[[TinyRun], object]
) -> None:
    run = tiny_run(dpo={})
    before = run.plan("dpo").fingerprint
    change(run)
    run.save()
    assert run.plan("dpo").fingerprint != before


def test_the_seed_is_in_the_fingerprint(tiny_run: Make) -> None:
    run = tiny_run(dpo={})
    before = run.plan("dpo").fingerprint
    run.save(seed=1)
    assert run.plan("dpo").fingerprint != before


@pytest.mark.parametrize(
    "quiet", [{"logging_steps": 1}, {"save_steps": 5}, {"report_to": "none"}, {"hub_token": "hf_x"}]
)
def test_what_decides_no_weight_is_not(tiny_run: Make, quiet: dict[str, object]) -> None:
    run = tiny_run(dpo={})
    before = run.plan("dpo").fingerprint
    run.train["dpo"] |= quiet
    run.save()
    plan = run.plan("dpo")
    assert plan.fingerprint == before
    assert "hf_x" not in str(plan.depends)


def test_which_model_was_saved_decides_where_the_best_of_them_is_taken(tiny_run: Make) -> None:
    best = {"load_best_model_at_end": True, "eval_strategy": "steps"}
    prints = {tiny_run(dpo={**best, "save_steps": n}).plan("dpo").fingerprint for n in (5, 10)}
    assert len(prints) == 2


def test_the_fingerprint_of_dpo_has_nothing_of_the_reward_model(tiny_run: Make) -> None:
    run = tiny_run(dpo={})
    before = run.plan("dpo").fingerprint
    run.train["reward"] = {"max_steps": 1}
    run.save()
    assert run.plan("dpo").fingerprint == before


def test_nothing_heavy_is_imported_to_make_a_plan(tiny_run: Make) -> None:
    import subprocess
    import sys

    run = tiny_run(dpo={})
    code = (
        "import sys; from rlaif.train.plan import Plan; from rlaif.train import run, __main__; "
        f"Plan.of('dpo', {str(run.recipe)!r}).finished(); "
        "print([m for m in ('torch', 'transformers', 'trl', 'datasets') if m in sys.modules])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_a_run_without_evaluation_holds_nothing_out(tiny_run: Make) -> None:
    run = tiny_run(sft={"eval_strategy": "no"}, dpo={"eval_strategy": False})
    assert not run.plan("sft").holds_out


@pytest.mark.parametrize("block", [{"eval_strategy": "steps"}, {"eval_on_start": True}])
def test_an_evaluation_of_one_stage_holds_out_of_all(tiny_run: Make, block: Any) -> None:
    run = tiny_run(sft={}, dpo=block)
    assert Plan.of("sft", run.recipe).holds_out


def test_rows_of_other_runs_are_trained_on_as_well_and_decide_the_fingerprint(
    tiny_run: Make, tmp_path: Path
) -> None:
    run = tiny_run(dpo={})
    alone = run.plan("dpo")
    other = tmp_path / "other"
    write_rows(other / "data" / "pairs", pairs(8), shards=1)
    run.train = {"dpo": {}, "also": [str(other)]}
    run.save()
    both = run.plan("dpo")
    assert both.data == (*alone.data, other / "data" / "pairs" / "00000.parquet")
    assert both.fingerprint != alone.fingerprint
    run.train |= {"sft": {}}
    run.save()
    assert len(run.plan("sft").data) == 2, "the other run has no picks, and that is no fault"
    del run.train["sft"]
    moved = tmp_path / "moved"
    other.rename(moved)
    run.train["also"] = [str(moved)]
    run.save()
    assert run.plan("dpo").fingerprint == both.fingerprint


def test_dpo_alone_learns_from_the_verdicts_of_other_runs(tiny_run: Make, tmp_path: Path) -> None:
    """A reward model that has to rate "yes" would be rating something else than answers."""
    other = tmp_path / "other"
    write_rows(other / "data" / "judgements", pairs(8), shards=1)
    run = tiny_run(dpo={})
    verdicts = (other / "data" / "judgements" / "00000.parquet",)
    for stage, learns in (("sft", ()), ("dpo", verdicts), ("reward", ())):
        run.train = {stage: {}}
        run.save()
        alone = run.plan(stage).data
        run.train["also"] = [str(other)]
        run.save()
        assert run.plan(stage).data == (*alone, *learns)


def test_training_may_start_from_another_model_than_the_one_that_was_sampled(
    tiny_run: Make, tmp_path: Path
) -> None:
    run = tiny_run(dpo={})
    own = run.plan("dpo")
    other = tiny_model_folder(tmp_path / "another", seed=3)
    run.train = {"dpo": {}, "start": {"model": str(other)}}
    run.save()
    assert run.plan("dpo").start.model == str(other)
    assert run.plan("dpo").fingerprint != own.fingerprint
