from __future__ import annotations

import errno
import importlib.util
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rlaif.journal
from rlaif.errors import JournalError
from rlaif.journal import Stage, run_stage
from rlaif.manifest import FORMAT
from rlaif.records import Drop
from rlaif.run_folder import RunFolder

JOB = Path(__file__).parent / "journal_job.py"
SCHEMA = pa.schema([pa.field("text", pa.string(), nullable=False)])
DROPS = [Drop("row 7", "samples", "too long", "900 tokens"), Drop("row 8", "samples", "too long")]


def load_job():
    spec = importlib.util.spec_from_file_location("journal_job", JOB)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tree = load_job().tree


def texts(*values: str) -> pa.Table:
    return pa.table({"text": list(values)}, schema=SCHEMA)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(RunFolder(tmp_path / "run").create(), "samples", SCHEMA)


@pytest.fixture
def quick_path() -> Iterator[Path]:
    """A folder in memory where there is one: these tests write and sync thousands of files."""
    shm = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shm if shm.is_dir() else None) as folder:
        yield Path(folder)


def log_of(stage: Stage, event: str) -> list[dict]:
    lines = stage.run.log_file.read_text().splitlines() if stage.run.log_file.exists() else []
    return [line for line in map(json.loads, lines) if line["event"] == event]


def job_env() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(Path(rlaif.journal.__file__).parents[1])}


def run_job(mode: str, base: Path, *args: object) -> None:
    command = [sys.executable, str(JOB), mode, str(base), *map(json.dumps, args)]
    subprocess.run(command, check=True, env=job_env())


def test_a_shard_comes_back_as_it_was_written(stage: Stage) -> None:
    assert not stage.done(0, {"n": 1})
    stage.write(0, {"n": 1}, texts("a", "é😀"), DROPS)
    assert stage.done(0, {"n": 1})
    assert stage.read(0).equals(texts("a", "é😀"))
    assert stage.drops(0) == DROPS
    assert stage.shards() == [0]
    manifest = stage.manifest(0)
    assert (manifest.rows, manifest.dropped) == (2, {"too long": 2})
    assert manifest.sha256 == stage.digest(0)
    assert log_of(stage, "redo") == []


def test_the_data_folder_holds_nothing_but_parquet(stage: Stage) -> None:
    stage.write(0, {}, texts("a"), DROPS)
    assert [p.name for p in stage.run.data("samples").iterdir()] == ["00000.parquet"]
    assert list(stage.run.temp.iterdir()) == []


def test_equal_rows_give_equal_bytes_however_they_were_put_together(stage: Stage) -> None:
    long = random.Random(0).randbytes(3_000_000).hex()  # so long that pages end within a chunk
    whole = texts(*(long[i : i + 2000] for i in range(0, len(long), 2000)))
    pieces = pa.concat_tables([whole.slice(0, 7), whole.slice(7, 2000), whole.slice(2007)])
    pieces = pieces.replace_schema_metadata({"pandas": "whatever", "time": "now"})
    stage.write(0, {}, whole)
    stage.write(1, {}, pieces)
    assert stage.digest(0) == stage.digest(1)


def test_settings_that_would_change_the_bytes_are_fixed(stage: Stage) -> None:
    stage.write(0, {}, texts(*"a" * 3000))
    meta = pq.ParquetFile(stage.run.data("samples") / "00000.parquet").metadata
    assert meta.row_group(0).column(0).compression == "ZSTD"
    assert [meta.row_group(i).num_rows for i in range(meta.num_row_groups)] == [1024, 1024, 952]
    assert set(meta.metadata or {}) <= {b"ARROW:schema"}


def test_a_shard_of_drops_alone_is_a_shard(stage: Stage) -> None:
    stage.write(0, {}, texts(), DROPS)
    assert stage.done(0, {}) and stage.read(0).num_rows == 0


def test_the_same_settings_in_another_form_are_the_same(stage: Stage) -> None:
    one = {"stop": ("a", "b"), "ids": {"b": 1, "a": 2}}
    other = {"ids": {"a": 2, "b": 1}, "stop": ["a", "b"]}
    stage.write(0, one, texts("x"))
    before = tree(stage.run.root)
    assert stage.done(0, other)
    stage.write(0, other, texts("x"))
    assert tree(stage.run.root) == before


