from __future__ import annotations

import builtins
import re
import time
from pathlib import Path
from typing import Any

import pytest

from rlaif.errors import RecipeError
from rlaif.loop.figures import Figure, Figures
from rlaif.loop.track import scalars, track
from rlaif.recipe import Loop, Recipe

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
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **named: Any) -> Any:
        if name == "trackio":
            raise ImportError("No module named 'trackio'")
        return real(name, *args, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(RecipeError, match=r"not installed .*pip install trackio"):
        track(recipe("trackio"), tmp_path, FIGURES)
