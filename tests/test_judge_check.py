"""A broken judge stops a run before anything is sampled; a good one's labels are calibrated."""

from __future__ import annotations

import json
import random
import warnings
from dataclasses import replace
from pathlib import Path

import pytest

import rlaif.pipeline
from rlaif import pipeline, strict_yaml
from rlaif.cli import main
from rlaif.constitution import Constitution, Principle
from rlaif.engines.scripted import Masses, ScriptedEngine
from rlaif.errors import DataError, GateError, RecipeError
from rlaif.evaluate.comparison_files import comparison_row
from rlaif.journal import Stage
from rlaif.label.rows import pair_schema
from rlaif.recipe import Recipe
from rlaif.records import Chat, seed_of
from rlaif.run_folder import RunFolder
from tests.evaluate.test_scorecard import by_size, noise, probabilities, rows
from tests.label.scripted_judges import data_of


def answer(chat: Chat) -> list[str]:
    return [f"{word} {i} {chat[-1].text}" for i, word in enumerate(("good", "bad", "good"))]


def seen(chat: Chat) -> tuple[str, ...]:
    """The responses of a question."""
    return data_of(chat)[1:-1]


def good(chat: Chat, labels: object) -> Masses:
    """Right most of the time, and surer than it should be."""
    leans = [4 * by_size(text) + 4 * noise(text) for text in seen(chat)]
    return probabilities(leans[0] - (leans[1] if len(leans) > 1 else 0.0))


BROKEN = {
    "always 5": ("rating", lambda chat, labels: (0, 0, 0, 0.02, 0.98)),
    "coin flip": (
        "pointwise",
        lambda chat, labels: probabilities(random.Random(seed_of(seen(chat))).choice((-3.0, 3.0))),
    ),
    "always the longer one": (
        "pairwise",
        lambda chat, labels: probabilities(float(len(seen(chat)[0]) - len(seen(chat)[1]))),
    ),
    "always A": ("pairwise", lambda chat, labels: (0.9, 0.1)),
}


