"""The main job, small: real models, real launches, every figure there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from rlaif.errors import ConstitutionError
from rlaif.loop.figures import Figures
from rlaif.loop.places import LoopFolder
from rlaif.loop.state import Ruled, State
from rlaif.recipe import Recipe
from rlaif.sandbox import quickstart as module
from rlaif.sandbox.quickstart import HERE, quickstart, write_inputs

PRINCIPLE = "name: mine\nprinciples:\n  - id: one\n    text: {}\n"


def test_a_word_that_the_teacher_never_saw_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(PRINCIPLE.format("The answer must be melodious."))
    with pytest.raises(ConstitutionError, match="'melodious'"):
        quickstart(tmp_path / "run", constitution=file, quiet=True)


def test_evaluation_prompts_are_not_among_the_labelled() -> None:
    prompts = [
        {json.loads(line)["prompt"] for line in (HERE / "data" / name).read_text().splitlines()}
        for name in ("label.jsonl", "evaluate.jsonl")
    ]
    assert len(prompts[0]) >= 500 and len(prompts[1]) >= 200
    assert not prompts[0] & prompts[1]


def test_there_are_prompts_enough_for_both_rounds() -> None:
    recipe = Recipe.load(HERE / "recipe.yaml")
    assert recipe.loop is not None and recipe.loop.rounds == 2 and recipe.loop.prompts == "next"
    lines = (HERE / "data" / "label.jsonl").read_text().splitlines()
    assert recipe.prompts.limit is not None and 2 * recipe.prompts.limit <= len(lines)


def test_the_main_job_end_to_end_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def small(recipe: dict[str, Any]) -> None:
        recipe["prompts"] |= {"limit": 48, "shard_size": 24}
        recipe["evaluate"]["prompts"]["limit"] = 32
        recipe["train"]["dpo"] |= {"max_steps": 8}
        recipe["loop"]["stop"] |= {"not_better": False}

    whole = write_inputs
    monkeypatch.setattr(
        module,
        "write_inputs",
        lambda out, constitution, seed: whole(out, constitution, seed, small),
    )
    summary = quickstart(tmp_path / "run")
    shown = capsys.readouterr().out
    assert "round 1" in shown and "judge right" in shown and "report.html" in shown
    stored = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert stored == json.loads(json.dumps(summary))
    assert 0.3 <= stored["base"]["metric"]["value"] <= 0.65
    one, two = stored["rounds"]
    assert one["labels"]["prompts"] == two["labels"]["prompts"] == 48
    assert one["judge_accuracy"]["low"] > 0.9
    assert set(one["metric_by_principle"]) == set(stored["base"]["metric_by_principle"])
    assert one["collapse"]["drift"]["value"] is not None
    assert one["labels"]["dropped"], "the filters keep rows aside"
    folder = LoopFolder(tmp_path / "run")
    assert (folder.best / "model.safetensors").is_file()
    assert (tmp_path / "run" / "report.html").stat().st_size > 50_000
    weights = (folder.round(1).model("dpo") / "final/model.safetensors").read_bytes()
    again = quickstart(tmp_path / "run", quiet=True)
    assert {k: v for k, v in again.items() if k != "seconds"} == {
        k: v for k, v in summary.items() if k != "seconds"
    }
    assert (folder.round(1).model("dpo") / "final/model.safetensors").read_bytes() == weights


def test_a_run_that_stops_before_any_figures_says_why_and_has_its_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    why = "accuracy 0.700, below min_accuracy 0.900"

    def stopped(recipe_file: Path, **_: object) -> State:
        state = State("stopped", stopped=Ruled(0, 0, "judge", why))
        state.write(LoopFolder(Path(Recipe.load(recipe_file).run)))
        return state

    monkeypatch.setattr(module, "run_loop", stopped)
    summary = quickstart(tmp_path / "run")
    assert summary["stopped"] == why and summary["rounds"] == []
    shown = capsys.readouterr().out.splitlines()
    assert [line for line in shown if line] == [
        f"stopped before anything was trained: {why}", str(tmp_path / "run" / "report.html"),
    ]  # fmt: skip
    assert why in (tmp_path / "run" / "report.html").read_text("utf-8")


def test_no_round_is_called_the_best_where_none_is(capsys: pytest.CaptureFixture[str]) -> None:
    figures = Figures(0).as_dict()
    summary = {
        "constitution": "mine", "base": figures, "rounds": [figures], "best": None,
        "stopped": "no better", "mean_tokens_gold": 20.0, "seconds": {"dpo": 1.0},
    }  # fmt: skip
    module.print_summary(summary, Console())
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.split(maxsplit=1) == ["best", "no round: stopped, no better"]


@pytest.mark.parametrize(
    ("flags", "able"),
    [
        ("flags\t\t: fpu sse2 avx2 avx512_bf16\n", True),
        ("Features\t: fp asimd bf16\n", True),
        ("flags\t\t: fpu sse2 avx2 bmi1\n", False),
        (None, False),  # another system than Linux
    ],
)
def test_it_trains_in_bfloat16_only_where_the_processor_multiplies_it(
    flags: str | None, able: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "cpuinfo"
    if flags is not None:
        file.write_text(flags)
    assert module.multiplies_bfloat16(file) == able
    monkeypatch.setattr(module, "_has_gpu", lambda: False)
    monkeypatch.setattr(module, "multiplies_bfloat16", lambda: able)
    recipe = Recipe.load(write_inputs(tmp_path / "run"))
    assert recipe.train is not None
    assert [block["bf16"] for block in (recipe.train.sft, recipe.train.dpo) if block] == [able] * 2
