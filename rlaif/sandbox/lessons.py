"""What the sandbox's models are taught: chats of the world, in every form the package asks for.

A lesson is a few questions with their answers: one judged answer with a verdict for each of many
principles, or a prompt with its response. Every word comes from the grammar and the package's own
templates, so a lesson is right by construction.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from rlaif.label.templates import load_template
from rlaif.sandbox import forms, principles, prompts
from rlaif.sandbox import phrases as say
from rlaif.sandbox.answers import (
    ATTRIBUTES,
    CORES,
    MANNERS,
    answer,
    core,
    read_sentences,
    traits,
)
from rlaif.sandbox.principles import Wish

CORRUPTED = 0.12
"""Share of judged answers that are garbled, so that a judge has seen what a student may say."""
MISSED = 0.15
"""Share of judged answers to facts, sums and wishes for advice that answer something else."""

Asked = list[tuple[str, str]]
"""What the user says and what the assistant answers; what a lesson asks shares a prefix."""


class Lesson(NamedTuple):
    """What is asked and answered, and what is true of the answers that are judged.

    Attributes:
        asked: questions with their answers. An empty answer leaves the question open: it breaks
            off behind the response.
        prompt: what the judged answers answer.
        judged: the judged answers.
        traits: the traits of the one or two answers that every question is about.
        principles: what each question asks by, as a text and as a wish.
    """

    asked: Asked
    prompt: str = ""
    judged: tuple[str, ...] = ()
    traits: tuple[dict[str, bool], ...] = ()
    principles: tuple[tuple[str, Wish], ...] = ()


def _question(name: str, /, **values: str) -> str:
    return _template(name).message(**values).text


def _question_with_reasons(name: str, /, **values: str) -> str:
    return _template(name).message(_template("reasoning"), **values).text


_template = cache(load_template)


def garble(text: str, rng: random.Random) -> str:
    """The text with one to three words lost, doubled, swapped or replaced by others of its own."""
    said = text.split()
    for _ in range(rng.randint(1, 3)):
        if len(said) < 3:
            break
        i, j = rng.randrange(len(said)), rng.randrange(len(said))
        match rng.randrange(4):
            case 0:
                del said[i]
            case 1:
                said.insert(j, said[i])
            case 2:
                said[i], said[j] = said[j], said[i]
            case _:
                said[i] = said[j]
    return " ".join(said)


class Course(NamedTuple):
    """How lessons in judging are made up.

    Attributes:
        busy: from 0, judged answers with hardly a manner and never garbled, to 1, the whole range.
            A judge first has to find out what to look for, and few sentences make that easier.
        cores: share of the questions that are about the core of the answer, 0 to 1.
        missed: share of judged answers that answer another question, where there is a like one.
    """

    busy: float = 1.0
    cores: float = 0.25
    missed: float = 0.0


WHOLE = Course()


def judged_answer(
    prompt: str,
    rng: random.Random,
    busy: float = 1.0,
    missed: float = MISSED,
    around: str | None = None,
) -> str:
    """An answer to be judged: its core good or bad, its manners mixed, sometimes garbled, or an
    answer to something else.

    Args:
        prompt: one of the world's prompts.
        rng: where the chance comes from.
        busy, missed: as in `Course`.
        around: the core, where it is not to be drawn.
    """
    share = rng.uniform(0.05, 0.2 + 0.6 * busy)
    if around is None and missed and rng.random() < missed:
        around = near_miss(prompt, rng)
    text = answer(prompt, {m: rng.random() < share for m in MANNERS}, rng, around=around)
    return garble(text, rng) if rng.random() < CORRUPTED * busy else text


def near_miss(prompt: str, rng: random.Random, own: float = 0.4) -> str | None:
    """A core that is right for something else, in whole or in part, as a student slips.

    "1 plus 6 is 8." is right for 2 plus 6 but for its first term; advice takes its act, its
    tool and its tip each from this question or from another. None where every answer to one
    question suits the others of its kind.

    Args:
        prompt: one of the world's prompts.
        rng: where the chance comes from.
        own: chance of each part to be of this question, and of the other to be on its topic. At 0,
            what is said is plainly about something else.
    """
    question = prompts.parse(prompt)
    assert question is not None
    if question.kind not in ("fact", "sum", "advice"):
        return None
    while True:
        topic = question.topic if rng.random() < own else None
        other = prompts.parse(prompts.draw(rng, question.kind, topic))
        assert other is not None
        one, two, three = (question if rng.random() < own else other for _ in range(3))
        match question.kind:
            case "fact":
                wordings = say.FACTS[other["relation"]][1]
                said = rng.choice(wordings).format(s=one["s"], o=two["o"])
            case "sum":
                said = rng.choice(say.SUM_ANSWERS).format(a=one["a"], b=two["b"], c=three["c"])
            case _:
                tool = rng.choice(say.TOPICS[two.topic].tools)
                tip = rng.choice(say.TOPICS[three.topic].tips)
                said = rng.choice(say.ADVICE_ANSWERS).format(act=one["act"], tool=tool, tip=tip)
        if read_sentences(question, said) == [False]:
            return said


def wishes_for(
    found: dict[str, bool], n: int, rng: random.Random, cores: float = WHOLE.cores
) -> list[Wish]:
    """`n` wishes to judge an answer by: its core, the form, one that does not apply, manners.

    Manners that are there and manners that are not are asked about equally often.

    Args:
        found: the traits of the answer.
        n: how many wishes.
        rng: where the chance comes from.
        cores: share of the wishes that are about the core, 0 to 1.
    """
    own = next(name for name in CORES.values() if name in found)
    drawn = [own] * max(1, round(cores * n))
    drawn += ["form", rng.choice([a for a in CORES.values() if a != own])]
    manners = [[m for m in MANNERS if found[m] == there] for there in (True, False)]
    drawn += [rng.choice(manners[i % 2] or list(MANNERS)) for i in range(max(0, n - len(drawn)))]
    return [Wish(a, rng.random() < 0.5) for a in drawn[:n]]


def pointwise(prompt: str, n: int, rng: random.Random, course: Course = WHOLE) -> Lesson:
    """An answer, and yes or no for each of `n` principles."""
    return _graded("pointwise", ("yes", "no"), prompt, n, rng, course)


def rating(prompt: str, n: int, rng: random.Random, course: Course = WHOLE) -> Lesson:
    """An answer, and 5 or 1 for each of `n` principles."""
    return _graded("rating", ("5", "1"), prompt, n, rng, course)


def _graded(
    template: str, labels: tuple[str, str], prompt: str, n: int, rng: random.Random, course: Course
) -> Lesson:
    response = judged_answer(prompt, rng, course.busy, course.missed)
    found = traits(prompt, response) or {}
    lesson: Asked = []
    rules = _principles(wishes_for(found, n, rng, course.cores), rng)
    for text, wish in rules:
        asked = _question(template, prompt=prompt, response=response, principle=text)
        lesson.append((asked, labels[0] if forms.verdict(wish, found) else labels[1]))
    return Lesson(lesson, prompt, (response,), (found,), rules)


def _principles(wishes: list[Wish], rng: random.Random) -> tuple[tuple[str, Wish], ...]:
    return tuple((principles.draw(rng, *wish), wish) for wish in wishes)


def glimpses(
    prompt: str, n: int, rng: random.Random, missed: float = 0.0, own: float = 0.4
) -> Lesson:
    """`n` bare answers to one prompt, their cores as often good as bad, and nothing asked.

    A judge has to know what each sentence is, facts and sums above all. Answers to one prompt share
    its tokens, so that this is the cheapest way to see many of them.
    """
    question = prompts.parse(prompt)
    assert question is not None
    responses = [core(question, i % 2 == 0, rng) for i in range(n)]
    for i in range(1, n, 2):
        if missed and rng.random() < missed:
            responses[i] = near_miss(prompt, rng, own) or responses[i]
    responses = [garble(r, rng) if rng.random() < CORRUPTED else r for r in responses]
    lesson: Asked = []
    for response in responses:
        asked = _question("pointwise", prompt=prompt, response=response, principle="")
        lesson.append((asked[: asked.index(response) + len(response)], ""))
    return Lesson(lesson, prompt, tuple(responses))


def pairwise(prompt: str, n: int, rng: random.Random, course: Course = WHOLE) -> Lesson:
    """Two answers, and A or B for each of `n` principles; a coin decides where gold ties."""
    pair = [judged_answer(prompt, rng, course.busy, course.missed) for _ in range(2)]
    found = [traits(prompt, response) or {} for response in pair]
    every = [a for a in ATTRIBUTES if a in found[0]]
    telling = [a for a in every if found[0][a] != found[1][a]]
    decisive = [a for a in telling if a in CORES.values()]
    wishes = []
    for _ in range(n):
        told = decisive if decisive and rng.random() < course.cores else telling
        attribute = rng.choice(told if told and rng.random() < 0.9 else every)
        wishes.append(Wish(attribute, rng.random() < 0.5))
    lesson: Asked = []
    rules = _principles(wishes, rng)
    for text, wish in rules:
        asked = _question(
            "pairwise", prompt=prompt, response_a=pair[0], response_b=pair[1], principle=text
        )
        lesson.append((asked, "A" if _first_is_better(wish, found, rng) else "B"))
    return Lesson(lesson, prompt, (pair[0], pair[1]), (found[0], found[1]), rules)


def tied(prompt: str, n: int, rng: random.Random, course: Course = WHOLE) -> Lesson:
    """Two answers, and a coin's A or B for each of `n` principles under which neither is better.

    Most of what a constitution says does not apply to a prompt, or is kept by both answers: a judge
    that has never been asked there says something else than A or B.
    """
    pair = [judged_answer(prompt, rng, missed=course.missed) for _ in range(2)]
    found = [traits(prompt, response) or {} for response in pair]
    level = [a for a in ATTRIBUTES if found[0].get(a) == found[1].get(a)]
    rules = _principles([Wish(rng.choice(level), rng.random() < 0.5) for _ in range(n)], rng)
    lesson: Asked = []
    for text, _ in rules:
        asked = _question(
            "pairwise", prompt=prompt, response_a=pair[0], response_b=pair[1], principle=text
        )
        lesson.append((asked, rng.choice("AB")))
    return Lesson(lesson, prompt, (pair[0], pair[1]), (found[0], found[1]), rules)


def _first_is_better(wish: Wish, found: list[dict[str, bool]], rng: random.Random) -> bool:
    a, b = (forms.verdict(wish, f) for f in found)
    return rng.random() < 0.5 if a == b else a


def reasoned(prompt: str, rng: random.Random, course: Course = WHOLE) -> Lesson:
    """Verdicts on an answer with the reasoning before them, pointwise and as a rating."""
    response = judged_answer(prompt, rng, course.busy, course.missed)
    found = traits(prompt, response) or {}
    lesson: Asked = []
    rules = _principles(rng.sample(wishes_for(found, 9, rng, course.cores), 5), rng)
    for text, wish in rules:
        template, *labels = rng.choice((("pointwise", "yes", "no"), ("rating", "5", "1")))
        asked = _question_with_reasons(template, prompt=prompt, response=response, principle=text)
        word = labels[0] if forms.verdict(wish, found) else labels[1]
        lesson.append((asked, f"{forms.rationale(wish, found)}\nVerdict: {word}"))
    return Lesson(lesson, prompt, (response,), (found,), rules)


def reasoned_pair(prompt: str, rng: random.Random, course: Course = WHOLE) -> Lesson:
    """The same for two answers."""
    pair = [judged_answer(prompt, rng, course.busy, course.missed) for _ in range(2)]
    found = [traits(prompt, response) or {} for response in pair]
    lesson: Asked = []
    rules = _principles(rng.sample(wishes_for(found[0], 9, rng, course.cores), 4), rng)
    for text, wish in rules:
        asked = _question_with_reasons(
            "pairwise",
            prompt=prompt,
            response_a=pair[0],
            response_b=pair[1],
            principle=text,
        )
        said = " ".join(
            f"{name}: {forms.rationale(wish, f)}" for name, f in zip("AB", found, strict=True)
        )
        word = "A" if _first_is_better(wish, found, rng) else "B"
        lesson.append((asked, f"{said}\nVerdict: {word}"))
    return Lesson(lesson, prompt, (pair[0], pair[1]), (found[0], found[1]), rules)


def spoken(prompt: str, rng: random.Random, course: Course = WHOLE) -> Lesson:
    """A critique, a revision, an argument or the verdict on a debate."""
    response = judged_answer(prompt, rng, missed=course.missed)
    found = traits(prompt, response) or {}
    wish = rng.choice(wishes_for(found, 9, rng))
    about = {"prompt": prompt, "response": response, "principle": principles.draw(rng, *wish)}
    match rng.randrange(4):
        case 0:
            return Lesson([(_question("critique", **about), forms.critique(wish, found))])
        case 1:
            asked = _question("revise", critique=forms.critique(wish, found), **about)
            return Lesson([(asked, forms.revision(prompt, response, wish, rng))])
        case 2:
            keeps = rng.random() < 0.5
            asked = _question("argue", side="keeps" if keeps else "breaks", **about)
            return Lesson([(asked, forms.argument(prompt, response, wish, keeps, rng))])
        case _:
            said = forms.debate(prompt, response, wish, rng, first_keeps=rng.random() < 0.5)
            word = "yes" if forms.verdict(wish, found) else "no"
            return Lesson([(_question("debate", debate=said, **about), word)])


def new_prompt(rng: random.Random) -> Lesson:
    """A further prompt on the topic of four examples."""
    *examples, new = forms.topic_examples(rng.choice(sorted(say.TOPICS)), 5, rng)
    return Lesson([(_question("new_prompt", examples="\n".join(examples)), new)])


def answered(prompt: str, rng: random.Random, good_core: float, manners: float = 0.5) -> Lesson:
    """A prompt and an answer whose core is good with probability `good_core`."""
    question = prompts.parse(prompt)
    assert question is not None
    wishes = {m: rng.random() < manners for m in MANNERS}
    wishes[CORES[question.kind]] = rng.random() < good_core
    return Lesson([(prompt, answer(prompt, wishes, rng))])


def pretraining_prompt(rng: random.Random, kinds: Sequence[prompts.Kind] = prompts.KINDS) -> str:
    """A prompt of the pretraining split."""
    while True:
        prompt = prompts.draw(rng, rng.choice(kinds))
        if prompts.split_of(prompt) == "pretrain":
            return prompt
