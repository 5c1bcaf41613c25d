from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaif.constitution import Constitution, Principle
from rlaif.errors import RecipeError
from rlaif.label.method import Mode
from rlaif.label.scores import (
    Scores,
    distinct_responses,
    refuse_pairwise_vetoes,
    score_record,
)
from rlaif.records import Record, Response, Verdict, sigmoid
from tests.label.scripted_judges import make_record, rules, with_log_odds


def score(
    record: Record,
    constitution: Constitution,
    *,
    mode: Mode = "pointwise",
    clip: float = 0.01,
    min_decided: float = 1.0,
) -> Scores:
    return score_record(record, constitution, mode=mode, clip=clip, min_decided=min_decided)


def weighted(*weights: float, veto: int | None = None) -> Constitution:
    principles = rules(len(weights)).principles
    changed = [
        p.model_copy(update={"weight": w, "veto": i == veto})
        for i, (p, w) in enumerate(zip(principles, weights, strict=True))
    ]
    return Constitution(name="test", principles=tuple(changed))


def compared(record: Record, odds: dict[tuple[int, int], float], principle: int = 0) -> Record:
    name = rules(principle + 1).principles[principle].fingerprint
    verdicts = [Verdict(name, i, j, x, 0.9) for (i, j), x in odds.items()]
    return record.with_(verdicts=(*record.verdicts, *verdicts))


def test_scores_add_up_in_weighted_log_odds_and_stay_apart_by_principle() -> None:
    found = score(with_log_odds(make_record("a", "b"), [[1.0, -1.0], [0.5, 2.0]]), weighted(2, 1))
    assert found.score == {0: 2.5, 1: 0.0}
    assert found.by_principle == {0: {"p0": 1.0, "p1": 0.5}, 1: {"p0": -1.0, "p1": 2.0}}
    assert found.margins[0, 1].log_odds == 2.5
    assert found.margins[0, 1].by_principle == {"p0": 2.0, "p1": -1.5}
    assert found.lead == {0: 2.5, 1: -2.5}


def test_one_over_sure_verdict_cannot_drown_the_rest() -> None:
    record = with_log_odds(make_record("a", "b"), [[100.0, -100.0], [-4.0, 4.0], [-4.0, 4.0]])
    found = score(record, rules(3), clip=0.1)
    edge = math.log(9)
    assert found.by_principle[0] == {
        "p0": pytest.approx(edge),
        "p1": pytest.approx(-edge),
        "p2": pytest.approx(-edge),
    }
    assert found.margins[1, 0].log_odds == pytest.approx(2 * edge)


@settings(deadline=None)
@given(st.floats(0.02, 0.98), st.floats(0.02, 0.98))
def test_margin_is_the_chance_that_the_one_of_both_that_keeps_it_is_this_one(
    p: float, q: float
) -> None:
    odds = [[math.log(p / (1 - p)), math.log(q / (1 - q))]]
    margin = score(with_log_odds(make_record("a", "b"), odds), rules(1)).margins[0, 1].log_odds
    assert margin is not None
    only_one = p * (1 - q) + q * (1 - p)
    assert sigmoid(margin) == pytest.approx(p * (1 - q) / only_one)


def test_an_undecided_principle_is_left_out_of_both_sides() -> None:
    record = with_log_odds(make_record("a", "b"), [[1.0, 2.0], [3.0, None]])
    found = score(record, weighted(3, 1), min_decided=0.75)
    assert found.margins[0, 1].log_odds == -3.0
    assert found.margins[0, 1].by_principle == {"p0": -1.0}
    assert found.score == {0: 6.0, 1: 6.0}


@pytest.mark.parametrize(("min_decided", "decided"), [(0.75, True), (0.76, False), (1.0, False)])
def test_too_little_decided_weight_makes_no_margin(min_decided: float, decided: bool) -> None:
    record = with_log_odds(make_record("a", "b"), [[1.0, 2.0], [3.0, None]])
    found = score(record, weighted(3, 1), min_decided=min_decided)
    assert (found.margins[0, 1].log_odds is not None) == decided
    assert (found.lead[0] is not None) == decided


def test_a_verdict_that_is_not_there_counts_as_undecided() -> None:
    record = with_log_odds(make_record("a", "b"), [[1.0, 2.0]])
    assert score(record, rules(2)).margins[0, 1].log_odds is None
    assert score(make_record("a", "b"), rules(1)).score == {0: None, 1: None}


