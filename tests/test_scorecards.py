"""`rlaif scorecard`: the sandbox's own teacher, measured in more than one way."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

import rlaif.scorecards
from rlaif.cli import main
from rlaif.errors import JournalError, RecipeError
from rlaif.evaluate.scorecard_report import from_json, histogram_line, save, to_json
from rlaif.recipe import Recipe
from rlaif.sandbox.quickstart import HERE
from rlaif.scorecards import scorecards

DATA = HERE / "data" / "gate.jsonl"


def test_the_command_prints_and_writes_a_scorecard_for_each_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "sys.argv",
        ["rlaif", "scorecard", str(HERE / "recipe.yaml"), "--data", str(DATA), "--limit", "60",
         "--mode", "pointwise", "--mode", "pairwise", "--prompt-price", "2", "--out",
         str(tmp_path)],
    )  # fmt: skip
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    said = capsys.readouterr().out
    assert "pointwise" in said and "pairwise" in said and "label turns with the order" in said
    pointwise, pairwise = json.loads((tmp_path / "scorecard.json").read_text())
    assert pointwise["accuracy"]["value"] > 0.9
    assert pointwise["flip_rate"]["value"] is None and pairwise["flip_rate"]["rows"] > 20
    assert pointwise["cost"]["money"] == pytest.approx(2e-6 * pointwise["cost"]["prompt_tokens"])
    assert (tmp_path / "scorecard.png").read_bytes().startswith(b"\x89PNG")


def test_a_place_that_cannot_be_written_is_told_before_the_judge_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def asked(*_: object) -> None:
        raise AssertionError("the judge was loaded")

    monkeypatch.setattr(rlaif.scorecards, "load_engine", asked)
    (tmp_path / "taken").touch()
    monkeypatch.setattr(
        "sys.argv",
        ["rlaif", "scorecard", str(HERE / "recipe.yaml"), "--data", str(DATA), "--out",
         str(tmp_path / "taken")],
    )  # fmt: skip
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith(f"rlaif: {tmp_path / 'taken'}: cannot be written: File exists; ")
    assert told.count("\n") == 1


def test_a_scorecard_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "scorecard.json").mkdir()
    with pytest.raises(JournalError, match="cannot be written: Is a directory; a folder is in the"):
        save([], tmp_path)


def test_a_scorecard_comes_back_from_json_as_it_was() -> None:
    (card,), drops = scorecards(Recipe.load(HERE / "recipe.yaml"), DATA, limit=20)
    assert not drops
    again = from_json(json.loads(json.dumps(to_json(card))))
    assert to_json(again) == to_json(card)
    assert math.isnan(again.flip_rate.value) and again.calibrated is None


def test_an_unknown_way_is_one_line() -> None:
    recipe = Recipe.load(HERE / "recipe.yaml")
    with pytest.raises(RecipeError, match=r"--mode: no such way of asking \(got 'pairwse'\)"):
        scorecards(recipe, DATA, ["pairwse"])


def test_a_judge_that_always_says_the_same_is_one_tall_bar() -> None:
    assert histogram_line([0] * 9 + [600]) == " " * 9 + "█"
    assert histogram_line([1, 0, 600]) == "▁ █"
