"""A run with filters: what is dropped and why lies in the run, and nothing is done twice."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pyarrow as pa
import pytest

import rlaif.filtering
from rlaif import pipeline
from rlaif.cli import main
from rlaif.embed import Embedder
from rlaif.errors import DataError, RecipeError
from rlaif.filtering import store_filtered
from rlaif.journal import Stage
from rlaif.label.rows import SFT_SCHEMA, pair_schema
from rlaif.recipe import Recipe
from rlaif.run_folder import RunFolder
from tests.filters.gold import DRAGONS, gold
from tests.test_pipeline import Models, tree, write
from tests.test_pipeline import models as models

ROWS = [*gold(40, 2), *DRAGONS[:3]], [*gold(20, 3), *DRAGONS[3:]]


def message(role: str, text: str) -> list[dict[str, str]]:
    return [{"role": role, "content": text}]


def sft_row(row: dict[str, str], id_: str) -> dict[str, object]:
    return {
        "prompt": message("user", row["prompt"]),
        "completion": message("assistant", row["completion"]),
        "score": 1.0, "score_margin": 1.0, "record_id": id_, "response_index": 0,
        "constitution": "c", "judge": "j",
    }  # fmt: skip


class Picked:
    """A run whose picks lie there, in two shards; its pairs are none."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.run = folder, RunFolder(folder / "run").create()
        (folder / "constitution.yaml").write_text(
            "name: c\nprinciples:\n  - {id: kind, text: Be kind.}\n"
        )
        (folder / "prompts.jsonl").write_text('{"prompt": "Hi"}\n')
        rows = "".join(json.dumps(row) + "\n" for row in gold(180, 1))
        (folder / "anchors.jsonl").write_text(rows)
        self.stages = {
            "sft": Stage(self.run, "picked/sft", SFT_SCHEMA),
            "pairs": Stage(self.run, "picked/pairs", pair_schema(False)),
        }
        for shard, rows_ in enumerate(ROWS):
            sft = [sft_row(row, f"r{shard}-{i}") for i, row in enumerate(rows_)]
            table = pa.Table.from_pylist(sft, schema=SFT_SCHEMA)
            self.stages["sft"].write(shard, {"of": "test"}, table)
            none = pa.Table.from_pylist([], schema=pair_schema(False))
            self.stages["pairs"].write(shard, {"of": "test"}, none)

    def recipe(self, **filter_: object) -> Recipe:
        settings = {"copy_overlap": None, "near_duplicates": None, "drift": None, **filter_}
        folder = self.folder
        return Recipe(
            run=str(folder / "run"), constitution=folder / "constitution.yaml",
            student={"model": "s"}, teacher={"model": "t"},
            prompts={"path": str(folder / "prompts.jsonl")},
            anchors={"path": str(folder / "anchors.jsonl")}, filter=settings,
        )  # type: ignore[arg-type]  # fmt: skip

    def filtered(self, **filter_: object) -> dict[str, Stage]:
        return store_filtered(self.run, self.recipe(**filter_), self.stages)


@pytest.fixture(scope="module")
def embed(tmp_path_factory: pytest.TempPathFactory) -> Embedder:
    return Embedder(cache=tmp_path_factory.mktemp("embeddings"))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, embed: Embedder) -> Picked:
    monkeypatch.setattr(rlaif.filtering, "Embedder", lambda **_: embed)
    return Picked(tmp_path)


def ids(stage: Stage) -> set[str]:
    return {i for s in stage.shards() for i in stage.read(s)["record_id"].to_pylist()}


def test_every_row_is_kept_or_kept_aside_with_its_reason(run: Picked) -> None:
    made = run.filtered()["sft"]
    drops = [drop for shard in made.shards() for drop in made.drops(shard)]
    every = {f"r{s}-{i}" for s, rows in enumerate(ROWS) for i in range(len(rows))}
    assert ids(made) | {d.id for d in drops} == every
    assert not ids(made) & {d.id for d in drops}
    dragons = {f"r0-{i}" for i in (40, 41, 42)} | {f"r1-{i}" for i in (20, 21, 22)}
    assert dragons <= {d.id for d in drops if d.reason == "drift: far from every anchor"}
    assert all("nearest anchor: " in d.detail for d in drops if d.id in dragons)


