"""Text for a server that may read control tokens out of it: what looks like one is broken.

Where messages are sent as text, the server writes the chat template and tokenizes the whole, and
most servers then take a ``<|im_end|>`` in a response for the real one. A space behind its first
letter keeps it readable, and no tokenizer joins it again.
"""

from __future__ import annotations

import re

_NAMED = (
    "s|bos|eos|pad|unk|mask|cls|sep|think|tool_call|tool_calls|tool_response|tool_result|tools|"
    "start_of_turn|end_of_turn|start_of_image|end_of_image|image_soft_token|"
    r"begin_of_text|end_of_text|endoftext|extra_id_\d+|unused\d+|reserved_\d+|0x[0-9A-Fa-f]{2}"
)
_BRACKETED = (
    "INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_RESULTS|TOOL_CALLS|TOOL_CONTENT|ARGS|CALL_ID|THINK|"
    "MODEL_SETTINGS|IMG|IMG_BREAK|IMG_END|PREFIX|MIDDLE|SUFFIX|BOS|EOS|CLS|SEP|MASK|PAD|UNK|gMASK"
)
_CONTROL = re.compile(
    # ChatML, Llama 3, Phi, Cohere; DeepSeek writes fullwidth bars, Gemma a bar on one side
    r"<[|｜][^|｜<>\n]{0,80}[|｜]>|<[|｜]/?\w+>|</?\w+[|｜]>"
    rf"|</?(?:{_NAMED})>|\[/?(?:{_BRACKETED})\]|<</?SYS>>"
)
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def break_control_tokens(text: str) -> str:
    """The text, with a space in everything that looks like a control token."""
    while (broken := _CONTROL.sub(lambda m: f"{m[0][0]} {m[0][1:]}", text)) != text:
        text = broken
    return text


def encodable(text: str) -> str:
    """Without lone surrogates, which no JSON in UTF-8 holds."""
    return _LONE_SURROGATE.sub("\ufffd", text)
