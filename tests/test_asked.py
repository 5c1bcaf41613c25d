from __future__ import annotations

from pathlib import Path

import pytest

from rlaif.asked import evaluation_verdicts, judged_verdicts
from rlaif.errors import JournalError
from rlaif.recipe import Recipe
from rlaif.run_folder import RunFolder
from tests.test_pipeline import write


def test_what_was_never_asked_has_no_verdicts_and_says_what_to_run(tmp_path: Path) -> None:
    recipe: Recipe = write(tmp_path)
    with pytest.raises(JournalError, match="is not judged yet; rlaif label RECIPE"):
        judged_verdicts(RunFolder(tmp_path), recipe)
    with pytest.raises(JournalError, match="dpo is not evaluated yet; rlaif evaluate RECIPE"):
        evaluation_verdicts(RunFolder(tmp_path), recipe, "dpo")
