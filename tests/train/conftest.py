from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from tests.train.tiny_run import TinyRun


@pytest.fixture
def tiny_run(tmp_path: Path) -> Callable[..., TinyRun]:
    """Make a run that is ready to be trained, with these values in the recipe's train section."""

    def make(**train: Any) -> TinyRun:
        return TinyRun(tmp_path, **train)

    return make
