from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import bench_soft_labels
from bench_soft_labels import first_round, main

from rlaif.errors import DataError
from rlaif.journal import Stage
from rlaif.run_folder import RunFolder
from rlaif.tables import SAMPLES, records_to_table
from tests.report.made_run import plain_texts, records


def finished(folder: Path) -> Path:
    """What the benchmark takes of a run: samples, and a model that SFT has made."""
    table = records_to_table(records(plain_texts(2)), 0)
    Stage(RunFolder(folder), "samples", SAMPLES).write(0, {}, table)
    (folder / "models" / "sft" / "final").mkdir(parents=True)
    return folder


def test_of_a_quickstart_the_first_round_is_taken(tmp_path: Path) -> None:
    finished(tmp_path / "rounds" / "01")
    first = finished(tmp_path / "rounds" / "00")
    assert first_round(tmp_path) == first == first_round(first)


@pytest.mark.parametrize("lacks", ["manifests/samples", "models/sft/final"])
def test_a_folder_without_samples_or_a_model_is_refused_in_one_line(
    tmp_path: Path, lacks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_soft_labels, "trained_gold", None)
    (finished(tmp_path / "rounds" / "00") / lacks).rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="has no samples, or no SFT model; "):
        first_round(tmp_path)
    with pytest.raises(SystemExit, match="has no samples") as ended:
        main(tmp_path, tmp_path / "out")
    assert len(str(ended.value).splitlines()) == 1
