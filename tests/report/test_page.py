"""The page holds what it should, says what it lacks, and no text of a run can be part of it."""

from __future__ import annotations

import re
import subprocess
import sys
import zlib
from base64 import b64encode
from hashlib import sha256
from pathlib import Path

import pytest

from rlaif.errors import DataError, JournalError
from rlaif.report import write_report
from rlaif.run_folder import RunFolder
from tests.report.made_run import make_loop, make_run, plain_texts

EVIL = "</script><img src=x onerror=alert(1)>"


def page_of(run: RunFolder, **settings: int) -> str:
    return write_report(run.root, **settings).read_text("utf-8")


def test_the_page_lies_in_the_run_or_where_it_is_told_to(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", plain_texts(3))
    assert write_report(run.root) == run.root / "report.html"
    other = tmp_path / "new" / "page.html"
    assert write_report(run.root, other) == other
    assert other.read_text("utf-8").startswith("<!doctype html>")
    assert [file.name for file in other.parent.iterdir()] == ["page.html"]


def test_a_folder_that_is_no_run_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match=r"is not a run folder.*name one") as told:
        write_report(tmp_path)
    assert str(tmp_path) in str(told.value) and "\n" not in str(told.value)


def test_a_page_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", plain_texts(3))
    (tmp_path / "file").touch()
    with pytest.raises(JournalError, match="cannot be written"):
        write_report(run.root, tmp_path / "file" / "report.html")


def test_no_lock_is_taken_and_none_is_heeded(tmp_path: Path) -> None:
    run = make_run(tmp_path, plain_texts(3))
    with run.lock():
        assert write_report(run.root).exists()