@pytest.mark.parametrize(
    ("depends", "why"),
    [
        ({"sample": {"n": 4, "top_p": 1.0}}, "sample.n was 2, is 4"),
        ({"sample": {"n": 2}}, "sample.top_p was 1.0, is absent"),
        ({"sample": {"n": 2, "top_p": 1.0}, "seed": 1}, "seed was absent, is 1"),
    ],
)
def test_a_changed_setting_redoes_the_shard_and_says_which(stage, depends, why) -> None:
    stage.write(0, {"sample": {"n": 2, "top_p": 1.0}}, texts("a"))
    assert not stage.done(0, depends)
    assert [line["why"] for line in log_of(stage, "redo")] == [why]


def test_other_columns_redo_the_shard_and_are_not_read(stage: Stage) -> None:
    stage.write(0, {}, texts("a"))
    wider = Stage(stage.run, "samples", SCHEMA.append(pa.field("score", pa.float64())))
    assert not wider.done(0, {})
    assert "score: double" in log_of(stage, "redo")[0]["why"]
    with pytest.raises(JournalError, match=r"other columns.*start again"):
        wider.read(0)


def test_a_table_with_other_columns_is_refused(stage: Stage) -> None:
    with pytest.raises(ValueError, match="samples has columns text"):
        stage.write(0, {}, pa.table({"words": ["a"]}))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def remove(path: Path) -> None:
    path.unlink()


FILES = ("data/samples/00000.parquet", "kept_aside/samples/00000.jsonl")
MANIFEST = "manifests/samples/00000.json"


@pytest.mark.parametrize("damage", [truncate, flip, remove])
@pytest.mark.parametrize("file", [*FILES, MANIFEST])
def test_a_damaged_shard_is_redone_and_logged_once(stage: Stage, file: str, damage) -> None:
    run_stage(stage, [(0, {"n": 1})], lambda _: (texts("a", "b"), DROPS))
    before = tree(stage.run.root)
    damage(stage.run.root / file)
    assert not stage.done(0, {"n": 1}) and not stage.done(0, {"n": 1})
    assert len(log_of(stage, "redo")) == 1
    assert run_stage(stage, [(0, {"n": 1})], lambda _: (texts("a", "b"), DROPS)) == 1
    assert tree(stage.run.root) == before


@pytest.mark.parametrize("damage", [truncate, flip, remove])
@pytest.mark.parametrize(("file", "read"), [(FILES[0], Stage.read), (FILES[1], Stage.drops)])
def test_damaged_rows_are_never_handed_on(stage: Stage, file: str, read, damage) -> None:
    stage.write(0, {}, texts("a", "b"), DROPS)
    damage(stage.run.root / file)
    with pytest.raises(JournalError, match=r"0000.*(start again|check the disk)"):
        read(stage, 0)


def test_what_is_not_finished_cannot_be_read(stage: Stage) -> None:
    for read in (stage.read, stage.drops, stage.digest, stage.manifest):
        with pytest.raises(JournalError, match="not finished; start again"):
            read(3)
    with pytest.raises(JournalError, match="not finished"):
        stage.finish(1)


def test_a_manifest_of_a_newer_version_is_refused_and_left_alone(stage: Stage) -> None:
    stage.write(0, {}, texts("a"))
    path = stage.run.root / MANIFEST
    path.write_text(json.dumps({"format": FORMAT + 1, "other": "keys"}))
    before = path.read_bytes()
    with pytest.raises(JournalError, match=r"newer rlaif.*upgrade"):
        stage.done(0, {})
    assert path.read_bytes() == before


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", '{"format": 1}', '{"format": "1"}', "\0"])
def test_a_manifest_that_is_not_one_is_a_damaged_one(stage: Stage, text: str) -> None:
    stage.write(0, {}, texts("a"))
    (stage.run.root / MANIFEST).write_text(text)
    assert not stage.done(0, {})


def test_drops_of_an_earlier_attempt_do_not_stay(stage: Stage) -> None:
    stage.write(0, {"n": 1}, texts("a"), DROPS)
    stage.write(0, {"n": 2}, texts("a"))
    assert stage.done(0, {"n": 2}) and stage.drops(0) == []
    assert not (stage.run.root / FILES[1]).exists()


