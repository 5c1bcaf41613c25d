from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from rich.console import Console

from rlaif.loop.estimate import Estimate, gap_calls, scaled
from rlaif.loop.estimate_report import beside, print_beside, print_estimate
from rlaif.loop.probe import Probe, Trained
from rlaif.loop.probe_draw import evenly
from rlaif.loop.probe_rows import Rows
from rlaif.loop.scale import parts, steps_of, training
from rlaif.recipe import Recipe
from rlaif.records import Message, Record


def line(part: str | None = None, **spent: float) -> dict[str, Any]:
    """A line of the books."""
    given = {"seconds": 0.0, "device_seconds": spent.get("seconds", 0.0), "requests": 0,
             "computed_tokens": 0, "generated_tokens": 0, "money": 0.0}  # fmt: skip
    return given | spent | ({} if part is None else {"part": part})


def rows(**changes: Any) -> Rows:
    """Eight prompts, each with two responses of ten tokens and a pair."""
    made = {"sft": 8, "dpo": 8, "reward": 8, "picked": 16, "labels": 8, "labelled": 4,
            "tokens": 10.0, "picked_tokens": 10.0, "chosen_tokens": 10.0,
            "rejected_tokens": 10.0}  # fmt: skip
    return Rows(**made | changes)


def trained(rows: int = 8, **pace: float) -> Trained:
    told = {"seconds_a_step": 0.5, "rows_a_step": 4, "epochs": 1, "rows": 8} | pace
    return Trained([line(seconds=10)], 8, 4, told, rows)


def probe(**changes: Any) -> Probe:
    found = Probe(8, 4, 4, {"rounds": [80, 80], "evaluate": 40, "anchors": 0})
    found.lines = {
        # A start of 20 seconds and 500 tokens for a gate; then 2 seconds and 4 tokens a prompt.
        "sample": [
            line("samples", seconds=28, requests=104, computed_tokens=516, generated_tokens=80),
            line("samples", seconds=8, requests=4, computed_tokens=16, generated_tokens=80),
            line(seconds=1),
        ],
        "judge": [
            line("verdicts", seconds=9, requests=16, computed_tokens=400),
            line("verdicts", seconds=4, requests=16, computed_tokens=400),
        ],
        "evaluate": [
            line("evaluate/samples/base", seconds=4, requests=2, generated_tokens=20),
            line("evaluate/samples/base", seconds=2, requests=2, generated_tokens=20),
            line("evaluate/samples/dpo", seconds=4, requests=2, generated_tokens=20),
            line("evaluate/samples/dpo", seconds=2, requests=2, generated_tokens=20),
            line("evaluate/verdicts/dpo", seconds=2, requests=8, computed_tokens=200),
            line("evaluate/verdicts/dpo", seconds=2, requests=8, computed_tokens=200),
        ],
    }
    found.trained = {"sft": trained(), "dpo": trained()}
    found.labels = rows()
    for name, value in changes.items():
        setattr(found, name, value)
    return found


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return made_recipe(tmp_path)


def made_recipe(folder: Path, **sections: Any) -> Recipe:
    (folder / "constitution.yaml").write_text("name: t\nprinciples:\n- {id: kind, text: be kind}\n")
    made = {
        "run": str(folder / "run"), "constitution": "constitution.yaml",
        "student": {"model": "s"}, "teacher": {"model": "t"}, "prompts": {"path": "p.jsonl"},
        "sample": {"n": 2}, "train": {"sft": {}, "dpo": {}},
        "loop": {"rounds": 2},
    }  # fmt: skip
    (folder / "p.jsonl").touch()
    for name, section in sections.items():
        both = isinstance(section, dict) and isinstance(made.get(name), dict)
        made[name] = {**made[name], **section} if both else section  # type: ignore[dict-item]
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(made))
    return Recipe.load(file)


def spent(found: Estimate, round_: int, stage: str) -> Any:
    return next(r.spent for r in found.rows if (r.round, r.stage) == (round_, stage))


def test_a_start_is_counted_once_and_a_prompt_as_often_as_there_are_prompts(
    recipe: Recipe,
) -> None:
    sample = spent(scaled(recipe, probe()), 0, "sample")
    assert (sample.seconds, sample.computed_tokens) == (20 + 1 + 80 * 2, 500 + 80 * 4)
    assert (sample.requests, sample.generated_tokens) == (100 + 80, 80 * 20)


