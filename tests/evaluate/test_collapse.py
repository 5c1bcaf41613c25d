from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from rlaif.cells import Cells
from rlaif.errors import DataError
from rlaif.evaluate.collapse import (
    ANCHORS,
    MEASURES,
    CollapseRow,
    Reading,
    RoundTexts,
    Watch,
    rare_cells,
    watch,
)

TOPICS = 12
CELLS = Cells(np.eye(TOPICS, 2 * TOPICS, dtype=np.float32))
SETTINGS = Watch(permutations=60, draws=3)
SHARES = 0.7 ** np.arange(TOPICS)


def made(
    name: str, rows: int, sharpness: float = 1.0, words: int = 400, seed: int = 0
) -> RoundTexts:
    """Texts on twelve topics, the later the rarer; the sharper, the rarer still, and the same."""
    rng = np.random.default_rng(seed)
    shares = SHARES**sharpness / (SHARES**sharpness).sum()
    topics = rng.choice(TOPICS, rows, p=shares)
    vectors = np.eye(TOPICS, 2 * TOPICS)[topics]
    vectors[:, TOPICS:] = rng.normal(0, 0.2 / sharpness, (rows, TOPICS))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    said = rng.zipf(1.1 + 0.3 * sharpness, (rows, 20)) % words
    texts = [" ".join(f"w{w}" for w in row) for row in said]
    return RoundTexts(name, texts, vectors.astype(np.float32))


HUMAN = made("human", 600)


def test_all_figures_fall_on_a_planted_collapse_and_drift_rises() -> None:
    rounds = [made(str(i), 500, sharpness=1 + i, seed=i + 1) for i in range(4)]
    rows = watch(rounds, HUMAN, SETTINGS, CELLS)
    assert [row.name for row in rows] == [ANCHORS, "0", "1", "2", "3"]
    for name in MEASURES:
        if name in ("drift", "mean_tokens"):
            continue
        values = [row.readings[name].value for row in rows[1:]]
        assert values == sorted(values, reverse=True), name  # type: ignore[type-var]
        assert values[-1] < 0.8 * rows[0].readings[name].value, name  # type: ignore[operator]
    drift = [row.drift.value for row in rows[1:]]
    assert drift == sorted(drift)  # type: ignore[type-var]
    assert [row.drifted for row in rows] == [None, False, True, True, True]
    assert [row.mean_tokens.value for row in rows] == [20.0] * 5


def test_texts_of_the_same_distribution_have_the_anchors_figures_whatever_their_number() -> None:
    for row in watch([made("more", 3000, seed=5)], HUMAN, SETTINGS, CELLS)[1:]:
        [anchors] = watch([], HUMAN, SETTINGS, CELLS)
        for name in MEASURES:
            if name != "drift":
                assert row.readings[name].value == pytest.approx(
                    anchors.readings[name].value, rel=0.1
                ), name
        assert row.drift.value == pytest.approx(0, abs=0.02) and row.drifted is False
        assert row.at_texts == 600 and row.at_tokens == 12_000


def test_drift_is_less_what_chance_adds_to_a_small_round() -> None:
    rounds = [made(str(i), 60, seed=20 + i) for i in range(8)]
    found = [row.drift.value for row in watch(rounds, HUMAN, SETTINGS, CELLS)[1:]]
    assert np.mean(found) == pytest.approx(0, abs=0.03)  # type: ignore[arg-type]


def test_a_large_round_reaches_no_more_of_the_tail_by_its_number() -> None:
    large = made("large", 4000, sharpness=2)
    at_600 = watch([large], HUMAN, SETTINGS, CELLS)[1]
    at_60 = watch([large, made("small", 60)], HUMAN, SETTINGS, CELLS)[1]
    assert at_60.tail_coverage.value < at_600.tail_coverage.value  # type: ignore[operator]
    assert at_60.vendi.value < at_600.vendi.value < 12  # type: ignore[operator]
    assert at_60.topic_entropy == at_600.topic_entropy


def test_no_figure_depends_on_the_order_of_the_texts() -> None:
    order = np.random.default_rng(3).permutation(500)
    one = made("a", 500, seed=1)
    other = RoundTexts("a", [one.texts[i] for i in order], one.vectors[order])
    rows, mixed = (watch([x], HUMAN, SETTINGS, CELLS) for x in (one, other))
    assert rows == mixed


def test_the_anchors_as_a_round_have_their_own_figures_and_no_drift() -> None:
    first, second = watch([HUMAN], HUMAN, SETTINGS, CELLS)
    assert first.drift == Reading(None, reason="these are the anchors")
    assert second.drift.value is not None and second.drift.value <= 0 and second.drifted is False
    assert replace(second, name=ANCHORS, drift=first.drift, drifted=None, drift_p=None) == first


