from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from rlaif.constitution import Constitution
from rlaif.label.choose import best_of_n, preferences
from rlaif.label.method import Mode
from rlaif.label.scores import score_record
from rlaif.records import Drop, Record, Verdict
from tests.label.scripted_judges import make_record, pick_settings, rules, with_log_odds

ABCD = make_record("a", "b", "c", "d")


def chosen(
    record: Record,
    constitution: Constitution | None = None,
    mode: Mode = "pointwise",
    **settings: object,
) -> tuple[object, object]:
    """What best_of_n and preferences make of a record, drops as their reasons."""
    made = pick_settings(**settings)
    scores = score_record(
        record, constitution or rules(1), mode=mode, clip=0.001, min_decided=made.min_decided
    )
    best, pairs = best_of_n(record, scores, made), preferences(record, scores, made)
    return (
        best.reason if isinstance(best, Drop) else best,
        pairs.reason if isinstance(pairs, Drop) else pairs,
    )


def scored(*odds: float | None, texts: Sequence[str] = "abcd") -> Record:
    return with_log_odds(make_record(*texts[: len(odds)]), [odds])


def change(record: Record, index: int, **changes: object) -> Record:
    responses = list(record.responses)
    responses[index] = replace(responses[index], **changes)
    return record.with_(responses=tuple(responses))


def test_best_of_n_leads_the_mean_of_the_others() -> None:
    assert chosen(scored(0.0, 2.0, -1.0, 1.0))[0] == (1, 2.0)
    assert chosen(scored(0.0, 2.0, -1.0, 1.0), min_margin=2.0)[0] == (1, 2.0)
    assert chosen(scored(0.0, 2.0, -1.0, 1.0), min_margin=2.5)[0] == "margin under 2.5"


def test_best_against_worst() -> None:
    assert chosen(scored(0.0, 2.0, -1.0, 1.0))[1] == {(1, 2): 3.0}
    assert chosen(scored(0.0, 2.0, -1.0, 1.0), pair_margin=3.0)[1] == {(1, 2): 3.0}
    assert chosen(scored(0.0, 2.0, -1.0, 1.0), pair_margin=3.5)[1] == "margin under 3.5"


def test_all_pairs_over_the_margin() -> None:
    found = chosen(scored(0.0, 2.0, -1.0), pairs="all", pair_margin=1.5)[1]
    assert found == {(1, 0): 2.0, (1, 2): 3.0}


def test_best_against_a_random_one_that_it_beats_by_enough() -> None:
    found = set()
    for n in range(40):
        record = scored(0.0, 2.0, -1.0, 1.5).with_(id=str(n))
        pairs = chosen(record, pairs="best_random", pair_margin=1.0)[1]
        assert pairs == chosen(record, pairs="best_random", pair_margin=1.0)[1]
        found |= set(pairs)  # type: ignore[call-overload]
    assert found == {(1, 0), (1, 2)}


def test_the_random_one_does_not_hang_on_its_place() -> None:
    for n in range(10):
        record = scored(0.0, 2.0, -1.0).with_(id=str(n))
        turned = scored(-1.0, 2.0, 0.0, texts="cba").with_(id=str(n))
        [(_, one)], [(_, two)] = (chosen(r, pairs="best_random")[1] for r in (record, turned))  # type: ignore[misc]
        assert record.responses[one].text == turned.responses[two].text


def test_comparisons_choose_by_the_mean_over_the_others() -> None:
    name = rules(1).principles[0].fingerprint
    odds = {(0, 1): 1.0, (0, 2): -0.5, (1, 2): 3.0}
    verdicts = tuple(Verdict(name, i, j, x, 0.9) for (i, j), x in odds.items())
    record = make_record("a", "b", "c").with_(verdicts=verdicts)
    best, pairs = chosen(record, mode="pairwise")
    assert best == (1, 1.0)
    assert pairs == {(1, 2): 3.0}


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (make_record(), "no response"),
        (scored(1.0), "one response"),
        (scored(1.0, 1.0, texts=["a b", "a  b"]), "identical texts"),
        (scored(None, None), "all abstained"),
        (make_record("a", "b"), "all abstained"),
        (scored(1.0, None), "too little decided"),
        (scored(1.0, 1.0, 1.0), "tie"),
        (change(change(scored(1.0, 0.0), 0, finish="length"), 1, text=" "), "empty or cut off"),
    ],
)
def test_a_record_that_gives_nothing_says_why(record: Record, reason: str) -> None:
    assert chosen(record) == (reason, reason)


