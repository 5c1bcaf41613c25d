from __future__ import annotations

from pathlib import Path

import pytest

from rlaif.errors import TrainError
from rlaif.recipe import Model
from rlaif.train.start import digests, start_of_student


def test_a_folder_is_known_by_what_is_in_its_files(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"one")
    before = start_of_student(Model(model=str(tmp_path))).identity
    (tmp_path / "README.md").write_text("about it")
    (tmp_path / "training_args.bin").write_bytes(b"pickled")
    assert start_of_student(Model(model=str(tmp_path))).identity == before
    (tmp_path / "model.safetensors").write_bytes(b"two")
    assert start_of_student(Model(model=str(tmp_path))).identity != before


def test_an_adapter_is_part_of_what_the_student_is(tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    start = start_of_student(Model(model=str(tmp_path), adapter=adapter))
    assert start.identity["adapter"] == digests(adapter)


def test_a_name_on_the_hub_is_known_by_its_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(name: str, file: str, revision: str | None) -> str:
        assert (name, file, revision) == ("a/model", "config.json", "main")
        return f"{tmp_path}/models--a--model/snapshots/0123abc/config.json"

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    start = start_of_student(Model(model="a/model", revision="main"))
    assert start.revision == "0123abc"
    assert start.identity == {"model": "a/model", "commit": "0123abc"}


def test_a_model_that_is_nowhere_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.errors import LocalEntryNotFoundError

    def download(*_: object, **__: object) -> str:
        raise LocalEntryNotFoundError("offline")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    with pytest.raises(TrainError, match=r"student\.model: neither a folder nor"):
        start_of_student(Model(model="no/where"))
