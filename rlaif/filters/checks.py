"""What a critic asks of one response: does it surely keep each check? Called by critic.py.

A check is a principle like any other. One that the critic says is broken, or cannot decide on, is
a fault: silence is no approval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rlaif.constitution import Principle
from rlaif.engines.protocol import Engine
from rlaif.label.judge import judge_each
from rlaif.label.method import Method
from rlaif.records import Chat, Record, Response

Fault = tuple[str, str]
"""Why a label is dropped, in words that many share, and the detail."""

ABSTAINED = "critic abstained"


def first_faults(
    answers: Sequence[tuple[Chat, str]],
    checks: Sequence[Principle],
    engine: Engine,
    method: Method,
) -> list[Fault | None]:
    """For each answer, the first check that it does not surely keep; None where it keeps all.

    Args:
        answers: prompts and responses.
        checks: what each response must keep; without any, nothing is asked.
        engine: the critic.
        method: how it is asked about one response: pointwise or rating.

    Raises:
        EngineError: a label word is not a single token of the model.
    """
    if not checks:
        return [None] * len(answers)
    records = [
        Record(str(i), prompt, (Response(text, len(text.split()), "stop"),))
        for i, (prompt, text) in enumerate(answers)
    ]
    judged = judge_each([(record, checks) for record in records], engine, method)
    names = {check.fingerprint: check.id for check in reversed(checks)}
    return [_first_fault(record, names) for record in judged]


def _first_fault(record: Record, names: Mapping[str, str]) -> Fault | None:
    for verdict in record.verdicts:
        name = names[verdict.principle]
        if verdict.log_odds is None:
            return ABSTAINED, f"{name}: {verdict.reason}"
        if verdict.log_odds <= 0:
            return f"critic: breaks {name}", f"log-odds {verdict.log_odds:.2f}"
    return None
