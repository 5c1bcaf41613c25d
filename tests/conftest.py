from __future__ import annotations

import pytest

LONGEST = (
    "loop/test_rounds_killed.py", "loop/test_estimate_probe.py", "sandbox/test_quickstart.py",
    "loop/test_rounds_command.py", "test_recipes_run.py", "test_accelerate_configs.py",
    "train/test_order.py", "train/test_run.py",
)  # fmt: skip
"""Files that take minutes, the longest first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run first what takes longest: of two workers, none is left alone with it at the end."""

    def place(item: pytest.Item) -> int:
        file = item.path.as_posix()
        return next((i for i, name in enumerate(LONGEST) if file.endswith(name)), len(LONGEST))

    items.sort(key=place)  # a stable sort: all others stay in their order
