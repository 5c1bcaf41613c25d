from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaif.constitution import Constitution, Example, Principle
from rlaif.errors import ConstitutionError

GOOD = """\
name: test
version: "1.0"
description: Two rules.
principles:
  - id: short
    text: The response is short.
    weight: 2
    veto: true
    critique: Where is it long?
    revision: Make it shorter.
    examples:
      - {prompt: Hi, better: Hi., worse: "Hello, hello, hello."}
  - id: kind
    text: |
      The response is kind.
"""


def load(folder: Path, text: str) -> Constitution:
    path = folder / "constitution.yaml"
    path.write_text(text, encoding="utf-8")
    return Constitution.load(path)


def test_a_file_becomes_a_constitution(tmp_path: Path) -> None:
    example = Example(prompt="Hi", better="Hi.", worse="Hello, hello, hello.")
    short = Principle(
        id="short",
        text="The response is short.",
        weight=2.0,
        veto=True,
        critique="Where is it long?",
        revision="Make it shorter.",
        examples=(example,),
    )
    kind = Principle(id="kind", text="The response is kind.")
    assert (kind.weight, kind.veto, kind.examples) == (1.0, False, ())
    assert load(tmp_path, GOOD) == Constitution(
        name="test", version="1.0", description="Two rules.", principles=(short, kind)
    )


@pytest.mark.parametrize(
    ("old", "new", "line", "key", "told"),
    [
        ("weight: 2", "wieght: 2", 7, "principles[0].wieght", "did you mean 'weight'?"),
        ("id: kind", "id: short", 13, "principles[1].id", "the same as principles[0].id"),
        ("is kind.", "is\n       short.", 14, "principles[1].text", "principles[0].text"),
        ("text: The response is short.", "text: ' '", 6, "principles[0].text", "empty"),
        ("text: The response is short.", "text: ''", 6, "principles[0].text", "empty"),
        ("text: The response is short.", "text:", 6, "principles[0].text", "not text"),
        ("weight: 2", "weight: '2'", 7, "principles[0].weight", "without quotes"),
        ("weight: 2", "weight: high", 7, "principles[0].weight", "not a number"),
        ("weight: 2", "weight: true", 7, "principles[0].weight", "not a number"),
        ("weight: 2", "weight: 0", 7, "principles[0].weight", "greater than 0"),
        ("weight: 2", "weight: -1", 7, "principles[0].weight", "greater than 0"),
        ("weight: 2", "weight: .inf", 7, "principles[0].weight", "finite"),
        ("weight: 2", "weight: .nan", 7, "principles[0].weight", "finite"),
        ("veto: true", "veto: 1", 8, "principles[0].veto", "true or false"),
        ("better: Hi.", 'better: "Hello, hello, hello."', 12, "principles[0].examples[0].worse",
         "the same as `better`"),
        ("id: kind", "id: yes", 13, "principles[1].id", 'in quotes: "yes"'),
        ("id: kind", "id: Kind", 13, "principles[1].id", "not an id (got 'Kind')"),
        ("id: kind", "id: -kind", 13, "principles[1].id", "not an id"),
        ("id: kind", 'id: "kind\\n"', 13, "principles[1].id", "not an id"),
        ("id: kind", "id: ''", 13, "principles[1].id", "not an id"),
        ('version: "1.0"', "version: 1.0", 2, "version", 'in quotes: "1.0"'),
        ("name: test", "nam: test", 1, "nam", "did you mean 'name'?"),
        ("name: test\n", "", 1, "name", "missing"),
    ],
)  # fmt: skip
def test_a_fault_is_told_with_its_place(
    tmp_path: Path, old: str, new: str, line: int, key: str, told: str
) -> None:
    assert old in GOOD
    with pytest.raises(ConstitutionError) as caught:
        load(tmp_path, GOOD.replace(old, new))
    assert (caught.value.line, caught.value.key) == (line, key)
    assert told in str(caught.value)
    assert caught.value.mend


