"""Starts the ways of bench_way.py, each in a process of its own, and has them take turns.

Whatever else the machine does then falls on all of them, and a ratio is one of medians.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
VLLM_PYTHON = HERE.parent / ".venv-vllm" / "bin" / "python"
DISTILABEL_PYTHON = HERE.parent / ".venv-distilabel" / "bin" / "python"
Job = dict[str, Any]


class Ways:
    """Processes by name, started when they are first asked for.

    Args:
        model: the folder of the model that all of them run.
    """

    def __init__(self, model: Path) -> None:
        self.model = model
        self._processes: dict[str, subprocess.Popen[str]] = {}

    def run(self, way: str, **job: Any) -> Job:
        """Have a way do a job, and return what it measured."""
        process = self._process(way)
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(job | {"way": way}) + "\n")
        process.stdin.flush()
        for line in process.stdout:
            if line.startswith("@@"):
                measured: Job = json.loads(line[2:])
                return measured
        raise SystemExit(f"{way} ended with exit status {process.wait()}")

    def turns(self, jobs: Mapping[str, Job], rounds: int) -> dict[str, list[Job]]:
        """Each job once a round, in an order that turns; before that, once in small to warm up."""
        for job in jobs.values():
            small = {"prompts": min(8, job.get("prompts", 8)), "passes": 1}
            self.run(**{**job, **small})
        measured: dict[str, list[Job]] = defaultdict(list)
        names = list(jobs)
        for turn in range(rounds):
            for name in [*names[turn % len(names) :], *names[: turn % len(names)]]:
                print(f"  {turn + 1}/{rounds} {name}", file=sys.stderr, flush=True)
                measured[name].append(self.run(**jobs[name]))
        return dict(measured)

    def end(self, *ways: str) -> None:
        """End these processes, or all."""
        for key in {_key(way) for way in ways} or set(self._processes):
            if (process := self._processes.pop(key, None)) is not None:
                assert process.stdin is not None
                process.stdin.close()
                process.wait()

    def _process(self, way: str) -> subprocess.Popen[str]:
        key = _key(way)
        if key not in self._processes:
            self._processes[key] = subprocess.Popen(
                [*_command(key), str(self.model)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=None if os.environ.get("BENCH_LOUD") else subprocess.DEVNULL,
                env=_environment(),
                text=True,
            )
        return self._processes[key]


def _key(way: str) -> str:
    """Ways that are one process: the same engine in other words."""
    return {"dense": "naive", "generate": "naive", "expected": "naive"}.get(way, way.split()[0])


def _command(key: str) -> list[str]:
    if key == "distilabel":
        return [str(DISTILABEL_PYTHON), str(HERE / "bench_distilabel.py")]
    python = str(VLLM_PYTHON) if key == "vllm-raw" and VLLM_PYTHON.exists() else sys.executable
    return [python, str(HERE / "bench_way.py")]


def _environment() -> dict[str, str]:
    given = {
        "PYTHONPATH": os.pathsep.join([str(HERE.parent), str(HERE)]),
        "HF_HUB_OFFLINE": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if VLLM_PYTHON.exists():
        given["RLAIF_VLLM_PYTHON"] = str(VLLM_PYTHON)
    return os.environ | given


def median(measured: list[Job], key: str = "seconds") -> float:
    """The median of a figure over the rounds."""
    return float(statistics.median(job[key] for job in measured))


def has_vllm() -> bool:
    """Whether vLLM can be run: in its own environment, or in this one."""
    from importlib.util import find_spec

    return VLLM_PYTHON.exists() or find_spec("vllm") is not None


def has_distilabel() -> bool:
    """Whether distilabel can be run, and vLLM's server for it."""
    return DISTILABEL_PYTHON.exists() and VLLM_PYTHON.exists()
