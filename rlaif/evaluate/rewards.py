"""How good a reward model is: how often it scores the better of two responses higher."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from rlaif.records import Chat, Message, chat_to_json

_ROWS = 64


def reward_accuracy(folder: str | Path, pairs: Sequence[tuple[Chat, str, str]]) -> float:
    """Share of pairs that a reward model ranks right; an exact tie counts one half.

    Args:
        folder: a sequence-classification model with one label, and its tokenizer.
        pairs: (prompt, better response, worse response).

    Returns:
        0 to 1; NaN without pairs.
    """
    if not pairs:
        return math.nan
    scores = rewards(folder, [(prompt, text) for prompt, *two in pairs for text in two])
    right = [
        (better > worse) + 0.5 * (better == worse)
        for better, worse in zip(scores[::2], scores[1::2], strict=True)
    ]
    return sum(right) / len(right)


def rewards(folder: str | Path, rows: Sequence[tuple[Chat, str]]) -> list[float]:
    """A reward model's score of each (prompt, response), in order."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=1, dtype=torch.float32, use_safetensors=True
    ).eval()
    texts = [
        tokenizer.apply_chat_template(
            chat_to_json((*prompt, Message("assistant", text))), tokenize=False
        )
        for prompt, text in rows
    ]
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # little padding in a batch
    scores = [0.0] * len(texts)
    for start in range(0, len(order), _ROWS):
        places = order[start : start + _ROWS]
        batch = tokenizer(
            [texts[i] for i in places], add_special_tokens=False, padding=True, return_tensors="pt"
        )
        batch.pop("token_type_ids", None)
        with torch.inference_mode():
            logits = model(**batch).logits[:, 0].tolist()
        for place, score in zip(places, logits, strict=True):
            scores[place] = score
    return scores
