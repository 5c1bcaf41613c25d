"""What an engine keeps across restarts: small JSON files, each written wholly or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rlaif.errors import EngineError
from rlaif.run_folder import RunFolder, os_errors


class Kept:
    """Named JSON objects in a folder; without a folder, in memory.

    Args:
        folder: made when the first object is written.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._memory: dict[str, str] = {}

    def read(self, name: str) -> dict[str, Any] | None:
        """The object of that name; None where there is none.

        Raises:
            EngineError: its file is damaged.
            JournalError: its file cannot be read.
        """
        text = self._memory.get(name) if self.folder is None else self._read_file(name)
        if text is None:
            return None
        try:
            values = json.loads(text)
        except ValueError:
            values = None
        if not isinstance(values, dict):
            raise EngineError(
                "is damaged", file=self.file(name), mend="put it back, or remove it to begin anew"
            )
        return values

    def write(self, name: str, values: dict[str, Any]) -> None:
        """Put an object in its place, durably.

        Raises:
            JournalError: the disk is full, there is no permission, and so on.
        """
        text = json.dumps(values, indent=2, sort_keys=True) + "\n"
        if self.folder is None:
            self._memory[name] = text
        else:
            RunFolder(self.folder).write_text(self._path(name), text)

    def file(self, name: str) -> str:
        """Where an object is kept, for messages."""
        return "memory" if self.folder is None else str(self._path(name))

    def _path(self, name: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{name}.json"

    def _read_file(self, name: str) -> str | None:
        path = self._path(name)
        with os_errors(path, "read"):
            return path.read_text(encoding="utf-8") if path.exists() else None
