"""A judge made worse on purpose, each fault with a size: so that what mends a fault can show it.

Weakened(engine, position_bias=1.5) is an engine like any other, and a worse judge.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from rlaif.engines.protocol import (
    LETTERS,
    RATINGS,
    Engine,
    Generation,
    Label,
    LabelScore,
    Sampling,
    Usage,
)
from rlaif.records import Chat, seed_of


@dataclass(frozen=True, slots=True)
class Faults:
    """What is wrong with a judge, in nats of the log-odds that it gives.

    Attributes:
        scale: what its log-odds are multiplied by first; under 1, all that follows weighs more.
        position_bias: for the response shown as A, in pairwise questions.
        length_bias: for each word of a response; in a pairwise question, for each word that the
            one shown as A has more.
        item_noise: standard deviation of an error that stays with the question. In a pairwise
            question it is for one of the responses, wherever that is shown: an opinion.
        call_noise: standard deviation of an error drawn anew for every call.
        seed: of both.
    """

    scale: float = 1.0
    position_bias: float = 0.0
    length_bias: float = 0.0
    item_noise: float = 0.0
    call_noise: float = 0.0
    seed: int = 0


class Weakened:
    """An engine whose label probabilities have faults; the mass on the labels stays as it is.

    The questions are the package's own templates' (rlaif/templates): the prompt, then the response
    or the two, then whatever else is asked about.

    Args:
        engine: the judge to weaken; it is closed with this one.
        faults: the size of each fault.
    """

    def __init__(self, engine: Engine, faults: Faults) -> None:
        self._engine, self._faults, self._calls = engine, faults, 0

    @property
    def usage(self) -> Usage:
        """What the engine has done."""
        return self._engine.usage

    @property
    def identity(self) -> Mapping[str, str]:
        """The engine's, and the faults: a weakened judge's labels are another judge's."""
        sizes = {k: getattr(self._faults, k) for k in Faults.__slots__}
        return {**self._engine.identity, "faults": json.dumps(sizes, sort_keys=True)}

    def generate(
        self, chats: Sequence[Chat], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Generation]:
        """What the engine writes, untouched."""
        return self._engine.generate(chats, sampling, seeds)

    def score_labels(self, chats: Sequence[Chat], labels: Sequence[Label]) -> list[LabelScore]:
        """What the engine says, with the faults put in."""
        scores = self._engine.score_labels(chats, labels)
        return [self._weaken(c, labels, s) for c, s in zip(chats, scores, strict=True)]

    def close(self) -> None:
        """Close the engine."""
        self._engine.close()

    def _weaken(self, chat: Chat, labels: Sequence[Label], score: LabelScore) -> LabelScore:
        shift = self._shift(chat, labels)  # also where there is no score: a call was made
        logs = score.logprobs
        if logs is None or not any(x > -math.inf for x in logs) or any(math.isnan(x) for x in logs):
            return score
        mass = _log_sum(logs)
        tilted = [
            self._faults.scale * x + shift * share if x > -math.inf else x  # 0 · -inf is no number
            for x, share in zip(logs, _shares(labels), strict=True)
        ]
        off = mass - _log_sum(tilted)
        return replace(score, logprobs=tuple(x + off for x in tilted))

    def _shift(self, chat: Chat, labels: Sequence[Label]) -> float:
        """What is added to the log-odds for the label words that speak for the response."""
        faults = self._faults
        self._calls += 1
        shift = faults.call_noise * _normal(faults.seed, "call", self._calls)
        content = chat[0].content
        prompt, first, *rest = content[1::2] if isinstance(content, tuple) else ("", content)
        if tuple(labels) != LETTERS:
            words = len(first.split())
            item = faults.item_noise * _normal(faults.seed, "item", prompt, first, *rest)
            return shift + faults.length_bias * words + item
        second, *rest = rest
        lead = len(first.split()) - len(second.split())
        one, two = sorted((first, second))
        item = faults.item_noise * _normal(faults.seed, "item", prompt, one, two, *rest)
        item *= (first == one) - (first == two)  # for one of the texts; of two equal ones, neither
        return shift + faults.position_bias + faults.length_bias * lead + item


def _normal(*parts: object) -> float:
    """A standard normal number that follows from the parts alone."""
    return random.Random(seed_of(*parts)).gauss(0.0, 1.0)


def _shares(labels: Sequence[Label]) -> list[float]:
    """How far each label word speaks for the response (or for A), 0 to 1."""
    last = len(labels) - 1
    rising = [i / last for i in range(len(labels))]
    return rising if tuple(labels) == RATINGS else rising[::-1]


def _log_sum(terms: Sequence[float]) -> float:
    most = max(terms)
    return most + math.log(math.fsum(math.exp(x - most) for x in terms))
