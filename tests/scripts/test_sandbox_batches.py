"""What the sandbox's models are taught, and where: a mark on a wrong word would teach nonsense."""

import random
import sys
from pathlib import Path

import pytest
import torch

from rlaif.sandbox import lessons
from rlaif.sandbox.answers import ATTRIBUTES
from rlaif.sandbox.vocabulary import build_tokenizer

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
from sandbox_batches import ROW, SENTENCES, Batch, Lessons, batches

PROMPT = "Quick question. What is the capital of France?"
TOKENIZER = build_tokenizer()


def words(seen, places):
    return [TOKENIZER.convert_ids_to_tokens(int(seen.pack.input_ids[p])) for p in places]


def packs(lesson):
    return Lessons(TOKENIZER).seen(lesson)


def test_what_a_prompt_is_answered_with_is_taught_at_its_end():
    [seen] = packs(lessons.glimpses(PROMPT, 4, random.Random(0)))
    assert words(seen, seen.answers) == ["?"]
    assert TOKENIZER.convert_ids_to_tokens(list(seen.answers.values())) == ["Paris"]


def read(prompt, response):
    """What is taught at each word of a judged answer."""
    lesson = lessons.Lesson([(f"Response:\n{response}", "")], prompt, (response,))
    [seen] = packs(lesson)
    places = sorted(seen.sentences)
    kinds = [SENTENCES[seen.sentences[place]] for place in places]
    return list(zip(words(seen, places), kinds, strict=True))


def test_a_sentence_is_known_at_its_last_word():
    assert read(PROMPT, "Hello there. Paris it is") == [("there", "greeting"), ("it", None)]


@pytest.mark.parametrize(
    ("response", "right"),
    [("It is Paris.", 3), ("It is Rome.", 2), ("The capital of Spain is Paris.", 3)],
)
def test_a_core_is_read_word_by_word_right_until_it_is_of_another_question(response, right):
    found = [kind for _, kind in read(PROMPT, response)]
    assert found == [("fact", i < right) for i in range(len(found))]
    assert len(found) == min(right + 1, len(response.split()))


@pytest.mark.parametrize("make", [lessons.pointwise, lessons.rating, lessons.pairwise])
def test_a_verdict_is_taught_with_what_it_rests_on(make):
    lesson = make(PROMPT, 4, random.Random(1))
    wishes, findings = [], []
    for seen in packs(lesson):
        assert set(words(seen, seen.traits)) == {":"}  # the heading before the principle
        assert set(words(seen, seen.findings)) == {"<|assistant|>"}
        wishes += seen.wishes.values()
        findings += seen.findings.values()
    asked = {2 * ATTRIBUTES.index(wish.attribute) + wish.present for _, wish in lesson.principles}
    assert set(wishes) == asked
    known = {
        tuple(int(found.get(wish.attribute, 2)) for found in lesson.traits)
        for _, wish in lesson.principles
    }
    assert {f[: len(lesson.traits)] for f in findings} == known


def test_lessons_in_one_row_do_not_see_each_other():
    [first], [second] = (
        packs(lessons.glimpses(PROMPT, 2, random.Random(seed))) for seed in range(2)
    )
    batch = Batch([[first, second]])
    n, m = len(first.pack.input_ids), len(second.pack.input_ids)
    assert not batch.mask[0, 0, n : n + m, :n].any()
    assert not batch.mask[0, 0, :n, n:].any()
    assert torch.equal(batch.positions[0, n : n + m], torch.from_numpy(second.pack.position_ids))


def test_batches_are_full_and_follow_from_the_seed():
    def teach(rng, progress):
        return lessons.glimpses(PROMPT, 6, rng)

    def two():
        return list(batches(TOKENIZER, teach, range(2), 3, random.Random(5)))

    first, again = two(), two()
    assert first[0].ids.shape == (3, ROW)
    assert all(torch.equal(a.ids, b.ids) for a, b in zip(first, again, strict=True))
    assert (first[0].ids != 0).float().mean() > 0.8
