"""A loop whose stages run in this process, with scripted models and trainings that take no time.

Everything is the loop's own but the models, the trainings and the processes: a whole loop takes
well under a second. `fail` lets a stage end badly once, and `kill` lets the loop itself end there.
"""

from __future__ import annotations

import contextlib
import contextvars
import io
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

import rlaif.loop.measure
import rlaif.pipeline
from rlaif.constitution import Constitution, Principle
from rlaif.engines.meter import metered
from rlaif.engines.protocol import Engine, Label
from rlaif.engines.scripted import ScriptedEngine
from rlaif.loop import rounds, running, stage
from rlaif.loop.child import Ended
from rlaif.loop.state import State
from rlaif.records import Chat, fingerprint
from tests.loop.tiny_loop import QUIET

WORDS = ("well", "fine", "quite", "very", "truly")
YES_SAYER = "yes-sayer"
"""The weights of a judge that finds every principle kept, more or less surely."""


class KilledError(BaseException):
    """What stands for a SIGKILL of the loop's own process."""


class ScriptedLoop:
    """A recipe with scripted models, and what its loop did.

    Attributes:
        done: the stages that were started, in order.
        said: what the loop told.
        checks: how often the `train` blocks were held against the trainers' configs.
        check: how that ends.
        fail: statuses that a stage ends with, in turn, in place of being done.
        kill: a stage before which the loop's own process ends, once `kill_after` stages are done.
        words: how many words a model's answers have, by the round that made it (-1: the student).
        silent: rounds whose model says nothing, as a judge, of every eighth thing that it is asked.
    """

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, **sections: Any) -> None:
        self.root, self.run = root, root / "run"
        self.file = root / "recipe.yaml"
        self.done: list[str] = []
        self.said: list[str] = []
        self.checks, self.check = 0, (0, 0.0, "")
        self.fail: dict[str, list[int]] = {}
        self.kill: str | None = None
        self.kill_after = 0
        self.words: dict[int, int] = {}
        self.silent: set[int] = set()
        for name in ("student", "teacher"):
            (root / name).mkdir(parents=True)
            (root / name / "model.safetensors").write_bytes(name.encode())
        self.prompts("prompts", 4)
        self.prompts("held-out", 2)
        self.constitution()
        self.save(**sections)
        monkeypatch.setattr(running, "run_child", self._run_child)
        monkeypatch.setattr(rlaif.pipeline, "load_engine", self._load)
        monkeypatch.setattr(rlaif.loop.measure, "load_engine", self._load)
        for name in ("sft", "dpo", "reward"):
            monkeypatch.setitem(stage._STAGES, name, self._train(name))  # type: ignore[attr-defined]
        monkeypatch.setattr(stage, "_train", self._train)

    def prompts(self, name: str, n: int) -> None:
        rows = "".join(json.dumps({"prompt": f"{name} {i}"}) + "\n" for i in range(n))
        (self.root / f"{name}.jsonl").write_text(rows)

    def constitution(self, **principle: Any) -> None:
        rules = (Principle(id="kind", text="Be kind.", **principle),
                 Principle(id="long", text="Be long."))  # fmt: skip
        Constitution(name="test", principles=rules).save(self.root / "constitution.yaml")

    def save(self, **sections: Any) -> None:
        """Write the recipe; `sections` are put over the default ones, key by key."""
        made: dict[str, Any] = {
            "run": str(self.run),
            "constitution": "constitution.yaml",
            "student": {"model": "student"},
            "teacher": {"model": "teacher"},
            "prompts": {"path": "prompts.jsonl", "shard_size": 2},
            "sample": {"n": 3, "max_tokens": 10},
            "pick": {"pairs": "all", "pair_margin": 0.0},
            "train": {"sft": {}, "dpo": {}},
            "evaluate": {
                "prompts": {"path": "held-out.jsonl"},
                "max_tokens": 10,
                "bootstrap": 20,
            },
            "loop": {"rounds": 2, "stop": QUIET},
        }
        for name, section in sections.items():
            both = isinstance(section, dict) and isinstance(made.get(name), dict)
            made[name] = made[name] | section if both else section
        made["loop"]["stop"] = QUIET | made["loop"].get("stop", {})
        self.file.write_text(yaml.safe_dump(made))

    def loop(self, restart_from: str | None = None) -> State:
        """Run the loop to its end in this process; `done` and `said` begin anew."""
        self.done, self.said = [], []
        return rounds.run_loop(self.file, restart_from=restart_from, say=self.said.append)

    def told(self) -> dict[str, Any]:
        """RUN/loop.json."""
        found: dict[str, Any] = json.loads((self.run / "loop.json").read_text())
        return found

    def recipe(self, round_: int) -> dict[str, Any]:
        """A round's own recipe."""
        file = self.run / "rounds" / f"{round_:02d}" / "recipe.yaml"
        found: dict[str, Any] = yaml.safe_load(file.read_text())
        return found

    def files(self, *parts: str) -> dict[str, bytes]:
        """The run's files under some folders of its rounds, by their place."""
        return {
            str(path.relative_to(self.run)): path.read_bytes()
            for part in parts
            for path in sorted(self.run.glob(f"rounds/*/{part}/**/*"))
            if path.is_file()
        }

    def _run_child(
        self, arguments: Sequence[str], said: Path, environ: Mapping[str, str] | None = None
    ) -> Ended:
        if arguments[1] != "rlaif.loop.stage":
            self.checks += 1
            return Ended(*self.check)
        label = f"{int(arguments[5]):02d}-{arguments[2]}" if arguments[5] != "-1" else arguments[2]
        if label == self.kill and len(self.done) >= self.kill_after:
            self.kill, self.kill_after = None, 0
            raise KilledError
        self.done.append(label)
        if self.fail.get(label):
            return Ended(self.fail[label].pop(0), 0.0, "rlaif: it failed")
        with contextlib.redirect_stderr(io.StringIO()) as told:
            # Of its own, as a process has one: what is counted in it is the stage's.
            status = contextvars.copy_context().run(stage.main, list(arguments[2:]))
        return Ended(status, 0.0, told.getvalue())

    def _load(self, model: Any, state: Path | None = None) -> Engine:
        weights = Path(model.model) / "model.safetensors"
        name = weights.read_bytes().decode()
        made = int(name.rpartition("round ")[2]) if "round " in name else -1
        masses = _always_yes if name == YES_SAYER else _masses
        masses = _often_silent if made in self.silent else masses
        engine = ScriptedEngine(_answers(name, self.words.get(made, 3)), masses, name=name)
        return metered(engine)

    def _train(self, name: str) -> Callable[[stage.Job], None]:
        """Writes the files that a training writes; what is in them follows from what it is of."""

        def train(job: stage.Job) -> None:
            data = "sft" if name == "sft" else "pairs"
            rows = [p.read_bytes() for p in sorted(job.run.data(data).glob("*.parquet"))]
            made = fingerprint(
                [
                    zlib.crc32(b"".join(rows)),
                    job.recipe.train.model_dump(mode="json", exclude={"also"}),
                ]
            )
            final = job.run.model(name) / "final"
            final.mkdir(parents=True, exist_ok=True)
            text = f"{name} {made} round {max(job.number, 0)}".encode()
            (final / "model.safetensors").write_bytes(text)
            (job.run.model(name) / "adapter").mkdir(exist_ok=True)
            (job.run.model(name) / "adapter" / "adapter_config.json").write_text("{}")
            manifest = {"weights": {"model.safetensors": {"bytes": len(text)}}}
            job.run.write_text(job.run.manifests("models") / f"{name}.json", json.dumps(manifest))

        return train


def _answers(name: str, words: int) -> Callable[[Chat], list[str]]:
    def answer(chat: Chat) -> list[str]:
        drawn = zlib.crc32(f"{name} {chat[-1].text}".encode())
        return [f"{name} says {' '.join([WORDS[(drawn + i) % 5]] * (words + i))}" for i in range(3)]

    return answer


def _masses(chat: Chat, labels: Sequence[Label]) -> list[float]:
    kept = (1 + zlib.crc32(chat[-1].text.encode()) % 97) / 99
    return [kept, 1 - kept]


def _often_silent(chat: Chat, labels: Sequence[Label]) -> list[float]:
    said = zlib.crc32(chat[-1].text.encode()) % 8
    return _masses(chat, labels) if said else [0.0, 0.0]


def _always_yes(chat: Chat, labels: Sequence[Label]) -> list[float]:
    kept, broken = _masses(chat, labels)
    return [1 + kept, broken]
