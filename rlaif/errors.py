"""What a user is told when something is wrong: what, where, the value, the mend, on one line.

Every error of the package descends from `RlaifError` and also from the standard error it stands
for, so that ``except ValueError`` keeps working in code that does not know of this package.
"""

from __future__ import annotations

from pathlib import Path

_UNSET = object()
_LONGEST_VALUE = 80


class RlaifError(Exception):
    """The root of all errors that a user can cause.

    Args:
        what: the fault, in a few words.
        file: the file it was found in.
        line: the line in that file, counted from 1.
        key: the key, column or option that holds the fault, dotted where nested.
        value: what was found there; shown by `repr`, shortened.
        mend: what to do about it.
    """

    def __init__(
        self,
        what: str,
        *,
        file: str | Path | None = None,
        line: int | None = None,
        key: str | None = None,
        value: object = _UNSET,
        mend: str | None = None,
    ) -> None:
        self.what, self.file, self.line, self.key, self.mend = what, file, line, key, mend
        self.value = None if value is _UNSET else value
        where = "" if file is None else f"{file}:{line}: " if line is not None else f"{file}: "
        message = f"{where}{key}: {what}" if key else f"{where}{what}"
        if value is not _UNSET:
            shown = repr(value)
            if len(shown) > _LONGEST_VALUE:
                shown = f"{shown[: _LONGEST_VALUE - 1]}…"
            message += f" (got {shown})"
        if mend:
            message += f"; {mend}"
        super().__init__(" ".join(message.split()))


class ConstitutionError(RlaifError, ValueError):
    """A constitution file that cannot be used."""


class RecipeError(RlaifError, ValueError):
    """A recipe, or an option on the command line, that cannot be used."""


class DataError(RlaifError, ValueError):
    """Prompts or records that cannot be used."""


class EngineError(RlaifError, RuntimeError):
    """A model, its tokenizer or its engine that cannot do what a stage asks of it."""


class JournalError(RlaifError, RuntimeError):
    """A run folder that cannot be read, written or continued."""


class TrainError(RlaifError, RuntimeError):
    """A training run that cannot start or go on."""


class GateError(RlaifError, ValueError):
    """A judge that falls short of what the recipe asks of it."""

    scorecard: object = None
    """What was measured (rlaif.evaluate.scorecard.Scorecard), to be shown with the error."""


class BudgetError(RlaifError, RuntimeError):
    """A run that would spend more than its recipe allows; it can be gone on with."""


class PublishError(RlaifError, RuntimeError):
    """What a run has made could not be put on the hub; it is all there, and can be put again."""


class MissingExtraError(RlaifError, ImportError):
    """An optional dependency that a step needs.

    Args:
        step: what was asked for.
        extra: the name of the extra that brings it.
    """

    def __init__(self, step: str, extra: str) -> None:
        super().__init__(f"{step} needs an extra", mend=f"pip install 'rlaif[{extra}]'")
