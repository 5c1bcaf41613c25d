"""What the teacher says of the responses, a principle at a time: records in, verdicts added.

    sample → judge → (scores) → pick

Which questions a record gives is told here, and which verdicts their answers make; ask.py puts them
to the model. Pointwise and rating look at each response alone. Pairwise looks at two and is always
asked in both orders; if one order has no answer, neither has the pair.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, permutations

from rlaif.constitution import Principle
from rlaif.engines.protocol import Engine
from rlaif.label.ask import Answer, ask
from rlaif.label.method import Method, Mode, distinct
from rlaif.records import Chat, Record, Verdict

_View = tuple[int, int | None]  # the response shown; pairwise: shown as A, and the one shown as B
_Answers = Mapping[tuple[_View, str], Answer]  # by view and principle


def judge(
    records: Sequence[Record], engine: Engine, principles: Sequence[Principle], method: Method
) -> list[Record]:
    """The records with the verdicts on each response, or each pair, under each principle.

    All questions go to the engine in one call, those with a shared beginning side by side. Equal
    texts within a record, and principles of equal text, are asked about once and share the
    verdict. Pairwise verdicts are on responses i < j of different texts. Verdicts of the same
    form that a record has under these principles are replaced; others are kept.

    Raises:
        EngineError: a label word is not a single token of the model.
    """
    return judge_each([(record, principles) for record in records], engine, method)


def judge_each(
    asked: Sequence[tuple[Record, Sequence[Principle]]], engine: Engine, method: Method
) -> list[Record]:
    """As `judge`, each record under principles of its own.

    Raises:
        EngineError: a label word is not a single token of the model.
    """
    jobs = [
        (record, _views(record, method.mode), distinct(principles)) for record, principles in asked
    ]
    chats = [
        _question(record, view, principle, method)
        for record, views, principles in jobs
        for view in views
        for principle in principles
    ]
    answers = iter(ask(chats, engine, method))
    judged = []
    for record, views, principles in jobs:
        by_view = {(v, p.fingerprint): next(answers) for v in views for p in principles}
        judged.append(_with_verdicts(record, by_view, principles, method.mode))
    return judged


def _views(record: Record, mode: Mode) -> list[_View]:
    """What is shown to the judge of a record: each distinct text, or two of them in each order."""
    places = sorted(set(_first_places(record)))
    return list(permutations(places, 2)) if mode == "pairwise" else [(i, None) for i in places]


def _first_places(record: Record) -> list[int]:
    """For each response, the index of the first one with its text."""
    texts = [response.text for response in record.responses]
    return [texts.index(text) for text in texts]


def _question(record: Record, view: _View, principle: Principle, method: Method) -> Chat:
    first, second = (None if i is None else record.responses[i].text for i in view)
    assert first is not None
    return method.question(record.prompt, principle.text, first, second)


def _with_verdicts(
    record: Record,
    answers: _Answers,
    principles: Sequence[Principle],
    mode: Mode,
) -> Record:
    pairwise, new = mode == "pairwise", {p.fingerprint for p in principles}
    kept = [
        v for v in record.verdicts if v.principle not in new or (v.other is not None) != pairwise
    ]
    verdicts = _on_pairs if pairwise else _on_responses
    fresh = [v for p in principles for v in verdicts(record, p.fingerprint, answers)]
    return record.with_(verdicts=(*kept, *fresh))


def _on_responses(record: Record, principle: str, answers: _Answers) -> Iterator[Verdict]:
    for i, place in enumerate(_first_places(record)):
        a = answers[(place, None), principle]
        yield Verdict(
            principle, i, None, a.log_odds, a.coverage, reason=a.reason, rationale=a.rationale
        )


def _on_pairs(record: Record, principle: str, answers: _Answers) -> Iterator[Verdict]:
    places = _first_places(record)
    for i, j in combinations(range(len(places)), 2):
        a, b = places[i], places[j]
        if a != b:
            yield _both_orders(
                principle, i, j, answers[(a, b), principle], answers[(b, a), principle]
            )


def _both_orders(principle: str, i: int, j: int, one: Answer, two: Answer) -> Verdict:
    """The verdict on i over j, from i shown as A (`one`) and j shown as A (`two`).

    In both, the log-odds are those of the response shown as A. A liking for the place A adds the
    same to each, so half the difference is free of it, and the sum is twice that liking. Both
    rationales are kept, a blank line between them.
    """
    coverage = min(one.coverage, two.coverage)
    rationale = "\n\n".join(x.rationale for x in (one, two) if x.rationale) or None
    if one.log_odds is None or two.log_odds is None:
        reason = one.reason or two.reason
        return Verdict(principle, i, j, None, coverage, reason=reason, rationale=rationale)
    over, gap = (one.log_odds - two.log_odds) / 2, one.log_odds + two.log_odds
    return Verdict(principle, i, j, over, coverage, gap, rationale=rationale)
