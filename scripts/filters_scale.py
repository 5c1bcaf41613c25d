"""Nearest anchors and near-copies at scale: speed beside the machine's own, memory, recall.

python scripts/filters_scale.py [--small] [--json FILE]
python scripts/filters_scale.py --task cuda --real FILE    # on a machine without the model of
                                                           # embeddings, which lie in FILE
"""

from __future__ import annotations

import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import repeat
from json import dumps, loads
from pathlib import Path
from typing import IO, Any

import numpy as np
import typer
from bench_rows import Row, note, row, show, write
from numpy.typing import NDArray
from rich.console import Console
from scale_vectors import Cloud, Vectors, embedded, near_copies

from rlaif.anchor_index import AnchorIndex
from rlaif.filters.duplicates import near_duplicates
from rlaif.nearest import Precision, nearest

_MILLION = 1_000_000
_ANCHORS = 20_000
_PART = 4096  # streamed vectors at once
_SQUARE = 4096  # side of the matrices whose product is the machine's own rate
_REAL = 15_000  # embedded sentences: 5,000 anchors, 10,000 queries, and what clouds are made of
_THRESHOLD = 0.92
_PLANTED = 0.2  # share of rows that are near-copies of others
_SAMPLED = 1_000

Found = dict[str, Any]


def rows(small: bool = False) -> list[Row]:
    """All rows of this file; small is a twentieth of the size."""
    share = 20 if small else 1
    real = embedded(_REAL // share)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "real.npy"
        np.save(file, real)
        made = scan(file, "float32", 0.7, _MILLION // share)
        made += scan(file, "bfloat16", 1.2, _MILLION // share)
        made += copies(file, _MILLION // share)
    return made + same_nearest(real) + index(real, _MILLION // share) + cuda(real, share)


def scan(real: Path, precision: Precision, wanted: float, queries: int) -> list[Row]:
    """Streamed queries: rate and growth beside the machine's rate, and memory."""
    found = _alone("scan", real, queries, precision)
    name = f"nearest of {_ANCHORS:,} for {queries:,} in {precision}"
    return [
        row(f"{name}: rate of a {_SQUARE}³ float32 product", ">=", wanted, found["ratio"]),
        note(f"{name}: that product, GFLOP/s", found["own"]),
        row(f"{name}: peak memory, GiB", "<=", 2.0, found["peak"]),
        row(f"{name}: growth of time", "<=", 1.1, _exponent(found["times"])),
        *(note(f"{name}: seconds for {n}", seconds) for n, seconds in found["times"].items()),
    ]


def copies(real: Path, count: int) -> list[Row]:
    """Near-copies among many: growth, recall, memory."""
    found = _alone("copies", real, count, "float32")
    name = f"near-copies among {count:,}"
    return [
        row(f"{name}: growth of time", "<=", 1.85, _exponent(found["times"])),
        row(f"{name}: recall of pairs", ">=", 0.95, found["recall"]),
        note(f"{name}: pairs that it was measured on", found["pairs"]),
        note(f"{name}: share of rows dropped", found["dropped"]),
        note(f"{name}: peak memory, GiB", found["peak"]),
        *(note(f"{name}: seconds for {n}", seconds) for n, seconds in found["times"].items()),
    ]


def same_nearest(real: Vectors) -> list[Row]:
    """Real text: whether bfloat16 finds the nearest anchor that float32 finds."""
    anchors, queries = real[: len(real) // 3], real[len(real) // 3 :]
    plain, quick = (nearest(queries, anchors, precision=p) for p in ("float32", "bfloat16"))
    same = float((plain.index == quick.index).mean())
    return [row(f"bfloat16: same nearest on {len(queries):,} texts", ">=", 1.0, same)]


def index(real: Vectors, count: int) -> list[Row]:
    """The approximate way: recall on queries that it was not tuned on, and speed."""
    anchors, queries = Cloud(real, seed=4).all(count), Cloud(real, seed=5).all(2 * _SAMPLED)
    before = time.perf_counter()
    made = AnchorIndex.build(anchors, queries[:_SAMPLED], recall=0.97)
    built = time.perf_counter() - before
    asked = queries[_SAMPLED:]
    quick, exact = _clock(lambda: made.search(asked)), _clock(lambda: nearest(asked, anchors))
    return [
        row(f"index of {count:,}: recall", ">=", 0.95, made.recall(asked)),
        note(f"index of {count:,}: seconds to build", built),
        note(f"index of {count:,}: queries a second", len(asked) / quick),
        note(f"index of {count:,}: exact queries a second", len(asked) / exact),
    ]


def cuda(real: Vectors, share: int) -> list[Row]:
    """Ten million queries and a million anchors, beside the card's product in bfloat16."""
    import torch

    queries, count = 10 * _MILLION // share, _MILLION // share
    name = f"CUDA: nearest of {count:,} for {queries:,}: rate of a {_SQUARE}³ bfloat16 product"
    if not torch.cuda.is_available():
        return [note(f"{name} (not measured: needs a CUDA GPU)", math.nan)]
    anchors, block = Cloud(real, seed=6).all(count), Cloud(real, seed=7).all(50_000)
    nearest(block, anchors[:50_000], precision="bfloat16")
    own = statistics.median(_own_rate(torch.bfloat16, "cuda") for _ in range(5))
    stream = repeat(block, queries // len(block))
    took = _clock(lambda: nearest(stream, anchors, precision="bfloat16"))
    asked = block[:10_000]
    plain, quick = (nearest(asked, anchors, precision=p) for p in ("float32", "bfloat16"))
    same = float((plain.index == quick.index).mean())
    return [
        note(name, 2e-9 * queries * anchors.size / took / own),
        row("CUDA: same nearest in bfloat16", ">=", 1.0, same),
        note(f"CUDA: that product, TFLOP/s ({torch.cuda.get_device_name()})", own / 1000),
        note(f"CUDA: seconds for {queries:,}", took),
        note("CUDA: peak memory of the card, GiB", torch.cuda.max_memory_allocated() / 2**30),
    ]


def _alone(task: str, real: Path, count: int, precision: str) -> Found:
    """A task in a process of its own, whose memory is its own."""
    command = [sys.executable, __file__, "--task", task, "--real", str(real)]
    command += ["--count", str(count), "--precision", precision]
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    found: Found = loads(told)
    return found


def _scan(real: Vectors, queries: int, precision: Precision) -> Found:
    """Queries streamed from a file, a stretch at a time: one for each step of the growth line, the
    last in tenths; the machine's own rate is taken between them."""
    anchors, width = Cloud(real, seed=1).all(_ANCHORS), real.shape[1]
    own, took = [_own_rate()], list[float]()
    with tempfile.TemporaryFile() as file:
        for block in Cloud(real, seed=2).blocks(queries, _PART):
            file.write(block.tobytes())
        file.seek(0)
        for count in _stretches(queries):
            stream = (_read(file, rows_, width) for rows_ in _parts(count))
            took.append(_clock(lambda s=stream: nearest(s, anchors, precision=precision)))  # type: ignore[misc]
            own += [_own_rate() for _ in range(3)]
    rate, machine = 2e-9 * queries * anchors.size / sum(took), statistics.median(own)
    reached = np.cumsum(_stretches(queries)).tolist()
    times = {f"{n:,}": sum(took[: reached.index(n) + 1]) for n in _sizes(queries)}
    return {"ratio": rate / machine, "own": machine, "times": times, "peak": _peak()}


def _stretches(queries: int) -> list[int]:
    """Rows that are searched between two looks at the machine's own rate."""
    first, second, _ = _sizes(queries)
    return [first, second - first, *[second] * 9]


def _parts(count: int) -> list[int]:
    return [min(_PART, count - start) for start in range(0, count, _PART)]


def _read(file: IO[bytes], rows_: int, width: int) -> Vectors:
    """The next rows of a file; read rather than mapped, so that none stays in memory."""
    return np.frombuffer(file.read(4 * rows_ * width), np.float32).reshape(rows_, width)


def _copies(real: Vectors, count: int) -> Found:
    times = {}
    for size in _sizes(count):
        vectors = _with_copies(real, size)
        before = time.perf_counter()
        found = near_duplicates(vectors, _THRESHOLD)
        times[f"{size:,}"] = time.perf_counter() - before
    recall, pairs = _pairs_found(vectors, found.keep)
    return {
        "times": times, "recall": recall, "pairs": pairs, "peak": _peak(),
        "dropped": float((~found.keep).mean()),
    }  # fmt: skip


def _with_copies(real: Vectors, count: int) -> Vectors:
    """[count, width] of a cloud, and of near-copies among them, shuffled."""
    planted = round(_PLANTED * count)
    places = np.random.default_rng(3).permutation(count)
    vectors = np.empty((count, real.shape[1]), np.float32)
    at = 0
    for block in Cloud(real, seed=3).blocks(count - planted, _PART):
        vectors[places[at : at + len(block)]] = block
        at += len(block)
    for start in range(0, planted, _PART):
        end = min(start + _PART, planted)
        copied = near_copies(vectors[places[start:end]], _THRESHOLD, seed=start)
        vectors[places[at + start : at + end]] = copied
    return vectors


def _pairs_found(vectors: Vectors, keep: NDArray[np.bool_]) -> tuple[float, int]:
    """The share of near-copies, of a sample of rows with all, of which one was dropped."""
    rows_ = np.random.default_rng(4).choice(len(vectors), _SAMPLED, replace=False)
    pairs = missed = 0
    for start in range(0, len(vectors), _PART):
        near = vectors[rows_] @ vectors[start : start + _PART].T >= _THRESHOLD
        inside = (rows_ >= start) & (rows_ < start + near.shape[1])
        near[inside, rows_[inside] - start] = False
        pairs += int(near.sum())
        missed += int((near & keep[rows_][:, None] & keep[start : start + _PART]).sum())
    return 1 - missed / max(pairs, 1), pairs


def _sizes(count: int) -> tuple[int, ...]:
    return count // 100, count // 10, count


def _exponent(times: dict[str, float]) -> float:
    """The slope of log time over log size."""
    sizes = [float(name.replace(",", "")) for name in times]
    return float(np.polyfit(np.log(sizes), np.log(list(times.values())), 1)[0])


def _own_rate(dtype: Any = None, device: str = "cpu") -> float:
    """GFLOP/s of large matrix products: one, or as many as a card takes a tenth of a second for."""
    import torch

    times = 500 if device == "cuda" else 1
    square = torch.randn(_SQUARE, _SQUARE, dtype=dtype, device=device)  # zeros and ones are faster
    out = torch.empty_like(square)
    torch.mm(square[:256], square, out=out[:256])

    def product() -> None:
        for _ in range(times):
            torch.mm(square, square, out=out)
        if device == "cuda":
            torch.cuda.synchronize()

    return 2e-9 * times * _SQUARE**3 / _clock(product)


def _clock(do: Callable[[], object]) -> float:
    """Seconds."""
    before = time.perf_counter()
    do()
    return time.perf_counter() - before


def _peak() -> float:
    """The most memory that this process has had, in GiB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 2**20


def main(
    small: bool = False, json: Path | None = None, task: str = "", real: Path = Path(),
    count: int = 0, precision: str = "float32",
) -> None:  # fmt: skip
    """Measure, and print the table; a task is for this script's own use."""
    if task in ("scan", "copies"):
        _tell(task, np.load(real), count, precision)
        return
    found = cuda(np.load(real), 20 if small else 1) if task == "cuda" else rows(small)
    show(found, Console(width=120))
    if json is not None:
        write(found, json)


def _tell(task: str, real: Vectors, count: int, precision: str) -> None:
    kind: Precision = "bfloat16" if precision == "bfloat16" else "float32"
    found = _copies(real, count) if task == "copies" else _scan(real, count, kind)
    print(dumps(found))


if __name__ == "__main__":
    typer.run(main)
