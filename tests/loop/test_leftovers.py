from __future__ import annotations

import fcntl
import json
import mmap
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from rlaif.loop.leftovers import VARIABLE, begin, end_descendants, remove_leftovers
from rlaif.loop.places import LoopFolder

OURS = (
    "torch_123_456_7", "psm_ab12cd34", "sem.mp-x1_abcde", "sem.loky-123-x_nlcsuq", "nccl-aB3dEf",
    "cuda.shm.3e8.1f2a.1", "__KMP_REGISTERED_LIB_12_0", "57121-tp:0-[0-1]-cpushm_1",
    "VLLM_OBJECT_STORAGE_SHM_BUFFER_0123456789abcdef0123456789abcdef", "vllm_offload_3fa9c.mmap",
    "deepspeed_allreduce_buffer_0_127.0.0.1_29500_1",
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> LoopFolder:
    """Of a loop that has begun a moment ago: a file's time comes from a coarser clock."""
    made = LoopFolder(tmp_path / "run")
    begin(made)
    file = made.root / "began.json"
    file.write_text(json.dumps({"time": json.loads(file.read_text())["time"] - 5}))
    return made


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """What stands for /dev/shm."""
    made = tmp_path / "shm"
    made.mkdir()
    return made


def names(shared: Path) -> set[str]:
    return {path.name for path in shared.iterdir()}


def remove(folder: LoopFolder, shared: Path) -> tuple[int, list[str]]:
    said: list[str] = []
    return remove_leftovers(folder, said.append, shared), said


def test_what_a_killed_run_has_left_is_removed_and_told(folder: LoopFolder, shared: Path) -> None:
    for name in OURS:
        (shared / name).write_bytes(b"x")
    removed, said = remove(folder, shared)
    assert removed == len(OURS) and names(shared) == set()
    assert said == [f"removed {len(OURS)} segments that a killed run has left in shared memory"]
    assert remove(folder, shared) == (0, [])


@pytest.mark.parametrize(
    "name",
    ["pulse-shm-1", "my-own-torch_1", "data.bin", "PostgreSQL.12", "vllm-weights.safetensors",
     "gloom.parquet", "sem.inar.pdf", "psm_export.csv", "nccl-tests.log", "torch_2_1_0.whl"],
)  # fmt: skip
def test_what_has_another_form_of_name_is_not_ours(
    folder: LoopFolder, shared: Path, name: str
) -> None:
    (shared / name).write_bytes(b"x")
    assert remove(folder, shared)[0] == 0 and names(shared) == {name}


@pytest.mark.parametrize("made", [Path.mkdir, lambda path: path.symlink_to("elsewhere"), os.mkfifo])
def test_what_is_no_file_is_not_ours_and_ends_nothing(
    folder: LoopFolder, shared: Path, made: Callable[[Path], None]
) -> None:
    made(shared / OURS[0])
    assert remove(folder, shared) == (0, []) and names(shared) == {OURS[0]}


def test_what_cannot_be_removed_ends_nothing(
    folder: LoopFolder, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (shared / OURS[0]).write_bytes(b"x")
    (shared / OURS[1]).write_bytes(b"x")
    real = Path.unlink

    def refused(path: Path, missing_ok: bool = False) -> None:
        if path.name == OURS[0]:
            raise PermissionError
        real(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refused)
    assert remove(folder, shared)[0] == 1 and names(shared) == {OURS[0]}


def test_what_is_older_than_the_loop_is_not_ours(folder: LoopFolder, shared: Path) -> None:
    (shared / OURS[1]).write_bytes(b"x")
    file = folder.root / "began.json"
    file.write_text(json.dumps({"time": time.time() + 60}))
    assert remove(folder, shared)[0] == 0 and names(shared) == {OURS[1]}


def test_what_another_user_owns_is_not_ours(
    folder: LoopFolder, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (shared / OURS[1]).write_bytes(b"x")
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert remove(folder, shared)[0] == 0


@pytest.mark.parametrize("how", ["open", "mapped"])
def test_what_a_living_process_uses_is_left_to_it(folder: LoopFolder, how: str) -> None:
    """In the real place: what is mapped is known by its path there."""
    shared = Path("/dev/shm")
    if not shared.is_dir():
        pytest.skip("there is no /dev/shm here")
    used, unused = (shared / f"torch_{os.getpid()}_{time.time_ns()}_{n}" for n in (0, 1))
    used.write_bytes(b"x" * 4096)
    unused.write_bytes(b"x")
    with used.open("r+b") as file:
        held = mmap.mmap(file.fileno(), 4096) if how == "mapped" else file
        if how == "mapped":
            file.close()
        try:
            remove(folder, shared)
            assert used.exists() and not unused.exists()
        finally:
            held.close()
            used.unlink(missing_ok=True)
            unused.unlink(missing_ok=True)


def leased(file: Path) -> bool:
    """Whether the kernel here gives leases."""
    with file.open("wb") as opened:
        try:
            fcntl.fcntl(opened, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        except OSError:
            return False
    return True


def test_what_a_process_uses_that_cannot_be_seen_is_left_to_it(
    folder: LoopFolder, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as one of another container with the same shared memory: the kernel knows of it."""
    if not leased(folder.root / "leased"):
        pytest.skip("the kernel gives no leases here")
    monkeypatch.setattr("rlaif.loop.leftovers._in_use", lambda: iter(()))
    used, unused = (shared / f"psm_0123abc{n}" for n in (0, 1))
    used.write_bytes(b"x" * 4096)
    unused.write_bytes(b"x")
    with used.open("r+b") as file:
        held = mmap.mmap(file.fileno(), 4096)
    remove(folder, shared)
    assert names(shared) == {used.name}
    held.close()
    remove(folder, shared)
    assert names(shared) == set()


@pytest.mark.parametrize("damage", [None, "", "{", "[]", '{"time": null}'])
def test_a_loop_that_does_not_know_when_it_began_removes_nothing(
    folder: LoopFolder, shared: Path, damage: str | None
) -> None:
    (shared / OURS[1]).write_bytes(b"x")
    file = folder.root / "began.json"
    file.unlink() if damage is None else file.write_text(damage)
    assert remove(folder, shared)[0] == 0 and names(shared) == {OURS[1]}


def test_the_first_start_is_the_one_that_counts(folder: LoopFolder) -> None:
    before = (folder.root / "began.json").read_text()
    begin(folder)
    assert (folder.root / "began.json").read_text() == before


def sleeper(folder: LoopFolder, seconds: float) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", f"import time; time.sleep({seconds})"],
        env={**os.environ, VARIABLE: str(folder.root)}, start_new_session=True,
    )  # fmt: skip


def test_a_start_waits_for_processes_of_a_killed_one(folder: LoopFolder) -> None:
    ending = sleeper(folder, 1.0)
    assert end_descendants(folder, grace=60) == 0
    assert ending.wait() == 0, "it was let to end by itself"


def test_a_process_that_does_not_end_is_ended(folder: LoopFolder) -> None:
    stuck = sleeper(folder, 600)
    assert end_descendants(folder, grace=0.5) == 1
    assert not psutil.pid_exists(stuck.pid)


def test_the_processes_of_another_loop_are_none_of_its_business(
    folder: LoopFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(folder.root))  # nor is it its own
    other = sleeper(LoopFolder(tmp_path / "other"), 600)
    try:
        assert end_descendants(folder, grace=0.5) == 0
        assert psutil.Process(other.pid).is_running()
    finally:
        other.kill()
        other.wait()
