"""An engine that says what a script says: for tests, and for trying a recipe without a model."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import count

from rlaif.engines.protocol import Generation, Label, LabelScore, Sampling, Usage
from rlaif.errors import EngineError
from rlaif.records import Chat, Response

Answer = str | Sequence[str] | Generation | None
"""What a script answers to one chat: one text for all its responses, a text for each, a finished
`Generation`, or None: the chat could not be served."""
Masses = Sequence[float] | Mapping[str, float] | LabelScore | None
"""The probability mass of each label (in order, or by its first form), or None likewise."""


class ScriptedEngine:
    """A deterministic engine without a model.

    Args:
        generate: the answer to a chat: a function of the chat; a mapping from the last message's
            text; or a list of answers, given out in turn over all calls and begun again at its
            end.
        score: the labels' probability masses: a function of the chat and the labels.
        name: told in `identity`; give another name to what should count as another model.

    What a script raises is passed on, and a score of the wrong length is too: a test can see how
    a stage bears it.

    Attributes:
        calls: the arguments of each call, in order: ``("generate", chats)`` or
            ``("score_labels", chats)``.
    """

    def __init__(
        self,
        generate: Callable[[Chat], Answer] | Sequence[Answer] | Mapping[str, Answer] | None = None,
        score: Callable[[Chat, Sequence[Label]], Masses] | None = None,
        *,
        name: str = "scripted",
    ) -> None:
        self._generate, self._score, self._name = generate, score, name
        self._turn = count()
        self.usage = Usage()
        self.calls: list[tuple[str, tuple[Chat, ...]]] = []
        self.closed = False

    @property
    def identity(self) -> Mapping[str, str]:
        """The engine and its name."""
        return {"engine": "scripted", "model": self._name}

    def generate(
        self, chats: Sequence[Chat], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Generation]:
        """The script's answers; `sampling` says how many a chat needs, and nothing else."""
        if len(seeds) != len(chats):
            raise ValueError(f"{len(chats)} chats but {len(seeds)} seeds")
        self._count("generate", chats)
        answers = [_generation(self._answer(chat), sampling.n) for chat in chats]
        self.usage.generated_tokens += sum(r.tokens for g in answers for r in g.responses)
        return answers

    def score_labels(self, chats: Sequence[Chat], labels: Sequence[Label]) -> list[LabelScore]:
        """The script's probability masses as log-probabilities."""
        if self._score is None:
            raise EngineError("the script has no scores", mend="give ScriptedEngine(score=…)")
        self._count("score_labels", chats)
        return [_label_score(self._score(chat, labels), labels) for chat in chats]

    def close(self) -> None:
        """Remember that it was closed."""
        self.closed = True

    def _count(self, method: str, chats: Sequence[Chat]) -> None:
        self.calls.append((method, tuple(chats)))
        self.usage.requests += len(chats)

    def _answer(self, chat: Chat) -> Answer:
        script = self._generate
        if script is None:
            raise EngineError("the script has no answers", mend="give ScriptedEngine(generate=…)")
        if callable(script):
            return script(chat)
        if isinstance(script, Mapping):
            return script.get(chat[-1].text)
        return script[next(self._turn) % len(script)]


def _generation(answer: Answer, n: int) -> Generation:
    if isinstance(answer, Generation):
        return answer
    if answer is None:
        return Generation((), reason="the script has no answer")
    texts = [answer] * n if isinstance(answer, str) else list(answer)
    return Generation(tuple(Response(text, len(text.split()), "stop") for text in texts))


def _label_score(masses: Masses, labels: Sequence[Label]) -> LabelScore:
    if isinstance(masses, LabelScore):
        return masses
    if masses is None:
        return LabelScore(None, reason="the script abstains")
    if isinstance(masses, Mapping):
        masses = [masses.get(label[0], 0.0) for label in labels]
    return LabelScore(tuple(math.log(mass) if mass > 0 else -math.inf for mass in masses))
