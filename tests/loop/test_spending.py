from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlaif.engines import meter
from rlaif.engines.protocol import Sampling
from rlaif.engines.scripted import ScriptedEngine
from rlaif.errors import BudgetError
from rlaif.loop.spending import Books, Spent, read_cost, total
from rlaif.recipe import Budget, Costs, Recipe
from rlaif.records import Message


def recipe(costs: dict[str, Any] | None = None, **budget: Any) -> Recipe:
    """The two sections that books look at."""
    return Recipe.model_construct(costs=Costs(**costs or {}), budget=Budget(**budget))


def books(file: Path, made: Recipe) -> Books:
    return Books(file, made, 0, 0, "sample")


class Writer:
    """An engine that writes ten tokens a request, counted."""

    def __init__(self) -> None:
        self.engine = meter.metered(ScriptedEngine(lambda _: "a b c d e f g h i j"))

    def write(self, times: int = 1) -> None:
        chat = (Message("user", "write"),)
        for _ in range(times):
            self.engine.generate([chat], Sampling(1, 1.0, 1.0, 10, ()), [0])


def test_what_stages_have_spent_adds_up_over_processes(tmp_path: Path) -> None:
    file = tmp_path / "run" / "cost.jsonl"
    for _ in range(2):
        made = books(file, recipe())
        writer = Writer()
        for _ in range(3):
            writer.write()
            made.line()
    found = total(read_cost(file))
    assert (found.requests, found.generated_tokens, found.tokens) == (6, 60, 60)
    assert [line["generated_tokens"] for line in read_cost(file)] == [10] * 6
    assert {(line["round"], line["attempt"], line["stage"]) for line in read_cost(file)} == {
        (0, 0, "sample")
    }


def test_a_line_that_a_kill_cut_off_is_left_out_and_spoils_no_other(tmp_path: Path) -> None:
    file = tmp_path / "cost.jsonl"
    made = books(file, recipe())
    writer = Writer()
    writer.write()
    made.line()
    with file.open("a") as stream:
        stream.write('{"round": 0, "generated_tok')
    again = books(file, recipe())
    writer = Writer()
    writer.write()
    again.line()
    assert [line["generated_tokens"] for line in read_cost(file)] == [10, 10]
    assert len(file.read_text().splitlines()) == 3


def test_nothing_is_spent_where_there_is_no_file(tmp_path: Path) -> None:
    assert read_cost(tmp_path / "cost.jsonl") == []
    assert total([]) == Spent()


def test_the_books_pause_before_the_shard_that_would_pass_the_budget(tmp_path: Path) -> None:
    file = tmp_path / "cost.jsonl"
    made, writer = books(file, recipe(tokens=35)), Writer()
    made.progress("samples", writer.write() or 1, 9)
    made.progress("samples", writer.write() or 2, 9)
    writer.write()
    with pytest.raises(BudgetError, match=r"budget\.tokens: .*40.*paused before.*got 35"):
        made.progress("samples", 3, 9)
    assert total(read_cost(file)).tokens == 30
