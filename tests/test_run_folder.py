from __future__ import annotations

import errno
import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import rlaif.run_folder
from rlaif.errors import JournalError
from rlaif.run_folder import RunFolder

LOCKER = """
import os, sys, time
from pathlib import Path
from rlaif.run_folder import RunFolder

with RunFolder(Path(sys.argv[1])).lock():
    worker = os.fork() if sys.argv[2] == "with a worker" else None
    if worker is not None:
        os.write(1, f"{worker or 'ready'}\\n".encode())
    else:
        os.write(1, b"ready\\n")
    time.sleep(600)
"""


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "runs" / "first").create()


def start_locker(run: RunFolder, kind: str) -> subprocess.Popen[str]:
    env = os.environ | {"PYTHONPATH": str(Path(rlaif.run_folder.__file__).parents[1])}
    command = [sys.executable, "-c", LOCKER, str(run.root), kind]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)


def test_places_in_a_run(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    places = [
        run.recipe,
        run.constitution,
        run.data("verdicts/pointwise/ab12"),
        run.manifests("samples"),
        run.kept_aside("samples"),
        run.model("dpo"),
        run.log_file,
        run.summary,
    ]
    assert [str(p.relative_to(tmp_path)) for p in places] == [
        "recipe.yaml",
        "constitution.yaml",
        "data/verdicts/pointwise/ab12",
        "manifests/samples",
        "kept_aside/samples",
        "models/dpo",
        "log.jsonl",
        "summary.json",
    ]


def test_text_arrives_whole_and_replaces_what_was_there(run: RunFolder) -> None:
    run.write_text(run.summary, "old, and longer")
    run.write_text(run.summary, "new é\n")
    assert run.summary.read_bytes() == "new é\n".encode()
    assert list(run.temp.iterdir()) == []


def test_a_write_that_fails_leaves_the_old_text_and_no_other_file(run, monkeypatch) -> None:
    run.write_text(run.summary, "old")

    def stopped(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", stopped)
    with pytest.raises(KeyboardInterrupt):
        run.write_text(run.summary, "new")
    assert run.summary.read_text() == "old"
    assert list(run.temp.iterdir()) == []


def test_a_file_system_that_cannot_sync_folders_will_do(run, monkeypatch) -> None:
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    run.write_text(run.summary, "{}")
    assert run.summary.read_text() == "{}"


def test_files_have_the_permissions_that_the_user_asked_for(run: RunFolder) -> None:
    before = os.umask(0o027)
    try:
        run.write_text(run.summary, "{}")
    finally:
        os.umask(before)
    assert stat.S_IMODE(run.summary.stat().st_mode) == 0o640


def test_a_file_in_the_way_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("not a folder")
    run = RunFolder(tmp_path / "run")
    with pytest.raises(JournalError, match="a file is in the way") as caught:
        run.write_text(run.data("samples") / "x", "")
    assert "\n" not in str(caught.value)
    with pytest.raises(JournalError, match="a file is in the way"):
        RunFolder(tmp_path / "run").create()


def test_the_log_gains_a_line_an_event(run: RunFolder) -> None:
    run.log("start", stage="samples", path=Path("x"))
    run.log("end", stage="samples", seconds=1.5, text="two\nlines")
    first, second = map(json.loads, run.log_file.read_text().splitlines())
    assert first["event"] == "start" and first["pid"] == os.getpid() and first["path"] == "x"
    assert second["seconds"] == 1.5 and second["text"] == "two\nlines"
    assert first["time"] <= second["time"] and first["time"].endswith("+00:00")


def test_two_runs_on_one_folder_are_refused_and_told_who_holds_it(run: RunFolder) -> None:
    with start_locker(run, "alone") as holder:
        assert holder.stdout.readline() == "ready\n"
        with (
            pytest.raises(JournalError, match=f"process {holder.pid} on .* is working"),
            run.lock(),
        ):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with run.lock():
            pass


def test_the_lock_can_be_taken_again_after_it_was_given_back(run: RunFolder) -> None:
    for _ in range(2):
        again = RunFolder(run.root).lock()
        with run.lock(), pytest.raises(JournalError, match=f"process {os.getpid()} "), again:
            pass


def test_a_worker_that_outlives_a_killed_run_does_not_keep_the_lock(run: RunFolder) -> None:
    with start_locker(run, "with a worker") as holder:
        lines = [holder.stdout.readline().strip() for _ in range(2)]
        worker = int(next(line for line in lines if line != "ready"))
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        try:
            with run.lock():
                os.kill(worker, 0)  # it does live
        finally:
            os.kill(worker, signal.SIGKILL)


def test_taking_the_lock_sweeps_what_a_killed_run_left_half_written(run: RunFolder) -> None:
    leftover = run.temp / "data+samples.x1" / "00000.parquet"
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(b"half")
    with run.lock():
        assert list(run.temp.iterdir()) == []
