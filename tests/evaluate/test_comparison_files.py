"""Labelled comparisons from every form in which they are to be had; a bad row costs only itself."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlaif.errors import DataError
from rlaif.evaluate.comparison_files import comparison_row, load_comparisons
from rlaif.evaluate.comparisons import Comparison
from tests.label.scripted_judges import make_constitution

CONSTITUTION = make_constitution("Be kind.", "Be brief.")


def read(tmp_path: Path, *rows: object, name: str = "rows.jsonl"):
    path = tmp_path / name
    path.write_text("\n".join(json.dumps(row) for row in rows), "utf-8")
    return load_comparisons(path, CONSTITUTION)


def better(c: Comparison) -> str:
    assert c.better is not None
    return c.responses[c.better]


def test_llmbar(tmp_path: Path):
    rows = [{"input": "Say hi.", "output_1": "Hi.", "output_2": "No.", "label": n} for n in (1, 2)]
    (tmp_path / "natural.json").write_text(json.dumps(rows))
    found, drops = load_comparisons(tmp_path / "natural.json", CONSTITUTION)
    assert [better(c) for c in found] == ["Hi.", "No."] and not drops
    assert {c.subset for c in found} == {"natural"}


HHH = "\n\nHuman: May I?\n\nAssistant: You may.\n\nHuman: How?\n\nAssistant:"


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": HHH, "text_correct": "[[[Gently.]]]", "text_incorrect": "[[[Badly.]]]"},
        {"prompt": HHH, "corrects": ["[[[Gently.]]]"], "incorrects": ["[[[Badly.]]]"]},
        {"prompt": HHH + " [[[Badly.]]] [[[Gently.]]]", "corrects": ["(B)"], "incorrects": ["(A)"]},
        {"prompt": HHH + " [[[Badly.]]] [[[Gently.]]]", "corrects": [1], "incorrects": [0]},
    ],
)
def test_anthropics_hhh_comparisons(tmp_path: Path, row):
    (found,), drops = read(tmp_path, row)
    assert better(found) == "Gently." and not drops
    assert [m.role for m in found.prompt] == ["user", "assistant", "user"]
    assert found.prompt[-1].text == "How?"


def message(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "How?", "chosen": "So.", "rejected": "No.", "subset": "alpacaeval-easy"},
        {
            "prompt": [message("user", "How?")],
            "chosen": [message("assistant", "So.")],
            "rejected": [message("assistant", "No.")],
            "subset": "alpacaeval-easy",
        },
        {
            "prompt": "How?",
            "chosen": [message("user", "How?"), message("assistant", "So.")],
            "rejected": [message("user", "How?"), message("assistant", "No.")],
            "subset": "alpacaeval-easy",
        },
        {
            "prompt": "How?",
            "chosen": "How? So.",
            "rejected": "How? No.",
            "subset": "alpacaeval-easy",
        },
        {
            "chosen": "\n\nHuman: How?\n\nAssistant: So.",
            "rejected": "\n\nHuman: How?\n\nAssistant: No.",
            "subset": "alpacaeval-easy",
        },
    ],
)
def test_preference_columns_with_the_prompt_beside_or_inside(tmp_path: Path, row):
    found, drops = read(tmp_path, row, row)
    assert [better(c) for c in found] == ["So.", "So."] and not drops
    assert {tuple(m.text for m in c.prompt) for c in found} == {("How?",)}
    assert {c.subset for c in found} == {"alpacaeval-easy"}
    # "chosen" stands first in every row: a judge that always says A must not look perfect.
    assert [c.better for c in found] == [0, 1]


def test_parquet_with_all_its_columns(tmp_path: Path):
    table = pa.table({"prompt": ["How?"], "chosen": ["So."], "rejected": ["No."]})
    pq.write_table(table, tmp_path / "test.parquet")
    (found,), _ = load_comparisons(tmp_path / "test.parquet", CONSTITUTION)
    assert better(found) == "So."


def test_the_packages_own_form_comes_back_as_it_was(tmp_path: Path):
    row = {"prompt": "How?", "responses": ["So.", "No."], "better": None, "principle": "p1"}
    (found,), _ = read(tmp_path, row)
    assert found.better is None and found.principle == CONSTITUTION.principles[1]
    (again,), _ = read(tmp_path, comparison_row(found))
    assert again == found


def test_a_principle_that_the_constitution_does_not_have_is_asked_about_by_its_text(tmp_path):
    row = {"prompt": "How?", "responses": ["So.", "No."], "better": 0, "principle": "Be tidy."}
    (found,), _ = read(tmp_path, row)
    assert found.principle is not None and found.principle.text == "Be tidy."


GOOD = {"prompt": "How?", "chosen": "So.", "rejected": "No."}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "How?", "answer": "So."}, "unknown columns"),
        (GOOD | {"rejected": "So."}, "identical responses"),
        (GOOD | {"rejected": "  "}, "empty response"),
        ({"input": "a", "output_1": "b", "output_2": "c", "label": 3}, "`label` is not 1 or 2"),
        ({"prompt": "a", "responses": ["b"], "better": 0}, "not two responses"),
        ({"prompt": "a", "responses": ["b", "c"], "better": 2}, "`better` is not 0, 1 or null"),
        ({"chosen": "no dialogue", "rejected": "none here"}, "no prompt"),
        ([1, 2], "not a JSON object"),
    ],
)
def test_a_bad_row_is_kept_aside_with_its_place(tmp_path: Path, row, reason):
    found, (drop,) = read(tmp_path, GOOD, row)
    assert len(found) == 1
    assert (drop.id, drop.reason) == ("rows.jsonl:2", reason)


def test_a_file_without_a_usable_row_is_refused_in_one_line(tmp_path: Path):
    with pytest.raises(DataError, match=r"no usable comparison; unknown columns in 2 of 2 rows"):
        read(tmp_path, {"a": 1}, {"a": 2})
    with pytest.raises(DataError, match="no such file"):
        load_comparisons(tmp_path / "none.jsonl", CONSTITUTION)


def test_a_constitution_stands_for_its_examples(tmp_path: Path):
    file = Path(__file__).parents[2] / "constitutions" / "customer-support.yaml"
    found, drops = load_comparisons(file, CONSTITUTION)
    assert found and not drops
    assert all(c.principle is not None for c in found)
