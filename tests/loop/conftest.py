from __future__ import annotations

from collections.abc import Iterator

import pytest

from rlaif.engines import meter


@pytest.fixture(autouse=True)
def no_meter_stays() -> Iterator[None]:
    """A stage that ran in this process leaves no books for the tests behind it."""
    yield
    meter.stop()
