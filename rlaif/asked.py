"""Whose verdicts count: what the model was that was asked last, and where what it said lies.

    pipeline.py → RUN/judge/asked.json, RUN/evaluate/<stage>-asked.json → its verdicts, no others

Verdicts are never removed, so that an edit that is taken back costs nothing: a run folder may hold
those of an earlier judge, template or principle beside those that count.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from rlaif.constitution import Constitution
from rlaif.errors import JournalError
from rlaif.label.method import Method
from rlaif.label.templates import load_template
from rlaif.recipe import Recipe
from rlaif.run_folder import RunFolder, os_errors
from rlaif.stages import Verdicts, stored_verdicts


def remember_judge(run: RunFolder, identity: Mapping[str, str]) -> None:
    """Write down what the judge was that has just labelled."""
    _write(run, _judge_file(run), identity)


def judge_identity(run: RunFolder) -> dict[str, str]:
    """What the judge was that labelled last.

    Raises:
        JournalError: nothing is judged yet.
    """
    return _read(run, _judge_file(run), "is not judged yet", "rlaif label RECIPE")


def judged_verdicts(run: RunFolder, recipe: Recipe) -> Verdicts:
    """What the judge has said that labelled last.

    Raises:
        JournalError: nothing is judged yet.
    """
    principles = Constitution.load(recipe.constitution).principles
    method = Method.load(recipe.judge)
    return stored_verdicts(run, "verdicts", principles, method, judge_identity(run))


def yardstick(recipe: Recipe) -> Method:
    """How the teacher is asked when it evaluates."""
    mode, judge = recipe.evaluate.mode, recipe.judge
    return Method(mode, load_template(mode, judge.templates), judge.min_coverage)


def remember_yardstick(run: RunFolder, stage: str, identity: Mapping[str, str]) -> None:
    """Write down what the teacher was that has just evaluated a trained stage."""
    _write(run, _yardstick_file(run, stage), identity)


def evaluation_verdicts(run: RunFolder, recipe: Recipe, stage: str) -> Verdicts:
    """What the teacher has said that evaluated a trained stage last.

    Args:
        run: the run folder.
        recipe: that it was evaluated by.
        stage: sft or dpo.

    Raises:
        JournalError: it is not evaluated yet.
    """
    file = _yardstick_file(run, stage)
    identity = _read(run, file, f"{stage} is not evaluated yet", "rlaif evaluate RECIPE")
    principles = Constitution.load(recipe.constitution).principles
    name = f"evaluate/verdicts/{stage}"
    return stored_verdicts(run, name, principles, yardstick(recipe), identity)


def _judge_file(run: RunFolder) -> Path:
    return run.root / "judge" / "asked.json"


def _yardstick_file(run: RunFolder, stage: str) -> Path:
    return run.root / "evaluate" / f"{stage}-asked.json"


def _write(run: RunFolder, file: Path, identity: Mapping[str, str]) -> None:
    run.write_text(file, json.dumps(dict(identity), indent=2) + "\n")


def _read(run: RunFolder, file: Path, missing: str, mend: str) -> dict[str, str]:
    if not file.is_file():
        raise JournalError(missing, file=run.root, mend=mend)
    with os_errors(file, "read"):
        return dict(json.loads(file.read_text("utf-8")))