def test_nothing_heavy_is_imported(tmp_path: Path) -> None:
    make_run(tmp_path, plain_texts(3))
    code = (
        "import sys, rlaif.report\n"
        "light = set(sys.modules)\n"
        f"from pathlib import Path; rlaif.report.write_report(Path({str(tmp_path)!r}))\n"
        "print({'torch', 'transformers', 'faiss', 'sklearn', 'matplotlib'} & set(sys.modules),"
        " {'numpy', 'jinja2', 'pyarrow'} & light)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set() set()"


def test_only_the_pages_own_script_and_style_may_run(tmp_path: Path) -> None:
    page = page_of(make_run(tmp_path, plain_texts(3)))
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    script = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    style = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    assert len(script) == len(style) == 1
    for kind, (text,) in (("script", script), ("style", style)):
        digest = b64encode(sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none';") and "unsafe" not in policy
    assert not re.findall(r'(?:src|href)="(?!#|data:,")', page)


def test_no_text_of_a_run_becomes_markup(tmp_path: Path) -> None:
    run = make_loop(tmp_path)
    for name in ("recipe.yaml", "constitution.yaml", "loop.json"):
        file = tmp_path / name
        text = file.read_text("utf-8")
        for old in ("big-teacher", "Short and kind.", "answers grew by 40 %"):
            text = text.replace(old, EVIL)
        file.write_text(text)
    page = page_of(run)
    assert EVIL not in page and page.count("onerror=alert(1)") >= 3
    assert "<img" not in page


def test_what_is_not_there_yet_is_said(tmp_path: Path) -> None:
    run = RunFolder(tmp_path).create()
    run.write_text(run.recipe, "seed: 0\n")
    page = page_of(run)
    for said in (
        "This run has only begun", "No rows yet", "No verdicts yet", "not there yet",
        "The constitution is not there yet", "Nothing is counted yet", "Not measured",
    ):  # fmt: skip
        assert said in page


def test_what_a_run_with_a_gate_has_not_measured_yet_needs_no_other_recipe(tmp_path: Path) -> None:
    run = RunFolder(tmp_path).create()
    run.write_text(run.recipe, "seed: 0\n")
    page = page_of(run)
    assert "Add a <code>gate</code>" in page and "Not calibrated" not in page
    run.write_text(run.recipe, "gate: {data: gate.jsonl}\n")
    page = page_of(run)
    assert "Not measured yet" in page and "<code>gate</code>" not in page
    assert "Not calibrated" in page_of(make_run(tmp_path / "labelled", plain_texts(3)))


@pytest.mark.parametrize("stages", ["prompts", "prompts samples", "prompts samples verdicts"])
def test_a_run_that_is_still_going_has_a_page(tmp_path: Path, stages: str) -> None:
    run = make_run(tmp_path, plain_texts(20))
    for folder in run.manifests("x").parent.iterdir():
        if folder.name not in stages.split():
            for file in folder.rglob("*.json"):
                file.unlink()
    (run.manifests("prompts") / "00002.json").write_text("{")
    page = page_of(run)
    assert "This run is still going" in page and "not there yet" in page


def test_a_loop_tells_of_its_governor_and_its_rounds(tmp_path: Path) -> None:
    page = page_of(make_loop(tmp_path))
    for said in ("Best round: 2.", "was rolled back by the rule “drift”: p = 0.001",
                 "Stopped in round 3 by the rule “length”: answers grew by 40 %",
                 "Token entropy", "fewer than 50 texts", "0.62×"):  # fmt: skip
        assert said in page


def test_the_seed_is_of_no_round(tmp_path: Path) -> None:
    run = make_loop(tmp_path, rounds=1)
    with (tmp_path / "cost.jsonl").open("a") as file:
        file.write('{"round": -1, "stage": "seed", "seconds": 5.0}\n')
    page = page_of(run)
    assert '<td></td><th scope="row">seed</th>' in page
    assert '<td>0</td><th scope="row">sample</th>' in page


def test_provenance_names_what_the_run_was_made_by(tmp_path: Path) -> None:
    run = make_run(tmp_path, plain_texts(3))
    page = page_of(run)
    from rlaif.report.counts import stored
    from tests.report.made_run import CONSTITUTION

    (pairs,) = stored(run, ["pairs"])
    for said in (CONSTITUTION.fingerprint, "judge-1", "big-teacher", pairs.digest, "seed"):
        assert said in page
    assert len(pairs.digest) == 16 and pairs.shards == 1


def test_a_page_stays_under_its_limit_and_says_what_it_cut(tmp_path: Path) -> None:

    def noise(seed: str) -> str:
        return " ".join(f"{zlib.crc32(f'{seed} {i}'.encode()):x}" for i in range(1000))

    texts = [(f"Question {i}?", [noise(f"{i} {way}") for way in "ab"]) for i in range(40)]
    run = make_run(tmp_path, texts, pair_margin=0.0)
    whole = len(page_of(run).encode())
    limit = 400_000
    assert whole > limit
    page = page_of(run, limit_bytes=limit)
    assert len(page.encode()) <= limit
    assert re.search(r"\d+ texts longer than [\d,]+ characters are shortened", page)
    assert "one in" not in page


def test_rows_that_do_not_fit_are_thinned_out_aloud(tmp_path: Path) -> None:
    bare = len(page_of(make_run(tmp_path / "bare", plain_texts(1))))
    run = make_run(tmp_path / "run", plain_texts(900), shard_size=100)
    limit = bare + (len(page_of(run)) - bare) // 2
    page = page_of(run, limit_bytes=limit)
    assert len(page.encode()) <= limit
    (told,) = re.findall(r"The run has ([\d,]+) rows.*?one in (\d+) is shown, ([\d,]+) in", page)
    rows, every, shown = (int(x.replace(",", "")) for x in told)
    assert rows > shown > 0 and abs(rows / every - shown) < 3


def test_a_limit_without_room_for_a_row_is_refused_in_one_line(tmp_path: Path) -> None:
    run = make_run(tmp_path, plain_texts(3))
    with pytest.raises(DataError, match=r"limit_bytes: leaves no room for rows; allow a larger"):
        write_report(run.root, limit_bytes=20_000)