def test_verdicts_of_another_form_or_principle_do_not_count() -> None:
    record = with_log_odds(make_record("a", "b"), [[1.0, 2.0], [5.0, 0.0]])
    record = compared(record, {(0, 1): 3.0})
    assert score(record, rules(1)).margins[0, 1].log_odds == -1.0
    found = score(record, rules(1), mode="pairwise")
    assert found.margins[0, 1].log_odds == 3.0
    assert found.by_principle == {0: {}, 1: {}}


def test_comparisons_are_read_in_either_direction() -> None:
    record = compared(make_record("a", "b", "c"), {(0, 1): 1.0, (0, 2): -2.0, (1, 2): 0.5})
    found = score(record, weighted(2), mode="pairwise")
    assert {pair: m.log_odds for pair, m in found.margins.items()} == {
        (0, 1): 2.0, (1, 0): -2.0, (0, 2): -4.0, (2, 0): 4.0, (1, 2): 1.0, (2, 1): -1.0,
    }  # fmt: skip
    assert found.score == {0: -1.0, 1: -0.5, 2: 1.5}
    assert found.by_principle == {0: {}, 1: {}, 2: {}}


def test_a_kept_veto_wins_whatever_the_rest_says() -> None:
    record = with_log_odds(make_record("a", "b"), [[1.5, -0.5], [-4.0, 4.0]])
    found = score(record, weighted(1, 10, veto=0))
    assert found.vetoes == {0: "kept", 1: "broken"}
    assert found.margins[0, 1].log_odds == 2.0
    assert found.margins[1, 0].log_odds == -2.0
    assert found.margins[0, 1].weighted == -78.0


def test_where_the_rest_agrees_with_the_veto_it_counts() -> None:
    record = with_log_odds(make_record("a", "b"), [[0.1, -0.1], [4.0, -4.0]])
    assert score(record, weighted(1, 1, veto=0)).margins[0, 1].log_odds == 8.2


def test_a_veto_decides_where_the_rest_is_undecided() -> None:
    record = with_log_odds(make_record("a", "b"), [[1.0, -1.0], [None, None]])
    found = score(record, weighted(1, 1, veto=0))
    assert found.margins[0, 1].log_odds == 2.0
    assert found.margins[1, 0].log_odds == -2.0
    assert found.margins[0, 1].weighted is None


def test_the_breach_is_measured_where_it_is() -> None:
    """The first veto is broken by 0.75; the second is kept by both, however far apart."""
    vetoes, plain = rules(2, veto=True).principles, rules(3).principles[2]
    constitution = Constitution(name="test", principles=(*vetoes, plain))
    record = with_log_odds(make_record("a", "b"), [[0.5, -0.25], [4.0, 1.0], [-2.5, 2.5]])
    found = score(record, constitution)
    assert found.margins[0, 1].log_odds == 0.75
    assert found.margins[1, 0].log_odds == -0.75


def test_an_abstention_on_a_veto_is_neither_kept_nor_broken() -> None:
    record = with_log_odds(make_record("a", "b", "c"), [[None, 1.0, -1.0], [3.0, 0.0, 0.0]])
    found = score(record, weighted(1, 1, veto=0), min_decided=0.5)
    assert found.vetoes == {0: "unsure", 1: "kept", 2: "broken"}
    assert found.margins[0, 1].log_odds == 3.0
    assert found.margins[0, 2].log_odds == 3.0


def test_a_comparison_cannot_veto() -> None:
    constitution = weighted(1, 1, veto=1)
    refuse_pairwise_vetoes(constitution, "pointwise")
    refuse_pairwise_vetoes(rules(2), "pairwise")
    with pytest.raises(RecipeError, match=r"judge\.mode: cannot tell .* \(p1\) \(got 'pairwise'\)"):
        refuse_pairwise_vetoes(constitution, "pairwise")


def test_texts_that_differ_in_white_space_alone_are_one() -> None:
    record = make_record("a b", " a\n b ", "c", "", " ")
    assert [" ".join(record.responses[i].text.split()) for i in distinct_responses(record)] in (
        ["a b", "c", ""],
        ["c", "a b", ""],
    )


@pytest.mark.parametrize("turned", [False, True])
def test_of_equal_texts_the_one_that_ended_is_taken(turned: bool) -> None:
    ended, cut = Response("a b", 2, "stop"), Response("a b", 2, "length")
    responses = (cut, ended) if turned else (ended, cut)
    [index] = distinct_responses(Record("r", (), responses))
    assert responses[index] == ended


def test_principle_under_another_id_has_the_same_verdicts() -> None:
    record = with_log_odds(make_record("a", "b"), [[1.0, 0.0]])
    renamed = Constitution(name="x", principles=(Principle(id="new", text="principle 0"),))
    assert score(record, renamed).margins[0, 1].by_principle == {"new": 1.0}
