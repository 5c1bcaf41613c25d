"""Label words as token ids: what an engine sums up when it reads a label's probability."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from rlaif.engines.protocol import Label
from rlaif.errors import EngineError

_BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")


def label_token_ids(tokenizer: Any, labels: Sequence[Label], name: str) -> list[list[int]]:
    """The ids of each label's single-token surface forms, with and without a space before them.

    Raises:
        EngineError: a label whose first form is not a single token, or a token of two labels.
    """
    ids = [_forms(tokenizer, label, name) for label in labels]
    for i, mine in enumerate(ids):
        for j, theirs in enumerate(ids[:i]):
            if shared := set(mine) & set(theirs):
                raise EngineError(
                    f"the labels {labels[j][0]!r} and {labels[i][0]!r} share a token of {name}",
                    value=tokenizer.convert_ids_to_tokens(sorted(shared)),
                    mend="choose label words that differ in more than case",
                )
    return ids


def _forms(tokenizer: Any, label: Label, name: str) -> list[int]:
    first = _single(tokenizer, label[0])
    if first is None:
        raise EngineError(
            f"the label {label[0]!r} is not a single token of {name}",
            value=tokenizer.tokenize(label[0]),
            mend="choose a label word that is one",
        )
    forms = [spelled for form in label for spelled in (form, f" {form}")]
    # A sentencepiece tokenizer spells a text with a space before it; this is the word without.
    bare = (tokenizer.convert_tokens_to_ids(form) for form in label)
    candidates = [first, *(_single(tokenizer, form) for form in forms), *bare]
    return [i for i in dict.fromkeys(candidates) if i not in (None, tokenizer.unk_token_id)]


def _single(tokenizer: Any, text: str) -> int | None:
    """The id of a text that is one token; unknown text and a lone byte are none."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if len(ids) != 1 or ids[0] == tokenizer.unk_token_id:
        return None
    return None if _BYTE_TOKEN.fullmatch(tokenizer.convert_ids_to_tokens(ids[0])) else ids[0]