def test_a_rounds_stages_are_the_loops(recipe: Recipe) -> None:
    """SFT in the first round alone, unless the recipe has it in every one."""
    found = [(r.round, r.stage) for r in scaled(recipe, probe()).rows]
    first = [(0, s) for s in ("sample", "judge", "sft", "dpo", "evaluate")]
    assert found == [*first, *((1, s) for s in ("sample", "judge", "dpo", "evaluate"))]


def test_rows_of_earlier_rounds_are_trained_on_again_where_they_accumulate(
    tmp_path: Path,
) -> None:
    """80 rows a round, four a step, half a second a step; four steps are in the probe."""
    for data, steps in (("accumulate", 40), ("replace", 20)):
        found = scaled(made_recipe(tmp_path, loop={"rounds": 2, "data": data}), probe())
        assert spent(found, 0, "dpo").seconds == 10 + (20 - 4) * 0.5
        assert spent(found, 1, "dpo").seconds == 10 + (steps - 4) * 0.5


def test_rows_of_other_runs_that_the_recipe_names_are_trained_on_as_well(tmp_path: Path) -> None:
    pairs = tmp_path / "other" / "data" / "pairs"
    pairs.mkdir(parents=True)
    pq.write_table(pa.table({"score_margin": [float(i) for i in range(40)]}), pairs / "0.parquet")
    train = {"sft": {}, "dpo": {}, "also": ["other"]}
    alone = scaled(made_recipe(tmp_path), probe())
    for choice, more in (({}, 10), ({"dpo_pairs": {"max_margin": 19.0}}, 5)):
        found = scaled(made_recipe(tmp_path, train=train | choice), probe())
        assert spent(found, 0, "dpo").seconds == spent(alone, 0, "dpo").seconds + more * 0.5
        assert spent(found, 0, "sft") == spent(alone, 0, "sft")


def test_verdicts_are_among_the_rows_of_every_dpo(tmp_path: Path) -> None:
    recipe = made_recipe(tmp_path, train={"sft": {}, "dpo": {}, "reward": {}})
    plain, found = (scaled(recipe, probe(judgements=n, **_THREE)) for n in (0, 40))
    for number in (0, 1):
        more = spent(found, number, "dpo").seconds - spent(plain, number, "dpo").seconds
        assert more == 10 * 0.5
        assert spent(found, number, "reward") == spent(plain, number, "reward")
    assert spent(found, 0, "sft") == spent(plain, 0, "sft")


_THREE = {"trained": {"sft": trained(), "dpo": trained(), "reward": trained()}}


def test_a_limit_on_pairs_and_a_number_of_steps_are_kept_to(tmp_path: Path) -> None:
    limited = made_recipe(tmp_path, train={"dpo_pairs": {"limit": 40}})
    assert spent(scaled(limited, probe()), 1, "dpo").seconds == 10 + (10 - 4) * 0.5
    stopped = made_recipe(tmp_path, train={"dpo": {"max_steps": 100}})
    assert spent(scaled(stopped, probe()), 1, "dpo").seconds == 10 + (100 - 4) * 0.5


def test_rows_that_are_held_out_are_not_trained_on(tmp_path: Path) -> None:
    evaluated = made_recipe(tmp_path, train={"dpo": {"eval_strategy": "epoch"}})
    assert spent(scaled(evaluated, probe()), 0, "dpo").seconds == 10 + (19 - 4) * 0.5


def test_steps_count_packs_and_leave_out_what_is_too_long() -> None:
    pace = {"rows": 4, "rows_a_step": 4, "epochs": 3}
    assert steps_of({}, pace, given=8, rows=90) == 3 * 12  # 45 of 90 rows, four a step


def test_references_are_computed_for_all_rows() -> None:
    plain = training({}, trained(), 80, 0.0).seconds
    assert training({"precompute_ref_log_probs": True}, trained(), 80, 0.0).seconds > plain


def test_a_student_that_answers_in_fewer_words_makes_later_rounds_cheaper(recipe: Recipe) -> None:
    """Sampling by as much as its answers are shorter, judging by the tokens that are not read."""
    found = scaled(recipe, probe(labels=rows(picked_tokens=5.0)))
    assert spent(found, 1, "sample").generated_tokens == 80 * 20 / 2
    assert spent(found, 0, "judge").computed_tokens == 80 * 100
    assert spent(found, 1, "judge").computed_tokens == pytest.approx(80 * (100 - 2 * 5))
    # In the evaluation of round 0, one of the two answers as the student did before.
    assert spent(found, 0, "evaluate").generated_tokens == 40 * (10 + 5)


