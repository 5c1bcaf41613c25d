"""How numbers read on the page. What does not exist is a dash, never a 0."""

from __future__ import annotations

import math
from typing import Any

from rlaif.report.figures import Fig, fig

DASH = "–"


def percent(value: Any) -> str:
    """A share of 1 as a percentage."""
    found = fig(value) if not isinstance(value, Fig) else value
    return DASH if found is None else f"{100 * found.value:.1f}\u00a0%"


def interval(value: Any) -> str:
    """The 95 % interval of a share; nothing where there is none."""
    found = fig(value) if not isinstance(value, Fig) else value
    if found is None or found.low is None or found.high is None:
        return ""
    return f"{100 * found.low:.1f} to {100 * found.high:.1f}\u00a0%"


def count(value: Any) -> str:
    """A whole number with its thousands apart."""
    return DASH if value is None else f"{round(value):,}"


def number(value: Any) -> str:
    """A measure with about three digits."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return DASH
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if size >= 10 else f"{value:.2f}" if size >= 1 else f"{value:.3f}"


def duration(seconds: Any) -> str:
    """Seconds as people say them."""
    if seconds is None:
        return DASH
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def money(value: Any) -> str:
    """An amount, in the unit of the recipe's prices."""
    if value is None:
        return DASH
    return f"{value:,.2f}" if value >= 0.1 or value == 0 else f"{value:.2g}"


def size(value: Any) -> str:
    """Bytes as people say them."""
    if value is None:
        return DASH
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError("unreachable")


def ratio(part: Any, whole: Any) -> str:
    """How often one number goes into another."""
    return DASH if not part or not whole else f"{part / whole:.2f}×"


FILTERS = {
    "percent": percent, "interval": interval, "count": count, "number": number,
    "duration": duration, "money": money, "size": size,
}  # fmt: skip
"""By the names that the template has for them."""
