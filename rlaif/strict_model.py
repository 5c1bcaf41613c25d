"""Plain data → a frozen model, and pydantic's findings → one line that names place and mend.

Under constitution.py and recipe.py. Nothing is guessed: text is not read as a number, a number is
not read as text, true is not 1, and an unknown key is a fault that names the key that was meant.
"""

from __future__ import annotations

import difflib
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

from rlaif.errors import RlaifError
from rlaif.strict_yaml import Document, Keys, Place, dotted

T = TypeVar("T")
M = TypeVar("M", bound="StrictModel")

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
"""Text that says something. Space around it is dropped, so that ``text: |`` and ``text: …`` are
the same text."""

Many = Annotated[tuple[T, ...], Field(strict=False)]
"""A list in YAML, a list or a tuple in Python; a tuple from then on."""

_UNSET = object()


class Fault(ValueError):
    """What a validator raises: the fault, where below the validated value it is, and the mend."""

    def __init__(self, what: str, *, mend: str, at: Keys = (), value: object = _UNSET) -> None:
        super().__init__(what)
        self.what, self.mend, self.at, self.value = what, mend, at, value


class StrictModel(BaseModel):
    """A frozen section of a file, checked alike from YAML and from Python.

    ``class Sample(StrictModel, error=RecipeError)`` raises a RecipeError for the first fault.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
    error_class: ClassVar[type[RlaifError]]

    def __init_subclass__(cls, *, error: type[RlaifError], **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.error_class = error

    def __init__(self, /, **data: Any) -> None:
        try:
            super().__init__(**data)
        except ValidationError as e:
            raise _error(type(self), e, None) from None

    # As pydantic marks its own `__init__`: nested sections are then validated from the outermost
    # one, which alone knows the whole way to a fault.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @model_validator(mode="before")
    @classmethod
    def _only_known_keys(cls, data: object) -> object:
        if isinstance(data, dict):
            for key, value in data.items():
                if key not in cls.model_fields:
                    mend = _did_you_mean(str(key), list(cls.model_fields))
                    raise Fault("unknown key", at=(key,), value=value, mend=mend)
        return data


def validate(model: type[M], document: Document) -> M:
    """The document as a `model`.

    Raises:
        RlaifError: of the model's `error_class`, for the first fault in the file: file, line,
            dotted key, value and mend.
    """
    try:
        folder = document.file.parent.resolve()
        return model.model_validate(document.data, context={"folder": folder})
    except ValidationError as e:
        raise _error(model, e, document) from None


def _error(model: type[StrictModel], e: ValidationError, document: Document | None) -> RlaifError:
    """The fault that comes first in the file, as this package tells it."""
    found = [_located(details) for details in e.errors()]
    if document is None:
        keys, details = found[0]
        return model.error_class(key=dotted(keys) or None, **_words(details, None))
    keys, details = min(found, key=lambda one: document.line(one[0]))
    words = _words(details, document.places.get(keys))
    return model.error_class(
        file=document.file, line=document.line(keys), key=dotted(keys) or None, **words
    )


def _located(details: ErrorDetails) -> tuple[Keys, ErrorDetails]:
    fault = details.get("ctx", {}).get("error")
    return (*details["loc"], *(fault.at if isinstance(fault, Fault) else ())), details


def _words(details: ErrorDetails, place: Place | None) -> dict[str, Any]:
    """The arguments `what`, `value` and `mend` of an error, for one finding of pydantic."""
    kind, value, context = details["type"], details["input"], details.get("ctx", {})
    fault = context.get("error")
    if isinstance(fault, Fault):
        shown = {} if fault.value is _UNSET else {"value": fault.value}
        return {"what": fault.what, "mend": fault.mend, **shown}
    if kind == "missing":
        return {"what": "missing", "mend": "add this key"}
    must = details["msg"].replace("Input should be", "it must be")
    what, mend = _PHRASES.get(kind, ("out of range", must))
    if kind == "literal_error":
        mend = f"write {context['expected']}"
    if kind in _NUMBERS and isinstance(value, str):
        mend += ", without quotes"
    if kind == "string_type" and place and place.text is not None and value is not None:
        mend = f'write it in quotes: "{place.text}"'
    return {"what": what, "value": value, "mend": mend}


_NUMBERS = ("int_type", "float_type")
_PHRASES = {
    "string_type": ("not text", "write text"),
    "string_too_short": ("empty", "write something, or remove the key if it is optional"),
    "string_unicode": ("not text that UTF-8 can hold", "remove the lone surrogate"),
    "int_type": ("not a whole number", "write a whole number"),
    "int_from_float": ("not a whole number", "write a whole number"),
    "float_type": ("not a number", "write a number"),
    "finite_number": ("not a finite number", "write a finite number"),
    "bool_type": ("not true or false", "write true or false"),
    "path_type": ("not a path", "write a path"),
    "tuple_type": ("not a list", "write a list: one item a line, each after `- `"),
    "model_type": ("not a mapping", "write `key: value` lines below it, or remove it"),
    "dict_type": ("not a mapping", "write `key: value` lines"),
    "literal_error": ("not one of the choices", ""),
}


def _did_you_mean(key: str, known: list[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(known)}"
