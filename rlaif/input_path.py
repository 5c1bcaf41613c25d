"""What a path in a file means: it is relative to the file's folder, not to the current one.

Field types for recipe.py. A path given in Python is taken as it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationInfo

from rlaif.strict_model import Fault, Text


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a text too long to be a file's name, or a folder that may not be entered
        return False


def _existing(path: str, info: ValidationInfo) -> str:
    if not info.context:
        return path
    folder: Path = info.context["folder"]
    if not _is_there(folder / path):
        mend = f"name one relative to {folder}"
        raise Fault("no such file or folder", value=path, mend=mend)
    return str((folder / path).resolve())


def _existing_path(path: Path, info: ValidationInfo) -> Path:
    return Path(_existing(str(path), info))


def _local_or_name(value: str, info: ValidationInfo) -> str:
    if not info.context:
        return value
    looks_local = value.startswith(("/", "./", "../"))
    is_local = looks_local or _is_there(info.context["folder"] / value)
    return _existing(value, info) if is_local else value


InputName = Annotated[Text, AfterValidator(_existing)]
"""An existing file or folder, as text; absolute once read from a file."""

InputPath = Annotated[Path, Field(strict=False), AfterValidator(_existing_path)]
"""An existing file or folder; absolute once read from a file."""

PathOrName = Annotated[Text, AfterValidator(_local_or_name)]
"""An existing file or folder, absolute once read from a file; otherwise a name on the hub."""
