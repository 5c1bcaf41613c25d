"""The model that a stage starts from: where it lies, and what exactly it is.

recipe.student, or the SFT stage's model → Start → plan.Plan

A folder is known by the digests of its files, a name on the hub by the commit it stands for, so
that training again after either has changed is not mistaken for a resumed run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlaif.errors import TrainError
from rlaif.recipe import Model
from rlaif.run_folder import os_errors

_PARTS = {".safetensors", ".bin", ".json", ".jinja", ".model", ".txt", ".py"}


@dataclass(frozen=True)
class Start:
    """A model to start from.

    Attributes:
        model: a folder, or a name on the hub.
        revision: the commit on the hub; None for a folder.
        adapter: a folder with a peft adapter to merge into the model first.
        identity: digests or commit, as plain JSON; part of a plan's fingerprint.
    """

    model: str
    revision: str | None = None
    adapter: Path | None = None
    identity: Mapping[str, Any] = field(default_factory=dict)


def start_of_student(student: Model) -> Start:
    """The recipe's student, known by content.

    Raises:
        TrainError: there is no such model.
    """
    adapter = student.adapter
    tuned = {} if adapter is None else {"adapter": digests(adapter)}
    if Path(student.model).is_dir():
        identity = {"model": digests(Path(student.model)), **tuned}
        return Start(student.model, None, adapter, identity)
    commit = _commit(student.model, student.revision)
    return Start(
        student.model, commit, adapter, {"model": student.model, "commit": commit, **tuned}
    )


def digests(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file that makes up a model, by name.

    Raises:
        JournalError: a file cannot be read.
    """
    files = sorted(p for p in folder.iterdir() if p.suffix in _PARTS and p.is_file())
    # The Trainer's own arguments: the only file beside a model that says nothing about it.
    return {p.name: sha256(p) for p in files if p.name != "training_args.bin"}


def sha256(file: Path) -> str:
    """The digest of a file's bytes, in hex.

    Raises:
        JournalError: there is no reading it.
    """
    with os_errors(file, "read"), file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _commit(name: str, revision: str | None) -> str:
    """The commit that a name on the hub stands for; from the cache where the hub is offline."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        config = hf_hub_download(name, "config.json", revision=revision)
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise TrainError(
            "neither a folder nor a model that the hub could give",
            key="student.model",
            value=name,
            mend="check the path or the name, and the connection",
        ) from error
    return Path(config).parent.name
