from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.embed import EMPTY, Embedded, Vectors
from rlaif.errors import DataError
from rlaif.filters.anchor import COPY, DRIFT, REDUNDANT, filter_by_anchors
from rlaif.filters.anchor_band import AnchorSet, Band, anchor_set, distinct, fit_band, propose
from rlaif.filters.closeness import fit_gauge
from rlaif.filters.overlap import grams, normalise, overlap
from rlaif.nearest import nearest

WIDTH = 32


def clusters(topics: int, each: int, spread: float = 0.5, seed: int = 0) -> Vectors:
    """Unit vectors about so many directions."""
    rng = np.random.default_rng(seed)
    centres = np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))[0][:topics]
    noise = rng.normal(size=(topics * each, WIDTH)) / WIDTH**0.5
    vectors = np.repeat(centres, each, 0) + spread * noise
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def about(centres: Vectors, each: int, spread: float, seed: int) -> Vectors:
    """Unit vectors about these directions."""
    noise = np.random.default_rng(seed).normal(size=(len(centres) * each, WIDTH)) / WIDTH**0.5
    vectors = np.repeat(centres, each, 0) + spread * noise
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def named(vectors: Vectors) -> tuple[str, ...]:
    """Texts that share few letters."""
    return tuple(f"{chr(0x4E00 + 7 * i)}{chr(0x6000 + 5 * i)}" for i in range(len(vectors)))


class Table:
    """An embedding model that knows some texts."""

    def __init__(self, vectors: dict[str, Vectors], width: int = WIDTH) -> None:
        self._vectors, self._width = vectors, width

    def __call__(self, texts: Sequence[str]) -> Embedded:
        faults = tuple(None if text.strip() else EMPTY for text in texts)
        none = np.zeros(self._width, np.float32)
        rows = [self._vectors.get(text, none) for text in texts]
        return Embedded(np.array(rows, np.float32).reshape(-1, self._width),
                        np.zeros(len(texts), bool), faults)  # fmt: skip


ALL = clusters(8, 40)
HUMAN = np.arange(len(ALL)) % 4 > 0
KNOWN = HUMAN & (np.arange(len(ALL)) < 240)  # six of eight topics
ANCHORS = AnchorSet(named(ALL[KNOWN]), ALL[KNOWN])


def sieve(vectors: Vectors, texts: Sequence[str] | None = None, band: Band | None = None):
    texts = texts or [f"text number {i}" for i in range(len(vectors))]
    embed = Table(dict(zip(texts, vectors, strict=True)))
    ids = [f"id{i}" for i in range(len(texts))]
    return filter_by_anchors(texts, ids, ANCHORS, band or fit_band(ANCHORS.vectors), embed)


def test_new_content_of_the_anchors_topics_is_kept_and_other_topics_are_drift() -> None:
    new, other = ALL[~HUMAN][:60], ALL[240:]
    assert len(sieve(new).kept) >= 52
    dropped = sieve(other).drops
    assert len(dropped) >= 76
    assert {drop.reason for drop in dropped} == {DRIFT}


def test_more_is_expected_beside_a_tight_topic_than_beside_a_loose_one() -> None:
    kept, dropped = [], []
    for seed in range(3):
        axes = np.linalg.qr(np.random.default_rng(seed).normal(size=(WIDTH, WIDTH)))[0]
        tight, loose, other = axes[:1], axes[1:4], axes[10:30]
        anchors = np.concatenate([about(tight, 60, 0.3, seed), about(loose, 30, 0.9, seed + 10)])
        gauge, band = fit_gauge(anchors), fit_band(anchors)
        kept += list(gauge(about(loose, 20, 0.9, seed + 20)) >= band.low)
        beside = (0.4375**0.5 * other + 0.75 * tight).astype(np.float32)
        dropped += list(gauge(beside) < band.low)
    assert np.mean(kept) >= 0.85
    assert np.mean(dropped) >= 0.85


def test_all_but_the_nearest_pair_of_a_thousand_anchors_are_no_copies_of_each_other() -> None:
    anchors = clusters(8, 125)
    near = nearest(anchors, anchors, leave_out_self=True).similarity[:, 0]
    assert 1 <= np.sum(near >= fit_band(anchors).high) <= 2
    assert np.sum(near >= fit_band(anchors, high_quantile=0.9).high) == 100


def test_a_drop_tells_the_similarity_and_the_nearest_anchor() -> None:
    [drop] = sieve(ANCHORS.vectors[3:4]).drops
    assert (drop.id, drop.stage, drop.reason) == ("id0", "anchor", REDUNDANT)
    assert "cosine 1.000" in drop.detail
    assert drop.detail.endswith(ANCHORS.texts[3])


