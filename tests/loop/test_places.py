from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path

import pytest

from rlaif.engines.kept import Kept
from rlaif.engines.openai.spending import Prices, Spending
from rlaif.errors import EngineError
from rlaif.loop.places import LoopFolder
from rlaif.run_folder import RunFolder

PRICES = Prices(Decimal(1), Decimal(1), Decimal(1))


def spent_in(run: RunFolder) -> Spending:
    return Spending(Kept(run.engines), "server", PRICES, Decimal(3))


def test_a_cap_on_what_is_spent_is_one_over_all_rounds_and_the_probe(tmp_path: Path) -> None:
    folder = LoopFolder(tmp_path / "run")
    probed = LoopFolder(folder.root / "estimate")
    folder.share(probed.run, ["engines"])
    probed.share(probed.round(0), ["engines"])
    for run in (probed.round(0), folder.round(0), folder.round(1)):
        if run.root.is_relative_to(folder.root / "rounds"):
            folder.share(run)
        spending = spent_in(run)
        asyncio.run(spending.reserve(Decimal(1)))
        spending.settle(Decimal(1), Decimal(1))
        spending.flush()
    # A round that was rolled back has spent what it has spent.
    folder.round(1).root.rename(folder.rolled_back(1, 0))
    folder.share(folder.round(1))
    with pytest.raises(EngineError, match="max_spend"):
        asyncio.run(spent_in(folder.round(1)).reserve(Decimal(1)))


def test_what_is_shared_is_the_loop_s_own_and_stays_so(tmp_path: Path) -> None:
    folder = LoopFolder(tmp_path / "run")
    for _ in range(2):
        folder.share(folder.round(0))
    (folder.round(0).root / "embeddings" / "texts").write_text("")
    assert [path.name for path in (folder.root / "embeddings").iterdir()] == ["texts"]
