"""Every row of a run is there once, with the right reason, texts and figures."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from rlaif.journal import Stage
from rlaif.label.rows import pair_schema
from rlaif.records import sigmoid
from rlaif.report.figures import read_story, read_yaml
from rlaif.report.principles import read_principles
from rlaif.report.responses import STEPS, UNKNOWN, Responses, read_responses
from rlaif.report.rows import KEPT, Reasons, Rows, joined, places, read_rows
from rlaif.run_folder import RunFolder
from tests.report.made_run import (
    CONSTITUTION,
    DRIFTED,
    JUDGE,
    log_odds,
    make_loop,
    make_run,
    plain_texts,
)

NUMBERS = {p.fingerprint: i for i, p in enumerate(CONSTITUTION.principles)}
WEIGHTS = np.array([p.weight for p in CONSTITUTION.principles])


def read(run: RunFolder) -> tuple[dict[str, Rows], Responses, Reasons]:
    recipe, reasons = read_yaml(run.recipe), Reasons()
    responses = read_responses(run, recipe, NUMBERS, JUDGE)
    found = read_rows(run, recipe, responses, WEIGHTS, reasons)
    return {kind: joined(parts) for kind, parts in found.items() if parts}, responses, reasons


def pairs_of(run: RunFolder, stage: str) -> list[dict[str, object]]:
    stored = Stage(run, stage, pair_schema(False))
    return [row for shard in stored.shards() for row in stored.read(shard).to_pylist()]


def said(row: dict[str, object]) -> tuple[str, str, str]:
    return tuple(row[k][0]["content"] for k in ("prompt", "chosen", "rejected"))  # type: ignore


def shown(rows: Rows, responses: Responses, place: int) -> tuple[str, str, str]:
    texts = (responses.texts[int(side[place])].as_py() for side in (rows.left, rows.right))
    return (responses.prompts[rows.record[place]], *texts)


def test_every_picked_pair_is_there_once_with_its_own_texts(tmp_path: Path) -> None:
    run = make_run(tmp_path, plain_texts(20))
    found, responses, reasons = read(run)
    rows = found["pairs"]
    kept = {said(row) for row in pairs_of(run, "pairs")}
    picked = {said(row): row for row in pairs_of(run, "picked/pairs")}
    assert 0 < len(kept) < len(picked) == len(rows)
    for place in range(len(rows)):
        texts = shown(rows, responses, place)
        assert (rows.reason[place] == 0) == (texts in kept)
        assert rows.margin[place] == pytest.approx(picked[texts]["score_margin"])
        assert rows.confidence[place] == pytest.approx(picked[texts]["chosen_probability"])
        assert rows.ids[place] == picked[texts]["record_id"]
    assert reasons.all[KEPT] == 0 and ("filter", DRIFTED) in reasons.all


def test_a_drop_goes_to_the_pair_it_is_about_not_only_to_its_record(tmp_path: Path) -> None:
    # The record has three pairs, and the filter drops the second.
    run = make_run(tmp_path, plain_texts(1), pair_margin=0.0, dropped=lambda place: place == 1)
    found, responses, _ = read(run)
    rows = found["pairs"]
    assert len(rows) == 3
    (gone,) = np.flatnonzero(rows.reason)
    assert shown(rows, responses, gone) == said(pairs_of(run, "picked/pairs")[1])
    assert rows.details[gone].endswith("#0.1") and "nearest anchor" in rows.details[gone]


def test_records_come_in_their_order_whether_kept_or_not(tmp_path: Path) -> None:
    found, _, _ = read(make_run(tmp_path, plain_texts(20)))
    assert (np.diff(found["pairs"].record) >= 0).all()


def test_a_record_without_a_pair_is_shown_with_its_best_and_its_worst(tmp_path: Path) -> None:
    run = make_run(tmp_path, plain_texts(12), pair_margin=99.0)
    found, responses, reasons = read(run)
    rows = found["pairs"]
    assert len(rows) == 12 and np.isnan(rows.margin).all()
    assert ("pairs", "margin under 99.0") in reasons.all

    def score(text: str) -> float:
        return sum(p.weight * log_odds(p.id, text) for p in CONSTITUTION.principles)

    for place, (prompt, texts) in enumerate(plain_texts(12)):
        wanted = (prompt, max(texts, key=score), min(texts, key=score))
        assert shown(rows, responses, place) == wanted


def test_what_the_next_stage_has_not_seen_yet_is_neither_kept_nor_dropped(tmp_path: Path) -> None:
    run = make_run(tmp_path, plain_texts(20))
    before = read(run)[0]["pairs"]
    (run.manifests("pairs") / "00001.json").unlink()
    found, _, reasons = read(run)
    after = found["pairs"]
    assert len(after) == len(before)
    waiting = reasons.all["filter", "not yet"]
    unseen = Stage(run, "picked/pairs", pair_schema(False)).read(1)
    assert (after.reason == waiting).sum() == unseen.num_rows


def test_drops_without_their_rows_order_are_matched_by_record(tmp_path: Path) -> None:
    run = make_run(tmp_path, plain_texts(3), dropped=lambda place: place == 0)
    stage = Stage(run, "pairs", pair_schema(False))
    # The shard is of an older filter, which had dropped two more rows than it says.
    (first, *_) = pairs_of(run, "pairs")
    rest = stage.read(0).slice(1)
    drops = stage.drops(0)
    stage.write(0, {"shard": 0}, rest, drops)
    found, _, reasons = read(run)
    rows = found["pairs"]
    unknown = reasons.all["filter", "reason not recorded"]
    assert rows.ids[np.flatnonzero(rows.reason == unknown)[0]] == first["record_id"]


def test_a_pair_whose_record_was_sampled_anew_has_lost_its_text_and_no_more(
    tmp_path: Path,
) -> None:
    run = make_run(tmp_path / "run", plain_texts(6), pair_margin=0.0)
    fewer = [(prompt, said[:1]) for prompt, said in plain_texts(6)]
    make_run(tmp_path / "anew", fewer)
    for folder in ("data", "manifests"):
        stage = f"{folder}/samples"
        shutil.rmtree(tmp_path / "run" / stage)
        shutil.copytree(tmp_path / "anew" / stage, tmp_path / "run" / stage)
    found, responses, _ = read(run)
    rows = found["pairs"]
    assert len(rows) == 18
    for record, *slots in zip(rows.record, rows.left, rows.right, strict=True):
        assert all(s in (-1, responses.first[record]) for s in slots)
    assert (rows.left == -1).any()


def test_what_never_became_a_record_is_there_too(tmp_path: Path) -> None:
    found, _, reasons = read(make_run(tmp_path, plain_texts(4)))
    rows = found["other"]
    assert rows.ids == ["prompts.jsonl:9"] and rows.record[0] == rows.left[0] == -1
    assert ("prompts", "empty prompt") in reasons.all


def test_probabilities_are_the_judges_own_and_an_abstention_is_none(tmp_path: Path) -> None:
    texts = [("Why?", ["unsure of it", "because", "never"])]
    _, responses, _ = read(make_run(tmp_path, texts))
    for row, principle in enumerate(CONSTITUTION.principles):
        for slot, text in enumerate(texts[0][1]):
            step = responses.probabilities[row, slot]
            if principle.id == "true" and text.startswith("unsure"):
                assert step == UNKNOWN
            else:
                wanted = sigmoid(log_odds(principle.id, text))
                assert step / STEPS == pytest.approx(wanted, abs=0.0021)
    assert (responses.verdicts, responses.abstentions) == (9, 1)


def test_another_judges_verdicts_are_left_aside(tmp_path: Path) -> None:
    run = make_run(tmp_path, plain_texts(2))
    responses = read_responses(run, {}, NUMBERS, "another judge")
    assert (responses.probabilities == UNKNOWN).all() and responses.verdicts == 0


def test_a_pairwise_judge_gives_a_probability_a_pair(tmp_path: Path) -> None:
    run = make_run(tmp_path, plain_texts(3), mode="pairwise")
    found, responses, _ = read(run)
    key = responses.pair_key(found["pairs"].left[:1], found["pairs"].right[:1])
    turned = responses.pair_key(found["pairs"].right[:1], found["pairs"].left[:1])
    keys, _ = responses.compared[0]
    assert len(keys) == 9  # three pairs of each of three records
    assert np.isin(key, keys) != np.isin(turned, keys)


def test_where_the_rows_pass_through_follows_from_the_recipe() -> None:
    assert places({}, "sft") == ["sft"]
    assert places({"critic": None, "filter": {}}, "sft") == ["picked/sft", "sft"]
    assert places({"critic": {}}, "pairs") == ["picked/pairs", "pairs"]
    both = {"critic": {"model": {}}, "filter": {"low": 0.1}}
    assert places(both, "pairs") == ["picked/pairs", "reviewed/pairs", "pairs"]


def test_a_loops_rounds_are_read_each_from_its_own_folder(tmp_path: Path) -> None:
    run = make_loop(tmp_path, rounds=2)
    prompts = [read(one.run)[1].prompts[0] for one in read_story(run).rounds]
    assert prompts == ["Round 0. Question 0?", "Round 1. Question 0?"]


def test_a_principles_fingerprint_is_that_of_the_constitution(tmp_path: Path) -> None:
    run = make_run(tmp_path, plain_texts(1))
    found = read_principles(read_yaml(run.constitution))
    assert [p.fingerprint for p in found] == [p.fingerprint for p in CONSTITUTION.principles]
    assert [p.weight for p in found] == [2.0, 1.0, 1.0]


def test_a_drop_in_the_file_has_the_keys_that_are_read(tmp_path: Path) -> None:
    run = make_run(tmp_path, plain_texts(4))
    line = (run.kept_aside("pairs") / "00000.jsonl").read_text("utf-8").splitlines()[0]
    assert set(json.loads(line)) == {"id", "stage", "reason", "detail"}
