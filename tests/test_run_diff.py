"""What another constitution would make of a run, and that asking leaves the run as it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import rlaif.run_diff
from rlaif import pipeline
from rlaif.cli import main
from rlaif.constitution import Constitution, Principle
from rlaif.engines.scripted import Masses
from rlaif.errors import JournalError, RecipeError
from rlaif.label.calibrate import Calibration, Curve
from rlaif.label.method import Method
from rlaif.records import Chat
from rlaif.run_diff import diff_run
from tests.label.scripted_judges import data_of
from tests.test_pipeline import Models, tree, write

LONG = Principle(id="long", text="Be long.")
KIND = Principle(id="kind", text="Be kind.", weight=2)


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> Models:
    found = Models()
    for module in (rlaif.pipeline, rlaif.run_diff):
        monkeypatch.setattr(module, "load_engine", found.load)
    return found


def constitution(*principles: Principle) -> Constitution:
    return Constitution(name="edited", principles=principles)


OLD = constitution(LONG, KIND)


@pytest.fixture
def run(tmp_path: Path, models: Models) -> Path:
    """A labelled run, and no question asked since."""
    pipeline.label(write(tmp_path))
    models.teacher.calls.clear()
    return tmp_path / "run"


def test_only_what_was_reworded_is_judged_and_only_once(run: Path, models: Models) -> None:
    new = constitution(LONG, KIND.model_copy(update={"text": "Be polite."}))
    found, judged = diff_run(run, OLD, new)
    assert judged == ("kind",)
    assert models.judged == 60
    assert all("Be polite." in chat[0].text for _, chats in models.teacher.calls for chat in chats)
    assert found.records == 20
    assert sum(found.verdicts["kind"].values()) == 60
    assert found.relabelled > 0
    assert len(found.examples) == 5
    again, judged = diff_run(run, OLD, new)
    assert (models.judged, judged) == (60, ())
    assert again == found


def test_the_run_s_own_labels_and_inputs_do_not_change(run: Path) -> None:
    before = tree(run)
    inputs = {name: (run / name).read_bytes() for name in ("recipe.yaml", "constitution.yaml")}
    diff_run(run, OLD, constitution(Principle(id="new", text="Be new."), LONG))
    after = tree(run)
    assert {name: after[name] for name in before} == before
    assert {name: (run / name).read_bytes() for name in inputs} == inputs
    assert all("/verdicts/" in name for name in after.keys() - before.keys())


def test_a_weight_is_tried_without_a_question(run: Path, models: Models) -> None:
    found, judged = diff_run(run, OLD, constitution(LONG.model_copy(update={"weight": 9.0}), KIND))
    assert (models.judged, judged) == (0, ())
    assert found.relabelled > 0
    assert found.verdicts == {}


def test_the_counts_are_those_of_a_run_with_the_new_constitution(
    run: Path, models: Models, tmp_path: Path
) -> None:
    new = constitution(LONG.model_copy(update={"veto": True}), KIND)
    found, _ = diff_run(run, OLD, new)
    counts = pipeline.label(write(tmp_path, list(new.principles)))
    assert counts.picks == sum(found.picks[k] for k in ("same", "other response", "new"))
    assert counts.pairs == sum(found.pairs[k] for k in ("same", "turned round", "new"))
    same, _ = diff_run(run, OLD, OLD)
    assert same.relabelled == 0


def test_revisions_are_judged_where_the_run_made_them(tmp_path: Path, models: Models) -> None:
    pipeline.label(write(tmp_path, revise={}))
    models.teacher.calls.clear()
    found, _ = diff_run(tmp_path / "run", OLD, constitution(Principle(id="new", text="Be new.")))
    assert models.judged == 120  # three samples and three revisions of twenty prompts
    assert found.records == 20


def test_a_folder_without_a_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="holds no run"):
        diff_run(tmp_path, OLD, OLD)
    assert not list(tmp_path.iterdir())


def test_a_veto_in_pairwise_mode_is_refused_before_any_question(
    tmp_path: Path, models: Models
) -> None:
    pipeline.label(write(tmp_path, judge={"mode": "pairwise"}))
    models.teacher.calls.clear()
    with pytest.raises(RecipeError, match="kind"):
        veto = KIND.model_copy(update={"veto": True, "text": "Be polite."})
        diff_run(tmp_path / "run", OLD, constitution(veto))
    assert not models.teacher.calls


def test_the_command_prints_the_edit_and_the_counts(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    new = tmp_path / "new.yaml"
    constitution(LONG.model_copy(update={"weight": 9.0}), KIND).save(new)
    command = ["constitution", "diff", str(tmp_path / "constitution.yaml"), str(new)]
    monkeypatch.setattr("sys.argv", ["rlaif", *command, "--run", str(run)])
    with pytest.raises(SystemExit) as end:
        main()
    said = capsys.readouterr().out
    assert end.value.code == 0
    assert "long: weight 1 → 9" in said
    assert "judged for this: nothing" in said
    assert "of 20 prompts are labelled otherwise" in said


def test_fitted_weights_hold_except_where_the_author_changed_one(
    tmp_path: Path, models: Models
) -> None:
    """A run whose gate fits weights picks by them; an edited weight is the author's own again."""

    def say(chat: Chat, labels: object) -> Masses:
        *_, text, principle = data_of(chat)
        longer = len(text) > 24
        return [0.8, 0.2] if longer == (principle == "Be long.") else [0.2, 0.8]

    models.teacher._score = say
    recipe = write(tmp_path)
    pipeline.label(recipe)
    run = tmp_path / "run"
    recipe_file = run / "recipe.yaml"
    text = recipe_file.read_text().replace("gate: null", "gate: {data: recipe.yaml}")
    recipe_file.write_text(text)
    judge = Method.load(recipe.judge).fingerprint(models.teacher.identity)
    curve = Curve(way="platt", slopes=(1.0,), rows=99)
    weights = {LONG.fingerprint: 5.0, KIND.fingerprint: 1.0}
    (run / "judge").mkdir(exist_ok=True)
    Calibration(judge=judge, mode="pointwise", data="x", pair=curve, weights=weights).save(
        run / "judge" / "calibration.json"
    )
    # Fitted, length weighs 5 to 1. The author's own 2 for kindness is not what the run picks by.
    assert diff_run(run, OLD, OLD)[0].relabelled == 0
    kinder = constitution(LONG, KIND.model_copy(update={"weight": 9.0}))
    assert diff_run(run, OLD, kinder)[0].relabelled == 20
    still = constitution(LONG, KIND.model_copy(update={"weight": 3.0}))
    assert diff_run(run, OLD, still)[0].relabelled == 0
    assert json.loads((run / "judge" / "calibration.json").read_text())["weights"] == weights
