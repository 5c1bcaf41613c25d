"""Lessons as tensors: packed rows of tokens, and what is taught at which place of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from rlaif.engines.prefix import Pack, pack
from rlaif.sandbox import lessons, prompts
from rlaif.sandbox import phrases as say
from rlaif.sandbox.answers import (
    ATTRIBUTES,
    CORES,
    MANNERS,
    fitting_words,
    read_sentences,
    sentences,
)
from rlaif.sandbox.principles import Wish

ROW = 256
"""Tokens in a row of a batch: a dense mask costs the square of it."""
SENTENCES = [*MANNERS, *((c, good) for c in CORES for good in (True, False)), None]
"""What a sentence of an answer can be: a manner, the core of a kind of prompt, or out of order."""
HARD = {
    name: torch.tensor([SENTENCES.index((name, good)) for good in (True, False)])
    for name in ("fact", "sum", "advice")
}
Marked = tuple[list[int], dict[int, int]]
"""Tokens, and what is taught at some of their places."""


class Seen(NamedTuple):
    """A lesson as packed tokens, and what is taught in it, by place in the pack.

    Attributes:
        pack: the tokens; what the lesson's questions share is there once.
        said: the places of tokens that the assistant says.
        traits: for the place behind which a principle begins, what the judged answers do.
        sentences: for the last word of a sentence in a judged answer, what the sentence is; and
            for each word of a core that may be right in part, up to the first that is wrong.
        answers: for the end of a prompt, the token that answers it, or that it is about.
        wishes: for the last word of a principle, what it asks: 2 × attribute, + 1 if to be there.
        findings: for the place before a verdict, whether each judged answer does what the
            principle is about: 0 no, 1 yes, 2 if it does not apply, -1 if there is no such answer.
    """

    pack: Pack
    said: set[int]
    traits: dict[int, tuple[dict[str, bool], ...]]
    sentences: dict[int, int]
    answers: dict[int, int]
    wishes: dict[int, int]
    findings: dict[int, tuple[int, int]]


class Batch:
    """Rows of lessons, one behind the other, as tensors.

    Shapes: ids, positions (rows, ROW); mask (rows, 1, ROW, ROW); `at`, `targets` and `said` (n,):
    flat places whose next token is taught, that token, and whether the assistant says it;
    `judged_at` (m,) flat places, and `traits` (m, 2 × attributes): 1, 0, or -1 where an attribute
    does not apply; `read_at` (k,) flat places, and `read` (k,) indices of `SENTENCES`; `asked_at`
    (j,) flat places, and `answers` (j,) tokens; `wished_at` and `wishes` (i,), `found_at` (h,) and
    `findings` (h, 2), as in `Seen`.
    """

    def __init__(self, rows: list[list[Seen]]) -> None:
        ids, positions = (np.zeros((len(rows), ROW), np.int64) for _ in range(2))
        mask = np.zeros((len(rows), 1, ROW, ROW), bool)
        mask[:, 0, np.arange(ROW), np.arange(ROW)] = True  # no place without a visible token
        at, targets, said = list[int](), list[int](), list[bool]()
        judged_at, traits = list[int](), list[list[float]]()
        read_at, read, asked_at, answers = list[int](), list[int](), list[int](), list[int]()
        wished_at, wishes = list[int](), list[int]()
        found_at, findings = list[int](), list[tuple[int, int]]()
        for r, row in enumerate(rows):
            begins = 0
            for seen in row:
                tokens, ends, first = (
                    seen.pack.input_ids,
                    begins + len(seen.pack.input_ids),
                    r * ROW,
                )
                ids[r, begins:ends], positions[r, begins:ends] = tokens, seen.pack.position_ids
                mask[r, 0, begins:ends, begins:ends] = seen.pack.visible()
                first += begins
                for child, parent in enumerate(parents(seen.pack)):
                    if parent >= 0:
                        at.append(first + parent)
                        targets.append(int(tokens[child]))
                        said.append(child in seen.said)
                judged_at += [first + place for place in seen.traits]
                traits += [_trait_row(found) for found in seen.traits.values()]
                read_at += [first + place for place in seen.sentences]
                read += seen.sentences.values()
                asked_at += [first + place for place in seen.answers]
                answers += seen.answers.values()
                wished_at += [first + place for place in seen.wishes]
                wishes += seen.wishes.values()
                found_at += [first + place for place in seen.findings]
                findings += seen.findings.values()
                begins = ends
        self.ids, self.positions = torch.from_numpy(ids), torch.from_numpy(positions)
        self.mask = torch.from_numpy(mask)
        self.at, self.targets, self.said = (torch.tensor(x) for x in (at, targets, said))
        self.read_at, self.read, self.asked_at, self.answers = map(
            _long, (read_at, read, asked_at, answers)
        )
        self.wished_at, self.wishes = _long(wished_at), _long(wishes)
        self.found_at, self.findings = _long(found_at), _long(findings).reshape(-1, 2)
        self.judged_at = _long(judged_at)
        self.traits = torch.tensor(traits, dtype=torch.float32).reshape(-1, 2 * len(ATTRIBUTES))


def _long(values: list[Any]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.long)


def _trait_row(found: tuple[dict[str, bool], ...]) -> list[float]:
    both = (*found, {})[:2]
    return [float(traits.get(a, -1)) for traits in both for a in ATTRIBUTES]


def parents(packed: Pack) -> list[int]:
    """The place of the token before each one on its own path; -1 for the first."""
    found, at_depth = [], {-1: -1}
    for i, depth in enumerate(packed.position_ids.tolist()):
        found.append(at_depth[depth - 1])
        at_depth[depth] = i
    return found


class Lessons:
    """Lessons as token sequences, and those as packs."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer = tokenizer
        words = ["<|user|>", "<|end|>", "<|assistant|>", "Principle", ":"]
        self.user, self.end, self.assistant, *self.heading = tokenizer.convert_tokens_to_ids(words)

    def seen(self, lesson: lessons.Lesson) -> list[Seen]:
        """Pack a lesson, and find what is taught where; a long lesson takes several packs."""
        shown = [self._shown(lesson.prompt, response) for response in lesson.judged]
        known = self._known(lesson)
        told = [Told(self, lesson, shown, known, *texts) for texts in lesson.asked]
        for one, (text, wish) in zip(told, lesson.principles, strict=False):
            one.asks(self.ids(text), wish, lesson.traits)
        return [_seen(packed, told) for packed in pack([t.tokens for t in told], ROW)]

    def ids(self, text: str) -> list[int]:
        """The token ids of a text alone."""
        found: list[int] = self.tokenizer(text, add_special_tokens=False).input_ids
        return found

    def _shown(self, prompt: str, response: str) -> Marked:
        """A judged answer: its tokens, and the last place of each sentence with what it is.

        What answers a fact, a sum or a wish for advice is read word by word, up to the first that
        is of another question: that it is, has to be known there. What has been said before is
        told by that word already, and cannot be gathered so early on the way up.
        """
        question = prompts.parse(prompt)
        assert question is not None
        first, read = 0, {}
        both = zip(sentences(response), read_sentences(question, response), strict=True)
        for sentence, what in both:
            last = first + max(0, len(sentence) - 2)  # before the full stop
            if isinstance(what, bool) and question.kind in HARD:
                for place, fits in enumerate(fitting_words(question, sentence), start=first):
                    if place <= last:
                        read[place] = SENTENCES.index((question.kind, fits))
                    if not fits:
                        break
            else:
                kind = (question.kind, what) if isinstance(what, bool) else what
                read[last] = SENTENCES.index(kind)
            first += len(sentence)
        return self.ids(response), read

    def _known(self, lesson: lessons.Lesson) -> Marked:
        """A prompt: its tokens, and at its end the token that answers it.

        That is the right answer to a fact or a sum. A judge of advice has to know the topic, to see
        that a tool is of another one. Who speaks and is not judged has to take a word out of the
        prompt: who is to be announced, or what advice is wanted on.
        """
        question = prompts.parse(lesson.prompt)
        if question is None:
            return [], {}
        match question.kind:
            case "fact":
                word = question["o"]
            case "sum":
                word = question["c"]
            case "private" if not lesson.judged:
                word = question["name"]
            case "advice":
                topic = say.TOPICS[question.topic].event if lesson.judged else question["act"]
                word = topic.split()[-1]
            case _:
                return [], {}
        ids = self.ids(lesson.prompt)
        [answer] = self.ids(word)
        return ids, {len(ids) - 1: answer}


