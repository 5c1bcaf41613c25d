"""Questions to a model, and what its probabilities say: called by judge.py, and by a scorecard.

An answer is read from the probabilities of the label words, never from text. With q the share of a
word's mass that speaks for the response, log-odds = log Σ q·mass - log Σ (1 - q)·mass:

- pointwise and pairwise: q is 1 for yes or A, 0 for no or B;
- rating k of 1 to 5: q is (k - 1) / 4, so that the expected rating e over the five words (G-Eval,
  Liu et al. 2023, arXiv 2303.16634) becomes the probability (e - 1) / 4.

What cannot be read is an abstention with its reason: little mass on the label words, reasoning
that did not end, or whatever kept the engine from answering.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rlaif.engines.protocol import Engine, Generation, LabelScore, Sampling
from rlaif.label.method import LABELS, Method, Mode
from rlaif.records import Chat, Message

_SHARES: Mapping[Mode, tuple[float, ...]] = {
    "pointwise": (1.0, 0.0),
    "pairwise": (1.0, 0.0),
    "rating": (0.0, 0.25, 0.5, 0.75, 1.0),
}
_UTMOST = 100.0  # nats; log-odds would be infinite where one side has no mass at all
_VERDICT = "Verdict:"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model said to one question; log-odds, or a reason for having none."""

    log_odds: float | None
    coverage: float = 0.0
    reason: str | None = None
    rationale: str | None = None


def ask(
    chats: Sequence[Chat],
    engine: Engine,
    method: Method,
    *,
    temperature: float = 0.0,
    seeds: Sequence[int] | None = None,
) -> list[Answer]:
    """An answer to each question, in order, of one call to the engine (two, with reasoning).

    Args:
        chats: the questions.
        engine: what answers.
        method: how it is asked.
        temperature: of the reasoning; at 0 it is greedy.
        seeds: of the reasoning, one a question; None only where it is greedy.

    Raises:
        EngineError: a label word is not a single token of the model.
        ValueError: sampled reasoning without seeds.
    """
    if method.reasoning is None:
        return _score(chats, [None] * len(chats), engine, method)
    answers: dict[int, Answer] = {}
    rationales: dict[int, str] = {}
    for i, generation in enumerate(_reason(chats, engine, method, temperature, seeds)):
        if (reason := _unfinished(generation)) is not None:
            answers[i] = Answer(None, reason=reason)
        else:
            rationales[i] = generation.responses[0].text.strip()
    told = [_tell(chats[i], rationale) for i, rationale in rationales.items()]
    scored = _score(told, list(rationales.values()), engine, method)
    answers |= dict(zip(rationales, scored, strict=True))
    return [answers[i] for i in range(len(chats))]


def _reason(
    chats: Sequence[Chat],
    engine: Engine,
    method: Method,
    temperature: float,
    seeds: Sequence[int] | None,
) -> list[Generation]:
    if seeds is None:
        if temperature > 0:
            raise ValueError("sampled reasoning needs seeds")
        seeds = [0] * len(chats)  # greedy: the seed decides nothing
    if not chats:
        return []
    tokens = method.max_reasoning_tokens
    sampling = Sampling(n=1, temperature=temperature, max_tokens=tokens, stop=(_VERDICT,))
    return engine.generate(chats, sampling, seeds)


def _unfinished(generation: Generation) -> str | None:
    if generation.reason is not None:
        return generation.reason
    cut = generation.responses[0].finish == "length"
    return "reasoning did not end" if cut else None


def _tell(chat: Chat, rationale: str) -> Chat:
    """The chat up to the verdict. What the judge wrote is data like everything else."""
    return (*chat, Message("assistant", (rationale, f"\n{_VERDICT}")))


def _score(
    chats: Sequence[Chat], rationales: Sequence[str | None], engine: Engine, method: Method
) -> list[Answer]:
    if not chats:
        return []
    scores = engine.score_labels(chats, LABELS[method.mode])
    return [
        _read(score, rationale, method) for score, rationale in zip(scores, rationales, strict=True)
    ]


def _read(score: LabelScore, rationale: str | None, method: Method) -> Answer:
    """The log-odds in the label words' probabilities, or an abstention."""
    if score.logprobs is None:
        return Answer(None, reason=score.reason or "no answer", rationale=rationale)
    if any(math.isnan(x) or x == math.inf for x in score.logprobs):
        return Answer(None, reason="probabilities are not numbers", rationale=rationale)
    coverage = score.coverage
    if coverage < method.min_coverage or coverage == 0:
        # The same words for all, so that they can be counted; the answer has the coverage.
        reason = f"little coverage: under {method.min_coverage:g} of the mass on the labels"
        return Answer(None, coverage, reason, rationale)
    return Answer(log_odds(score.logprobs, method.mode), coverage, None, rationale)


def log_odds(logprobs: Sequence[float], mode: Mode) -> float:
    """How strongly the label words speak for the response, in nats, no further than ±100.

    Args:
        logprobs: log-probabilities of the mode's label words, in the order of `LABELS`; at least
            one of them above -inf.
        mode: which words they are.
    """
    terms = list(zip(logprobs, _SHARES[mode], strict=True))
    speak_for = _log_sum([x + math.log(q) for x, q in terms if q > 0])
    against = _log_sum([x + math.log(1 - q) for x, q in terms if q < 1])
    return max(-_UTMOST, min(_UTMOST, speak_for - against))


def _log_sum(terms: Sequence[float]) -> float:
    """Log Σ e^x, without under- or overflow."""
    most = max(terms)
    if most == -math.inf:
        return most
    return most + math.log(math.fsum(math.exp(x - most) for x in terms))
