"""What is half-written is never read, and a run that is being written to is no error."""

from __future__ import annotations

from pathlib import Path

from rlaif.report.shards import (
    manifests,
    read_drops,
    read_json,
    read_json_lines,
    read_shards,
    stages_under,
)
from rlaif.run_folder import RunFolder
from tests.report.made_run import DRIFTED, make_run, plain_texts


def rows(run: RunFolder, stage: str) -> list[int]:
    return [shard.table.num_rows for shard in read_shards(run, stage)]


def test_a_shard_counts_only_with_its_manifest(tmp_path: Path) -> None:
    run = make_run(tmp_path, plain_texts(20))
    assert rows(run, "samples") == [8, 8, 4]
    (run.manifests("samples") / "00001.json").unlink()
    assert rows(run, "samples") == [8, 4]


def test_a_shard_whose_bytes_are_not_its_manifests_is_not_there_yet(tmp_path: Path) -> None:
    run = make_run(tmp_path, plain_texts(20))
    data = run.data("samples") / "00002.parquet"
    data.write_bytes(data.read_bytes()[:-40])
    (run.data("samples") / "00000.parquet").unlink()
    assert rows(run, "samples") == [8]


def test_a_manifest_that_is_being_written_is_not_there_yet(tmp_path: Path) -> None:
    run = make_run(tmp_path, plain_texts(20))
    (run.manifests("samples") / "00001.json").write_text('{"format": 1, "rows"')
    assert list(manifests(run, "samples")) == [0, 2]


def test_only_the_columns_that_are_there_are_read(tmp_path: Path) -> None:
    run = make_run(tmp_path, plain_texts(4))
    (shard,) = read_shards(run, "pairs", ["record_id", "margin"])
    assert shard.table.column_names == ["record_id"]


def test_drops_are_those_of_the_manifest(tmp_path: Path) -> None:
    run = make_run(tmp_path, plain_texts(4))
    manifest = manifests(run, "pairs")[0]
    drops = read_drops(run, "pairs", 0, manifest)
    assert [drop["reason"] for drop in drops] == [DRIFTED] * manifest.dropped[DRIFTED]
    (run.kept_aside("pairs") / "00000.jsonl").write_text("{}\n")
    assert read_drops(run, "pairs", 0, manifest) == []


def test_stages_are_found_however_deep_they_lie(tmp_path: Path) -> None:
    run = make_run(tmp_path, plain_texts(4))
    assert len(stages_under(run, "verdicts")) == 3
    assert stages_under(run, "pairs") == ["pairs"] and stages_under(run, "revised") == []


def test_json_that_is_cut_off_is_not_there_yet(tmp_path: Path) -> None:
    file = tmp_path / "cost.jsonl"
    file.write_text('{"seconds": 1}\nnull\n{"seconds": 2}\n{"seco')
    assert read_json_lines(file) == [{"seconds": 1}, {"seconds": 2}]
    assert read_json(file) is None and read_json(tmp_path / "none.json") is None
    assert read_json_lines(tmp_path / "none.jsonl") == []
