from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, field_validator

from rlaif import strict_yaml
from rlaif.errors import RecipeError
from rlaif.strict_model import Fault, Many, StrictModel, Text, validate


class Inner(StrictModel, error=RecipeError):
    name: Text
    weight: Annotated[float, Field(gt=0)] = 1.0
    kind: Literal["plain", "rare"] = "plain"

    @field_validator("name")
    @classmethod
    def _no_spaces(cls, value: str) -> str:
        if " " in value:
            raise Fault("two words", value=value, mend="write one")
        return value


class Outer(StrictModel, error=RecipeError):
    count: int = 1
    on: bool = False
    inner: Inner | None = None
    items: Many[Inner] = ()
    free: dict[str, Any] | None = None


def load(folder: Path, text: str) -> Outer:
    path = folder / "file.yaml"
    path.write_text(text)
    return validate(Outer, strict_yaml.read(path, RecipeError))


def test_a_file_becomes_a_frozen_model(tmp_path: Path) -> None:
    outer = load(tmp_path, "count: 2\n'on': true\nitems:\n  - {name: a, weight: 2}\nfree: {x: [1]}")
    assert outer == Outer(count=2, on=True, items=(Inner(name="a", weight=2.0),), free={"x": [1]})
    assert isinstance(outer.items[0].weight, float)
    with pytest.raises(ValueError, match="frozen"):
        outer.count = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "line", "key", "told"),
    [
        ("count: 1\ncuont: 2", 2, "cuont", "unknown key (got 2); did you mean 'count'?"),
        ("zzz: 2", 1, "zzz", "known keys: count, on, inner, items, free"),
        (
            "items:\n  - name: a\n  - name: b\n    wieght: 2\n",
            4,
            "items[1].wieght",
            "did you mean 'weight'?",
        ),
        ("items:\n  - name: a\n  - weight: 2\n", 3, "items[1].name", "missing; add this key"),
        ("inner: {name: true}", 1, "inner.name", '(got True); write it in quotes: "true"'),
        ("inner:\n  name: 010", 2, "inner.name", '(got 8); write it in quotes: "010"'),
        ("inner:\n  name:\n", 2, "inner.name", "not text (got None); write text"),
        ("inner:\n  name: ' '\n", 2, "inner.name", "empty (got ' ')"),
        ('inner:\n  name: "\\ud800"\n', 2, "inner.name", "lone surrogate"),
        ("inner:\n  name: a b\n", 2, "inner.name", "two words (got 'a b'); write one"),
        ("inner: {name: a, weight: '1.0'}", 1, "inner.weight", "write a number, without quotes"),
        ("inner: {name: a, weight: true}", 1, "inner.weight", "not a number (got True)"),
        ("inner: {name: a, weight: .nan}", 1, "inner.weight", "not a finite number (got nan)"),
        ("inner: {name: a, weight: .inf}", 1, "inner.weight", "not a finite number (got inf)"),
        ("inner: {name: a, weight: 1e999}", 1, "inner.weight", "not a finite number (got inf)"),
        ("inner: {name: a, weight: 0}", 1, "inner.weight", "it must be greater than 0"),
        ("inner: {name: a, kind: rar}", 1, "inner.kind", "write 'plain' or 'rare'"),
        ("count: 1.5", 1, "count", "not a whole number (got 1.5)"),
        ("count: 2.0", 1, "count", "not a whole number (got 2.0)"),
        ("count: true", 1, "count", "not a whole number (got True)"),
        ("'on': 1", 1, "on", "not true or false (got 1)"),
        ("items: a", 1, "items", "not a list (got 'a')"),
        ("items: {name: a}", 1, "items", "not a list"),
        ("items: [3]", 1, "items[0]", "not a mapping (got 3)"),
        ("free: 3", 1, "free", "not a mapping (got 3)"),
    ],
)
def test_a_fault_is_told_with_place_value_and_mend(
    tmp_path: Path, text: str, line: int, key: str, told: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        load(tmp_path, text)
    assert (caught.value.line, caught.value.key) == (line, key)
    assert told in str(caught.value)
    assert caught.value.mend
    assert "\n" not in str(caught.value)


def test_the_fault_that_comes_first_in_the_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"file.yaml:2: items\[0\].weight"):
        load(tmp_path, "items:\n  - {name: a, weight: no}\ncount: x\n")


def test_a_misspelt_key_is_told_rather_than_the_one_it_leaves_missing(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="did you mean 'name'"):
        load(tmp_path, "items:\n  - nmae: a\n")


def test_python_is_checked_like_a_file() -> None:
    with pytest.raises(RecipeError, match=r"^items\[1\].weight: not a number \(got 'x'\)"):
        Outer(items=[{"name": "a"}, {"name": "b", "weight": "x"}])  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match=r"^nmae: unknown key"):
        Inner(nmae="a")  # type: ignore[call-arg]


def test_space_around_text_is_dropped() -> None:
    assert Inner(name="a\n") == Inner(name="a")
