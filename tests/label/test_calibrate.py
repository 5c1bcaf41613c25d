"""Confidence: a number near how often labels like this one are right, or a refusal."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.errors import DataError
from rlaif.label.calibrate import (
    LEAST_ROWS,
    Calibration,
    Curve,
    calibration_error,
    fit,
    out_of_fold,
    reliability,
)

WAYS = ("temperature", "platt", "isotonic")


def labels(n: int, slope: float, intercept: float = 0.0, seed: int = 0):
    """Evidence, and labels that are right with probability σ(slope·x + intercept)."""
    rng = np.random.default_rng(seed)
    x = np.abs(rng.normal(0, 3, n))
    return x, rng.random(n) < 1 / (1 + np.exp(-slope * x - intercept))


@pytest.mark.parametrize("way", WAYS)
def test_confidence_is_how_often_a_label_is_right(way):
    curve = fit(*labels(4000, 0.4), way)
    x, right = labels(20_000, 0.4, seed=1)
    assert calibration_error([curve.confidence(v) for v in x], right) < 0.025


def test_an_over_sure_judge_is_believed_less():
    x, right = labels(4000, 0.25)
    said = 1 / (1 + np.exp(-x))
    assert calibration_error(said, right) > 0.1
    assert fit(x, right, "temperature").slopes[0] == pytest.approx(0.25, abs=0.03)


def test_a_judge_that_was_never_wrong_on_few_rows_is_not_certain():
    x = np.linspace(0.1, 5, 60)
    for way in ("platt", "isotonic"):
        assert fit(x, np.ones(60, bool), way).confidence(5.0) < 0.9999


@pytest.mark.parametrize("way", WAYS)
def test_no_evidence_is_worth_more_than_the_surest_rows_have_kept(way):
    """One comparison in ten is a tie in gold: no label is right there, however sure the judge."""
    x = np.linspace(0.1, 12, 3000)
    right = np.arange(3000) % 10 != 0
    assert fit(x, right, way).confidence(50.0) < 0.95


def test_several_numbers_of_evidence_are_weighed():
    rng = np.random.default_rng(0)
    x = rng.normal(0, 2, (5000, 2))
    right = rng.random(5000) < 1 / (1 + np.exp(-0.3 * x[:, 0] - 1.2 * x[:, 1]))
    curve = fit(x, right, "platt")
    assert curve.slopes == pytest.approx((0.3, 1.2), abs=0.1)
    with pytest.raises(ValueError, match="one number"):
        fit(x, right, "temperature")


def test_too_few_rows_are_refused():
    x, right = labels(LEAST_ROWS - 1, 1.0)
    with pytest.raises(DataError, match=r"too few labelled rows.*got 49.*at least 50"):
        fit(x, right, "platt")


@given(st.lists(st.tuples(st.floats(0, 50), st.booleans()), min_size=60, max_size=80))
def test_isotonic_confidence_rises_with_evidence_and_is_a_probability(rows):
    x, right = zip(*rows, strict=True)
    curve = fit(x, right, "isotonic")
    found = [curve.confidence(v) for v in (0.0, *sorted(x), 60.0)]
    assert all(0 <= p <= 1 for p in found)
    assert all(a <= b + 1e-12 for a, b in pairwise(found))


def test_a_row_is_not_measured_by_a_curve_that_saw_its_prompt():
    # Every prompt has its own truth: a curve that saw it would look right.
    x, right = np.arange(400.0) % 200, (np.arange(400) // 2 % 2).astype(bool)
    groups = [str(i // 2) for i in range(400)]
    before = out_of_fold(x, right, groups, "isotonic")
    flipped = right.copy()
    flipped[:2] = ~right[:2]
    after = out_of_fold(x, flipped, groups, "isotonic")
    assert (before[:2] == after[:2]).all()
    assert (before != after).any()


def test_confidence_from_one_prompt_alone_cannot_be_measured():
    x, right = labels(100, 1.0)
    assert np.isnan(out_of_fold(x, right, ["one"] * 100, "platt")).all()


def test_calibration_error_is_the_mean_gap_of_bins_of_equal_mass():
    assert calibration_error([0.75] * 4, [True, True, True, False], bins=1) == 0
    assert calibration_error([1.0] * 4, [True, True, True, False], bins=1) == 0.25
    assert np.isnan(calibration_error([], []))
    assert reliability([0.6, 0.9], [False, True], bins=2) == [(0.6, 0.0, 1), (0.9, 1.0, 1)]


def test_a_stored_calibration_is_the_same_and_a_changed_one_has_another_name(tmp_path: Path):
    curve = fit(*labels(200, 1.0), "isotonic")
    made = Calibration(
        judge="j", mode="pointwise", data="d", pair=curve,
        principles={"p": Curve(way="platt", slopes=(1.0,), intercept=0.5, rows=50)},
    )  # fmt: skip
    made.save(tmp_path / "c.json")
    assert Calibration.load(tmp_path / "c.json") == made
    other = made.model_copy(update={"weights": {"p": 2.0}})
    assert other.fingerprint != made.fingerprint


@pytest.mark.parametrize("text", ["", "[]", "{", json.dumps({"judge": "j"})])
def test_a_broken_calibration_file_is_one_line(tmp_path: Path, text: str):
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(DataError) as caught:
        Calibration.load(tmp_path / "c.json")
    assert "\n" not in str(caught.value)