def test_a_constitution_has_principles(tmp_path: Path) -> None:
    with pytest.raises(ConstitutionError, match=r"yaml:2: principles: no principles"):
        load(tmp_path, "name: empty\nprinciples: []\n")


def test_python_is_checked_like_a_file() -> None:
    with pytest.raises(ConstitutionError, match=r"^weight: not a number"):
        Principle(id="a", text="b", weight="1")  # type: ignore[arg-type]
    with pytest.raises(ConstitutionError, match=r"^worse: the same as `better`"):
        Example(prompt="a", better="b", worse="b ")
    one = Principle(id="a", text="b")
    with pytest.raises(ConstitutionError, match=r"^principles\[1\].id: the same as"):
        Constitution(name="x", principles=(one, Principle(id="a", text="c")))


def test_indentation_in_an_example_is_a_difference() -> None:
    Example(prompt="a", better="if x:\n    y", worse="if x:\ny")


def test_a_verdict_outlives_edits_of_what_the_judge_does_not_read() -> None:
    plain = Principle(id="a", text="Be kind.")
    example = Example(prompt="a", better="b", worse="c")
    edited = Principle(
        id="b", text=" Be kind.\n", weight=3, veto=True, critique="x", examples=(example,)
    )
    assert edited.fingerprint == plain.fingerprint
    assert Principle(id="a", text="Be kinder.").fingerprint != plain.fingerprint


ABOUT = ("name", "version", "description")


def constitution(**changes: Any) -> Constitution:
    about = {"name": "x"} | {key: changes.pop(key) for key in ABOUT if key in changes}
    first = Principle(**{"id": "a", "text": "Be kind.", **changes})
    return Constitution(principles=(first, Principle(id="z", text="z")), **about)


@pytest.mark.parametrize(
    "change", [{"id": "b"}, {"text": "Be kinder."}, {"weight": 2.0}, {"veto": True}]
)
def test_a_pick_is_made_again_when_what_decides_it_changes(change: dict[str, Any]) -> None:
    assert constitution(**change).fingerprint != constitution().fingerprint


@pytest.mark.parametrize(
    "change",
    [{"name": "y"}, {"version": "2"}, {"description": "y"}, {"critique": "y"}, {"weight": 1}],
)
def test_a_pick_outlives_other_edits(change: dict[str, Any]) -> None:
    assert constitution(**change).fingerprint == constitution().fingerprint


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60).filter(
    lambda text: text.strip() and text.strip().strip("\x1c\x1d\x1e\x1f")
)
examples = st.tuples(texts, texts, texts).filter(lambda t: t[1].strip() != t[2].strip())
principles = st.builds(
    Principle,
    id=st.from_regex(r"[a-z0-9][a-z0-9_-]{0,8}", fullmatch=True),
    text=texts,
    weight=st.floats(min_value=0, exclude_min=True, allow_infinity=False) | st.integers(1, 9),
    veto=st.booleans(),
    critique=st.none() | texts,
    revision=st.none() | texts,
    examples=st.lists(
        examples.map(lambda t: Example(prompt=t[0], better=t[1], worse=t[2])), max_size=2
    ),
)
constitutions = st.builds(
    Constitution,
    name=texts,
    version=texts,
    description=st.text(st.characters(exclude_categories=["Cs"]), max_size=60),
    principles=st.lists(
        principles,
        min_size=1,
        max_size=3,
        unique_by=(lambda p: p.id, lambda p: " ".join(p.text.split())),
    ),
)


@settings(deadline=None)
@given(constitutions)
def test_what_is_saved_is_loaded_again(
    tmp_path_factory: pytest.TempPathFactory, constitution: Constitution
) -> None:
    path = tmp_path_factory.getbasetemp() / "saved.yaml"
    constitution.save(path)
    once = path.read_bytes()
    loaded = Constitution.load(path)
    assert loaded == constitution
    assert loaded.fingerprint == constitution.fingerprint
    loaded.save(path)
    assert path.read_bytes() == once