def test_the_picks_stay_and_the_figures_are_written(run: Picked) -> None:
    run.filtered()
    assert sum(run.stages["sft"].read(s).num_rows for s in (0, 1)) == 66
    figures = json.loads((run.run.root / "filter" / "sft.json").read_text())
    assert figures["rows"] == 66
    assert figures["kept"] == 66 - sum(figures["dropped"].values())


def test_what_is_finished_is_not_done_again(run: Picked, monkeypatch: pytest.MonkeyPatch) -> None:
    run.filtered()
    before = tree(run.run.root / "data")

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("was fitted again")

    with monkeypatch.context() as patch:
        patch.setattr(rlaif.filtering, "fit_filters", fail)
        run.filtered()
    assert tree(run.run.root / "data") == before


def test_a_lost_shard_is_redone_alike(run: Picked) -> None:
    run.filtered()
    before = tree(run.run.root / "data")
    (run.run.data("sft") / "00001.parquet").unlink()
    run.filtered()
    assert tree(run.run.root / "data") == before


def test_another_band_is_another_result(run: Picked) -> None:
    narrow = ids(run.filtered()["sft"])
    assert narrow < ids(run.filtered(low=-1.0, high=1.0)["sft"])


def test_other_anchors_are_another_result(run: Picked) -> None:
    band = {"low": 0.6, "high": 1.0, "max_lost": None}
    before = ids(run.filtered(**band)["sft"])
    with (run.folder / "anchors.jsonl").open("a") as file:
        for row in DRAGONS:
            file.write(json.dumps({**row, "prompt": "Sing of a dragon."}) + "\n")
    assert ids(run.filtered(**band)["sft"]) - before >= {"r0-40", "r1-20"}


def test_filters_that_leave_nothing_end_the_run_and_say_why(run: Picked) -> None:
    with pytest.raises(DataError, match="leave none of 66 rows; 66 × ") as caught:
        run.filtered(low=0.9999, high=1.0)
    assert "\n" not in str(caught.value)


def test_a_recipe_without_filters_and_a_run_without_labels_are_told(run: Picked) -> None:
    recipe = run.recipe()
    with pytest.raises(DataError, match="not labelled yet"):
        pipeline.filter_run(recipe)
    with pytest.raises(RecipeError, match="no filters"):
        pipeline.filter_run(recipe.model_copy(update={"filter": None}))


def test_filters_need_anchors(run: Picked) -> None:
    with pytest.raises(RecipeError, match="there are none"):
        Recipe(**run.recipe().model_dump() | {"anchors": None})


WIDE = {
    "low": -1.0, "high": 1.0, "copy_overlap": None, "near_duplicates": None, "max_lost": None,
    "drift": None,
}  # fmt: skip


def test_a_labelled_run_is_filtered_by_its_recipe_and_the_command_says_so(
    run: Picked, models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    anchors = {"path": str(run.folder / "anchors.jsonl")}
    folder = tmp_path / "labelled"
    folder.mkdir()
    plain = pipeline.label(write(folder))
    wide = pipeline.label(write(folder, anchors=anchors, filter=WIDE))
    assert (wide.picks, wide.pairs) == (plain.picks, plain.pairs)
    judged = models.judged
    write(folder, anchors=anchors, filter={**WIDE, "near_duplicates": 0.9})
    monkeypatch.setattr(sys, "argv", ["rlaif", "filter", str(folder / "recipe.yaml")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert models.judged == judged
    said = capsys.readouterr().out
    assert "kept aside from sft: " in said and "× redundant: close to another row" in said
    picked = Stage(RunFolder(folder / "run"), "picked/sft", SFT_SCHEMA)
    kept = Stage(RunFolder(folder / "run"), "sft", SFT_SCHEMA)
    assert ids(kept) < ids(picked)
