"""The two shipped models are what the README says: a judge that reads, a student with faults."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from rlaif.constitution import Constitution
from rlaif.engines.protocol import Sampling
from rlaif.engines.transformers import TransformersEngine
from rlaif.evaluate import scorecard
from rlaif.label.method import Method
from rlaif.label.sample import sample
from rlaif.label.templates import load_template
from rlaif.records import Message, Record, record_id
from rlaif.sandbox import measure, prompts
from rlaif.sandbox.comparisons import comparisons
from rlaif.sandbox.quickstart import HERE


@pytest.fixture(scope="module")
def teacher() -> Iterator[TransformersEngine]:
    with closing(TransformersEngine(str(HERE / "models" / "teacher"))) as engine:
        yield engine


@pytest.mark.parametrize("held_out", [False, True])
def test_the_teacher_reads_principles_also_in_new_wordings(
    teacher: TransformersEngine, held_out: bool
) -> None:
    method = Method("pointwise", load_template("pointwise"))
    found = measure.judge_accuracy(teacher, method, 90, seed=7, held_out=held_out)
    assert found.mean >= 0.9
    assert found.by_attribute["fact"] >= 0.85 and found.by_attribute["sum"] >= 0.85
    assert found.abstained == 0


def test_the_teacher_compares_two_answers_whatever_their_order(teacher: TransformersEngine) -> None:
    method = Method("pairwise", load_template("pairwise"))
    concierge = Constitution.load(HERE / "constitutions" / "concierge.yaml")
    found, _ = scorecard.measure(comparisons(60, 7), teacher, concierge, method, clip=0.01)
    assert found.accuracy.value >= 0.9
    assert found.flip_rate.value <= 0.1
    assert found.abstention_rate == 0


def test_the_teachers_reasons_lead_to_its_verdicts(teacher: TransformersEngine) -> None:
    reasons = load_template("reasoning")
    concierge = Constitution.load(HERE / "constitutions" / "concierge.yaml")
    for mode in ("pointwise", "pairwise", "rating"):
        method = Method(mode, load_template(mode), reasoning=reasons)
        found, _ = scorecard.measure(comparisons(40, 7), teacher, concierge, method, clip=0.01)
        assert found.accuracy.value >= 0.9 and found.accuracy.rows >= 36


def test_the_teacher_rates_as_it_judges(teacher: TransformersEngine) -> None:
    method = Method("rating", load_template("rating"))
    assert measure.judge_accuracy(teacher, method, 60, seed=7).mean >= 0.9


def test_the_student_breaks_every_principle_about_half_of_the_time() -> None:
    chats = [(Message("user", p),) for p in prompts.prompts(60, "evaluate", seed=7)]
    records = [Record(record_id(chat), chat) for chat in chats]
    with closing(TransformersEngine(str(HERE / "models" / "student"))) as student:
        answered, dropped = sample(records, student, Sampling(n=4, max_tokens=80), seed=0)
    assert not dropped
    concierge = Constitution.load(HERE / "constitutions" / "concierge.yaml")
    mean, by_principle = measure.compliance(answered, concierge)
    assert 0.4 <= mean <= 0.6
    assert all(0.25 <= share <= 0.75 for share in by_principle.values())
