from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rlaif.cells import fit_cells
from rlaif.embed import EMPTY, NOT_FINITE, Embedded, Vectors
from rlaif.errors import DataError
from rlaif.filters.drift import Drift, drift_of_texts, how_many, measure_drift
from rlaif.filters.drift_null import divergences
from tests.filters.drift_samples import PLANTED, halves, planted, sample

counts = st.lists(st.integers(0, 50), min_size=2, max_size=20).map(np.array)


@given(st.data(), counts)
def test_a_divergence_is_never_negative_and_both_turn_with_the_sides(
    data: st.DataObject, human: NDArray[np.int64]
) -> None:
    n = len(human)
    synthetic = np.array(data.draw(st.lists(st.integers(0, 50), min_size=n, max_size=n)))
    there, back = divergences(human, synthetic), divergences(synthetic, human)
    assert (there >= 0).all() and np.isfinite(there).all()
    assert there == pytest.approx(back[::-1], abs=1e-12)


@given(counts)
def test_equal_histograms_do_not_diverge(histogram: NDArray[np.int64]) -> None:
    assert divergences(histogram, histogram) == pytest.approx(0, abs=1e-12)


def test_a_divergence_is_that_of_shares_with_half_a_count_added() -> None:
    p, q = np.array([3.5, 1.5]) / 5, np.array([1.5, 5.5]) / 7
    expected = [(p * np.log(p / q)).sum(), (q * np.log(q / p)).sum()]
    assert divergences(np.array([3, 1]), np.array([1, 5])) == pytest.approx(expected)


def test_a_topic_planted_in_a_tenth_raises_the_alarm() -> None:
    found = [measure_drift(*planted(seed, 1000), permutations=100) for seed in range(8)]
    assert all(drift.alarm and drift.p_value <= 0.025 for drift in found)


def test_two_halves_of_one_sample_seldom_do() -> None:
    found = [measure_drift(*halves(seed, 200), permutations=79, resamples=0) for seed in range(60)]
    assert (
        sum(drift.alarm for drift in found) <= 6
    )  # at the level of 0.025, more than six of 60 is one chance in 1,000


def test_the_null_is_where_two_halves_lie() -> None:
    found = [measure_drift(*halves(seed, 200), resamples=0) for seed in range(20)]
    drifts = [drift.kl_human_synthetic for drift in found]
    mean = np.mean([d.value for d in drifts])
    assert mean == pytest.approx(np.mean([d.null_mean for d in drifts]), rel=0.15)
    assert all(d.null_mean < d.limit for d in drifts)


