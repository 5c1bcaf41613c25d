"""The prompt sets that are shipped are the ones that the script makes."""

import json
import sys
from collections import Counter
from pathlib import Path

from rlaif.sandbox.prompts import parse

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
from make_sandbox_prompts import DATA, main


def kinds(file: Path) -> Counter[str]:
    lines = file.read_text(encoding="utf-8").splitlines()
    questions = [parse(json.loads(line)["prompt"]) for line in lines]
    return Counter("not of the world" if q is None else q.kind for q in questions)


def test_the_shipped_prompts_are_made_by_the_script(tmp_path: Path) -> None:
    main(tmp_path)
    for name in ("label.jsonl", "evaluate.jsonl", "gate.jsonl", "anchors.jsonl"):
        assert (tmp_path / name).read_bytes() == (DATA / name).read_bytes()


def test_evaluation_asks_as_often_for_each_kind_and_labels_most_what_is_hard() -> None:
    assert set(kinds(DATA / "evaluate.jsonl").values()) == {50}
    asked = kinds(DATA / "label.jsonl")
    assert min(asked["fact"], asked["sum"]) > 2 * asked["danger"]
