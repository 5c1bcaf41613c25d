"""What another constitution would make of a run: only what changed is judged, nothing is replaced.

    RUN's samples → stored verdicts, and those of changed principles → constitution_diff.py

New verdicts are stored beside the run's own, so that asking again, or taking the edit over, costs
nothing. Picks and pairs are made in memory; those of the run stay as they are. So do its responses,
revisions among them. What a critic would take out of the picks is not looked at.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from rlaif.constitution import Constitution
from rlaif.engines.load import load_engine
from rlaif.errors import JournalError
from rlaif.evaluate.changed_label import Picking
from rlaif.evaluate.constitution_diff import Diff, compare
from rlaif.label.aggregate import with_weights
from rlaif.label.calibrate import Calibration
from rlaif.label.method import Method
from rlaif.label.scores import refuse_pairwise_vetoes
from rlaif.pipeline import judged_stage
from rlaif.recipe import Recipe
from rlaif.run_folder import RunFolder
from rlaif.stages import Progress, judged_records, silent, store_verdicts


def diff_run(
    folder: Path,
    old: Constitution,
    new: Constitution,
    examples: int = 5,
    progress: Progress = silent,
) -> tuple[Diff, tuple[str, ...]]:
    """The labels of a run under two constitutions, and the ids of the principles judged for it.

    Args:
        folder: the run folder; its recipe says how it was judged and picked.
        old, new: the constitutions; for either, only verdicts that are not stored are asked for.
        examples: keep so many of the widest changes.
        progress: is told of each shard judged.

    Raises:
        RlaifError: there is no run, its samples are not finished, or a veto in pairwise mode.
    """
    run = RunFolder(folder)
    if not run.recipe.is_file():
        raise JournalError("holds no run", file=folder, mend="name the folder of a labelled run")
    recipe = Recipe.load(run.recipe)
    for constitution in (old, new):
        refuse_pairwise_vetoes(constitution, recipe.judge.mode)
    method = Method.load(recipe.judge)
    with run.lock(), closing(load_engine(recipe.teacher, run.engines)) as teacher:
        samples = judged_stage(run, recipe)
        sides = [
            store_verdicts(run, "verdicts", samples, teacher, c.principles, method, progress)
            for c in (old, new)
        ]
        calibration = _calibration(run, recipe, method.fingerprint(teacher.identity))
    how = Picking(recipe.pick, recipe.judge.mode, recipe.judge.clip, calibration)
    weighted = _weighted(old, new, calibration)
    diff = Diff()
    for shard in samples.shards():
        records = [judged_records(samples, verdicts, shard) for verdicts in sides]
        diff.update(compare(records[0], records[1], *weighted, how), examples)
    asked = sides[0].asked | sides[1].asked
    ids = dict.fromkeys(p.id for c in (old, new) for p in c.principles if p.fingerprint in asked)
    return diff, tuple(ids)


def _calibration(run: RunFolder, recipe: Recipe, judge: str) -> Calibration | None:
    """The run's own, where its recipe has pairs calibrated; of this judge and no other."""
    file = run.root / "judge" / "calibration.json"
    if recipe.gate is None or recipe.gate.calibrate is None or not file.is_file():
        return None
    found = Calibration.load(file)
    return found if found.judge == judge else None


def _weighted(
    old: Constitution, new: Constitution, calibration: Calibration | None
) -> tuple[Constitution, Constitution]:
    """Both with the run's fitted weights, except where the author has changed the weight."""
    if calibration is None:
        return old, new
    given = {p.fingerprint: p.weight for p in old.principles}
    kept = {
        p.fingerprint: calibration.weights[p.fingerprint]
        for p in new.principles
        if p.fingerprint in calibration.weights and given.get(p.fingerprint, p.weight) == p.weight
    }
    return with_weights(old, calibration.weights), with_weights(new, kept)
