from __future__ import annotations

import numpy as np
import pytest

from rlaif.errors import DataError
from rlaif.filters.drift_mauve import mauve
from tests.filters.drift_samples import PLANTED, halves, sample


def test_a_collapsed_batch_is_far_below_what_humans_reach(
    capfd: pytest.CaptureFixture[str],
) -> None:
    rng = np.random.default_rng(0)
    found = mauve(sample(rng, 200), sample(rng, 300, PLANTED))
    assert found.texts == 100
    assert found.human_synthetic < 0.5 < 0.8 < found.human_human <= 1
    assert str(found).startswith("MAUVE 0.") and "100 texts a side" in str(found)
    assert capfd.readouterr() == ("", "")


def test_the_seed_decides_and_no_other_generator_is_touched() -> None:
    human, synthetic = halves(1, 60)
    np.random.seed(3)
    state = np.random.get_state()[1].tolist()
    assert mauve(human, synthetic, seed=4) == mauve(human, synthetic, seed=4)
    assert np.random.get_state()[1].tolist() == state


def test_no_more_texts_than_asked_for() -> None:
    assert mauve(*halves(2, 60), most=25).texts == 25


def test_bad_input_is_an_error_of_one_line() -> None:
    human, synthetic = halves(0, 50)
    with pytest.raises(DataError, match=r"human: too few texts to set against .*got 39"):
        mauve(human[:39], synthetic)
    with pytest.raises(DataError, match="human: the texts are all the same"):
        mauve(human[[0] * 50], synthetic)
    with pytest.raises(DataError, match="of width 23"):
        mauve(human, synthetic[:, 1:])
