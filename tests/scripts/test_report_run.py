"""The run that the report is measured on is one that the journal and the report can read."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import loop_report
from report_run import PRINCIPLES, RESPONSES, characters, make_run, totals

from rlaif.journal import Stage
from rlaif.label.rows import pair_schema
from rlaif.report import write_report
from rlaif.tables import SAMPLES

ROOT = Path(__file__).parents[2]


def test_it_has_the_pairs_that_were_asked_for_and_drops_among_them(tmp_path: Path) -> None:
    run = make_run(tmp_path, 300)
    found = totals(run)
    assert 300 <= found["picked/pairs"] < 310
    assert 0.85 < found["pairs"] / found["picked/pairs"] < 0.98
    assert 250 < characters(run) < 350
    stored = Stage(run, "pairs", pair_schema(False))
    dropped = stored.manifest(0).dropped
    assert dropped == {"drift": found["picked/pairs"] - found["pairs"]}
    (shard,) = Stage(run, "samples", SAMPLES).shards()
    responses = Stage(run, "samples", SAMPLES).read(shard)["responses"]
    assert {len(said) for said in responses} == {RESPONSES}
    page = write_report(run.root).read_text("utf-8")
    assert f"{len(responses) * RESPONSES * PRINCIPLES:,} verdicts" in page


def test_what_cannot_be_measured_is_told_and_does_not_hold(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    found = loop_report.rows(small=True)
    assert found[0]["holds"]  # the size of the file needs no browser
    assert not found[-1]["holds"] and "install-browser" in found[-1]["name"]


def test_a_machine_where_no_browser_can_be_had_is_told_so_and_goes_on(tmp_path: Path) -> None:
    for name in ("bash", "dirname"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    script = ROOT / "scripts" / "install-browser"
    done = subprocess.run(
        [tmp_path / "bash", script], env={**os.environ, "PATH": str(tmp_path)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "NO CHROMIUM" in done.stderr and "tests are skipped" in done.stderr
    (tmp_path / "chromium").symlink_to("/bin/true")
    done = subprocess.run(
        [tmp_path / "bash", script], env={**os.environ, "PATH": str(tmp_path)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr == ""