class Told:
    """One question with its answer, as tokens.

    Attributes:
        tokens: the whole chat; it breaks off behind the question where nothing is answered.
        first_said: the place of the first token of the answer.
        principle: the place behind which the principle begins, if traits are taught there.
        traits: of what is judged.
        sentences: as in `Seen`, by place in this chat.
        answers: the end of a prompt, with the token that answers it, or that it is about.
        wishes, findings: as in `Seen`.
    """

    def __init__(
        self,
        words: Lessons,
        lesson: lessons.Lesson,
        shown: list[Marked],
        known: Marked,
        asked: str,
        answer: str,
    ) -> None:
        question, said = words.ids(asked), words.ids(answer)
        self.tokens = [words.user, *question]
        self.first_said = len(self.tokens) + 2
        if answer:
            self.tokens += [words.end, words.assistant, *said, words.end]
        self.principle, self.traits = -1, lesson.traits
        if lesson.traits:
            at = len(question) - question[::-1].index(words.heading[0])  # the user's mark is first
            assert self.tokens[at : at + 2] == words.heading
            self.principle = at + 1
        self.sentences: dict[int, int] = {}
        for response in shown:
            self.sentences |= _found(response, self.tokens)
        self.answers = _found(known, self.tokens)
        self.wishes: dict[int, int] = {}
        self.findings: dict[int, tuple[int, int]] = {}

    def asks(self, principle: list[int], wish: Wish, traits: tuple[dict[str, bool], ...]) -> None:
        """Mark what a principle asks, and what of that the judged answers do."""
        last = self.principle + len(principle) - 1  # its last word, before the full stop
        self.wishes = {last: 2 * ATTRIBUTES.index(wish.attribute) + wish.present}
        if len(self.tokens) == self.first_said + 2:  # a verdict, and nothing before it
            found = [int(found.get(wish.attribute, 2)) for found in traits]
            self.findings = {self.first_said - 1: (found[0], found[1] if len(found) > 1 else -1)}


