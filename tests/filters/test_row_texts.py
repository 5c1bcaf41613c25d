"""Row texts: every column form that TRL documents, and what is none of them."""

from __future__ import annotations

import pytest

from rlaif.filters.row_texts import RowTexts, row_texts
from rlaif.prompts.rows import BadRow

USER = {"role": "user", "content": "How do I bake bread?"}
SYSTEM = {"role": "system", "content": "Be brief."}
SAYS = {"role": "assistant", "content": "In a warm oven."}
PARTS = RowTexts("How do I bake bread?", "In a warm oven.")


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": [USER], "completion": [SAYS]},
        {"prompt": USER["content"], "completion": SAYS["content"]},
        {"prompt": [USER], "chosen": [SAYS], "rejected": [USER]},
        {"prompt": USER["content"], "chosen": SAYS["content"], "rejected": "No."},
        {"chosen": [USER, SAYS], "rejected": [USER, USER]},
        {"prompt": [USER], "chosen": [USER, SAYS], "rejected": [USER, USER]},
        {
            "prompt": USER["content"],
            "chosen": f"{USER['content']} {SAYS['content']}",
            "rejected": "No.",
        },
        {"messages": [USER, SAYS]},
        {"prompt": "not read", "messages": [USER, SAYS]},
    ],
)
def test_every_form_of_a_row_says_the_same(row: dict[str, object]) -> None:
    assert row_texts(row) == PARTS


def test_all_messages_before_the_answer_are_the_prompt() -> None:
    found = row_texts({"messages": [SYSTEM, USER, SAYS]})
    assert found == RowTexts("Be brief.\nHow do I bake bread?", "In a warm oven.")


def test_a_text_is_all_answer_and_a_prompt_alone_has_none() -> None:
    assert row_texts({"text": "One line."}) == RowTexts("", "One line.")
    assert row_texts({"prompt": [USER]}) == RowTexts("How do I bake bread?", "")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"score": 1}, "no column of a training row"),
        ({"prompt": "Hi", "chosen": None}, "`chosen` is neither text nor messages"),
        ({"prompt": 3, "completion": "x"}, "`prompt` is neither text nor messages"),
        ({"messages": []}, "`messages` is empty"),
        ({"messages": [{"role": "user"}]}, "`messages` is neither text nor messages"),
        ({"text": ["a"]}, "`text` is neither text nor messages"),
    ],
)
def test_what_is_no_training_row_is_told(row: dict[str, object], reason: str) -> None:
    with pytest.raises(BadRow) as caught:
        row_texts(row)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("prompt", "How do I bake bread?"),
        ("response", "In a warm oven."),
        ("both", "How do I bake bread?\nIn a warm oven."),
    ],
)
def test_what_is_compared(what: str, text: str) -> None:
    assert PARTS.compared(what) == text  # type: ignore[arg-type]


def test_a_row_without_a_prompt_is_compared_by_its_answer() -> None:
    assert RowTexts("", "One line.").compared("both") == "One line."
