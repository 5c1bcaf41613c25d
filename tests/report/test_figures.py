"""The numbers of the page are those of the run's files, and what is not there is None."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from rlaif import strict_yaml
from rlaif.report.browse import fit, read_rounds
from rlaif.report.charts import collapse, progress
from rlaif.report.cost import read_cost
from rlaif.report.counts import passed
from rlaif.report.figures import Fig, Plain, fig, read_story, read_yaml, scorecard
from rlaif.report.formats import count, duration, interval, money, number, percent, size
from rlaif.report.headline import Headline, headline
from rlaif.report.label_plots import SIDE, label_plots, reliability
from rlaif.run_folder import RunFolder
from tests.report.made_run import DRIFTED, make_loop, make_run, plain_texts


def write(run: RunFolder, name: str, value: object) -> None:
    run.write_text(run.root / name, json.dumps(value))


def test_a_loop_ends_with_its_best_round(tmp_path: Path) -> None:
    run = make_loop(tmp_path, rounds=3)
    loop = json.loads((tmp_path / "loop.json").read_text())
    write(run, "loop.json", loop | {"best": 1})
    story = read_story(run)
    assert story.looped and story.status == "stopped"
    assert fig(story.after["metric"]) == pytest.approx((0.7, 0.68, 0.72))
    assert fig(story.base["metric"]) == pytest.approx((0.5, 0.48, 0.52))
    assert story.rolled_back[0]["rule"] == "drift" and story.stopped
    assert [r.number for r in story.rounds] == [0, 1, 2]


def test_the_round_that_is_being_worked_on_is_there_without_figures(tmp_path: Path) -> None:
    run = make_loop(tmp_path, rounds=2)
    make_run(tmp_path / "rounds" / "02", plain_texts(3))
    (tmp_path / "rounds" / "01.rolled-back-0").mkdir()
    story = read_story(run)
    assert [(r.number, bool(r.figures)) for r in story.rounds] == [(0, True), (1, True), (2, False)]


def test_a_plain_run_is_its_own_only_round(tmp_path: Path) -> None:
    run = make_run(tmp_path, plain_texts(3))
    for stage in ("sft", "dpo"):
        (run.model(stage) / "final").mkdir(parents=True)
    assert read_story(run).status == "running"  # it is to be evaluated still
    won = {"win_rate": 0.8, "low": 0.7, "high": 0.9, "length_controlled": 0.75,
           "mean_tokens_base": 30.0, "mean_tokens_trained": 20.0}  # fmt: skip
    write(run, "evaluate/dpo.json", won)
    gold = {"base": 0.4, "sft": 0.5, "dpo": 0.9, "by_principle": {"kind": {"base": 0.1, "dpo": 1}}}
    write(run, "summary.json", {"gold": gold})
    story = read_story(run)
    assert story.status == "finished" and not story.looped
    assert fig(story.after["win_rate"]) == (0.8, 0.7, 0.9)
    assert (story.base["mean_tokens"], story.after["mean_tokens"]) == (30.0, 20.0)
    assert fig(story.base["metric"]) == Fig(0.4) and fig(story.after["metric"]) == Fig(0.9)
    assert story.after["metric_by_principle"] == {"kind": 1}


def test_a_plain_run_that_is_not_evaluated_ends_with_its_last_pairs_and_models(
    tmp_path: Path,
) -> None:
    run = make_run(tmp_path, plain_texts(20))
    recipe = dict(read_yaml(run.recipe)) | {"evaluate": {"prompts": None}}
    run.write_text(run.recipe, strict_yaml.dump(recipe))
    for stage in ("sft", "dpo"):
        assert read_story(run).status == "running"
        (run.model(stage) / "final").mkdir(parents=True)
    assert read_story(run).status == "finished"
    (run.manifests("pairs") / "00002.json").unlink()
    assert read_story(run).status == "running"
    run.write_text(run.recipe, strict_yaml.dump(recipe | {"train": {"sft": None}}))
    assert read_story(run).status == "running"


def test_a_plain_run_goes_on_until_the_last_model_is_there_and_the_head_names_those_that_are(
    tmp_path: Path,
) -> None:
    run = make_run(tmp_path, plain_texts(20))

    def told() -> tuple[str, str]:
        return read_story(run).status, head_of(run).trained.rpartition(". ")[2]

    write(run, "evaluate/sft.json", {"win_rate": 0.7, "low": 0.6, "high": 0.8})
    for stage in ("sft", "dpo"):
        status, said = told()
        assert status == "running" and "DPO" not in said
        (run.model(stage) / "final").mkdir(parents=True)
    assert told() == ("finished", "Trained: SFT, DPO.")


def test_a_scorecard_of_a_gate_that_was_taken_out_is_not_this_runs(tmp_path: Path) -> None:
    run = make_run(tmp_path, plain_texts(1))
    write(run, "judge/scorecard.json", {"scorecard": {"accuracy": {"value": 0.9}}})
    recipe = read_yaml(run.recipe)
    run.write_text(run.recipe, strict_yaml.dump(recipe | {"gate": {"data": "labelled.jsonl"}}))
    assert fig(read_story(run).after["judge_accuracy"]) == Fig(0.9)
    run.write_text(run.recipe, strict_yaml.dump(recipe | {"gate": None}))
    assert scorecard(run) == {} and "judge_accuracy" not in read_story(run).after


def test_a_figure_that_is_no_number_is_none() -> None:
    assert fig(None) is fig(float("nan")) is fig({"value": None}) is fig("1") is fig(True) is None
    assert fig({"value": 1, "low": 0.5, "high": None}) == Fig(1.0, 0.5, None)


def test_a_killed_stages_cost_adds_up_beside_its_estimate(tmp_path: Path) -> None:
    cost = read_cost(make_loop(tmp_path, rounds=2))
    by_key = {(line.round, line.stage): line for line in cost.lines}
    assert list(by_key) == [(r, s) for r in (0, 1) for s in ("sample", "judge", "dpo")]
    assert by_key[1, "judge"].real["seconds"] == 20
    assert by_key[1, "judge"].estimate["seconds"] == 32
    assert by_key[1, "dpo"].estimate == {}
    assert cost.real["seconds"] == 80 and cost.real["money"] == 4.0
    assert cost.label["tokens_each"] == 12.5


def test_a_run_without_prices_has_no_money(tmp_path: Path) -> None:
    run = make_loop(tmp_path, rounds=1)
    rows = json.loads((tmp_path / "estimate.json").read_text())["rows"]
    lines = (tmp_path / "cost.jsonl").read_text().replace('"money": 0.5', '"money": 0.0')
    run.write_text(tmp_path / "cost.jsonl", lines)
    cost = read_cost(run)
    assert cost.real["money"] == 0 and cost.estimate["money"] == 1.5  # what was foreseen is said
    write(run, "estimate.json", {"rows": [row | {"money": 0.0} for row in rows]})
    cost = read_cost(run)
    figures = [cost.real, cost.estimate, *(f for x in cost.lines for f in (x.real, x.estimate))]
    assert not any("money" in one for one in figures)
    assert cost.real["requests"] == 400


def test_a_plain_runs_cost_is_its_seconds_or_else_its_logs(tmp_path: Path) -> None:
    run = make_run(tmp_path, plain_texts(2))
    assert read_cost(run).lines == []
    run.log("shard", stage="samples", shard=0, seconds=1.5)
    run.log("shard", stage="samples", shard=1, seconds=2.0)
    run.log("shard", stage="picked/pairs", shard=0, seconds=0.25)
    assert [(x.stage, x.real["seconds"]) for x in read_cost(run).lines] == [
        ("sample", 3.5), ("pick", 0.25),
    ]  # fmt: skip
    write(run, "seconds/dpo.json", 9.0)
    write(run, "seconds/label.json", 5.0)
    assert [(x.stage, x.real["seconds"]) for x in read_cost(run).lines] == [
        ("label", 5.0), ("dpo", 9.0),
    ]  # fmt: skip


def test_kept_and_dropped_are_counted_over_the_rounds(tmp_path: Path) -> None:
    run = make_loop(tmp_path, rounds=2)
    flow = {p.stage: p for p in passed(read_story(run).rounds, read_yaml(run.recipe))}
    assert flow["prompts"].kept == 32 and flow["prompts"].dropped == {"empty prompt": 2}
    pairs, after = flow["preference pairs"], flow["preference pairs, after the filter"]
    assert after.kept + after.dropped[DRIFTED] == pairs.kept and after.gone > 0
    assert all(p.there for p in flow.values())
    bare = passed(read_story(RunFolder(tmp_path / "none")).rounds, {})
    assert not any(p.there for p in bare)


def head_of(run: RunFolder, card: Plain | None = None) -> Headline:
    story, recipe = read_story(run), read_yaml(run.recipe)
    flow = passed(story.rounds, recipe)
    read = read_rounds(story.rounds, recipe, [])
    return headline(story, card or {}, read_cost(run), flow, recipe, read)


def tiles(run: RunFolder, card: Plain | None = None) -> dict[str, str]:
    head = head_of(run, card)
    return {"": head.sentence} | {t.label: " | ".join([t.value, *t.notes]) for t in head.tiles}


def test_the_headline_says_before_and_after_with_intervals(tmp_path: Path) -> None:
    said = {k: v.replace("\u00a0", " ") for k, v in tiles(make_loop(tmp_path)).items()}
    assert said[""] == "The student keeps 80.0 % of its principles, up from 50.0 %."
    assert "before: 50.0 % (48.0 to 52.0 %)" in said["Principles kept"]
    assert "95 % interval 78.0 to 82.0 %" in said["Principles kept"]
    assert "by the judge 75.0 % (73.0 to 77.0 %), before 45.0 %" in said["Principles kept"]
    assert "60.0 %" in said["Win rate"] and "at equal length 58.0 %" in said["Win rate"]
    assert "2 min 00 s" in said["Cost"] and "estimated: 2 min 24 s" in said["Cost"]


def test_a_difference_that_may_be_chance_is_called_that(tmp_path: Path) -> None:
    run = make_loop(tmp_path, rounds=1)
    loop = json.loads((tmp_path / "loop.json").read_text())
    loop["base"]["metric"] = {"value": 0.59, "low": 0.57, "high": 0.61}
    write(run, "loop.json", loop)
    assert "may be chance" in tiles(run)[""]
    bare = [
        one | {"kept": None, "metric": None, "win_rate": {"value": 0.6, "low": 0.4, "high": 0.8}}
        for one in loop["rounds"]
    ]
    write(run, "loop.json", loop | {"base": None, "rounds": bare})
    assert "wins 60.0" in tiles(run)[""] and "may be chance" in tiles(run)[""]
    bare[0]["win_rate"] = {"value": 0.7, "low": 0.6, "high": 0.8}
    write(run, "loop.json", loop | {"base": None, "rounds": bare})
    assert "wins 70.0" in tiles(run)[""] and "chance" not in tiles(run)[""]


def test_a_share_has_no_axis_beyond_one(tmp_path: Path) -> None:
    run = make_loop(tmp_path, rounds=1)
    loop = json.loads((tmp_path / "loop.json").read_text())
    loop["rounds"][0]["win_rate"] = {"value": 0.99, "low": 0.0, "high": 1.0}
    write(run, "loop.json", loop)
    charts = {chart.title: chart for chart in progress(read_story(run))}
    assert [label for _, label in charts["Win rate"].ticks] == ["1", "0.00"]


def test_a_headline_of_a_run_without_figures_claims_none(tmp_path: Path) -> None:
    said = tiles(make_run(tmp_path, plain_texts(8)))
    assert "not evaluated yet" in said[""]
    assert said["Principles kept"] == said["Win rate"] == "– | not measured yet"
    assert tiles(RunFolder(tmp_path / "none"))[""] == "This run has only begun."


def test_revisions_are_not_counted_as_if_they_were_sampled(tmp_path: Path) -> None:
    run = make_run(tmp_path, plain_texts(8))
    assert "gave 24 responses to 8 prompts." in head_of(run).trained
    recipe = dict(read_yaml(run.recipe)) | {"revise": {"rounds": 1}}
    run.write_text(run.recipe, strict_yaml.dump(recipe))
    assert "gave 24 responses to 8 prompts." in head_of(run).trained
    for place in (run.data, run.manifests):
        shutil.copytree(place("samples"), place("revised"))
    assert "answered 8 prompts: with revisions, 24 responses." in head_of(run).trained


def test_a_gate_that_was_not_asked_yet_is_not_said_to_be_missing(tmp_path: Path) -> None:
    run = make_run(tmp_path, plain_texts(8))
    assert tiles(run)["Judge right"] == "– | not measured: the recipe has no gate"
    recipe = dict(read_yaml(run.recipe)) | {"gate": {"data": "gate.jsonl"}}
    run.write_text(run.recipe, strict_yaml.dump(recipe))
    assert tiles(run)["Judge right"] == "– | not measured yet"


def test_nothing_is_called_uncalibrated_before_there_is_a_pair(tmp_path: Path) -> None:
    card = {"accuracy": {"value": 0.9}}
    run = make_run(tmp_path, plain_texts(8))
    assert "not calibrated" in tiles(run, card)["Judge right"]
    shutil.rmtree(run.manifests("picked/pairs"))
    assert "not calibrated" not in tiles(run, card)["Judge right"]


def test_a_headline_counts_no_prompts_as_pairs(tmp_path: Path) -> None:
    run = make_run(tmp_path, plain_texts(8))
    (all_picked,) = [json.loads(f.read_bytes()) for f in run.manifests("picked/pairs").glob("*")]
    shutil.rmtree(run.manifests("pairs"))
    assert tiles(run)[""].startswith(f"{all_picked['rows']} preference pairs so far")
    for stage in ("picked/pairs", "picked/sft", "sft"):
        shutil.rmtree(run.manifests(stage))
    assert tiles(run)[""] == "This run has only begun."


def test_a_measure_without_a_figure_says_why_and_others_keep_their_place(tmp_path: Path) -> None:
    charts = {chart.title: chart for chart in collapse(read_story(make_loop(tmp_path)))}
    assert charts["Vendi score"].missing == "fewer than 50 texts"
    drift = charts["Drift from the anchors"]
    assert drift.anchor_value == 0.0 and drift.anchor is not None
    assert all(dot.y < drift.anchor for dot in drift.dots)  # more drift is higher up
    low, high = drift.dots[0], drift.dots[-1]
    assert low.y > high.y and low.low > low.y > low.high  # the interval is around its figure
    assert charts["Token entropy"].anchor is None
    assert [label for _, label in charts["Token entropy"].labels] == ["0", "1", "2"]


def test_the_anchors_own_value_is_drawn_where_it_is_known(tmp_path: Path) -> None:
    run = make_loop(tmp_path)
    anchors = {"name": "anchors", "token_entropy": {"value": 0.7}}
    write(run, "collapse/collapse.json", {"": [anchors, {"name": "0"}]})
    (entropy, *_) = collapse(read_story(run))
    assert entropy.anchor_value == 0.7
    assert entropy.dots[0].y > entropy.anchor > entropy.dots[2].y  # 0.6, 0.7, 0.8


def test_progress_begins_with_the_student_before_any_round(tmp_path: Path) -> None:
    metric, *_ = progress(read_story(make_loop(tmp_path)))
    assert metric.title == "Held-out metric"
    assert [label for _, label in metric.labels] == ["start", "0", "1", "2"]
    assert len(metric.dots) == 4 and metric.last == pytest.approx((0.8, 0.78, 0.82))


def test_a_reliability_diagram_has_its_bins_where_they_are() -> None:
    card = {"raw": {"bins": [[0.55, 0.75, 10], [1.0, 0.5, 10]]}, "calibrated": None}
    found = reliability(card)
    assert found and found.fitted == []
    first, last = found.raw
    assert (first.x, first.y) == pytest.approx((SIDE * 0.1, SIDE * 0.5))
    assert (last.x, last.y) == pytest.approx((SIDE, SIDE))
    assert [label for _, label in found.ticks] == ["0.5", "0.6", "0.7", "0.8", "0.9", "1.0"]
    good = reliability({"raw": {"bins": [[0.97, 0.99, 10]]}})
    assert good and good.ticks[0][1] == "0.80" and len(good.ticks) == 5
    assert reliability({}) is None


def test_margins_that_are_nearly_alike_have_a_picture_too(tmp_path: Path) -> None:
    run = make_run(tmp_path, plain_texts(8))
    found = fit(read_rounds(read_story(run).rounds, read_yaml(run.recipe), []), [], 10**6)
    one = np.float32(3.7)
    found.whole.margin[:] = one
    kept = np.flatnonzero((found.whole.kind == 0) & (found.whole.reason == 0))
    found.whole.margin[kept[0]] = np.nextafter(one, np.float32(4))
    shown = label_plots(found, {}).margins
    assert shown and shown.n == len(kept) > 2


def test_numbers_read_as_people_write_them() -> None:
    assert percent(0.966).replace("\u00a0", " ") == "96.6 %" and percent(None) == "–"
    assert interval(Fig(0.5, 0.4, 0.6)).replace("\u00a0", " ") == "40.0 to 60.0 %"
    assert interval(Fig(0.5)) == "" and count(1234567) == "1,234,567" and count(None) == "–"
    assert [number(x) for x in (0.1234, 1.234, 12.34, 1234.5)] == ["0.123", "1.23", "12.3", "1,234"]
    assert number(float("nan")) == "–"
    assert [duration(x) for x in (3.21, 59.2, 59.7, 119.7)] == [
        "3.2 s", "59 s", "1 min 00 s", "2 min 00 s",
    ]  # fmt: skip
    assert duration(3599.8) == "1 h 00 min" and duration(None) == "–"
    assert [money(x) for x in (0, 0.002, 1.5, 1234)] == ["0.00", "0.002", "1.50", "1,234.00"]
    assert [size(x) for x in (999, 1500, 2_000_000)] == ["999 B", "1.5 kB", "2.0 MB"]
