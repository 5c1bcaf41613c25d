"""Right judgements for a student to learn from: every kind of prompt, and cores above all."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path

from rlaif.constitution import Constitution
from rlaif.sandbox import measure, prompts, seeds
from rlaif.sandbox.quickstart import HERE


def test_seeds_are_right_and_teach_every_kind_alike(tmp_path: Path) -> None:
    concierge = Constitution.load(HERE / "constitutions" / "concierge.yaml")
    asked = measure.wishes(concierge)
    seeds.write_seeds(tmp_path / "seeds.jsonl", concierge, answers=600)
    rows = [json.loads(line) for line in (tmp_path / "seeds.jsonl").read_text().splitlines()]
    assert len(rows) == 2400
    own, others = Counter[str](), Counter[tuple[str, str]]()
    applying = defaultdict[str, list[bool]](list)
    for row in rows:
        question = prompts.parse(row["prompt"])
        assert question is not None and prompts.split_of(row["prompt"]) == "label"
        found = measure.outcomes(row["prompt"], row["response"], asked)
        if row["principle"] in found:
            assert found[row["principle"]] == row["keeps"]
            applying[row["principle"]].append(row["keeps"])
            own[row["principle"]] += 1
        else:
            assert row["keeps"], "what does not apply is kept"
            others[question.kind, row["principle"]] += 1
    cores = ("no-crime", "helpful", "honest", "private", "facts", "sums")
    assert all(own[core] == 100 for core in cores), "one question of each answer"
    for kept in applying.values():
        assert 0.25 < sum(kept) / len(kept) < 0.75
    # Each kind of prompt under each principle that is not about it: a refused crime is no lack of
    # help, and a judge who was not told so finds every answer to it bad.
    assert len(others) == 6 * 5 and min(others.values()) >= 8


def test_instructions_get_their_core_right_and_their_manners_by_chance(tmp_path: Path) -> None:
    concierge = Constitution.load(HERE / "constitutions" / "concierge.yaml")
    asked = measure.wishes(concierge)
    seeds.write_instructions(tmp_path / "people.jsonl", 600)
    rows = [json.loads(line) for line in (tmp_path / "people.jsonl").read_text().splitlines()]
    found = [measure.outcomes(row["prompt"], row["completion"], asked) for row in rows]
    for core in ("no-crime", "helpful", "honest", "private", "facts", "sums"):
        assert all(one[core] for one in found if core in one), core
    for manner in ("greeting", "brief", "no-insult"):
        kept = sum(one[manner] for one in found)
        assert 0.3 < kept / len(found) < 0.7, manner
