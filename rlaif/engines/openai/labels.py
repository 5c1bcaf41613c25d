"""Label probabilities out of a server's answer, in the three ways that servers have.

- ``logprob_token_ids``: the server gives the log-probability of every label token over its whole
  vocabulary. This is exact.
- ``top_logprobs k``: it gives those of the k likeliest tokens. A label is the sum over its surface
  forms among them. A label that is not there is less likely than every token that is, so it gets
  the most that it can have; the log-odds then err towards uncertainty.
- ``frequency m``: it gives none, and m samples are drawn that can only be label words. A label
  that came k times among L labels has (k + ½) / (m + L/2), the estimate of Krichevsky and Trofimov
  (1981): no frequency is certain.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rlaif.engines.protocol import Label, LabelScore
from rlaif.errors import EngineError

_SMALL = 0.1  # a label that was not seen may have this share of one that was
_NO_LOGPROBS = "the server gave no log-probabilities"
_NOT_NUMBERS = "the server's log-probabilities are not numbers"
_TOKEN_ID = re.compile(r"token_id:(\d+)")


@dataclass(frozen=True, slots=True)
class LabelSource:
    """A way to read label probabilities: its name, and k or m where it has one."""

    name: str
    count: int = 0

    @classmethod
    def read(cls, text: str) -> LabelSource:
        """From a recipe: "logprob_token_ids", "top_logprobs 20", "frequency 16".

        Raises:
            EngineError: none of these.
        """
        name, _, count = text.partition(" ")
        default = {"logprob_token_ids": 0, "top_logprobs": 20, "frequency": 16}.get(name)
        valid = count.isdecimal() and int(count) > 0 if count and default else not count
        if default is None or not valid:
            raise EngineError(
                "no such way to read labels", key="labels", value=text,
                mend='use "logprob_token_ids", "top_logprobs 20", "frequency 16" or "auto"',
            )  # fmt: skip
        return cls(name, int(count or default))

    def __str__(self) -> str:
        return f"{self.name} {self.count}" if self.count else self.name


@dataclass(frozen=True, slots=True)
class Entry:
    """A token that a server gave a log-probability for; `id` where it told it."""

    text: str
    logprob: float
    id: int | None = None


def exact(choice: Mapping[str, Any], ids: Sequence[Sequence[int]]) -> LabelScore:
    """The score in one choice of an answer to ``logprob_token_ids``.

    Args:
        choice: of the answer.
        ids: of each label, its tokens.
    """
    found = entries(choice)
    if isinstance(found, str):
        return LabelScore(None, found)
    by_id = {entry.id: entry.logprob for entry in found}
    if not all(i in by_id for label in ids for i in label):
        return LabelScore(None, "the server left out a label token")
    return LabelScore(tuple(_log_sum(by_id[i] for i in label) for label in ids))


def top(
    choice: Mapping[str, Any], labels: Sequence[Label], ids: Sequence[Sequence[int]] | None = None
) -> LabelScore:
    """The score in the likeliest tokens of one choice.

    Args:
        choice: of the answer.
        labels: their surface forms, each of which counts with a space before it too.
        ids: of each label, its tokens, for a server that tells tokens by id.
    """
    found = entries(choice)
    if isinstance(found, str):
        return LabelScore(None, found)
    if _log_sum(entry.logprob for entry in found) > 0.01:
        return LabelScore(None, "the server's probabilities add up to more than 1")
    forms = [surface_forms(label) for label in labels]
    mine = [
        [e.logprob for e in found if (e.id in ids[i] if ids and e.id is not None else e.text in f)]
        for i, f in enumerate(forms)
    ]
    seen = [_log_sum(logprobs) for logprobs in mine if logprobs]
    if not seen:
        return LabelScore(None, f"no label is among the {len(found)} likeliest tokens")
    if len(seen) == len(labels):
        return LabelScore(tuple(seen))
    least = _least(choice, found)
    bounds = [least + math.log(len(ids[i] if ids else f)) for i, f in enumerate(forms)]
    absent = max(b for b, logprobs in zip(bounds, mine, strict=True) if not logprobs)
    if absent > max(seen) + math.log(_SMALL):
        return LabelScore(None, "a label is not among the likeliest tokens and may be as likely")
    each = [_log_sum(x) if x else bound for x, bound in zip(mine, bounds, strict=True)]
    return LabelScore(tuple(each), seen=math.exp(_log_sum(seen)))


def frequency(texts: Sequence[str], words: Sequence[str]) -> LabelScore:
    """The score in samples that should be label words: plain, or as ``{"answer": word}``."""
    counts = [0] * len(words)
    for text in texts:
        word = said(text)
        if word in words:
            counts[words.index(word)] += 1
    if not sum(counts):
        return LabelScore(None, f"none of {len(texts)} samples is a label")
    total = len(texts) + len(words) / 2
    return LabelScore(tuple(math.log((count + 0.5) / total) for count in counts))


def said(text: str) -> str:
    """The word that a constrained sample says."""
    try:
        held = json.loads(text)
    except ValueError:
        return text.strip()
    return str(held.get("answer", "")) if isinstance(held, dict) else text.strip()


def entries(choice: Mapping[str, Any]) -> list[Entry] | str:
    """The tokens with log-probabilities at a choice's first place, or why there are none."""
    logprobs = choice.get("logprobs")
    if not isinstance(logprobs, Mapping):
        return _NO_LOGPROBS
    try:
        found = _of_chat(logprobs) if logprobs.get("content") else _of_completion(logprobs)
    except (TypeError, ValueError, KeyError, IndexError, AttributeError):
        return _NO_LOGPROBS
    if any(not isinstance(e.logprob, (int, float)) or not e.logprob < 0.01 for e in found):
        return _NOT_NUMBERS
    return found or _NO_LOGPROBS


