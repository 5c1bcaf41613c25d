from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import accelerate.tracking
import pytest

from rlaif.errors import RecipeError
from rlaif.loop.figures import Figure, Figures
from rlaif.loop.track import scalars, track, trackers
from rlaif.recipe import Loop, Recipe
from tests.train.tiny_run import environment

FIGURES = Figures(
    round=1, attempt=1, win_rate=Figure(0.6, 0.5, None), labels={"pairs": 12},
    metric_by_principle={"kind": 0.25}, collapse={"drift": {"value": 0.5, "low": None}},
)  # fmt: skip


def recipe(*report_to: str) -> Recipe:
    return Recipe.model_construct(loop=Loop(report_to=report_to))


def test_figures_become_flat_numbers_by_name() -> None:
    assert scalars(FIGURES) == {
        "loop/win_rate": 0.6, "loop/win_rate/low": 0.5, "loop/labels/pairs": 12.0,
        "loop/metric_by_principle/kind": 0.25, "loop/collapse/drift": 0.5,
    }  # fmt: skip


def test_tensorboard_gets_a_step_a_round(tmp_path: Path) -> None:
    for number in (4, 5):
        time.sleep(1.1)  # tensorboardX names its files by the second; rounds take longer
        track(recipe("tensorboard"), tmp_path, Figures(round=number, mean_tokens=10.0 + number))
    written = b"".join(p.read_bytes() for p in sorted(tmp_path.rglob("*tfevents*")))
    # An event's field 2 is the step, its field 5 the summary.
    assert re.findall(rb"\x10(.)\*.{5}loop/mean_tokens", written, re.DOTALL) == [b"\4", b"\5"]
    assert written.count(b"loop/") == 2, "what was not measured is not told"


A_ROUND = """
import sys
from pathlib import Path
from rlaif.loop.figures import Figures
from rlaif.loop.track import track
from rlaif.recipe import Loop, Recipe

name, root, number = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
loop = Recipe.model_construct(loop=Loop(report_to=(name,)))
track(loop, root, Figures(round=number, mean_tokens=10.0 + number))
"""


def track_two_rounds(name: str, root: Path, **environ: str) -> None:
    """As a loop does: each round by a process of its own."""
    for number in (0, 1):
        subprocess.run(
            [sys.executable, "-c", A_ROUND, name, str(root), str(number)], check=True,
            capture_output=True, env=environment(**environ), timeout=300,
        )  # fmt: skip


def test_trackio_gets_all_rounds_in_one_run(tmp_path: Path) -> None:
    track_two_rounds("trackio", tmp_path / "mine", TRACKIO_DIR=str(tmp_path / "trackio"))
    with sqlite3.connect(tmp_path / "trackio" / "rlaif.db") as database:
        told = database.execute("SELECT run_name, step, metrics FROM metrics ORDER BY step")
        runs, steps, metrics = zip(*told, strict=True)
    assert len(set(runs)) == 1 and runs[0].startswith("mine-")
    assert steps == (0, 1)
    assert [json.loads(one) for one in metrics] == [
        {"loop/mean_tokens": 10.0}, {"loop/mean_tokens": 11.0},
    ]  # fmt: skip


def test_wandb_gets_all_rounds_in_one_run_in_the_loop_s_folder(tmp_path: Path) -> None:
    track_two_rounds("wandb", tmp_path / "mine", WANDB_MODE="offline", WANDB_SILENT="true")
    written = sorted((tmp_path / "mine" / "tracked" / "wandb").glob("offline-*/*.wandb"))
    assert len(written) == 2 and len({file.name for file in written}) == 1
    assert all(b"loop/mean_tokens" in file.read_bytes() for file in written)


@pytest.mark.parametrize("names", [(), ("none",)])
def test_where_no_tracker_is_named_nothing_is_written(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    track(recipe(*names), tmp_path, FIGURES)
    assert not list(tmp_path.iterdir())


def test_a_tracker_that_there_is_not_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"loop\.report_to: no such tracker .*tensorboard.*wandb"):
        track(recipe("tensorbord"), tmp_path, FIGURES)


def test_a_tracker_whose_library_is_missing_names_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(accelerate.tracking, "get_available_trackers", lambda: ["tensorboard"])
    with pytest.raises(RecipeError, match=r"not installed .*pip install trackio"):
        trackers(recipe("tensorboard", "trackio"))
