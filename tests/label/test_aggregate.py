"""Fitted weights: what the labels say, as far as there are labels to say it."""

from __future__ import annotations

import numpy as np
import pytest

from rlaif.constitution import Constitution, Principle
from rlaif.errors import DataError
from rlaif.label.aggregate import fit_weights, with_weights

TRUE = np.array([4.0, 1.0, 0.2, 1.0])


def labels(n: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 2, (n, 4))
    return x, rng.random(n) < 1 / (1 + np.exp(-0.5 * x @ TRUE))


def test_many_labels_find_the_weights_that_people_decide_by():
    found = fit_weights(*labels(5000), np.ones(4))
    assert found / found.sum() == pytest.approx(TRUE / TRUE.sum(), abs=0.02)


def test_few_labels_leave_the_authors_weights_nearly_as_they_are():
    far, near = (np.abs(fit_weights(*labels(n), np.ones(4)) - 1).max() for n in (3000, 60))
    assert near < far


def test_labels_by_the_given_weights_leave_a_margin_its_meaning():
    found = fit_weights(*labels(5000), TRUE)
    assert found == pytest.approx(TRUE, rel=0.25)


def test_no_weight_turns_a_principle_into_its_opposite():
    x, _ = labels(2000)
    x[:, 2] *= -1
    assert (fit_weights(x, x @ np.array([1, 1, -3, 1]) > 0, np.ones(4)) > 0).all()


def test_too_few_rows_are_refused():
    with pytest.raises(DataError, match="too few labelled rows"):
        fit_weights(*labels(10), np.ones(4))


def test_with_weights_changes_the_weights_that_were_fitted_and_no_other():
    one, two = Principle(id="one", text="One."), Principle(id="two", text="Two.", weight=3.0)
    made = with_weights(Constitution(name="c", principles=(one, two)), {one.fingerprint: 0.5})
    assert [p.weight for p in made.principles] == [0.5, 3.0]
