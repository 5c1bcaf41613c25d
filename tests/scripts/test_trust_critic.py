"""The best that a critic could do is computed exactly, or the share of it means nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from trust_critic import posterior

from rlaif.evaluate.comparisons import Comparison, Judged
from rlaif.records import Message
from rlaif.sandbox.weakened import Faults


def clean(margin: float, better: int) -> Judged:
    comparison = Comparison((Message("user", "Hi."),), ("a", "b"), better)
    return Judged(comparison, margin, None, None, {}, (), 1.0)


def test_the_posterior_of_one_true_margin_is_that_of_two_gaussians() -> None:
    faults = Faults(item_noise=2.0, call_noise=2.0)
    variance = 2.0**2 + 2.0**2 / 2  # of a margin, the mean of two calls
    judge, critic = np.array([1.0, -1.0, 3.0]), np.array([0.5, -0.5, -4.0])
    found = posterior([clean(3.0, 0), clean(-3.0, 1)], judge, critic, faults)
    both = np.array([1.5, 1.5, -1.0])  # in favour of the label
    assert found == pytest.approx(1 / (1 + np.exp(-2 * 3.0 * both / variance)))


def test_the_posterior_is_the_share_of_right_labels() -> None:
    rng = np.random.default_rng(0)
    true = rng.normal(3.0, 2.0, 2000)  # the judge is now and then wrong without any noise
    rows = [clean(t if i % 2 else -t, 0 if i % 2 else 1) for i, t in enumerate(true)]
    gold = np.array([1.0 if i % 2 else -1.0 for i in range(2000)])
    faults = Faults(item_noise=4.0)
    a, b = (gold * true + rng.normal(0, 4.0, 2000) for _ in range(2))
    found, right = posterior(rows, a, b, faults), np.sign(a) == gold
    for low, high in ((0.0, 0.8), (0.8, 0.95), (0.95, 1.0)):
        within = (found > low) & (found <= high)
        assert found[within].mean() == pytest.approx(right[within].mean(), abs=0.04)
