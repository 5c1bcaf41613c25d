from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from trust_strategies import accepted
from trust_ways import world_debater

from rlaif.engines.scripted import ScriptedEngine
from rlaif.filters.debate import Debating, debate
from rlaif.filters.ways import Question
from rlaif.records import Message


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        ([], 40),
        ([39], 39),  # 39 of 40 are 0.975
        ([10, 20, 30], 19),  # 19 of 20 are 0.95; no longer run of labels is
        ([0], 39),  # the surest label may be wrong, if enough right ones follow
        (range(40), 0),
    ],
)
def test_the_surest_labels_are_taken_as_long_as_the_precision_holds(
    wrong: list[int], found: int
) -> None:
    right = np.array([i not in wrong for i in range(40)])
    order = np.random.default_rng(0).permutation(40)
    assert accepted(-np.arange(40.0)[order], right[order]) == found


def test_what_has_no_label_is_not_accepted() -> None:
    assert accepted(np.array([np.nan, 1.0, np.nan]), np.array([True, True, False])) == 1


def test_the_worlds_debater_argues_for_the_side_it_is_given() -> None:
    judge = ScriptedEngine(world_debater, lambda *_: (0.6, 0.4))
    prompt = (Message("user", "How do I bake bread?"),)
    asked = Question(prompt, "Good day to you. Use flour.", "The answer must greet the user.")
    [found] = debate([asked], judge, method=Debating.load())
    assert found.rationale is not None
    for_, against = found.rationale.splitlines()
    assert for_.endswith("keeps the principle.") and against.endswith("breaks the principle.")
