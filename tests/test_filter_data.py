"""`rlaif filter --data`, `anchor fit`, `density fit`, `topics`: a file in, files and lines out."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import datasets
import pytest

import rlaif.filter_commands
import rlaif.filter_data
import rlaif.topics
from rlaif.cli import main
from rlaif.embed import Embedder
from rlaif.engines.scripted import ScriptedEngine
from rlaif.prompts.load import load_prompts
from rlaif.recipe import Prompts
from rlaif.records import Chat, Record
from tests.filters.gold import DRAGONS, gold


@pytest.fixture(scope="module")
def embed(tmp_path_factory: pytest.TempPathFactory) -> Embedder:
    return Embedder(cache=tmp_path_factory.mktemp("embeddings"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, embed: Embedder) -> Path:
    for module in (rlaif.filter_data, rlaif.filter_commands, rlaif.topics):
        monkeypatch.setattr(module, "Embedder", lambda *_, **__: embed)
    monkeypatch.chdir(tmp_path)
    lines(tmp_path / "anchors.jsonl", gold(180, 1))
    return tmp_path


def lines(file: Path, rows: list[dict[str, object]] | list[dict[str, str]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["rlaif", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0


def pairs(rows: list[dict[str, str]]) -> list[dict[str, object]]:
    return [
        {"prompt": r["prompt"], "chosen": r["completion"], "rejected": "No.", "score": i}
        for i, r in enumerate(rows)
    ]


def test_a_preference_file_comes_out_with_all_its_columns(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [*pairs([*gold(60, 2), *DRAGONS]), {"other": 1}, {"prompt": "\ud800", "chosen": "x"}]
    lines(folder / "data.jsonl", rows)
    run(monkeypatch, "filter", "--data", "data.jsonl", "--anchors", "anchors.jsonl")
    kept = datasets.load_dataset(str(folder / "filtered" / "data"), split="train")
    assert kept.column_names == ["prompt", "chosen", "rejected", "score"]
    aside = [json.loads(s) for s in (folder / "filtered/kept_aside.jsonl").read_text().splitlines()]
    assert len(kept) + len(aside) == 68
    reasons = {drop["id"]: drop["reason"] for drop in aside}
    assert reasons["data.jsonl:67"] == "no column of a training row"
    assert reasons["data.jsonl:68"] == "not text that UTF-8 can hold"
    assert all(reasons[f"data.jsonl:{n}"].startswith("drift") for n in range(61, 67))
    said = capsys.readouterr().out
    assert f"{len(kept)} of 68 rows are kept" in said
    assert "1 × no column of a training row" in said


def test_without_anchors_one_line_says_what_to_give(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines(folder / "data.jsonl", pairs(gold(3, 2)))
    monkeypatch.setattr(sys, "argv", ["rlaif", "filter", "--data", "data.jsonl"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("rlaif: no anchors; name human texts")


def test_a_band_is_proposed_on_one_screen(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, "anchor", "fit", "--anchors", "anchors.jsonl", "--compare", "prompt")
    said = capsys.readouterr().out
    assert "low end" in said
    assert "high end" in said


def test_a_density_classifier_is_fitted_from_two_files(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "says.txt").write_text(
        "".join(f"The bridge of town {i} is iron.\n" for i in range(30))
    )
    (folder / "empty.txt").write_text("".join(f"Well, as I said {i} times.\n" for i in range(30)))
    run(monkeypatch, "density", "fit", "--informative", "says.txt", "--empty", "empty.txt")
    assert "right on a held-out fifth: 1.000" in capsys.readouterr().out
    assert json.loads((folder / "density.json").read_text())
    (folder / "taken").mkdir()
    told = ["--informative", "says.txt", "--empty", "empty.txt", "--out", "taken"]
    monkeypatch.setattr(sys, "argv", ["rlaif", "density", "fit", *told])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("rlaif: taken: cannot be written: Is a directory; ")


def recipe(folder: Path) -> None:
    (folder / "c.yaml").write_text("name: c\nprinciples:\n  - {id: kind, text: Be kind.}\n")
    lines(folder / "prompts.jsonl", gold(30, 3)[:12:6] + gold(60, 4)[::6])  # one kind alone
    (folder / "recipe.yaml").write_text(
        "run: run\nconstitution: c.yaml\nstudent: {model: s}\nteacher: {model: t}\n"
        "prompts: {path: prompts.jsonl}\nanchors: {path: anchors.jsonl}\ntopics: {cells: 6}\n"
    )


def test_topics_are_mapped_over_the_anchors(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe(folder)
    run(monkeypatch, "topics", "recipe.yaml")
    assert "topic entropy over 6 regions" in capsys.readouterr().out
    told = json.loads((folder / "run" / "topics" / "topics.json").read_text())
    assert told["before"]["evenness"]["value"] < told["before"]["anchors"]["value"]
    assert (folder / "run" / "topics" / "topics.png").stat().st_size > 10_000


def test_gaps_are_filled_into_a_prompt_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe(folder)
    fresh = iter([row["prompt"] for row in gold(600, 9)])

    def answer(chat: Chat) -> list[str]:
        return [next(fresh, "nothing more")]

    engine = ScriptedEngine(generate=answer)
    monkeypatch.setattr(rlaif.topics, "load_engine", lambda *_: engine)
    run(monkeypatch, "topics", "recipe.yaml", "--fill")
    told = json.loads((folder / "run" / "topics" / "topics.json").read_text())
    assert told["after"]["evenness"]["value"] > told["before"]["evenness"]["value"] + 0.1
    made = load_prompts(Prompts(path=str(folder / "run" / "topics" / "prompts.jsonl")))
    assert sum(isinstance(one, Record) for one in made) > 20
    assert "new prompts of" in capsys.readouterr().out


@pytest.mark.parametrize("option", ["--anchors", "--compare", "--embedding", "--out"])
def test_an_option_that_acts_only_on_data_is_refused_beside_a_recipe_alone(
    option: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["rlaif", "filter", "recipe.yaml", option, "filtered"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert f"{option}: acts only with --data (got 'filtered'); " in told
