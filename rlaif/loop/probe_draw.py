"""`python -m rlaif.loop.probe_draw RECIPE FOLDER N`: what a probe asks, and of how much.

    the recipe's own prompts → N of them, evenly drawn → FOLDER/prompts.jsonl, evaluate.jsonl
                             → how many there are → FOLDER/counts.json

In a process of its own: data sets of the hub take libraries that the estimate itself is free of.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlaif.loop.child_main import child_main
from rlaif.loop.round_recipe import prompts_of_round
from rlaif.prompts.load import load_prompts
from rlaif.recipe import Prompts, Recipe
from rlaif.records import Record, chat_to_json


def draw(recipe: Recipe, folder: Path, probe_prompts: int) -> None:
    """Draw the probe's prompts, and count the recipe's.

    Args:
        recipe: with a `loop` section.
        folder: where the files go.
        probe_prompts: how many to draw, where there are as many.

    Raises:
        DataError: a source cannot be read, or has no usable prompt.
    """
    assert recipe.loop is not None
    known: dict[str, int] = {}
    rounds = []
    for number in range(recipe.loop.rounds):
        source = prompts_of_round(recipe, number, None)
        key = source.model_dump_json()
        if key not in known:
            records = _records(source)
            known[key] = len(records)
            if number == 0:
                _write(folder / "prompts.jsonl", evenly(records, probe_prompts))
        rounds.append(known[key])
    counts: dict[str, Any] = {"rounds": rounds, "evaluate": 0, "anchors": 0}
    if recipe.evaluate.prompts is not None:
        records = _records(recipe.evaluate.prompts)
        counts["evaluate"] = len(records)
        _write(folder / "evaluate.jsonl", evenly(records, probe_prompts))
    if recipe.anchors is not None:
        from rlaif.anchors import load_anchors

        counts["anchors"] = len(load_anchors(recipe.anchors)[0])
    (folder / "counts.json").write_text(json.dumps(counts) + "\n", "utf-8")


def evenly(records: Sequence[Record], n: int) -> list[Record]:
    """So many of the records, from the first to the last at equal distances."""
    n = min(n, len(records))
    return [records[(2 * i + 1) * len(records) // (2 * n)] for i in range(n)]


def _records(source: Prompts) -> list[Record]:
    return [record for record in load_prompts(source) if isinstance(record, Record)]


def _write(file: Path, records: Sequence[Record]) -> None:
    rows = ({"prompt": chat_to_json(record.prompt)} for record in records)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    file.write_text(lines, "utf-8")


def _main(recipe_file: str, folder: str, probe_prompts: str) -> None:
    draw(Recipe.load(recipe_file), Path(folder), int(probe_prompts))


if __name__ == "__main__":
    sys.exit(child_main(lambda: _main(*sys.argv[1:])))
