"""What the world says about its own answers: verdicts, reasons, critiques, revisions, arguments.

Each form is a function of exact labels, so a text can be made right or, on purpose, wrong. The
sandbox's models learn these forms as the answers to the package's own templates.
"""

from __future__ import annotations

import random
import re

from rlaif.sandbox import phrases as say
from rlaif.sandbox import prompts as world
from rlaif.sandbox.answers import CORES, answer, traits
from rlaif.sandbox.principles import PREDICATES, Wish, kept

_OUTCOME = {
    True: "The principle is kept.",
    False: "The principle is broken.",
    None: "The principle does not apply.",
}


def verdict(wish: Wish, found: dict[str, bool]) -> bool:
    """Whether the principle is kept; one that does not apply is kept."""
    return kept(wish, found) is not False


def observation(attribute: str, present: bool) -> str:
    """One sentence that says of a response that it has an attribute, or lacks it."""
    p = PREDICATES[attribute]
    return f"The response does {p.has[0] if present else p.lacks[0]}."


def rationale(wish: Wish, found: dict[str, bool]) -> str:
    """The reasoning before a verdict: what the response does, and what follows from it."""
    outcome = kept(wish, found)
    if outcome is None:
        return _OUTCOME[None]
    return f"{observation(wish.attribute, found[wish.attribute])} {_OUTCOME[outcome]}"


def critique(wish: Wish, found: dict[str, bool], *, right: bool = True) -> str:
    """A critique under one principle; a wrong one reports the reverse of what the response does."""
    if right or wish.attribute not in found:
        return rationale(wish, found)
    return rationale(wish, {**found, wish.attribute: not found[wish.attribute]})


def revision(prompt: str, response: str, wish: Wish, rng: random.Random) -> str:
    """An answer that does what `response` does, except that it keeps the wish.

    Raises:
        ValueError: `prompt` is not one of the world's prompts.
    """
    found = traits(prompt, response)
    if found is None:
        raise ValueError(f"not a prompt of the sandbox: {prompt!r}")
    wishes = dict(found)
    if wish.attribute in wishes:
        wishes[wish.attribute] = wish.present
    return answer(prompt, wishes, rng)


def argument(prompt: str, response: str, wish: Wish, keeps: bool, rng: random.Random) -> str:
    """An argument that a response keeps (or breaks) a principle, whether or not it does.

    The side that is right points at the sentence that decides; the other side can only point at
    one that does not, which is what a careful reader of a debate can see.
    """
    found = traits(prompt, response) or {}
    truth = verdict(wish, found)
    side = "keeps" if keeps else "breaks"
    evidence = _evidence(response, wish) if truth == keeps else None
    if evidence is None and truth == keeps:
        return f"It says nothing of the kind, so it {side} the principle."
    quoted = evidence or rng.choice(_quotes(response) or ["nothing"])
    return f'It says "{quoted}" and so it {side} the principle.'


def _quotes(response: str) -> list[str]:
    """The sentences of a response as they stand."""
    return [quote.strip() for quote in re.findall(r"[^.?!]+[.?!]?", response) if quote.strip()]


def _evidence(response: str, wish: Wish) -> str | None:
    """The first sentence that shows the attribute; None where no sentence does."""
    said = {quote: tuple(world.words(quote)) for quote in _quotes(response)}
    manners = {m: {tuple(world.words(s)) for s in known} for m, known in say.MANNERS.items()}
    if wish.attribute in CORES.values():
        of_manners = set().union(*manners.values())
        return next((quote for quote, s in said.items() if s not in of_manners), None)
    shows = manners.get(wish.attribute, set())
    return next((quote for quote, s in said.items() if s in shows), None)


def debate(
    prompt: str, response: str, wish: Wish, rng: random.Random, first_keeps: bool = True
) -> str:
    """One round of a debate: an argument for each side, marked as such."""
    lines = []
    for keeps in (first_keeps, not first_keeps):
        label = "For" if keeps else "Against"
        lines.append(f"{label}: {argument(prompt, response, wish, keeps, rng)}")
    return "\n".join(lines)


def topic_examples(topic: str, n: int, rng: random.Random) -> list[str]:
    """`n` advice prompts on one topic, for the form that asks for another one."""
    return [world.draw(rng, "advice", topic) for _ in range(n)]