class Run:
    """A recipe with a gate, and scripted models that count what they are asked."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.student = folder, ScriptedEngine(generate=answer)
        self.teacher = ScriptedEngine(score=good)
        monkeypatch.setattr(rlaif.pipeline, "load_engine", self.load)
        self.rows(rows(400))

    def load(self, spec: object, state: Path) -> ScriptedEngine:
        return self.teacher if getattr(spec, "model", "") == "teacher" else self.student

    def rows(self, comparisons) -> None:
        text = "".join(json.dumps(comparison_row(c)) + "\n" for c in comparisons)
        (self.folder / "gate.jsonl").write_text(text)

    def write(self, mode: str = "pointwise", pick=None, **gate: object) -> Recipe:
        folder = self.folder
        principle = Principle(id="kind", text="Be kind.")
        Constitution(name="test", principles=(principle,)).save(folder / "constitution.yaml")
        (folder / "prompts.jsonl").write_text('{"prompt": "one"}\n{"prompt": "two"}\n')
        recipe = {
            "run": str(folder / "run"), "constitution": "constitution.yaml",
            "student": {"model": "student"}, "teacher": {"model": "teacher"},
            "prompts": {"path": "prompts.jsonl"}, "sample": {"n": 3}, "judge": {"mode": mode},
            "gate": {"data": "gate.jsonl", **gate}, "pick": pick or {"pairs": "all"},
        }  # fmt: skip
        (folder / "recipe.yaml").write_text(strict_yaml.dump(recipe))
        return Recipe.load(folder / "recipe.yaml")

    def pairs(self) -> list[dict[str, object]]:
        stage = Stage(RunFolder(self.folder / "run"), "pairs", pair_schema(False))
        return [row for shard in stage.shards() for row in stage.read(shard).to_pylist()]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    return Run(tmp_path, monkeypatch)


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_judge_stops_the_run_before_anything_is_sampled(run: Run, name: str) -> None:
    mode, script = BROKEN[name]
    run.teacher = ScriptedEngine(score=script)
    with pytest.raises(GateError, match="the judge does not pass") as caught:
        pipeline.label(run.write(mode))
    assert "\n" not in str(caught.value)
    assert not run.student.calls
    assert not (run.folder / "run" / "data").exists()
    assert (run.folder / "run" / "judge" / "scorecard.png").stat().st_size > 10_000


def test_the_command_shows_the_scorecard_and_one_line(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run.teacher = ScriptedEngine(score=BROKEN["always A"][1])
    run.write("pairwise")
    monkeypatch.setattr("sys.argv", ["rlaif", "label", str(run.folder / "recipe.yaml")])
    with pytest.raises(SystemExit) as end:
        main()
    said = capsys.readouterr().err
    assert end.value.code == 2
    assert "The judge on labelled comparisons" in said
    assert said.strip().splitlines()[-1].startswith("rlaif: ")


def test_a_recipe_may_go_on_with_a_warning(run: Run) -> None:
    run.teacher = ScriptedEngine(score=BROKEN["coin flip"][1])
    with pytest.warns(UserWarning, match="the judge does not pass"):
        pipeline.label(run.write(on_failure="warn"))
    assert run.student.calls


def test_pairs_carry_the_calibrated_probability(run: Run) -> None:
    pipeline.label(run.write())
    found = run.pairs()
    assert found and all(row["probability_calibrated"] for row in found)
    # The judge says 0.99 and more; it is right in about four of five.
    assert all(row["chosen_probability"] < 0.99 for row in found)
    assert all(row["score_margin"] > 1 for row in found)


def test_without_calibration_a_probability_says_that_it_is_none(run: Run) -> None:
    pipeline.label(run.write(calibrate=None))
    assert not any(row["probability_calibrated"] for row in run.pairs())


def test_confidence_is_a_threshold_only_after_calibration(run: Run) -> None:
    pipeline.label(run.write(pick={"pairs": "all", "min_confidence": 0.9}))
    assert all(row["chosen_probability"] >= 0.9 for row in run.pairs())
    pipeline.label(run.write(pick={"pairs": "all", "min_confidence": 0.9999}))
    assert run.pairs() == []
    with pytest.raises(RecipeError, match=r"pick.min_confidence: confidence means nothing before"):
        run.write(pick={"min_confidence": 0.9}, calibrate=None)


def test_a_label_that_is_no_more_likely_right_than_wrong_makes_no_pair(run: Run) -> None:
    """Gold has most comparisons as ties: what the judge says there is not to be trained on."""
    tied = [replace(c, better=None) if i % 5 else c for i, c in enumerate(rows(1000))]
    run.rows(tied)
    recipe = run.write(on_failure="warn")
    with pytest.warns(UserWarning, match="does not pass"):
        counts = pipeline.label(recipe)
    assert counts.responses and run.pairs() == []
    assert set(counts.dropped["pairs"]) == {"no more likely right than wrong"}


def test_pairs_are_calibrated_on_comparisons_about_the_whole_constitution_alone(run: Run) -> None:
    """Margins under one of two principles are other evidence than margins under both."""
    run.write()
    two = [Principle(id="kind", text="Be kind."), Principle(id="calm", text="Be calm.")]
    Constitution(name="test", principles=tuple(two)).save(run.folder / "constitution.yaml")
    recipe = Recipe.load(run.folder / "recipe.yaml")
    run.rows([replace(c, principle=two[i % 2]) for i, c in enumerate(rows(400))])
    with pytest.raises(DataError, match=r"too few labelled rows.*the whole constitution"):
        pipeline.label(recipe)
    assert not run.student.calls


def test_rows_that_are_no_comparisons_are_kept_aside(run: Run) -> None:
    file = run.folder / "gate.jsonl"
    file.write_text(file.read_text() + '{"prompt": "a"}\n')
    pipeline.label(run.write())
    (line,) = (run.folder / "run" / "judge" / "kept_aside.jsonl").read_text().splitlines()
    assert json.loads(line)["id"] == "gate.jsonl:401"


def test_a_judge_is_not_measured_twice_on_the_same_rows(run: Run) -> None:
    pipeline.label(run.write())
    asked = len(run.teacher.calls)
    pipeline.label(run.write())
    assert len(run.teacher.calls) == asked
    with pytest.raises(GateError):  # other limits ask it nothing
        pipeline.label(run.write(min_accuracy=1.0))
    assert len(run.teacher.calls) == asked
    run.rows(rows(400, seed=1))
    pipeline.label(run.write())
    assert len(run.teacher.calls) > asked


def test_limits_that_it_passes_later_still_give_a_calibration(run: Run) -> None:
    with pytest.raises(GateError):
        pipeline.label(run.write(min_accuracy=1.0))
    pipeline.label(run.write())
    assert all(row["probability_calibrated"] for row in run.pairs())


def test_too_few_rows_to_calibrate_on_are_refused(run: Run) -> None:
    run.rows(rows(40))
    run.teacher = ScriptedEngine(score=lambda chat, labels: probabilities(by_size(seen(chat)[0])))
    with pytest.raises(DataError, match="too few labelled rows to calibrate on"):
        pipeline.label(run.write(max_calibration_error=1.0))
    assert not run.student.calls
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pipeline.label(run.write(max_calibration_error=1.0, calibrate=None))


def test_fitted_weights_decide_the_picks(run: Run) -> None:
    """Two principles of equal weight, one of which decides nothing that people care for."""

    def score(chat: Chat, labels: object) -> Masses:
        *_, text, principle = data_of(chat)
        lean = by_size(text) * 3 if principle == "Be kind." else noise(text, "tidy") * 3
        return probabilities(lean)

    run.teacher = ScriptedEngine(score=score)
    run.write()
    two = [Principle(id="kind", text="Be kind."), Principle(id="tidy", text="Be tidy.")]
    Constitution(name="test", principles=tuple(two)).save(run.folder / "constitution.yaml")
    accuracy = {}
    for fit in (False, True):
        recipe = Recipe.load(run.folder / "recipe.yaml")
        gate = recipe.gate.model_copy(update={"fit_weights": fit})
        pipeline.label(recipe.model_copy(update={"gate": gate}))
        stored = json.loads((run.folder / "run" / "judge" / "scorecard.json").read_text())
        accuracy[fit] = stored["scorecard"]["accuracy"]["value"]
    assert accuracy[True] > accuracy[False] + 0.02