@settings(max_examples=5, deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_no_number(random: object) -> None:
    rng = np.random.default_rng(random.randrange(1000))  # type: ignore[attr-defined]
    human, synthetic = planted(0, 120)
    plain = measure_drift(human, synthetic, permutations=60, resamples=20)
    mixed = measure_drift(
        rng.permutation(human), rng.permutation(synthetic), permutations=60, resamples=20
    )
    assert plain.as_dict() == mixed.as_dict()


def test_the_sides_are_alike_to_the_test() -> None:
    human, synthetic = planted(1)
    there, back = measure_drift(human, synthetic), measure_drift(synthetic, human)
    assert there.kl_human_synthetic.value == pytest.approx(back.kl_synthetic_human.value)
    assert there.kl_human_synthetic.limit == pytest.approx(back.kl_synthetic_human.limit, rel=0.1)
    assert back.alarm


def test_the_interval_is_around_the_divergence_that_is_really_there() -> None:
    rng = np.random.default_rng(0)
    cells = fit_cells(sample(rng, 2000), 20)
    many = [np.concatenate([sample(rng, 36000), extra]) for extra in
            (sample(rng, 4000), sample(rng, 4000, PLANTED))]  # fmt: skip
    true = divergences(*(cells.counts(side) for side in many))[1]
    hits = 0
    for seed in range(20):
        found = measure_drift(*planted(seed), cells=cells, permutations=40).kl_synthetic_human
        hits += found.low <= true <= found.high
    assert hits >= 16


def test_an_interval_of_nothing_reaches_down_to_zero() -> None:
    found = measure_drift(*halves(3, 300))
    assert found.kl_human_synthetic.low == 0


def test_the_most_over_filled_cell_holds_what_was_planted() -> None:
    human, synthetic = planted(2)
    found = measure_drift(human, synthetic)
    there = set(found.cells.of(synthetic[-50:]).tolist())
    assert int(found.ratio.argmax()) in there and found.ratio[list(there)].mean() > 2
    assert found.counts.sum(0).tolist() == [500, 500]


def test_cells_of_other_texts_can_be_given() -> None:
    human, synthetic = planted(4)
    cells = fit_cells(sample(np.random.default_rng(9), 500), 25)
    found = measure_drift(human, synthetic, cells=cells)
    assert found.alarm and found.counts[:, 0].tolist() == cells.counts(human).tolist()


def test_there_are_more_cells_for_more_texts_within_bounds() -> None:
    assert how_many(40) < how_many(400) < how_many(4000) == how_many(3999)
    assert how_many(10**6) == 100


def test_noise_of_half_precision_raises_no_alarm() -> None:
    human, synthetic = halves(5, 500)
    noisy = synthetic + np.random.default_rng(0).normal(0, 1e-3, synthetic.shape)
    clean = measure_drift(human, synthetic, seed=1)
    found = measure_drift(human, noisy.astype(np.float32), seed=1)
    assert not clean.alarm and not found.alarm


def test_different_text_with_equal_meaning_is_seen_by_its_ngrams() -> None:
    rng = np.random.default_rng(6)
    human, synthetic = halves(6, 200)
    said = [[f"{a} {b} {c}" for a, b, c in rng.integers(0, 9, (200, 3))] for _ in range(2)]
    assert not measure_drift(human, synthetic, texts=(said[0], said[1])).alarm
    tagged = [f"as an assistant {text}" if i % 5 == 0 else text for i, text in enumerate(said[1])]
    found = measure_drift(human, synthetic, texts=(said[0], tagged))
    assert found.alarm and not found.kl_synthetic_human.over and any(d.over for d in found.ngrams)


def test_as_json_and_on_one_screen() -> None:
    found = measure_drift(*planted(0), permutations=60, resamples=0)
    told = json.loads(json.dumps(found.as_dict()))
    assert told["alarm"] is True and told["human"] == told["synthetic"] == 500
    assert told["statistics"]["cells_kl_synthetic_human"]["low"] is None
    assert told["cells"][0]["ratio"] == pytest.approx(found.ratio.max())
    lines = str(found).splitlines()
    assert lines[0].startswith("drift (p 0.016)") and "OVER" in lines[1] and len(lines) <= 25


def refused(*sides: Vectors, match: str, **settings: object) -> None:
    with pytest.raises(DataError, match=match) as caught:
        measure_drift(*sides, **settings)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_what_cannot_be_compared_is_an_error_of_one_line() -> None:
    human, synthetic = halves(0, 50)
    broken = synthetic.copy()
    broken[:3, 0] = np.nan
    refused(human[:0], synthetic, match=r"human: too few texts .*got 0.*give 20")
    refused(human, synthetic[:19], match=r"synthetic: too few texts .*got 19")
    refused(human, broken, match="synthetic: 3 embeddings are zero or not finite")
    refused(human, synthetic * 0, match="50 embeddings are zero")
    refused(human, synthetic[:, 1:], match="of width 23; the human ones are of width 24")
    refused(human[[0] * 50], human[[0] * 50], match="the texts are all the same")
    refused(human, synthetic, cells=101, match=r"cells: more cells than different texts")
    refused(human, synthetic, cells=1, match="cells: must be 2 or more")
    refused(human, synthetic, cells=fit_cells(human[:, 1:], 3), match="width 24.*width 23")
    refused(human, synthetic, permutations=38, match="permutations: too few .*ask for 40 or more")
    refused(human, synthetic, texts=(["a"] * 50, ["b"]), match=r"not as many texts.*\(50, 1\)")


def test_of_few_different_texts_there_are_no_more_cells_than_texts() -> None:
    human = sample(np.random.default_rng(0), 3)[[0] * 25 + [1] * 15 + [2] * 10]
    found = measure_drift(human, human)
    assert len(found.cells) == 3 and not found.alarm and found.kl_human_synthetic.value == 0


def test_a_batch_that_says_one_thing_is_a_drift_not_an_error() -> None:
    human = sample(np.random.default_rng(0), 50)
    assert measure_drift(human, human[[0] * 50]).alarm


def embed(texts: list[str]) -> Embedded:
    """Vectors by a text's first word; faults where the embedder has them."""
    faults = [None if t.strip() else EMPTY for t in texts]
    faults = [NOT_FINITE if t == "inf" else f for t, f in zip(texts, faults, strict=True)]
    vectors = np.zeros((len(texts), 4), np.float32)
    for i, text in enumerate(texts):
        if faults[i] is None:
            vectors[i] = np.random.default_rng(sum(text.encode()[:4])).normal(size=4)
            vectors[i] /= np.linalg.norm(vectors[i])
    return Embedded(vectors, np.zeros(len(texts), bool), tuple(faults))


def of_texts(human: list[str], synthetic: list[str]) -> Drift:
    return drift_of_texts(human, synthetic, embed, permutations=60, resamples=0)  # type: ignore[arg-type]


def test_texts_without_a_vector_are_set_aside_with_their_reason() -> None:
    human = [f"{i} apples" for i in range(40)]
    found = of_texts([*human, "  "], ["inf", *human])
    assert [(d.id, d.stage, d.reason) for d in found.drops] == [
        ("human 40", "drift", EMPTY),
        ("synthetic 0", "drift", NOT_FINITE),
    ]
    assert found.counts.sum(0).tolist() == [40, 40] and len(found.ngrams) == 2
    assert not found.alarm and found.as_dict()["dropped"] == 2 and "2 set aside" in str(found)


def test_other_scripts_and_a_text_of_ten_megabytes_are_texts() -> None:
    human = [f"{i} яблок и 苹果" for i in range(40)]
    found = of_texts(human, [*human[1:], "huge " * 2_000_000])
    assert found.counts.sum(0).tolist() == [40, 40]
