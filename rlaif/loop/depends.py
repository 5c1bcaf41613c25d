"""What each stage of a round is made of, as plain JSON: its settings, and digests of its files.

    the round's recipe, its student and judge, the stage before → depends → finished.py

No path is in it: a run folder that is moved is the same run. A model that the loop itself has made
is known by the key of the training that made it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from rlaif.constitution import Constitution
from rlaif.journal import file_sha256
from rlaif.recipe import Model, Recipe
from rlaif.run_folder import RunFolder

_MODEL_FILES = {".safetensors", ".bin", ".json", ".jinja", ".model", ".txt"}
_DATA_FILES = {".jsonl", ".parquet", ".yaml"}
_CHANGES_NO_ANSWER = {"python", "prices", "max_spend", "batch"}


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a round is made of.

    Attributes:
        loop: the loop's recipe.
        recipe: the round's own.
        student: what the student is: a model's digests, or the key of the training that made it.
        judge: what labels, likewise.
        earlier: keys of what made the other rows that are trained on.
        digests: by which files are known.
    """

    loop: Recipe
    recipe: Recipe
    student: Any
    judge: Any
    earlier: tuple[Any, ...] = ()
    digests: Digests = field(default_factory=lambda: Digests())


def depends(stage: str, inputs: Inputs, after: str | None) -> dict[str, Any]:
    """All that decides a stage's output.

    Args:
        stage: its name.
        inputs: of its round.
        after: the key of the stage before it; None for the first.
    """
    return {"after": after, **_OF[stage](inputs)}


class Digests:
    """SHA-256 of files; that of a file which has not changed meanwhile is taken once."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int, int], str | None] = {}

    def of(self, path: Path | str | None) -> Any:
        """A file's digest, or those of a folder's files by name; a name on the hub is itself."""
        if path is None:
            return None
        path = Path(path)
        if path.is_dir():
            kinds = _MODEL_FILES | _DATA_FILES
            files = sorted(p for p in path.iterdir() if p.is_file() and p.suffix in kinds)
            return {p.name: self._file(p) for p in files}
        return self._file(path) if path.is_file() else str(path)

    def _file(self, file: Path) -> str | None:
        status = file.stat()
        key = str(file.resolve()), status.st_size, status.st_mtime_ns
        if key not in self._known:
            self._known[key] = file_sha256(file)
        return self._known[key]

    def model(self, model: Model | None) -> Any:
        """A model's section, its files' digests in place of their paths."""
        if model is None:
            return None
        args = {k: v for k, v in model.engine_args.items() if k not in _CHANGES_NO_ANSWER}
        places = {"model": self.of(model.model), "adapter": self.of(model.adapter)}
        return _plain(model) | places | {"engine_args": args}


def _plain(section: BaseModel | None) -> Any:
    return None if section is None else section.model_dump(mode="json")


def _source(i: Inputs, section: Any) -> Any:
    """A section that names a file: what the file holds stands for its path."""
    if section is None:
        return None
    given = _plain(section)
    for key in ("path", "data"):
        if key in given:
            given[key] = i.digests.of(given[key])
    return given


def _seed(i: Inputs) -> dict[str, Any]:
    assert i.loop.loop is not None and i.loop.loop.seeds is not None
    seeds = i.loop.loop.seeds
    return {
        "instructions": i.digests.of(seeds.instructions),
        "evaluations": i.digests.of(seeds.evaluations),
        **({"evaluation_pairs": seeds.evaluation_pairs} if seeds.evaluation_pairs else {}),
        "judge": _asked(i),
        **_training("sft", i),
        "also": [],  # the seeds alone
    }


def _prompts(i: Inputs) -> dict[str, Any]:
    topics = _plain(i.loop.topics) | {"generator": i.digests.model(i.loop.topics.generator)}
    return {
        "student": i.student, "judge": i.judge, "topics": topics,
        "prompts": _source(i, i.loop.prompts), **_held_against(i),
    }  # fmt: skip


def _sample(i: Inputs) -> dict[str, Any]:
    recipe = i.recipe
    # The judge is held to the gate before anything is sampled.
    return {
        "student": i.student, "prompts": _source(i, recipe.prompts), "seed": recipe.seed,
        "sample": _plain(recipe.sample), "revise": _plain(recipe.revise),
        "gate": _source(i, recipe.gate), **_asked(i),
    }  # fmt: skip


def _judge(i: Inputs) -> dict[str, Any]:
    return {
        "pick": _plain(i.recipe.pick), "behind": [bool(i.recipe.critic), bool(i.recipe.filter)],
        **_asked(i),
    }  # fmt: skip


def _asked(i: Inputs) -> dict[str, Any]:
    settings = _plain(i.recipe.judge) | {"templates": i.digests.of(i.recipe.judge.templates)}
    return {
        "teacher": i.judge, "judge": settings, "package_templates": _package_templates(),
        "constitution": Constitution.load(i.recipe.constitution).fingerprint,
    }  # fmt: skip


def _held_against(i: Inputs) -> dict[str, Any]:
    embedding = _plain(i.loop.embedding) | {"model": i.digests.of(i.loop.embedding.model)}
    return {"anchors": _source(i, i.loop.anchors), "embedding": embedding}


def _filter(i: Inputs) -> dict[str, Any]:
    recipe, critic = i.recipe, _plain(i.recipe.critic)
    if recipe.critic is not None:
        critic["model"] = i.digests.model(recipe.critic.model)
        critic["checks"] = i.digests.of(recipe.critic.checks)
    settings = _plain(recipe.filter)
    if recipe.filter is not None and recipe.filter.density is not None:
        settings["density"]["classifier"] = i.digests.of(recipe.filter.density.classifier)
    return {"critic": critic, "filter": settings, **_held_against(i)}


def _training(stage: str, i: Inputs) -> dict[str, Any]:
    from rlaif.train.plan import OF_OTHERS, what_decides

    train = i.recipe.train
    also = [RunFolder(run).data(kind) for kind in OF_OTHERS[stage] for run in i.loop.train.also]
    choice = {"dpo": train.dpo_pairs, "reward": train.reward_pairs}.get(stage)
    return {
        stage: what_decides(getattr(train, stage) or {}), "lora": train.lora,
        "soft_labels": train.soft_labels, "pairs": _plain(choice),
        "continue_adapter": train.continue_adapter, "start": i.digests.model(train.start),
        "also": [*(i.digests.of(rows) if rows.is_dir() else {} for rows in also), *i.earlier],
    }  # fmt: skip


def _evaluate(i: Inputs) -> dict[str, Any]:
    assert i.loop.loop is not None
    settings = _plain(i.loop.evaluate) | {"prompts": _source(i, i.loop.evaluate.prompts)}
    return {
        "evaluate": settings, "yardstick": i.digests.model(i.loop.teacher),
        "metric": i.loop.loop.metric, **_held_against(i),
    }  # fmt: skip


_OF: Mapping[str, Callable[[Inputs], dict[str, Any]]] = {
    "seed": _seed,
    "prompts": _prompts,
    "sample": _sample,
    "judge": _judge,
    "filter": _filter,
    "sft": lambda i: _training("sft", i),
    "dpo": lambda i: _training("dpo", i),
    "reward": lambda i: _training("reward", i),
    "evaluate": _evaluate,
}


@cache
def _package_templates() -> str:
    """What the package itself asks a judge: another version may ask otherwise."""
    digest = hashlib.sha256()
    for file in sorted((Path(__file__).parent.parent / "templates").iterdir()):
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()
