"""The experiment over generations: its world is what it says; its table reads the worst seed."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from rlaif.sandbox import prompts as world

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
import collapse_experiment as experiment


def test_human_texts_keep_every_principle_and_follow_zipf() -> None:
    rules = experiment.constitution()
    texts = experiment.human_texts(2000, rules, seed=3)
    assert experiment.compliance(texts, rules) == 1.0
    counts = experiment.reached(t.prompt for t in texts).most_common()
    assert sum(n for _, n in counts) == 2000
    assert counts[0][1] == pytest.approx(2 * counts[1][1], rel=0.3)
    assert sum(n == 1 for _, n in counts) > 50


def test_a_text_that_is_no_prompt_of_the_world_keeps_nothing() -> None:
    rules = experiment.constitution()
    good = experiment.human_texts(1, rules, seed=0)[0]
    assert experiment.compliance([good, experiment.Text("No such thing", "Yes.")], rules) == 0.5


def test_the_subject_of_a_prompt_is_that_of_its_question_whatever_its_opener() -> None:
    question = world.all_questions("fact")[0]
    subject = experiment.reached([question, f"I am curious. {question}"])
    assert list(subject.values()) == [2]


def generation(arm: str, seed: int, tail: float, kept: float) -> object:
    number = 0 if arm == "-" else 6
    return experiment.Generation(arm, number, seed, tail, 4.0 + number / 100, kept, 0.0, 1000, {})


def test_the_table_reads_the_worst_seed() -> None:
    made = [generation("-", seed, 1.0, 0.97) for seed in (0, 1)]
    made += [generation("d", 0, 0.99, 0.97), generation("d", 1, 0.94, 0.95)]
    rows = {row["name"]: row for row in experiment.table(made, 6)}
    assert not rows["accumulate, filtered: tail coverage, lowest"]["holds"]
    lost = rows["accumulate, filtered: compliance lost, most"]
    assert lost["measured"] == pytest.approx(0.02)
    assert not any(name.startswith("replace:") for name in rows)


def test_arms_of_an_earlier_run_stand_beside_those_of_the_same_generation_0(tmp_path: Path) -> None:
    plan, file = experiment.Plan(), tmp_path / "earlier.json"
    earlier = [generation(arm, 0, 1.0, 0.97) for arm in "-ab"]
    told = {"plan": asdict(plan), "generations": [asdict(g) for g in earlier]}
    file.write_text(json.dumps(told))
    now = [generation("-", 0, 1.0, 0.97), generation("b", 0, 0.9, 0.97)]
    assert [g.arm for g in experiment.others(file, plan, now)] == ["a"]
    now[0] = generation("-", 0, 1.0, 0.96)
    with pytest.raises(SystemExit, match="another generation 0"):
        experiment.others(file, plan, now)
    with pytest.raises(SystemExit, match="another plan"):
        experiment.others(file, experiment.Plan(temperature=0.8), now)


def test_what_another_plan_left_is_not_taken_for_this_one_s(tmp_path: Path) -> None:
    for _ in range(2):
        experiment.keep_plan(experiment.SMALL, tmp_path)
    with pytest.raises(SystemExit, match="another plan"):
        experiment.keep_plan(experiment.Plan(), tmp_path)


def test_what_an_arm_learns_from() -> None:
    people, *batches = ([experiment.Text(name, "")] for name in ("people", "first", "second"))
    for arm, last in (("a", ["second"]), ("b", ["people", "first", "second"])):
        assert [t.prompt for t in experiment.data_of(arm, people, batches)] == last
    discarded = [batches[0], []]
    assert [t.prompt for t in experiment.data_of("c", people, discarded)] == ["first"]
    assert [t.prompt for t in experiment.data_of("d", people, discarded)] == ["people", "first"]
    assert experiment.data_of("c", people, [[]]) == people