def test_a_copy_with_a_typo_is_redundant_wherever_its_vector_went() -> None:
    human = "How long should a loaf of bread rise before it is baked?"
    anchors = AnchorSet((human, *ANCHORS.texts[1:]), ANCHORS.vectors)
    copies = [
        human.upper(), human.rstrip("?"), f"Please tell me: {human}",
        human.replace("bread", "braed"),
        human.replace("loaf of ", ""), human.replace("baked", "sold"),
    ]  # fmt: skip
    moved = 0.5 * anchors.vectors[0] + 0.5 * ALL[~HUMAN][0]
    embed = Table(dict.fromkeys([*copies, "Something else entirely"], moved))
    sieved = filter_by_anchors(
        [*copies, "Something else entirely"], list("abcdefg"), anchors, Band(-1, 1.1), embed
    )
    assert sieved.kept == (6,)
    assert {drop.reason for drop in sieved.drops} == {COPY}
    assert all(human in drop.detail for drop in sieved.drops)


def test_a_text_without_a_vector_is_dropped_with_its_reason_and_the_rest_is_judged() -> None:
    sieved = sieve(np.stack([ALL[0], ALL[300]]), ["  ", "off"])
    assert [(drop.id, drop.reason) for drop in sieved.drops] == [("id0", EMPTY), ("id1", DRIFT)]


def test_a_band_by_hand_is_about_the_plain_cosine_and_needs_few_anchors() -> None:
    anchors = AnchorSet(("one",), ALL[:1])
    embed = Table({"same": ALL[0], "far": -ALL[0]})
    sieved = filter_by_anchors(
        ["same", "far"], ["a", "b"], anchors, Band(0.2, 0.9, "cosine"), embed
    )
    assert [drop.reason for drop in sieved.drops] == [REDUNDANT, DRIFT]
    with pytest.raises(DataError, match="low end"):
        Band(0.9, 0.2, "cosine")


def test_no_texts_are_no_fault() -> None:
    assert sieve(ALL[:0], []).kept == ()


def test_another_width_is_one_line() -> None:
    embed = Table({"a": np.ones(8, np.float32)}, 8)
    with pytest.raises(DataError, match="width 8, the anchors of width 32"):
        filter_by_anchors(["a"], ["a"], ANCHORS, Band(0, 1), embed)


def test_the_band_does_not_move_when_anchors_stand_twice() -> None:
    plain, doubled = ANCHORS.vectors, np.repeat(ANCHORS.vectors, 3, 0)
    assert len(distinct(doubled)) == len(plain)
    assert fit_band(doubled) == fit_band(plain)


def test_a_crowd_of_copies_counts_once() -> None:
    crowd = np.concatenate([np.repeat(ALL[:1], 100, 0), ALL[1:3]])
    noise = np.random.default_rng(0).normal(size=crowd.shape).astype(np.float32) * 1e-3
    assert len(distinct(crowd + noise)) == 3


def test_anchors_that_support_no_band_are_one_line() -> None:
    for anchors in (np.repeat(ALL[:1], 50, 0), ALL[:10]):
        with pytest.raises(DataError, match="too few different anchors"):
            fit_band(anchors)
    with pytest.raises(DataError, match="finite"):
        fit_band(np.full((30, WIDTH), np.nan, np.float32))
    with pytest.raises(DataError, match="no usable anchors"):
        anchor_set(["", " "], Table({}))


def test_unusable_anchors_are_kept_aside_and_counted() -> None:
    texts = list(ANCHORS.texts)
    embed = Table(dict(zip(texts, ANCHORS.vectors, strict=True)))
    anchors = anchor_set([*texts[:50], " ", *texts[50:], ""], embed)
    assert [drop.id for drop in anchors.drops] == ["50", str(len(texts) + 1)]
    assert propose(anchors).unusable == {EMPTY: 2}


def test_dense_anchors_are_told_from_thin_ones() -> None:
    tight = clusters(14, 14)
    dense = propose(AnchorSet(named(tight), tight))
    assert dense.caught > 0.9
    assert not any("thin" in warning for warning in dense.warnings)
    rng = np.random.default_rng(0)
    loose = rng.normal(size=(60, WIDTH)).astype(np.float32)
    loose /= np.linalg.norm(loose, axis=1, keepdims=True)
    thin = propose(AnchorSet(named(loose), loose))
    assert any("the anchors are thin" in warning for warning in thin.warnings)
    assert "warning" in str(thin)
    assert len(str(thin).splitlines()) < 20


def test_noise_of_a_batch_moves_closeness_little() -> None:
    gauge = fit_gauge(ANCHORS.vectors)
    noise = np.random.default_rng(0).normal(size=ALL.shape) * 1e-3 / WIDTH**0.5
    moved = np.abs(gauge(ALL) - gauge((ALL + noise).astype(np.float32)))
    assert moved.max() < 0.005


@given(st.text(), st.text())
def test_overlap_is_a_share_that_is_whole_for_equal_letters(one: str, other: str) -> None:
    a, b = grams(one), grams(other)
    assert overlap(a, b) == overlap(b, a)
    assert 0 <= overlap(a, b) <= 1
    assert (overlap(a, b) == 1) or normalise(one) != normalise(other) or not a
    assert overlap(grams(f" {one}!! "), a) in (0, 1)
