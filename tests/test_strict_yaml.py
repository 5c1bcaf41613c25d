from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaif import strict_yaml
from rlaif.errors import RecipeError


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "file.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def refusal(path: Path) -> RecipeError:
    with pytest.raises(RecipeError) as caught:
        strict_yaml.read(path, RecipeError)
    assert caught.value.mend
    return caught.value


def test_values_and_their_lines(tmp_path: Path) -> None:
    text = "a: 1\nb:\n  - x\n  - c: {d: yes,\n        e: 2.5}\nf: |\n  two\n  lines\n"
    document = strict_yaml.read(written(tmp_path, text), RecipeError)
    assert document.data == yaml.safe_load(text)
    assert {keys: place.line for keys, place in document.places.items()} == {
        (): 1,
        ("a",): 1,
        ("b",): 2,
        ("b", 0): 3,
        ("b", 1): 4,
        ("b", 1, "c"): 4,
        ("b", 1, "c", "d"): 4,
        ("b", 1, "c", "e"): 5,
        ("f",): 6,
    }
    assert document.places["b", 1, "c", "d"].text == "yes"
    assert document.line(("b", 0, "missing", "key")) == 3


@pytest.mark.parametrize("text", ["5e-7", "1E3", "-2e+3", "1.e5", ".5e1"])
def test_scientific_notation_is_a_number(tmp_path: Path, text: str) -> None:
    document = strict_yaml.read(written(tmp_path, f"rate: {text}\nname: '{text}'"), RecipeError)
    assert document.data == {"rate": float(text), "name": text}
    assert isinstance(document.data["rate"], float)


@pytest.mark.parametrize(
    ("text", "line", "key", "what"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "a", "given twice, first in line 1"),
        ("a:\n  - b: 1\n    b: 1\n", 3, "a[0].b", "given twice, first in line 2"),
        ("- a\n- b\n", 1, None, "not a mapping"),
        ("just text", 1, None, "not a mapping"),
        ("a: 1\n--- \nb: 2\n", 2, None, "single document"),
        ("a: 1\nb: [1, 2\nc: 3\n", 3, None, "not readable as YAML"),
        ("a: 1\n\tb: 2\n", 2, None, "not readable as YAML"),
        ("a: 1\nb: \x07\n", 2, None, "not allowed"),
        ("a: 1\non: 2\n", 2, None, "a key must be text"),
        ("a: 1\n? [x]\n: 2\n", 2, None, "a key must be text"),
        ("a: 1\n? !!str {x: 1}\n: 2\n", 2, None, "a key must be text"),
        ("a: &x {c: 1}\nb:\n  <<: *x\n", 3, None, "cannot be merged"),
        ("a: 1\nday: 2026-01-31\n", 2, "day", "timestamp"),
        ("a: 1\nb: 0x_\n", 2, "b", "YAML reads this as int, and fails"),
        ("a: 1\nb: !!bool maybe\n", 2, "b", "YAML reads this as bool, and fails"),
        ("a: 1\nb: !!set {x, y}\n", 2, "b", "set"),
        ("a: 1\nb: !!python/object/apply:os.getcwd []\n", 2, "b", "python/object"),
        ("a: 1\nb: !!python/name:os.system ''\n", 2, "b", "python/name"),
        (b"a: 1\nb: caf\xe9\n", 2, None, "not UTF-8"),
    ],
)
def test_a_fault_is_told_with_its_line(
    tmp_path: Path, text: str | bytes, line: int, key: str | None, what: str
) -> None:
    path = written(tmp_path, text)
    error = refusal(path)
    assert (error.file, error.line, error.key) == (path, line, key)
    assert what in str(error)


@pytest.mark.parametrize("text", ["", "# only a comment\n"])
def test_an_empty_file(tmp_path: Path, text: str) -> None:
    assert "empty" in str(refusal(written(tmp_path, text)))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert "no such file" in str(refusal(tmp_path / "missing.yaml"))
    assert "a folder" in str(refusal(tmp_path))
    assert "cannot be read" in str(refusal(written(tmp_path, "a: 1") / "below"))


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    path = written(tmp_path, b"\xef\xbb\xbfa: 1\n")
    assert strict_yaml.read(path, RecipeError).data == {"a": 1}


def test_files_that_nobody_meant(tmp_path: Path) -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 30)
    )
    assert "values" in str(refusal(written(tmp_path, bomb)))
    assert "deeply" in str(refusal(written(tmp_path, "a: &a [*a]")))
    assert "deeply" in str(refusal(written(tmp_path, "a: " + "[" * 5000)))
    assert "larger" in str(refusal(written(tmp_path, "# " + "x" * (1 << 20))))


def test_an_alias_is_the_value_it_names(tmp_path: Path) -> None:
    document = strict_yaml.read(written(tmp_path, "a: &x {c: 1}\nb: *x\n"), RecipeError)
    assert document.data == {"a": {"c": 1}, "b": {"c": 1}}
    assert document.line(("b",)) == 2


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | st.text(
    st.sampled_from(" \n\t\r\x85\u2028\ufeff#:-|>'\"a1\x00\\,[]{}&*!%@`"), max_size=12
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
lookalikes = st.from_regex(r"\A[-+.0-9eE_:xob]{1,9}\Z") | st.sampled_from(
    [
        "yes",
        "null",
        "~",
        "2026-01-31",
        "<<",
        "=",
        "1e5",
        "- a",
        "a: b",
        "#",
        " x",
        "x ",
        "|",
        "\n\n",
    ]
)


@settings(deadline=None)
@given(st.dictionaries(texts | lookalikes, values | lookalikes, min_size=1, max_size=5))
def test_what_is_dumped_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, data: dict[str, object]
) -> None:
    path = written(tmp_path_factory.getbasetemp(), strict_yaml.dump(data))
    assert strict_yaml.read(path, RecipeError).data == data


def test_long_text_is_dumped_as_a_block() -> None:
    assert strict_yaml.dump({"a": "one\ntwo\n"}) == "a: |\n  one\n  two\n"