def test_going_back_to_a_setting_after_a_half_done_change_redoes_the_shard(stage: Stage) -> None:
    stage.write(0, {"n": 1}, texts("one"))
    real, calls = RunFolder.write_text, []

    def dies(*args):
        calls.append(args)
        raise KeyboardInterrupt

    with patch.object(RunFolder, "write_text", dies), pytest.raises(KeyboardInterrupt):
        stage.write(0, {"n": 2}, texts("two"))
    assert calls and RunFolder.write_text is real
    assert not stage.done(0, {"n": 1})  # the manifest says so, but the data is that of n = 2


def test_fewer_shards_than_before_leave_no_stale_ones(stage: Stage) -> None:
    run_stage(stage, [(i, {}) for i in range(4)], lambda i: (texts(str(i)), DROPS))
    assert run_stage(stage, [(i, {}) for i in range(2)], lambda i: (texts(str(i)), DROPS)) == 0
    assert stage.shards() == [0, 1]
    assert Counter(Path(name).stem for name in tree(stage.run.root)) == {"00000": 3, "00001": 3}


def test_finish_sweeps_only_what_its_own_stage_left_half_written(stage: Stage) -> None:
    mine = stage.run.temp / "data+samples.x1"
    others = stage.run.temp / "data+samples+more.x1"
    for folder in (mine, others):
        folder.mkdir(parents=True)
        (folder / "00000.parquet").touch()
    stage.finish(0)
    assert not mine.exists() and others.exists()


def test_shards_are_numbered_without_a_gap(stage: Stage) -> None:
    with pytest.raises(ValueError, match="without a gap"):
        run_stage(stage, [(0, {}), (2, {})], lambda i: (texts(str(i)), []))


@pytest.mark.parametrize("name", ["", "/etc", "../up", "a//b", "a/", "a b"])
def test_a_stage_cannot_leave_the_run_folder(stage: Stage, name: str) -> None:
    with pytest.raises(ValueError, match="not a stage's name"):
        Stage(stage.run, name, SCHEMA)


def test_what_is_done_is_not_done_again(stage: Stage) -> None:
    made: list[int] = []

    def make(shard: int):
        made.append(shard)
        if len(made) == 3:
            raise RuntimeError("the model fell over")
        return texts(str(shard)), []

    jobs = [(i, {"seed": i}) for i in range(4)]
    with pytest.raises(RuntimeError, match="fell over"):
        run_stage(stage, jobs, make)
    assert run_stage(stage, jobs, make) == 2
    assert made == [0, 1, 2, 2, 3]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (errno.ENOSPC, "No space left.*free some space and start again"),
        (errno.EDQUOT, "Disk quota.*free some space and start again"),
        (errno.EACCES, "Permission denied.*give yourself the permission"),
        (errno.EROFS, "Read-only.*on a disk that can be written"),
    ],
)
@pytest.mark.parametrize("call", ["os.fsync", "pathlib.Path.replace", "tempfile.mkdtemp"])
def test_a_failing_disk_loses_nothing_that_was_finished(stage, call, code, message) -> None:
    stage.write(0, {}, texts("a"), DROPS)
    before = tree(stage.run.root)
    fails = patch(call, side_effect=OSError(code, os.strerror(code)))
    with fails, pytest.raises(JournalError, match=f"00001.parquet: cannot be written: {message}"):
        stage.write(1, {}, texts("b"))
    assert tree(stage.run.root) == before
    assert list(stage.run.temp.iterdir()) == []
    assert stage.done(0, {}) and not stage.done(1, {})


SMALL_DISK = """
import random, sys
from pathlib import Path
import pyarrow as pa
from rlaif.journal import Stage, run_stage
from rlaif.run_folder import RunFolder

schema = pa.schema([pa.field("noise", pa.binary(), nullable=False)])
stage = Stage(RunFolder(Path(sys.argv[1])), "samples", schema)
noise = lambda i: pa.table({"noise": [random.Random(i).randbytes(50_000)]}, schema=schema)
run_stage(stage, [(i, {}) for i in range(4)], lambda i: (noise(i), []))
"""


