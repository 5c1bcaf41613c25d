"""The kinds of number that sections of a recipe are made of, and what several of them refuse."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from rlaif.strict_model import Fault

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
LogOdds = Annotated[float, Field(ge=0)]
Clip = Annotated[float, Field(gt=0, lt=0.5)]
Temperature = Annotated[float, Field(ge=0)]
Money = Annotated[float, Field(ge=0)]


def refuse_equal_responses(n: int, temperature: float) -> None:
    """Several responses at temperature 0 are one response."""
    if n > 1 and temperature == 0:
        mend = "raise the temperature, or set n to 1"
        raise Fault(f"makes all {n} responses the same", at=("temperature",), value=0, mend=mend)


def refuse_no_or_two_sources(path: str | None, dataset: str | None) -> None:
    """Texts come from one place."""
    if (path is None) == (dataset is None):
        found = "neither `path` nor `dataset`" if path is None else "two sources"
        raise Fault(found, mend="give exactly one of `path` and `dataset`")
