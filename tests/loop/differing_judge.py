"""A plan for the fake server: a judge that tells one text from another."""

from __future__ import annotations

import math
import zlib
from typing import Any

from tests.engines.openai.misbehaving_server import Asked, Changed


def differing(asked: Asked) -> Changed:
    """Answers of a judge that tell one text from another; what it says follows from the text."""

    def change(answer: dict[str, Any]) -> dict[str, Any]:
        for choice in answer["choices"]:
            for place in (choice.get("logprobs") or {}).get("content") or ():
                share = (1 + zlib.crc32(asked.text.encode()) % 97) / 99
                for token in place["top_logprobs"]:
                    if token["token"] in ("yes", "no"):
                        yes = token["token"] == "yes"
                        token["logprob"] = math.log(0.7 * (share if yes else 1 - share))
        return answer

    return Changed(change)