def fill_the_disk(root: Path, before: tuple[str, ...] = (), **how: object):
    """Four shards of 50 kB that do not compress."""
    command = [*before, sys.executable, "-c", SMALL_DISK, str(root)]
    done = subprocess.run(command, env=job_env(), capture_output=True, text=True, **how)
    assert done.returncode == 1, done.stderr
    return done


def test_a_limit_on_file_sizes_is_told_in_one_line(tmp_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    done = fill_the_disk(tmp_path / "run", preexec_fn=limit)
    error = done.stderr.splitlines()[-1]
    assert "00000.parquet: cannot be written: File too large; raise the limit" in error
    assert tree(tmp_path / "run") == {}


def test_a_full_disk_is_told_in_one_line_and_keeps_what_was_finished(tmp_path: Path) -> None:
    shell = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c")
    mount = f"mount -t tmpfs -o size=160k tmpfs {tmp_path}"
    if not shutil.which("unshare") or subprocess.run([*shell, mount], stderr=-3).returncode:
        pytest.skip("this system lets nobody mount a small disk")
    script = f'{mount} && "$@"; code=$?; cd {tmp_path}; find . -name "0*" | sort; exit $code'
    done = fill_the_disk(tmp_path / "run", (*shell, script, "sh"))
    error = done.stderr.splitlines()[-1]
    assert "00002.parquet: cannot be written: No space left on device; free some" in error
    assert done.stdout.split() == [
        "./run/data/samples/00000.parquet",
        "./run/data/samples/00001.parquet",
        "./run/manifests/samples/00000.json",
        "./run/manifests/samples/00001.json",
    ]


def undisturbed(base: Path, shards: int) -> dict[str, bytes]:
    job = load_job()
    job.job(base / "undisturbed", shards, "new")
    return tree(base / "undisturbed")


@pytest.mark.parametrize("start", [None, {"shards": 2, "setting": "old"}], ids=["fresh", "changed"])
def test_a_kill_at_any_step_loses_at_most_one_shard(quick_path, start) -> None:
    run_job("every-step", quick_path, start, {"shards": 1, "setting": "new"})
    whole = undisturbed(quick_path, 1)
    steps = sorted(p for p in quick_path.glob("0*") if p.is_dir())
    assert len(steps) > 40
    for root in steps:
        assert tree(root) == whole, root
        made = Counter(root.with_suffix(".made").read_text().splitlines())
        assert made.keys() == {"first 0", "second 0"} and made.total() <= 3, root


def test_kills_at_random_moments_change_no_byte(quick_path: Path) -> None:
    run_job("random", quick_path, 15)
    whole = tree(quick_path / "undisturbed")
    roots = [p for p in quick_path.glob("0*") if p.is_dir()]
    assert len(roots) == 15
    for root in roots:
        assert tree(root) == whole, root


class Stopped(Exception):
    """Stands for whatever ends an attempt."""


def stopping_at(step: int) -> Callable:
    """A rename that fails once, the step-th time."""
    left, replace = [step], Path.replace

    def rename(self: Path, target: Path) -> Path:
        left[0] -= 1
        if left[0] == -1:
            raise Stopped
        return replace(self, target)

    return rename


stops = st.tuples(
    st.just("stop"), st.sampled_from(["new", "old", "other"]), st.integers(1, 4), st.integers(0, 12)
)
damages = st.tuples(
    st.just("damage"), st.sampled_from([truncate, flip, remove]), st.integers(0, 99)
)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.one_of(stops, damages), max_size=6))
def test_no_sequence_of_mishaps_changes_the_end(mishaps) -> None:
    shm = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shm if shm.is_dir() else None) as folder:
        job, base = load_job().job, Path(folder)
        for mishap in mishaps:
            if mishap[0] == "stop":
                _, setting, shards, step = mishap
                with patch.object(Path, "replace", stopping_at(step)), suppress(Stopped):
                    job(base / "run", shards, setting)
            elif files := sorted(f for f in tree(base / "run") if "/0" in f):
                mishap[1](base / "run" / files[mishap[2] % len(files)])
        job(base / "run", 2, "new")
        assert tree(base / "run") == undisturbed(base, 2)
