"""How a judge is asked, and what a stored verdict depends on: between a recipe and judge.py.

Changing a principle's text, a template, the engine or a setting in `Method` changes what a judge
would say, and so a fingerprint here. Changing a weight or a veto does not: it asks nothing anew.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Self

from rlaif.constitution import Principle
from rlaif.engines.protocol import LETTERS, NO, RATINGS, YES, Label
from rlaif.label.templates import Template, load_template, prompt_text
from rlaif.recipe import Judge as Settings
from rlaif.records import Chat, fingerprint

Mode = Literal["pointwise", "pairwise", "rating"]

LABELS: Mapping[Mode, tuple[Label, ...]] = {
    "pointwise": (YES, NO),
    "pairwise": LETTERS,
    "rating": RATINGS,
}


@dataclass(frozen=True, slots=True)
class Method:
    """How a judge is asked.

    Attributes:
        mode: the question's form.
        template: the question's text.
        min_coverage: least probability mass, 0 to 1, on the label words; below it the judge
            abstains.
        reasoning: what asks for reasons before the verdict; None asks for the verdict alone.
        max_reasoning_tokens: at most so many tokens of reasons.
    """

    mode: Mode
    template: Template
    min_coverage: float = 0.5
    reasoning: Template | None = None
    max_reasoning_tokens: int = 128

    @classmethod
    def load(cls, settings: Settings) -> Self:
        """The method that a recipe's `judge` section describes.

        Raises:
            RecipeError: a template cannot be used.
        """
        folder = settings.templates
        reasoning = load_template("reasoning", folder) if settings.reasoning else None
        template = load_template(settings.mode, folder)
        tokens = settings.max_reasoning_tokens
        return cls(settings.mode, template, settings.min_coverage, reasoning, tokens)

    def question(
        self, prompt: Chat, principle: str, response: str, other: str | None = None
    ) -> Chat:
        """What the judge is shown: one response or, pairwise, two, the first of them as A.

        Raises:
            ValueError: the mode compares two responses and there is one, or the reverse.
        """
        if (self.mode == "pairwise") != (other is not None):
            raise ValueError(f"a {self.mode} method does not fit this number of responses")
        values = {"prompt": prompt_text(prompt), "principle": principle}
        if other is None:
            values["response"] = response
        else:
            values |= {"response_a": response, "response_b": other}
        return (self.template.message(self.reasoning, **values),)

    def fingerprint(self, identity: Mapping[str, str]) -> str:
        """Names the judge: this method, put to the engine of that `Engine.identity`."""
        reasons = [self.reasoning.fingerprint, self.max_reasoning_tokens] if self.reasoning else []
        return fingerprint(
            {
                "mode": self.mode,
                "labels": LABELS[self.mode],
                "template": self.template.fingerprint,
                "min_coverage": self.min_coverage,
                "reasoning": reasons,
                "engine": dict(identity),
            }
        )


def principle_fingerprint(principle: Principle, method: Method, identity: Mapping[str, str]) -> str:
    """Names all that a stored verdict depends on besides the responses: the text and the judge."""
    return fingerprint([principle.fingerprint, method.fingerprint(identity)])


def distinct(principles: Sequence[Principle]) -> list[Principle]:
    """The principles, each text once, in order."""
    first: dict[str, Principle] = {}
    for principle in principles:
        first.setdefault(principle.fingerprint, principle)
    return list(first.values())


def missing(
    principles: Sequence[Principle],
    method: Method,
    identity: Mapping[str, str],
    stored: Collection[str],
) -> list[Principle]:
    """The principles still to be judged: each text once, unless its verdicts are stored.

    Args:
        principles: the constitution's.
        method: how the judge is asked.
        identity: the engine's.
        stored: the `principle_fingerprint` of every set of verdicts at hand.
    """
    return [
        principle
        for principle in distinct(principles)
        if principle_fingerprint(principle, method, identity) not in stored
    ]
