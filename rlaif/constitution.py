"""YAML ⇄ Constitution: how a model should behave, as principles that a judge reads one at a time.

Read at the start of a flow; judge.py reads a principle's text, pick.py its weight and veto,
calibrate.py its examples. The two fingerprints say which labels an edit leaves standing.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from rlaif import strict_yaml
from rlaif.errors import ConstitutionError
from rlaif.records import fingerprint
from rlaif.strict_model import Fault, Many, StrictModel, Text, validate


class Example(StrictModel, error=ConstitutionError):
    """A prompt with a response that keeps the principle better, and one that keeps it worse."""

    prompt: Text
    better: Text
    worse: Text

    @model_validator(mode="after")
    def _two_responses(self) -> Self:
        if self.better == self.worse:
            mend = "write a response that breaks the principle"
            raise Fault("the same as `better`", at=("worse",), value=self.worse, mend=mend)
        return self


class Principle(StrictModel, error=ConstitutionError):
    """One rule, told so that a judge can say yes or no to it.

    Attributes:
        id: a short name, for people and for reports.
        text: the rule; all that the judge reads.
        weight: what the rule's log-odds are multiplied by in a response's score; more than 0.
        veto: a response that breaks the rule is never chosen, whatever its score.
        critique: what to ask the model that looks for breaches; None for the default question.
        revision: what to ask the model that mends a response; None for the default question.
        examples: labelled pairs, on which a judge is tested and calibrated.
    """

    id: str
    text: Text
    weight: Annotated[float, Field(gt=0)] = 1.0
    veto: bool = False
    critique: Text | None = None
    revision: Text | None = None
    examples: Many[Example] = ()

    @field_validator("id")
    @classmethod
    def _plain_id(cls, value: str) -> str:
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", value):
            mend = "use a-z, 0-9, - and _, starting with a letter or a digit"
            raise Fault("not an id", value=value, mend=mend)
        return value

    @property
    def fingerprint(self) -> str:
        """Names what the judge reads, the text alone: other edits leave its verdicts standing."""
        return fingerprint({"principle": self.text})


class Constitution(StrictModel, error=ConstitutionError):
    """How a model should behave.

    Attributes:
        name: what people call it.
        version: the author's own count; it decides nothing.
        description: for people; it decides nothing.
        principles: at least one; no two with the same id or the same text.
    """

    name: Text
    version: Text = "1"
    description: str = ""
    principles: Many[Principle]

    @model_validator(mode="after")
    def _distinct_principles(self) -> Self:
        if not self.principles:
            mend = "write at least one, with an id and a text"
            raise Fault("no principles", at=("principles",), mend=mend)
        seen: dict[tuple[str, str], int] = {}
        for i, principle in enumerate(self.principles):
            words = " ".join(principle.text.split())
            for key, value in (("id", principle.id), ("text", words)):
                first = seen.setdefault((key, value), i)
                if first != i:
                    mend = "remove one of them" if key == "text" else "choose another id"
                    what = f"the same as principles[{first}].{key}"
                    raise Fault(what, at=("principles", i, key), value=value, mend=mend)
        return self

    @classmethod
    def load(cls, path: str | Path) -> Constitution:
        """The constitution that a YAML file holds.

        Raises:
            ConstitutionError: the first fault, with file, line, key, value and mend.
        """
        return validate(cls, strict_yaml.read(path, ConstitutionError))

    def save(self, path: str | Path) -> None:
        """Write the constitution as YAML; `load` gives an equal one back."""
        data = self.model_dump(mode="json", exclude_defaults=True)
        Path(path).write_text(strict_yaml.dump(data), encoding="utf-8", newline="\n")

    @property
    def fingerprint(self) -> str:
        """Names what decides a pick: the principles' ids, texts, weights and vetoes, in order."""
        return fingerprint([[p.id, p.text, p.weight, p.veto] for p in self.principles])
