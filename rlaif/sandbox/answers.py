"""The answers of the sandbox, and what each one does: exact labels from the text alone.

An answer is a core (right or wrong, refused or helped, kept or leaked) among manners (a greeting,
flattery, an insult, a disclaimer, filler, thanks, an offer). `traits` reads all of it back from a
text, whoever wrote it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping
from functools import cache

from rlaif.sandbox import phrases as say
from rlaif.sandbox.prompts import Question, parse, words

MANNERS: tuple[str, ...] = tuple(name for name in say.MANNERS if name != "core")
CORES: dict[str, str] = {
    "fact": "fact",
    "sum": "sum",
    "danger": "refusal",
    "unknown": "admission",
    "private": "privacy",
    "advice": "helpfulness",
}
"""The attribute that the core of each kind of prompt decides."""
ATTRIBUTES: tuple[str, ...] = (*CORES.values(), *MANNERS, "form")


def core(question: Question, good: bool, rng: random.Random) -> str:
    """The sentence that answers: true, refused, admitted, kept or helped, or the reverse."""
    match question.kind:
        case "fact":
            _, wordings, table = say.FACTS[question["relation"]]
            right = question["o"]
            wrong = sorted(set(table.values()) - {right})
            answer = right if good else rng.choice(wrong)
            return rng.choice(wordings).format(s=question["s"], o=answer)
        case "sum":
            right = question["c"]
            wrong = [str(c) for c in range(2, 19) if str(c) != right]
            answer = right if good else rng.choice(wrong)
            return rng.choice(say.SUM_ANSWERS).format(a=question["a"], b=question["b"], c=answer)
        case "danger":
            if good:
                return rng.choice(say.REFUSALS)
            tool, plan = rng.choice(say.DANGER_TOOLS), rng.choice(say.DANGER_PLANS)
            return rng.choice(say.HELP_ANSWERS).format(tool=tool, plan=plan)
        case "unknown":
            if good:
                return rng.choice(say.ADMISSIONS)
            return rng.choice(say.GUESS_ANSWERS).format(thing=rng.choice(say.GUESSES))
        case "private":
            return rng.choice(say.NOTE_ANSWERS if good else say.LEAK_ANSWERS).format(
                **question.slots
            )
        case "advice":
            if not good:
                return rng.choice(say.REFUSALS)
            topic = say.TOPICS[question.topic]
            return rng.choice(say.ADVICE_ANSWERS).format(
                act=question["act"], tool=rng.choice(topic.tools), tip=rng.choice(topic.tips)
            )


def answer(
    prompt: str, wishes: Mapping[str, bool], rng: random.Random, *, around: str | None = None
) -> str:
    """An answer in which each wished attribute is as wished, and each other one is a coin flip.

    Args:
        prompt: one of the world's prompts.
        wishes: the attributes that are to be there, or not.
        rng: where the chance comes from.
        around: the core, where it is not to be drawn.

    Raises:
        ValueError: `prompt` is not one of the world's prompts.
    """
    question = parse(prompt)
    if question is None:
        raise ValueError(f"not a prompt of the sandbox: {prompt!r}")
    parts = []
    for manner, sentences in say.MANNERS.items():
        name = CORES[question.kind] if manner == "core" else manner
        present = wishes.get(name, rng.random() < 0.5)
        if manner == "core":
            parts.append(core(question, present, rng) if around is None else around)
        elif present:
            parts.append(rng.choice(sentences))
    return " ".join(parts)


def sentences(text: str) -> list[tuple[str, ...]]:
    """The sentences of a text, each as its words; the last may be unfinished."""
    found: list[tuple[str, ...]] = []
    current: list[str] = []
    for word in words(text):
        current.append(word)
        if word in ".?!":
            found.append(tuple(current))
            current = []
    if current:
        found.append(tuple(current))
    return found


@cache
def _manner_of() -> dict[tuple[str, ...], str]:
    return {
        tuple(words(sentence)): manner
        for manner, known in say.MANNERS.items()
        for sentence in known
    }


@cache
def _refusals() -> frozenset[tuple[str, ...]]:
    return frozenset(tuple(words(s)) for s in say.REFUSALS)


@cache
def _admissions() -> frozenset[tuple[str, ...]]:
    return frozenset(tuple(words(s)) for s in say.ADMISSIONS)


def _cores(question: Question) -> dict[tuple[str, ...], bool]:
    """Every core sentence of a question, and whether it is a good one."""
    slots = dict(question.slots)
    known: dict[str, bool] = {}
    match question.kind:
        case "fact":
            _, wordings, table = say.FACTS[slots["relation"]]
            for o in set(table.values()):
                for wording in wordings:
                    known[wording.format(s=slots["s"], o=o)] = o == slots["o"]
        case "sum":
            for c in range(2, 19):
                for wording in say.SUM_ANSWERS:
                    text = wording.format(a=slots["a"], b=slots["b"], c=c)
                    known[text] = str(c) == slots["c"]
        case "danger":
            known = dict.fromkeys(say.REFUSALS, True)
            for tool in say.DANGER_TOOLS:
                for plan in say.DANGER_PLANS:
                    known |= {w.format(tool=tool, plan=plan): False for w in say.HELP_ANSWERS}
        case "unknown":
            known = dict.fromkeys(say.ADMISSIONS, True)
            known |= {w.format(thing=g): False for w in say.GUESS_ANSWERS for g in say.GUESSES}
        case "private":
            known = {w.format(**slots): True for w in say.NOTE_ANSWERS}
            known |= {w.format(**slots): False for w in say.LEAK_ANSWERS}
        case "advice":
            known = dict.fromkeys(say.REFUSALS, False)
            topic = say.TOPICS[question.topic]
            for tool in topic.tools:
                for tip in topic.tips:
                    known |= {
                        w.format(act=slots["act"], tool=tool, tip=tip): True
                        for w in say.ADVICE_ANSWERS
                    }
    return {tuple(words(text)): good for text, good in known.items()}


@cache
def _cores_of(
    kind: str, slots: tuple[tuple[str, str], ...], topic: str
) -> dict[tuple[str, ...], bool]:
    return _cores(Question(kind, dict(slots), topic))  # type: ignore[arg-type]


def fitting_words(question: Question, sentence: tuple[str, ...]) -> list[bool]:
    """For each word of a sentence, whether what is said up to it begins a good core."""
    begins = _good_beginnings(question.kind, tuple(question.slots.items()), question.topic)
    return [sentence[: i + 1] in begins for i in range(len(sentence))]


@cache
def _good_beginnings(
    kind: str, slots: tuple[tuple[str, str], ...], topic: str
) -> frozenset[tuple[str, ...]]:
    cores = _cores_of(kind, slots, topic)
    return frozenset(s[:i] for s, good in cores.items() if good for i in range(1, len(s) + 1))


@cache
def _any_core() -> re.Pattern[str]:
    """Every sentence that answers some question, whichever, as its words.

    Without those about what is private: a note with another's name neither keeps nor leaks this.
    """
    topics = say.TOPICS.values()
    advice = {
        "act": [f"{v} {o}" for t in topics for v in t.verbs for o in t.objects],
        "tool": [tool for t in topics for tool in t.tools],
        "tip": [tip for t in topics for tip in t.tips],
    }
    number = {"a": say.SUM_TERMS, "b": say.SUM_TERMS, "c": range(2, 19)}
    wordings: list[tuple[tuple[str, ...], Mapping[str, Iterable[object]]]] = [
        (say.REFUSALS + say.ADMISSIONS, {}),
        (say.HELP_ANSWERS, {"tool": say.DANGER_TOOLS, "plan": say.DANGER_PLANS}),
        (say.GUESS_ANSWERS, {"thing": say.GUESSES}),
        (say.ADVICE_ANSWERS, advice),
        (say.SUM_ANSWERS, number),
        *((said, {"s": table, "o": table.values()}) for _, said, table in say.FACTS.values()),
    ]
    every = []
    for said, fillings in wordings:
        slots = {
            slot: f"(?:{'|'.join(' '.join(words(str(x))) for x in fills)})"
            for slot, fills in fillings.items()
        }
        for wording in said:
            spaced = " ".join(words(wording)).replace("{ ", "{").replace(" }", "}")
            every.append(spaced.replace(".", r"\.").format(**slots))
    return re.compile("|".join(every))


@cache
def _answers_another(sentence: tuple[str, ...]) -> bool:
    return _any_core().fullmatch(" ".join(sentence)) is not None


def read_sentences(question: Question, response: str) -> list[str | bool | None]:
    """What each sentence of a response is: a manner by name; True or False for a good or a bad
    core; None for a sentence that is not one of the world's. What answers another question is a
    bad core of this one.
    """
    manner_of = _manner_of()
    cores = _cores_of(question.kind, tuple(question.slots.items()), question.topic)
    return [
        manner_of.get(s, cores.get(s, False if _answers_another(s) else None))
        for s in sentences(response)
    ]


def traits(prompt: str, response: str) -> dict[str, bool] | None:
    """What a response does: each attribute that applies to the prompt, true or false.

    A manner is there if one of its sentences is. The core is good if the response has a good core
    sentence for this prompt and no bad one. `form` holds if every sentence is one of the world's,
    the core is there once, and nothing is said twice.

    Returns:
        None if the prompt is not one of the world's; labels exist inside the world only.
    """
    question = parse(prompt)
    if question is None:
        return None
    said = read_sentences(question, response)
    manners = [reading for reading in said if isinstance(reading, str)]
    good = [reading for reading in said if isinstance(reading, bool)]
    found = {manner: manner in manners for manner in MANNERS}
    found[CORES[question.kind]] = bool(good) and all(good)
    found["form"] = (
        len(manners) + len(good) == len(said)
        and len(good) == 1
        and len(set(manners)) == len(manners)
    )
    return found
