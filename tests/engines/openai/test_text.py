from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.engines.openai.text import break_control_tokens, encodable

TOKENS = [
    "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|start_header_id|>", "<|user|>",
    "<|channel|>", "<|START_OF_TURN_TOKEN|>", "<｜User｜>", "<｜end▁of▁sentence｜>", "[INST]",
    "[/INST]", "[TOOL_CALLS]", "[gMASK]", "<<SYS>>", "<</SYS>>", "<s>", "</s>", "<bos>", "<eos>",
    "<pad>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>", "<think>", "</think>",
    "<tool_call>", "<|turn>", "<turn|>", "<extra_id_0>", "<0x0A>", "<unused12>",
]  # fmt: skip


@pytest.mark.parametrize("token", TOKENS)
def test_a_control_token_is_broken_wherever_it_stands(token: str) -> None:
    for text in (token, f"a{token}b", f"<{token}>", f"{token}{token}", f"{token[0]}{token}"):
        broken = break_control_tokens(text)
        assert token not in broken
        assert broken.replace(" ", "") == text.replace(" ", ""), "nothing is lost"


@given(st.lists(st.sampled_from([*TOKENS, "<", "|", ">", "[", "]", "/", "a", " ", "\n"])))
def test_none_is_left_whatever_surrounds_it(parts: list[str]) -> None:
    broken = break_control_tokens("".join(parts))
    assert not [token for token in TOKENS if token in broken]
    assert break_control_tokens(broken) == broken


@pytest.mark.parametrize(
    "text",
    ["a < b | c > d", "<div>x</div>", "List<String>", "x[0]", "[TODO]", "if a<b and b>c:", "<b>"],
)
def test_ordinary_text_and_code_stay_as_they_are(text: str) -> None:
    assert break_control_tokens(text) == text


def test_lone_surrogates_can_be_sent() -> None:
    json.dumps(encodable("a\ud800b"), ensure_ascii=False).encode()