def refuse_shared_forms(labels: Sequence[Label]) -> None:
    """No text may count for two labels.

    Raises:
        EngineError: one would.
    """
    for i, mine in enumerate(labels):
        for theirs in labels[:i]:
            if shared := surface_forms(mine) & surface_forms(theirs):
                raise EngineError(
                    f"the labels {theirs[0]!r} and {mine[0]!r} share a surface form",
                    value=min(shared), mend="choose label words that differ in more than case",
                )  # fmt: skip


def surface_forms(label: Label) -> frozenset[str]:
    """A label's forms as texts of tokens, with and without a space before them."""
    return frozenset(spelled for form in label for spelled in (form, f" {form}"))


def _of_chat(logprobs: Mapping[str, Any]) -> list[Entry]:
    given = logprobs["content"][0]["top_logprobs"]
    return [_entry(_text(entry), entry["logprob"]) for entry in given]


def _of_completion(logprobs: Mapping[str, Any]) -> list[Entry]:
    return [_entry(text, logprob) for text, logprob in logprobs["top_logprobs"][0].items()]


def _text(entry: Mapping[str, Any]) -> str:
    """A token's text; its bytes are surer, as some servers write a space in a way of their own."""
    if isinstance(entry.get("bytes"), list):
        return bytes(entry["bytes"]).decode("utf-8", errors="replace")
    return str(entry["token"])


def _entry(text: str, logprob: Any) -> Entry:
    told = _TOKEN_ID.fullmatch(text)
    plain = f" {text[1:]}" if text[:1] in ("Ġ", "▁") else text
    return Entry(plain, logprob, int(told[1]) if told else None)


def _least(choice: Mapping[str, Any], found: Sequence[Entry]) -> float:
    """What every token that was not returned is at most: the least of those that were.

    The sampled token may have been returned without being among the likeliest: it does not count.
    """
    logprobs = choice["logprobs"]
    content = logprobs.get("content")
    sampled = _text(content[0]) if content else logprobs.get("tokens", [""])[0]
    plain = replace(_entry(str(sampled), 0.0))
    others = [e.logprob for e in found if (e.text, e.id) != (plain.text, plain.id)]
    return min(others or [e.logprob for e in found])


def _log_sum(terms: Iterable[float]) -> float:
    """Log Σ e^x, without under- or overflow."""
    values = list(terms)
    most = max(values)
    if most == -math.inf:
        return most
    return most + math.log(math.fsum(math.exp(x - most) for x in values))
