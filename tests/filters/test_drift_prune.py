from __future__ import annotations

import numpy as np
import pytest

from rlaif.errors import DataError
from rlaif.filters.drift import measure_drift
from rlaif.filters.drift_prune import prune
from tests.filters.drift_samples import PLANTED, halves, planted, sample

MANY = 100
SHARE = 0.2
FAST = {"permutations": 100, "resamples": 0}


@pytest.mark.parametrize("seed", range(4))
def test_pruning_takes_out_what_was_planted_and_no_more_than_that(seed: int) -> None:
    human, synthetic = planted(seed, share=SHARE)
    found = prune(human, synthetic, **FAST)
    gone = np.flatnonzero(~found.keep)
    assert found.before.alarm and 0 < len(gone) <= MANY
    assert (gone >= len(synthetic) - MANY).mean() >= 0.7


def test_what_is_left_is_measured_anew_and_raises_no_alarm() -> None:
    human, synthetic = planted(5, share=SHARE)
    found = prune(human, synthetic, **FAST)
    anew = measure_drift(human, synthetic[found.keep], **FAST)
    assert found.after is not None and not anew.alarm
    assert found.after.as_dict() == anew.as_dict()


def test_it_is_the_fewest_half_of_them_do_not_do() -> None:
    human, synthetic = planted(1, share=SHARE)
    gone = np.flatnonzero(~prune(human, synthetic, **FAST).keep)
    keep = np.ones(len(synthetic), bool)
    keep[gone[::2]] = False
    assert measure_drift(human, synthetic[keep], **FAST).alarm


def test_within_a_cell_of_many_topics_the_planted_one_goes_first() -> None:
    human, synthetic = planted(0, share=SHARE)
    gone = np.flatnonzero(~prune(human, synthetic, cells=3, **FAST).keep)
    assert (gone >= len(synthetic) - MANY).mean() >= 0.7


def test_words_that_only_the_batch_uses_go_where_the_vectors_tell_nothing() -> None:
    human, synthetic = halves(1, 200)
    rng = np.random.default_rng(2)
    said = [[f"{a} {b} {c}" for a, b, c in rng.integers(0, 9, (200, 3))] for _ in range(2)]
    tagged = [f"as a machine {t}" if i < 40 else t for i, t in enumerate(said[1])]
    found = prune(human, synthetic, texts=(said[0], tagged), **FAST)
    gone = np.flatnonzero(~found.keep)
    assert found.before.alarm and found.after is not None and not found.after.alarm
    assert 0 < len(gone) <= 40 and (gone < 40).mean() >= 0.9


def test_a_batch_without_alarm_is_left_as_it_is() -> None:
    found = prune(*halves(5, 200), **FAST)
    assert found.keep.all() and found.after is found.before


def test_the_order_of_rows_does_not_decide_who_goes() -> None:
    human, synthetic = planted(2, 200, 0.2)
    order = np.random.default_rng(0).permutation(len(synthetic))
    plain, mixed = prune(human, synthetic, **FAST), prune(human, synthetic[order], **FAST)
    assert plain.keep[order].tolist() == mixed.keep.tolist() and not plain.keep.all()


def test_a_batch_that_pruning_cannot_mend_is_discarded() -> None:
    rng = np.random.default_rng(0)
    found = prune(sample(rng, 200), sample(rng, 200, PLANTED), **FAST)
    assert not found.keep.any() and found.after is None and found.before.alarm


def test_no_more_goes_than_may() -> None:
    human, synthetic = planted(0, share=SHARE)
    assert not prune(human, synthetic, most=0.01, **FAST).keep.any()


def test_a_batch_that_would_be_too_small_to_be_measured_is_discarded() -> None:
    rng = np.random.default_rng(0)
    human, synthetic = sample(rng, 200), np.concatenate([sample(rng, 9), sample(rng, 13, PLANTED)])
    found = prune(human, synthetic, cells=10, **FAST)
    assert found.before.alarm and not found.keep.any()


def test_texts_are_pruned_with_their_vectors() -> None:
    human, synthetic = planted(3, share=SHARE)
    texts = (["some words"] * 500, ["some words"] * 400 + ["other things"] * MANY)
    found = prune(human, synthetic, texts=texts, **FAST)
    assert found.after is not None and len(found.after.ngrams) == 2


def test_bad_input_is_the_error_that_measuring_gives() -> None:
    human, synthetic = halves(0, 50)
    with pytest.raises(DataError, match="synthetic: too few texts"):
        prune(human, synthetic[:3])
    with pytest.raises(DataError, match=r"most: must be a share, 0 to 1 \(got 1.5\)"):
        prune(human, synthetic, most=1.5)
