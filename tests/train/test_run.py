"""A training that dies, is started again, or is asked for something else."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from rlaif.errors import DataError, JournalError, TrainError
from rlaif.run_folder import RunFolder
from rlaif.train import final
from rlaif.train.run import train
from tests.train.tiny_run import QUICK, ROOT, TinyRun, environment, pairs, write_rows

Make = Callable[..., TinyRun]

LONG = {**QUICK, "max_steps": 60, "save_steps": 5, "lr_scheduler_type": "linear"}
SHORT = {**QUICK, "max_steps": 6, "save_steps": 2, "lr_scheduler_type": "linear"}


def kill_between_checkpoints(run: TinyRun, after: int) -> None:
    """Start the training, and kill -9 it once a checkpoint is behind it."""
    process = subprocess.Popen(
        run.command("dpo"),
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    written = run.folder / "models" / "dpo" / f"checkpoint-{after}" / "trainer_state.json"
    deadline = time.monotonic() + 200
    while not written.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def test_a_killed_training_goes_on_to_the_very_same_weights(tmp_path: Path) -> None:
    (tmp_path / "killed").mkdir()
    run = TinyRun(tmp_path / "killed", dpo=LONG)
    kill_between_checkpoints(run, after=10)
    assert not (run.folder / "models" / "dpo" / "final").exists()
    done = run.launch("dpo")
    assert done.returncode == 0, done.stderr
    started = run.log("train")
    assert started[1]["resumed_from"] not in (None, "checkpoint-60")

    (tmp_path / "undisturbed").mkdir()
    other = TinyRun(tmp_path / "undisturbed", dpo=LONG)
    done = other.launch("dpo")
    assert done.returncode == 0, done.stderr
    assert run.weights("dpo") == other.weights("dpo")
    losses = [[line.get("loss") for line in r.history("dpo")] for r in (run, other)]
    assert losses[0] == losses[1]


def forget_the_end(run: TinyRun) -> None:
    """Make the run look as if it had died after its last checkpoint."""
    (run.folder / "manifests" / "models" / "dpo.json").unlink()


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt"])
@pytest.mark.parametrize("harm", ["cut", "gone"])
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_it_used(
    tiny_run: Make, name: str, harm: str
) -> None:
    run = tiny_run(dpo=SHORT)
    train("dpo", run.recipe)
    before = run.weights("dpo")
    forget_the_end(run)
    newest = run.folder / "models" / "dpo" / "checkpoint-6"
    if harm == "cut":
        os.truncate(newest / name, (newest / name).stat().st_size // 2)
    else:
        (newest / name).unlink()
    train("dpo", run.recipe)
    assert run.log("train")[-1]["resumed_from"] == "checkpoint-4"
    told = run.log("incomplete")
    assert [line["checkpoint"] for line in told] == ["checkpoint-6"]
    assert name in told[0]["why"]
    assert run.weights("dpo") == before


def test_a_finished_stage_is_not_trained_again(
    tiny_run: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tiny_run(dpo=QUICK)
    train("dpo", run.recipe)
    log = (run.folder / "log.jsonl").read_bytes()
    assert train("dpo", run.recipe) == run.folder / "models" / "dpo" / "final"
    assert "already trained" in capsys.readouterr().out
    assert (run.folder / "log.jsonl").read_bytes() == log


def test_each_stage_takes_the_pairs_that_the_recipe_chooses(tiny_run: Make) -> None:
    run = tiny_run(
        dpo=QUICK, dpo_pairs={"max_concession": 0.0}, reward=QUICK, reward_pairs={"limit": 7}
    )
    for stage in ("dpo", "reward"):
        train(stage, run.recipe)
    assert run.manifest("dpo")["rows"]["trained_on"] == 12  # every second one concedes something
    assert run.manifest("reward")["rows"]["trained_on"] == 7
    assert run.manifest("reward")["rows"]["not_chosen"] == 17
    run.train["dpo_pairs"] = {"max_concession": 0.5}
    run.save()
    assert not run.plan("dpo").finished()
    assert run.plan("reward").finished()


def test_a_finished_stage_that_lost_its_weights_is_trained_again(tiny_run: Make) -> None:
    run = tiny_run(dpo=QUICK)
    weights = train("dpo", run.recipe) / "model.safetensors"
    before = run.weights("dpo")
    os.truncate(weights, 100)
    train("dpo", run.recipe)
    assert run.weights("dpo") == before
    assert weights.stat().st_size > 100


def test_another_recipe_trains_anew_and_keeps_the_old_aside(tiny_run: Make) -> None:
    run = tiny_run(dpo=SHORT)
    train("dpo", run.recipe)
    old = run.manifest("dpo")
    run.train["dpo"] = {**SHORT, "beta": 0.5}
    run.save()
    train("dpo", run.recipe)
    assert run.log("train")[-1]["resumed_from"] is None  # no checkpoint of another recipe
    aside = run.folder / "models" / f"dpo.{old['fingerprint']}"
    assert json.loads((aside / "manifest.json").read_text()) == old
    assert (aside / "final" / "model.safetensors").exists()
    assert run.weights("dpo") != old["weights"]["model.safetensors"]["sha256"]
    assert "block.beta was absent, is 0.5" in run.log("set_aside")[0]["why"]


def test_a_killed_training_of_other_data_is_not_gone_on_with(tiny_run: Make) -> None:
    run = tiny_run(dpo=SHORT)
    train("dpo", run.recipe)
    forget_the_end(run)
    write_rows(run.folder / "data" / "pairs", pairs(28))
    train("dpo", run.recipe)
    assert run.log("train")[-1]["resumed_from"] is None


def test_checkpoints_of_nobody_knows_what_are_set_aside(tiny_run: Make) -> None:
    run = tiny_run(dpo=SHORT)
    train("dpo", run.recipe)
    forget_the_end(run)
    (run.folder / "models" / "dpo" / "plan.json").unlink()
    train("dpo", run.recipe)
    assert (run.folder / "models" / "dpo.unknown" / "checkpoint-6").is_dir()
    assert run.log("train")[-1]["resumed_from"] is None


def test_saving_more_often_does_not_lose_what_is_trained(tiny_run: Make) -> None:
    run = tiny_run(dpo=SHORT)
    train("dpo", run.recipe)
    forget_the_end(run)
    run.train["dpo"] = {**SHORT, "save_steps": 1}
    run.save()
    train("dpo", run.recipe)
    assert run.log("train")[-1]["resumed_from"] == "checkpoint-6"


def test_another_launch_does_not_go_on_from_a_checkpoint(tiny_run: Make) -> None:
    run = tiny_run(dpo=SHORT)
    train("dpo", run.recipe)
    forget_the_end(run)
    note = run.folder / "models" / "dpo" / "plan.json"
    made = json.loads(note.read_text())
    made["launch"]["world_size"] = 2
    note.write_text(json.dumps(made))
    with pytest.raises(TrainError, match="world_size 2"):
        train("dpo", run.recipe)
    assert (run.folder / "models" / "dpo" / "checkpoint-6").is_dir()


def test_dpo_does_not_start_from_an_sft_model_of_another_recipe(tiny_run: Make) -> None:
    run = tiny_run(sft=QUICK, dpo=QUICK)
    train("sft", run.recipe)
    train("dpo", run.recipe)
    run.train["sft"] = {**QUICK, "learning_rate": 0.5}
    run.save()
    with pytest.raises(TrainError, match="of another recipe"):
        train("dpo", run.recipe)
    before = run.weights("dpo")
    train("sft", run.recipe)
    train("dpo", run.recipe)
    assert run.weights("dpo") != before


@pytest.mark.parametrize("block", [SHORT, {**SHORT, "max_steps": -1, "num_train_epochs": 1}])
@pytest.mark.parametrize("lora", [None, {"r": 2}])
def test_a_crash_while_the_model_is_saved_leaves_no_half_of_one_and_loses_no_step(
    tiny_run: Make, monkeypatch: pytest.MonkeyPatch, block: dict[str, object], lora: object
) -> None:
    run = tiny_run(dpo=block, lora=lora)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    train("dpo", run.recipe)
    before = run.weights("dpo")
    shutil.rmtree(run.folder / "models")
    forget_the_end(run)
    with monkeypatch.context() as patched:
        patched.setattr(final, "_put", die)
        with pytest.raises(KeyboardInterrupt):
            train("dpo", run.recipe)
    assert not (run.folder / "models" / "dpo" / "final").exists()
    assert not run.plan("dpo").finished()
    train("dpo", run.recipe)
    assert run.plan("dpo").finished()
    assert run.log("train")[-1]["resumed_from"] == "checkpoint-6"
    assert run.log("trained")[-1]["steps"] == 6
    assert run.weights("dpo") == before
    assert not list((run.folder / "models" / "dpo").glob("*.partial"))


def test_the_final_model_loads_and_carries_no_pickle(tiny_run: Make) -> None:
    run = tiny_run(dpo=QUICK, reward=QUICK)
    policy, reward = train("dpo", run.recipe), train("reward", run.recipe)
    AutoModelForCausalLM.from_pretrained(policy)
    model, told = AutoModelForSequenceClassification.from_pretrained(
        reward, output_loading_info=True
    )
    assert model.config.num_labels == 1
    assert not told["missing_keys"]
    for folder in (policy, reward):
        assert AutoTokenizer.from_pretrained(folder).chat_template
        assert not [p for p in folder.iterdir() if p.suffix in {".bin", ".pt", ".pth", ".pkl"}]


def test_what_only_the_training_needed_is_removed(tiny_run: Make) -> None:
    run = tiny_run(dpo={**QUICK, "precompute_ref_log_probs": True})
    train("dpo", run.recipe)
    assert not (run.folder / "models" / "dpo" / "cache").exists()


def test_two_trainings_of_a_stage_do_not_mix(tiny_run: Make) -> None:
    run = tiny_run(dpo=QUICK)
    holding = "import sys, time; from pathlib import Path; from rlaif.run_folder import RunFolder\n"
    holding += "with RunFolder(Path(sys.argv[1])).lock(): print('held', flush=True); time.sleep(99)"
    place = RunFolder(run.folder / "locks" / "train-dpo").root
    other = subprocess.Popen(
        [sys.executable, "-c", holding, str(place)], cwd=ROOT, stdout=subprocess.PIPE
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(JournalError, match="is working in this run folder"):
            train("dpo", run.recipe)
    finally:
        other.kill()
        other.wait()
    assert not (run.folder / "models").exists()


def test_a_bad_label_stops_the_training_before_it_begins(tiny_run: Make) -> None:
    run = tiny_run(dpo=QUICK)
    write_rows(run.folder / "data" / "pairs", pairs(4, chosen_probability=[0.9, None, 0.8, 0.7]))
    with pytest.raises(DataError, match="row 2"):
        train("dpo", run.recipe)
    assert not (run.folder / "models").exists()
