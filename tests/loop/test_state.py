from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from rlaif.loop import state as state_module
from rlaif.loop.figures import Figure, Figures
from rlaif.loop.places import LoopFolder
from rlaif.loop.state import Ruled, State, put_best

WON = Figures(round=0, win_rate=Figure(0.7, 0.6, 0.8))
LOST = Figures(round=1, win_rate=Figure(0.3, 0.2, 0.4))
WON_LESS = Figures(round=1, win_rate=Figure(0.6, 0.5, 0.7))


@pytest.fixture
def folder(tmp_path: Path) -> LoopFolder:
    return LoopFolder(tmp_path / "run")


def model(root: Path, text: str) -> Path:
    root.mkdir(parents=True)
    (root / "model.safetensors").write_text(text)
    (root / "config.json").write_text("{}")
    return root


def test_a_state_comes_back_from_disk_as_it_was(folder: LoopFolder) -> None:
    assert State.read(folder) == State()
    made = State(
        "stopped", base=Figures(round=-1), rounds=[WON, LOST],
        stopped=Ruled(1, 1, "falling", "it fell"), rolled_back=[Ruled(1, 0, "length", "longer")],
    )  # fmt: skip
    made.write(folder)
    assert State.read(folder) == made
    told = json.loads(folder.state.read_text())
    assert (told["format"], told["status"], told["best"]) == (1, "stopped", 0)


def test_a_state_that_says_the_same_is_not_written_again(folder: LoopFolder) -> None:
    State(rounds=[WON]).write(folder)
    before = folder.state.stat().st_ino
    State(rounds=[WON]).write(folder)
    assert folder.state.stat().st_ino == before
    State(rounds=[WON], status="finished").write(folder)
    assert State.read(folder).status == "finished"


def test_the_round_at_which_a_loop_stopped_is_never_the_best_one() -> None:
    passed = State(rounds=[WON, WON_LESS])
    stopped = State(rounds=[WON, WON_LESS], stopped=Ruled(1, 0, "length", "longer"))
    assert passed.best == WON_LESS
    assert stopped.best == WON
    assert State(rounds=[LOST], stopped=Ruled(1, 0, "length", "longer")).best is None


def test_a_judge_that_is_refused_before_its_round_leaves_the_last_round_the_best() -> None:
    """It stops in round 1, which has no figures: round 0 stays."""
    assert State(rounds=[WON], stopped=Ruled(1, 0, "judge", "under its gate")).best == WON


def test_a_round_that_a_loop_was_stopped_at_has_to_pass_anew_when_it_goes_on() -> None:
    made = State("stopped", rounds=[WON, WON_LESS], stopped=Ruled(1, 0, "length", "longer"))
    made.go_on()
    assert made == State("running", rounds=[WON])


def test_attempts_are_counted_round_by_round() -> None:
    made = State(rolled_back=[Ruled(0, 0, "drift", ""), Ruled(2, 0, "drift", ""),
                              Ruled(2, 1, "drift", "")])  # fmt: skip
    assert [made.attempt(n) for n in range(4)] == [1, 0, 2, 0]


def test_best_is_the_model_itself_and_takes_no_space_of_its_own(
    folder: LoopFolder, tmp_path: Path
) -> None:
    made = model(folder.root / "rounds/00/models/dpo/final", "one")
    put_best(folder, made)
    assert (folder.best / "model.safetensors").read_text() == "one"
    assert (folder.best / "model.safetensors").samefile(made / "model.safetensors")


def test_best_is_replaced_whole(folder: LoopFolder) -> None:
    first, second = (model(folder.root / f"rounds/0{i}/final", f"model {i}") for i in range(2))
    (first / "adapter.json").write_text("only of the first")
    put_best(folder, first)
    put_best(folder, second)
    assert sorted(p.name for p in folder.best.iterdir()) == ["config.json", "model.safetensors"]
    assert (folder.best / "model.safetensors").read_text() == "model 1"
    assert (first / "model.safetensors").read_text() == "model 0"


def test_a_retrained_model_of_equal_size_becomes_best(folder: LoopFolder) -> None:
    made = model(folder.root / "final", "one")
    put_best(folder, made)
    shutil.rmtree(made)
    model(made, "two")
    put_best(folder, made)
    assert (folder.best / "model.safetensors").read_text() == "two"


def test_without_hard_links_it_is_copied_and_not_again_the_next_time(
    folder: LoopFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    made = model(folder.root / "final", "one")
    put_best(folder, made)
    copy = folder.best / "model.safetensors"
    assert copy.read_text() == "one" and not copy.samefile(made / "model.safetensors")
    before = copy.stat().st_ino
    put_best(folder, made)
    assert copy.stat().st_ino == before


@pytest.mark.parametrize("dies_in", ["copytree", "rmtree"])
def test_a_death_while_best_is_replaced_leaves_a_whole_one_and_is_mended(
    folder: LoopFolder, monkeypatch: pytest.MonkeyPatch, dies_in: str
) -> None:
    first, second = (model(folder.root / f"rounds/0{i}/final", f"model {i}") for i in range(2))
    put_best(folder, first)

    def die(*_: object, **__: object) -> None:
        (folder.root / "best.partial").mkdir(exist_ok=True)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(state_module.shutil, dies_in, die)
        with pytest.raises(KeyboardInterrupt):
            put_best(folder, second)
    assert (folder.best / "model.safetensors").read_text() == "model 0"
    put_best(folder, second)
    assert (folder.best / "model.safetensors").read_text() == "model 1"
    assert not (folder.root / "best.partial").exists()
