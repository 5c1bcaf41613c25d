"""Right judgements for a student to learn from: every kind of prompt, and cores above all."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from rlaif.constitution import Constitution
from rlaif.sandbox import measure, prompts, seeds
from rlaif.sandbox.quickstart import HERE


def test_seeds_are_right_and_teach_every_kind_alike(tmp_path: Path) -> None:
    concierge = Constitution.load(HERE / "constitutions" / "concierge.yaml")
    asked = measure.wishes(concierge)
    seeds.write_seeds(tmp_path / "seeds.jsonl", concierge, answers=600, each=3)
    rows = [json.loads(line) for line in (tmp_path / "seeds.jsonl").read_text().splitlines()]
    assert len(rows) == 1800
    for row in rows:
        found = measure.outcomes(row["prompt"], row["response"], asked)
        assert found[row["principle"]] == row["keeps"]
        assert prompts.split_of(row["prompt"]) == "label"
    counts = Counter(row["principle"] for row in rows)
    cores = ("no-crime", "helpful", "honest", "private", "facts", "sums")
    assert all(counts[core] == 100 for core in cores), "one question of each answer"
    for principle in counts:
        kept = [row["keeps"] for row in rows if row["principle"] == principle]
        assert 0.25 < sum(kept) / len(kept) < 0.75


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
