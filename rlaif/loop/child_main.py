"""The main function of a short child: work that takes torch, so that the loop itself does not."""

from __future__ import annotations

import sys
from collections.abc import Callable

from rlaif import lifeline
from rlaif.errors import RlaifError


def child_main(work: Callable[[], object]) -> int:
    """Do the work and end with the parent at the latest.

    Returns:
        The exit status. 0: it is done; 2: the last line printed says why not.
    """
    lifeline.hold()
    try:
        work()
    except RlaifError as error:
        print(f"rlaif: {error}", file=sys.stderr)
        return 2
    return 0