def test_device_hours_and_a_servers_prices_are_both_paid(tmp_path: Path) -> None:
    paid = [
        line("verdicts", seconds=36, money=0.36 + 1), line("verdicts", seconds=36, money=0.36 + 1)
    ]  # fmt: skip
    recipe = made_recipe(tmp_path, costs={"gpu_hour": 36})
    assert parts(paid, 8, 4, 36.0)["verdicts"].each.money == pytest.approx(1 / 4)
    found = probe()
    found.lines["judge"] = paid
    judge = spent(scaled(recipe, found), 0, "judge")
    assert judge.money == pytest.approx(80 / 4 + judge.device_seconds * 0.01)


def test_a_label_costs_what_labelling_took_over_the_labels_that_came_through(
    recipe: Recipe,
) -> None:
    found = scaled(recipe, probe(labels=rows(labels=4, labelled=2)))
    tokens = sum(r.spent.tokens for r in found.rows if r.stage in ("sample", "judge"))
    assert found.label.tokens_each == pytest.approx(tokens / (2 * 80 * 4 / 8))
    assert (found.label.pass_rate, found.label.money_each) == (0.25, None)


def test_no_label_is_told_as_it_is(recipe: Recipe) -> None:
    found = scaled(recipe, probe(labels=rows(labels=0, labelled=0)))
    assert found.label.tokens_each == float("inf")


def test_gaps_take_more_questions_where_fewer_answers_are_kept(recipe: Recipe) -> None:
    regions = [{"expected": 0.5, "count": n} for n in (100, 0)]
    told = {"before": {"regions": regions}, "rounds": [{"asked": 19, "kept": 4}]}
    few, new = gap_calls(recipe, told)
    told["rounds"] = [{"asked": 19, "kept": 19}]
    assert few > 3 * gap_calls(recipe, told)[0] > 0
    assert new == pytest.approx(gap_calls(recipe, told)[1], rel=0.05)


def test_prompts_are_drawn_evenly_from_first_to_last() -> None:
    records = [Record(str(i), (Message("user", str(i)),)) for i in range(100)]
    assert [r.id for r in evenly(records, 4)] == ["12", "37", "62", "87"]
    assert evenly(records, 1000) == records


def test_lines_of_a_stage_that_was_killed_add_up_beside_the_estimate(tmp_path: Path) -> None:
    foreseen = {"round": 0, "stage": "sample"} | line(seconds=9, computed_tokens=90)
    (tmp_path / "estimate.json").write_text(json.dumps({"rows": [foreseen], "label": {}}))
    names = ({"round": 0, "stage": "sample"}, {"round": 0, "stage": "judge"})
    real = [names[0] | line(seconds=4), names[0] | line(seconds=6), names[1] | line(seconds=1)]
    (tmp_path / "cost.jsonl").write_text("".join(json.dumps(one) + "\n" for one in real))
    sample, judge = beside(tmp_path)
    assert sample.foreseen is not None and sample.real is not None and judge.real is not None
    assert (sample.foreseen.seconds, sample.real.seconds) == (9, 10)
    assert (judge.foreseen, judge.real.seconds) == (None, 1)


def test_a_user_sees_the_sums_and_a_label_beside_a_persons(
    tmp_path: Path, recipe: Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    found = scaled(made_recipe(tmp_path, costs={"gpu_hour": 3600.0}), probe())
    print_estimate(found, Console(width=160))
    told = capsys.readouterr().out
    seconds = sum(r.spent.seconds for r in found.rows)
    assert f"{seconds:.4g}" in told  # the money of all: a second costs 1
    assert "a person's: 0.05 to 1.5" in told and "50.0% of the prompts bring one" in told


def test_nothing_is_shown_beside_an_estimate_that_was_not_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = {"round": 0, "stage": "sample"} | line(seconds=4)
    (tmp_path / "cost.jsonl").write_text(json.dumps(one) + "\n")
    print_beside(tmp_path)
    assert capsys.readouterr().out == ""
