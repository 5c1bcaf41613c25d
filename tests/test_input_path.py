from __future__ import annotations

from pathlib import Path

import pytest

from rlaif import strict_yaml
from rlaif.errors import RecipeError
from rlaif.input_path import InputName, InputPath, PathOrName
from rlaif.strict_model import StrictModel, validate


class Inputs(StrictModel, error=RecipeError):
    path: InputPath | None = None
    name: InputName | None = None
    either: PathOrName | None = None


def load(folder: Path, text: str) -> Inputs:
    path = folder / "file.yaml"
    path.write_text(text)
    return validate(Inputs, strict_yaml.read(path, RecipeError))


def test_a_path_is_relative_to_the_file_it_stands_in(tmp_path: Path) -> None:
    folder = tmp_path / "sub"
    folder.mkdir()
    (tmp_path / "data").touch()
    found = tmp_path / "data"
    inputs = load(folder, "path: ../data\nname: ../data\neither: ../data")
    assert inputs == Inputs(path=found, name=str(found), either=str(found))
    assert load(folder, f"path: {found}").path == found


def test_what_is_not_there_is_a_name_on_the_hub(tmp_path: Path) -> None:
    assert load(tmp_path, "either: org/name").either == "org/name"


@pytest.mark.parametrize("value", ["./name", "../name", "/nowhere/name"])
def test_what_looks_like_a_path_is_no_name_on_the_hub(tmp_path: Path, value: str) -> None:
    with pytest.raises(RecipeError, match="either: no such file or folder"):
        load(tmp_path, f"either: {value}")


@pytest.mark.parametrize("key", ["path", "name"])
@pytest.mark.parametrize("value", ["nowhere", "x" * 5000])
def test_a_path_must_be_there(tmp_path: Path, key: str, value: str) -> None:
    with pytest.raises(RecipeError, match=f"yaml:1: {key}: no such file or folder") as caught:
        load(tmp_path, f"{key}: {value}")
    assert str(tmp_path) in str(caught.value.mend)


def test_a_path_given_in_python_is_taken_as_it_is() -> None:
    inputs = Inputs(path=Path("a"), name="b", either="./c")
    assert (inputs.path, inputs.name, inputs.either) == (Path("a"), "b", "./c")
