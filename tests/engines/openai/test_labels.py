from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.engines.openai.labels import LabelSource, exact, frequency, said, top
from rlaif.engines.protocol import NO, YES
from rlaif.errors import EngineError

IDS = [[10, 11], [20]]


def completion(top_logprobs: Mapping[str, float], sampled: str = "x") -> dict[str, Any]:
    return {"logprobs": {"tokens": [sampled], "top_logprobs": [dict(top_logprobs)]}}


def chat(probabilities: list[tuple[str, float]], sampled: str = "yes") -> dict[str, Any]:
    entries = [
        {"token": t, "logprob": math.log(p), "bytes": list(t.encode())} for t, p in probabilities
    ]
    first = {"token": sampled, "logprob": -1.0, "bytes": list(sampled.encode())}
    return {"logprobs": {"content": [first | {"top_logprobs": entries}]}}


def test_exact_is_the_sum_over_a_labels_tokens() -> None:
    rows = {"token_id:10": math.log(0.2), "token_id:11": math.log(0.3), "token_id:20": -9999.0}
    score = exact(completion(rows | {"token_id:7": -0.5}), IDS)
    assert score.logprobs == pytest.approx((math.log(0.5), -9999.0))
    assert score.coverage == pytest.approx(0.5)


def test_exact_without_one_of_the_tokens_is_nothing() -> None:
    score = exact(completion({"token_id:10": -1.0, "token_id:20": -1.0}), IDS)
    assert score.logprobs is None and "left out" in str(score.reason)


def test_top_sums_the_forms_with_and_without_a_space() -> None:
    score = top(chat([("yes", 0.3), (" Yes", 0.2), ("no", 0.1), ("yesterday", 0.1)]), [YES, NO])
    assert score.logprobs == pytest.approx((math.log(0.5), math.log(0.1)))


def test_top_tells_equal_looking_tokens_apart_where_the_server_does() -> None:
    rows = {"token_id:10": math.log(0.2), "token_id:12": math.log(0.3), "token_id:20": -3.0}
    score = top(completion(rows), [YES, NO], IDS)
    assert score.logprobs == pytest.approx((math.log(0.2), -3.0))


@pytest.mark.parametrize("space", ["Ġ", "▁"])
def test_a_tokenizers_own_way_to_write_a_space_is_one(space: str) -> None:
    score = top(completion({f"{space}yes": -0.2, "no": -2.0}), [YES, NO])
    assert score.logprobs == (-0.2, -2.0)


def test_a_label_that_is_not_among_them_is_at_most_as_likely_as_the_least_that_is() -> None:
    score = top(chat([("yes", 0.9), ("a", 0.05), ("b", 0.001)]), [YES, NO])
    assert score.logprobs == pytest.approx((math.log(0.9), math.log(0.006))), "six forms of no"
    assert score.coverage == pytest.approx(0.9), "what was not seen covers nothing"


def test_a_sampled_token_from_below_the_likeliest_is_no_bound() -> None:
    entries = [("zz", 1e-9), ("yes", 0.9), ("b", 0.01)]
    score = top(chat(entries, sampled="zz"), [YES, NO])
    assert score.logprobs == pytest.approx((math.log(0.9), math.log(0.06)))


@given(
    st.lists(st.floats(1e-6, 1.0), min_size=8, max_size=30),
    st.integers(2, 12),
    st.integers(0, 7),
    st.integers(0, 7),
)
def test_a_bound_never_makes_a_label_surer_than_it_is(
    weights: list[float], k: int, yes_at: int, no_at: int
) -> None:
    total = sum(weights)
    words = [f"w{i}" for i in range(len(weights))]
    words[yes_at] = "yes"
    if no_at != yes_at:
        words[no_at] = "no"
    true = {w: x / total for w, x in zip(words, weights, strict=True)}
    likeliest = sorted(true.items(), key=lambda row: -row[1])[:k]
    score = top(chat(likeliest, sampled=likeliest[0][0]), [("yes",), ("no",)])
    if score.logprobs is None:
        return
    odds = score.logprobs[0] - score.logprobs[1]
    p_yes, p_no = true["yes"], true.get("no", 0.0)
    truth = math.log(p_yes / p_no) if p_no else math.inf
    assert abs(odds) <= abs(truth) + 1e-6
    assert score.coverage <= p_yes + p_no + 1e-9


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ([("a", 0.5), ("b", 0.4)], "no label is among the 2"),
        ([("yes", 0.3), ("b", 0.2)], "may be as likely"),
        ([("yes", 0.9), ("no", 0.8)], "more than 1"),
    ],
)
def test_what_says_too_little_is_an_abstention(
    entries: list[tuple[str, float]], reason: str
) -> None:
    score = top(chat(entries), [YES, NO])
    assert score.logprobs is None and reason in str(score.reason)


@pytest.mark.parametrize(
    "logprobs",
    [
        None,
        {},
        [],
        "x",
        {"content": []},
        {"content": [{}]},
        {"content": [{"top_logprobs": None}]},
        {"content": [{"top_logprobs": [{"token": "yes"}]}]},
        {"content": [{"top_logprobs": [{"token": "yes", "logprob": None}]}]},
        {"content": [{"top_logprobs": [{"token": "yes", "logprob": "-1"}]}]},
        {"content": [{"top_logprobs": [{"token": "yes", "logprob": math.nan}]}]},
        {"content": [{"top_logprobs": [{"token": "yes", "logprob": 3.0}]}]},
        {"content": [{"top_logprobs": [{"token": "y", "logprob": -1, "bytes": [999]}]}]},
        {"top_logprobs": [None]},
        {"top_logprobs": []},
        {"top_logprobs": [{}]},
    ],
)
def test_no_garbage_becomes_a_label(logprobs: Any) -> None:
    for score in (top({"logprobs": logprobs}, [YES, NO]), exact({"logprobs": logprobs}, IDS)):
        assert score.logprobs is None and score.reason


@given(st.lists(st.sampled_from(["yes", "no", "maybe"]), min_size=1, max_size=40))
def test_no_frequency_is_certain(texts: list[str]) -> None:
    score = frequency(texts, ("yes", "no"))
    if score.logprobs is None:
        assert set(texts) == {"maybe"}
        return
    total = len(texts) + 1
    counts = [texts.count("yes"), texts.count("no")]
    assert score.logprobs == pytest.approx([math.log((c + 0.5) / total) for c in counts])
    assert score.coverage == pytest.approx((sum(counts) + 1) / total)


def test_a_sample_says_its_word_plainly_or_as_json() -> None:
    assert said(" yes\n") == "yes"
    assert said('{"answer": "no"}') == "no"
    assert said("[1]") == "[1]"


def test_the_ways_have_names() -> None:
    for text in ("logprob_token_ids", "top_logprobs 5", "frequency 16"):
        assert str(LabelSource.read(text)) == text
    assert str(LabelSource.read("top_logprobs")) == "top_logprobs 20"
    for text in ("", "votes", "frequency 0", "top_logprobs -1", "logprob_token_ids 3"):
        with pytest.raises(EngineError, match="no such way"):
            LabelSource.read(text)