def test_a_round_of_too_few_texts_has_none_and_the_reason_and_shrinks_no_other() -> None:
    few, empty = made("few", 20), made("empty", 0)
    rows = watch([few, empty, made("enough", 300)], HUMAN, SETTINGS, CELLS)
    assert rows[1].vendi == Reading(None, reason="20 texts, fewer than 300")
    assert rows[1].token_entropy == Reading(None, reason="400 tokens, fewer than 6000")
    assert rows[1].topic_entropy == Reading(None, reason="20 texts, fewer than 50")
    assert rows[1].mean_tokens.value == 20.0
    assert all(r.value is None and r.reason for r in rows[2].readings.values())
    assert rows[2].vendi.reason == "no texts"
    assert all(r.value is not None for r in rows[3].readings.values())
    assert {row.at_texts for row in rows} == {300}


def test_a_fixed_size_makes_calls_comparable() -> None:
    fixed = replace(SETTINGS, texts=200, tokens=3000)
    one, two = made("1", 500, seed=1), made("2", 250, seed=2)
    together = watch([one, two], HUMAN, fixed, CELLS)
    assert together == [*watch([one], HUMAN, fixed, CELLS), watch([two], HUMAN, fixed, CELLS)[1]]
    assert watch([two], HUMAN, replace(fixed, texts=400), CELLS)[1].vendi.reason is not None


def test_texts_without_an_embedding_are_counted_and_in_no_figure() -> None:
    plain = made("a", 300, seed=1)
    vectors = np.concatenate([plain.vectors, np.zeros_like(plain.vectors[:2])])
    vectors[-1] = np.nan
    holed = RoundTexts("a", [*plain.texts, "", "x"], vectors)
    with_, without = (watch([x], HUMAN, SETTINGS, CELLS)[1] for x in (holed, plain))
    assert (with_.texts, with_.unusable) == (302, 2)
    assert with_.readings == without.readings


def test_one_text_again_and_again_is_the_end_of_all_variety() -> None:
    same = RoundTexts("same", ["one two three four"] * 300, np.repeat(HUMAN.vectors[:1], 300, 0))
    row = watch([same], HUMAN, SETTINGS, CELLS)[1]
    assert row.vendi.value == pytest.approx(1)
    assert row.topic_entropy.value == 0.0 and row.drifted is True
    assert row.token_entropy.value == pytest.approx(np.log(4), abs=0.01)


def test_rare_regions_are_the_smallest_that_hold_the_tail() -> None:
    assert rare_cells(np.array([50, 4, 40, 0, 5, 1]), 0.1).tolist() == [1, 4, 5]
    assert rare_cells(np.array([50, 4, 40, 0, 5, 1]), 0.05).tolist() == [1, 5]
    assert rare_cells(np.array([50, 50]), 0.1).tolist() == [0]


def test_rows_are_plain_data() -> None:
    [row] = watch([], HUMAN, SETTINGS)
    data = json.loads(json.dumps(row.as_dict()))
    assert data["drift"] == {
        "value": None, "low": None, "high": None, "reason": "these are the anchors",
    }  # fmt: skip
    assert CollapseRow(**data | {n: Reading(**data[n]) for n in MEASURES}) == row


def test_the_drift_can_be_left_out_and_tokens_be_a_tokenizers() -> None:
    letters = replace(SETTINGS, permutations=0, tokenize=list)
    row = watch([made("a", 300)], HUMAN, letters, CELLS)[1]
    assert row.drift.reason == "not asked for" and row.drifted is None
    assert row.mean_tokens.value > 40  # type: ignore[operator]


def test_what_cannot_be_watched_is_one_line() -> None:
    with pytest.raises(DataError, match=r"anchors: too few .* \(got 20\); give 50 or more"):
        watch([], made("few", 20))
    with pytest.raises(DataError, match="a: 1 texts, and embeddings of shape"):
        watch([RoundTexts("a", ["x"], HUMAN.vectors[:2])], HUMAN, SETTINGS, CELLS)
    with pytest.raises(DataError, match="embeddings are of width 3"):
        watch([RoundTexts("a", ["x"] * 60, np.ones((60, 3), np.float32))], HUMAN, SETTINGS, CELLS)
    with pytest.raises(DataError, match="more cells than different texts"):
        watch([], RoundTexts("h", ["x"] * 60, np.repeat(HUMAN.vectors[:1], 60, 0)))
    with pytest.raises(DataError, match=r"tail: is a share \(got 1\)"):
        Watch(tail=1)
    with pytest.raises(ValueError, match="a reason for having none"):
        Reading(None)
