"""A run folder that is ready to be trained on: tiny model, a few picks and pairs, a recipe."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from rlaif.train.plan import Plan, Stage
from tests.tiny_models import tiny_model_folder

ROOT = Path(__file__).parents[2]

QUICK = {
    "max_steps": 2,
    "per_device_train_batch_size": 4,
    "learning_rate": 1e-3,
    "lr_scheduler_type": "constant",
    "disable_tqdm": True,
    "logging_steps": 1,
    "max_length": 96,
}
"""A block that trains in well under a second."""


def chat(text: str, role: str = "user") -> list[dict[str, str]]:
    return [{"role": role, "content": text}]


def pairs(n: int = 24, **columns: Sequence[Any]) -> list[dict[str, Any]]:
    """Preference pairs as the label stages write them; `columns` replaces or adds some."""
    rows = [
        {
            "prompt": chat(f"Say word number {i}."),
            "chosen": chat(
                "a helpful answer, number " + ["one", "two", "three", "four"][i % 4], "assistant"
            ),
            "rejected": chat("no" + " no" * (i % 5), "assistant"),
            "score_margin": 1.0 + i % 3,
            "concession": i % 2 / 2,
            "chosen_probability": 0.55 + 0.4 * (i % 7) / 7,
            "probability_calibrated": False,
            "record_id": f"{i // 2:016x}",
            "chosen_index": 0,
            "rejected_index": 1,
            "constitution": "c" * 16,
            "judge": "d" * 16,
        }
        for i in range(n)
    ]
    return [
        row | {name: values[i] for name, values in columns.items()} for i, row in enumerate(rows)
    ]


def picks(n: int = 24) -> list[dict[str, Any]]:
    return [
        {"prompt": row["prompt"], "completion": row["chosen"], "record_id": row["record_id"]}
        | {"score": 1.0, "score_margin": 0.5, "response_index": 0}
        | {"constitution": row["constitution"], "judge": row["judge"]}
        for row in pairs(n)
    ]


def write_rows(folder: Path, rows: Sequence[Mapping[str, Any]], shards: int = 2) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    size = -(-len(rows) // shards)
    for shard in range(shards):
        part = pa.Table.from_pylist(list(rows[shard * size : (shard + 1) * size]))
        pq.write_table(part, folder / f"{shard:05d}.parquet")


class TinyRun:
    """A recipe, its run folder with data, and the ways to train it."""

    def __init__(self, root: Path, **train: Any) -> None:
        self.root = root
        self.folder = root / "run"
        self.recipe = root / "recipe.yaml"
        self.train = train
        self.student: dict[str, Any] = {"model": str(root / "student")}
        if not (root / "student").exists():
            tiny_model_folder(root / "student")
        write_rows(self.folder / "data" / "sft", picks())
        write_rows(self.folder / "data" / "pairs", pairs())
        self.save()

    def save(self, **sections: Any) -> None:
        """Write the recipe."""
        (self.root / "constitution.yaml").touch()
        (self.root / "prompts.jsonl").touch()
        made = {
            "run": str(self.folder),
            "constitution": "constitution.yaml",
            "student": self.student,
            "teacher": self.student,
            "prompts": {"path": "prompts.jsonl"},
            "train": self.train,
        }
        self.recipe.write_text(yaml.safe_dump(made | sections))

    def plan(self, stage: Stage) -> Plan:
        return Plan.of(stage, self.recipe)

    def manifest(self, stage: Stage) -> dict[str, Any]:
        file = self.folder / "manifests" / "models" / f"{stage}.json"
        made: dict[str, Any] = json.loads(file.read_text())
        return made

    def weights(self, stage: Stage) -> str:
        """The digest of a final model's weights."""
        digest: str = self.manifest(stage)["weights"]["model.safetensors"]["sha256"]
        return digest

    def log(self, event: str) -> list[dict[str, Any]]:
        lines = (self.folder / "log.jsonl").read_text().splitlines()
        return [made for line in lines if (made := json.loads(line))["event"] == event]

    def history(self, stage: Stage) -> list[dict[str, Any]]:
        """What the trainer logged."""
        state = json.loads((self.folder / "models" / stage / "trainer_state.json").read_text())
        logged: list[dict[str, Any]] = state["log_history"]
        return logged

    def command(self, stage: str, *launcher: str) -> list[str]:
        return [
            sys.executable,
            "-m",
            *launcher,
            *(["-m"] if launcher else []),
            "rlaif.train",
            stage,
            str(self.recipe),
        ]

    def launch(
        self, stage: str, *launcher: str, **environ: str
    ) -> subprocess.CompletedProcess[str]:
        """Train in a process of its own, or in those that a launcher starts."""
        return subprocess.run(
            self.command(stage, *launcher),
            env=environment(**environ),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=280,
        )


def environment(**changes: str) -> dict[str, str]:
    """One thread, no network, and nothing inherited from a launcher that runs the tests."""
    launchers = ("ACCELERATE_", "MASTER_", "WORLD_SIZE", "RANK", "LOCAL_")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(launchers)}
    return kept | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)} | changes