def test_the_detail_tells_the_judge_s_own_reason() -> None:
    record = scored(None, None)
    scores = score_record(record, rules(1), mode="pointwise", clip=0.01, min_decided=1.0)
    drop = best_of_n(record, scores, pick_settings())
    assert drop == Drop(record.id, "sft", "all abstained", "the script abstains")


@pytest.mark.parametrize("fault", [{"finish": "length"}, {"text": ""}, {"text": " \n"}])
def test_an_empty_or_cut_response_may_be_rejected_but_not_chosen(fault: dict[str, str]) -> None:
    best, pairs = chosen(change(scored(3.0, 2.0, 1.0), 0, **fault), pairs="all")
    assert best == "margin under 0.0"
    assert pairs == {(1, 2): 1.0}
    assert chosen(change(scored(3.0, 2.0, 1.0), 2, **fault))[1] == {(0, 2): 2.0}


def test_a_vetoed_response_is_never_chosen() -> None:
    constitution = rules(2, veto=True)
    record = with_log_odds(ABCD, [[3.0, 1.0, None, 3.0], [3.0, 1.0, 3.0, -1.0]])
    best, pairs = chosen(record, constitution, pairs="all", min_decided=0.5)
    assert best[0] == 0  # type: ignore[index]
    assert {c for c, _ in pairs} == {0, 1}  # type: ignore[union-attr]
    record = with_log_odds(make_record("a", "b"), [[None, 1.0], [1.0, -1.0]])
    assert chosen(record, constitution, min_decided=0.5) == ("vetoed", "vetoed")


def test_a_kept_response_is_chosen_over_a_broken_one_that_scores_more() -> None:
    principles = rules(2).principles
    veto = principles[0].model_copy(update={"veto": True})
    constitution = Constitution(name="x", principles=(veto, principles[1]))
    record = with_log_odds(make_record("a", "b"), [[-1.0, 1.0], [5.0, -5.0]])
    assert chosen(record, constitution) == ((1, 2.0), {(1, 0): 2.0})


def test_partly_judged_responses_are_compared_on_what_both_have() -> None:
    record = with_log_odds(make_record("a", "b", "c"), [[1.0, 2.0, 0.0], [None, -4.0, -4.0]])
    best, pairs = chosen(record, rules(2), min_decided=0.5, pairs="all")
    assert best == (1, 1.5)
    assert pairs == {(0, 2): 1.0, (1, 0): 1.0, (1, 2): 2.0}


LONG = ["a a a a", "b b b", "c", "d d d d d d"]


def test_the_shortest_of_those_close_to_the_best_stands_in_for_it() -> None:
    record = scored(2.0, 1.5, 0.0, -1.0, texts=LONG)
    assert chosen(record)[1] == {(0, 3): 3.0}
    assert chosen(record, prefer_shorter_within=0.5)[1] == {(1, 3): 2.5}
    assert chosen(record, prefer_shorter_within=0.4)[1] == {(0, 3): 3.0}
    assert chosen(record, prefer_shorter_within=2.0)[1] == {(2, 3): 1.0}


def test_the_rejected_is_not_chosen_for_its_length() -> None:
    record = scored(2.0, -1.0, -0.9, texts=["a", "b", "c c c c"])
    assert chosen(record, prefer_shorter_within=0.5)[1] == {(0, 1): 3.0}


def test_among_all_pairs_a_longer_one_has_to_win_by_more() -> None:
    record = scored(2.0, 1.5, 0.0, texts=LONG)
    found = chosen(record, prefer_shorter_within=1.5, pairs="all")[1]
    assert found == {(0, 2): 2.0}
    reason = chosen(record, prefer_shorter_within=2.0, pairs="all")[1]
    assert reason == "no better than a shorter one"


def test_equal_scores_are_not_ordered_by_place_or_alphabet() -> None:
    firsts = set()
    for texts in (["a1", "b1", "z"], ["a2", "b2", "z"], ["a3", "b3", "z"], ["a4", "b4", "z"]):
        record = scored(1.0, 1.0, 0.0, texts=texts)
        turned = scored(1.0, 1.0, 0.0, texts=[texts[1], texts[0], "z"])
        (index, _), (back, _) = chosen(record)[0], chosen(turned)[0]  # type: ignore[misc]
        assert record.responses[index].text == turned.responses[back].text
        firsts.add(index)
    assert firsts == {0, 1}
