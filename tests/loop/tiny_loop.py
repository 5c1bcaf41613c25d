"""A recipe of two rounds on tiny random models, and the real command that runs it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.tiny_models import tiny_model_folder
from tests.train.tiny_run import QUICK, environment

MOMENTS = Path(__file__).parent / "moments"
QUIET = {
    "max_length_growth": None, "max_one_bin": None, "not_better": False, "falling": False,
    "min_tail_coverage": None,
}  # fmt: skip
"""A governor that lets everything pass: random models get no better."""
BLOCK = QUICK | {"max_steps": 4, "save_steps": 2, "report_to": "none", "use_cpu": True}
"""Four steps, a checkpoint after every second."""


def make_models(folder: Path) -> Path:
    """A student and a teacher of random weights, to be shared by several loops."""
    tiny_model_folder(folder / "student", seed=1)
    tiny_model_folder(folder / "teacher", seed=2)
    return folder


class TinyLoop:
    """A loop's recipe and folder, and the ways to run it."""

    def __init__(self, root: Path, models: Path, **sections: Any) -> None:
        self.root, self.models = root, models
        self.run = root / "run"
        self.file = root / "recipe.yaml"
        root.mkdir(parents=True, exist_ok=True)
        self.write_prompts("prompts", 6)
        self.write_prompts("held-out", 2)
        (root / "constitution.yaml").write_text(
            "name: test\nprinciples:\n- {id: kind, text: be kind}\n- {id: short, text: be short}\n"
        )
        self.save(**sections)

    def write_prompts(self, name: str, n: int) -> None:
        rows = "".join(json.dumps({"prompt": f"{name} number {i}"}) + "\n" for i in range(n))
        (self.root / f"{name}.jsonl").write_text(rows)

    def save(self, **sections: Any) -> None:
        """Write the recipe; `sections` are put over the default ones, key by key."""
        made: dict[str, Any] = {
            "run": str(self.run),
            "constitution": "constitution.yaml",
            "student": {"model": str(self.models / "student"), "dtype": "float32"},
            "teacher": {"model": str(self.models / "teacher"), "dtype": "float32"},
            "prompts": {"path": "prompts.jsonl", "shard_size": 2},
            "sample": {"n": 6, "max_tokens": 24, "stop": list("aeionrt")},
            "judge": {"min_coverage": 0.0},
            "pick": {"pairs": "all", "pair_margin": 0.0},
            "train": {"sft": BLOCK, "dpo": BLOCK},
            "evaluate": {"prompts": {"path": "held-out.jsonl"}, "max_tokens": 8},
            "loop": {"rounds": 2, "stop": QUIET},
        }
        for name, section in sections.items():
            both = isinstance(section, dict) and isinstance(made.get(name), dict)
            made[name] = made[name] | section if both else section
        self.file.write_text(yaml.safe_dump(made))

    def start(self, *options: str, **environ: str) -> subprocess.Popen[str]:
        """`rlaif loop` in a process of its own."""
        command = [sys.executable, "-m", "rlaif.cli", "loop", str(self.file), *options]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env=environment(**environ), start_new_session=True,
        )  # fmt: skip

    def loop(self, *options: str, **environ: str) -> tuple[int, str]:
        """Run it to its end: exit status, and what it printed."""
        process = self.start(*options, **environ)
        printed, _ = process.communicate(timeout=900)
        return process.returncode, printed

    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.run / "loop.json").read_text())
        return found

    def labels(self) -> dict[str, bytes]:
        """Every shard of every round, with its manifest and what was kept aside."""
        return {
            str(path.relative_to(self.run)): path.read_bytes()
            for part in ("data", "manifests", "kept_aside")
            for path in sorted(self.run.glob(f"rounds/*/{part}/**/*"))
            if path.is_file() and "manifests/models" not in str(path)
        }

    def weights(self) -> dict[str, str]:
        """The digest of every final model's weights."""
        return {
            str(path.relative_to(self.run)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(self.run.glob("rounds/*/models/*/final/*.safetensors"))
        }

    def events(self, event: str, round_: int = 0) -> list[dict[str, Any]]:
        """A round's log."""
        file = self.run / "rounds" / f"{round_:02d}" / "log.jsonl"
        lines = file.read_text().splitlines()
        return [made for line in lines if (made := json.loads(line))["event"] == event]