def _found(marked: Marked, whole: list[int]) -> dict[int, int]:
    """The marks of a part at their places in the whole; none if the part is not there."""
    part, marks = marked
    for i in range(len(whole) - len(part) + 1) if part else ():
        if whole[i] == part[0] and whole[i : i + len(part)] == part:
            return {i + place: what for place, what in marks.items()}
    return {}


def _seen(packed: Pack, told: list[Told]) -> Seen:
    before, seen = parents(packed), Seen(packed, set(), {}, {}, {}, {}, {})
    for sequence, place in zip(packed.sequences.tolist(), packed.last.tolist(), strict=True):
        of = told[sequence]
        while place >= 0:
            depth = int(packed.position_ids[place])
            if depth >= of.first_said:
                seen.said.add(place)
            if depth == of.principle:
                seen.traits[place] = of.traits
            if depth in of.sentences:
                seen.sentences[place] = of.sentences[depth]
            if depth in of.answers:
                seen.answers[place] = of.answers[depth]
            if depth in of.wishes:
                seen.wishes[place] = of.wishes[depth]
            if depth in of.findings:
                seen.findings[place] = of.findings[depth]
            place = before[place]
    return seen


def batches(
    tokenizer: PreTrainedTokenizerFast,
    teach: Callable[[random.Random, float], lessons.Lesson],
    steps: range,
    rows: int,
    rng: random.Random,
) -> Iterator[Batch]:
    """A batch of `rows` full rows for each step."""
    packer, waiting = Lessons(tokenizer), list[Seen]()
    for step in steps:
        filled: list[list[Seen]] = []
        while len(filled) < rows:
            while sum(len(s.pack.input_ids) for s in waiting) < 3 * ROW:
                waiting += packer.seen(teach(rng, step / steps.stop))
            row, later, free = list[Seen](), list[Seen](), ROW
            for seen in waiting:  # what fits, the longest waiting first
                fits = len(seen.pack.input_ids) <= free
                (row if fits else later).append(seen)
                free -= len(seen.pack.input_ids) if fits else 0
            if row:
                filled.append(row)
                waiting = later
            else:  # longer than a row
                waiting = later[1:]
        yield Batch(filled)
