"""Small runs that were never run, written by the journal with the rows that labelling makes."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from rlaif import strict_yaml
from rlaif.constitution import Constitution, Principle
from rlaif.journal import Stage
from rlaif.label.pick import pick_pairs, pick_sft
from rlaif.label.rows import SFT_SCHEMA, pair_schema
from rlaif.recipe import Pick
from rlaif.records import Drop, Message, Record, Response, Verdict, record_id
from rlaif.run_folder import RunFolder
from rlaif.tables import SAMPLES, VERDICTS, records_to_table, verdicts_to_table

CONSTITUTION = Constitution(
    name="tidy",
    description="Short and kind.",
    principles=(
        Principle(id="kind", text="The answer is kind.", weight=2.0),
        Principle(id="brief", text="The answer is brief."),
        Principle(id="true", text="The answer is true."),
    ),
)
JUDGE = "judge-1"
DRIFTED = "drift"
NEAREST = "cosine 0.210, overlap 0.02; nearest anchor: What is the tallest tree?"
HALF = "half of a pair: \ud83d"
"""Such a text gets into no Parquet file, but it does into what is kept aside."""


def records(texts: Sequence[tuple[str, Sequence[str]]], mode: str = "pointwise") -> list[Record]:
    """Records with a verdict on every response, which follows from the texts alone."""
    found = []
    for prompt, said in texts:
        chat = (Message("user", prompt),)
        responses = tuple(Response(text, len(text.split()), "stop") for text in said)
        verdicts = tuple(v for p in CONSTITUTION.principles for v in _verdicts(p, said, mode))
        found.append(Record(record_id(chat), chat, responses, verdicts))
    return found


def log_odds(principle: str, *texts: str) -> float:
    """What the judge of these runs says: from -4 to 4 nats."""
    return zlib.crc32(repr((principle, texts)).encode()) % 801 / 100 - 4


def _verdicts(principle: Principle, said: Sequence[str], mode: str) -> list[Verdict]:
    if mode == "pairwise":
        places = [(i, j) for i in range(len(said)) for j in range(i + 1, len(said))]
        return [
            Verdict(principle.fingerprint, i, j, log_odds(principle.id, said[i], said[j]), 1.0)
            for i, j in places
        ]
    return [
        Verdict(principle.fingerprint, i, None, None, 0.1, reason="little coverage")
        if text.startswith("unsure") and principle.id == "true"
        else Verdict(principle.fingerprint, i, None, log_odds(principle.id, text), 1.0)
        for i, text in enumerate(said)
    ]


def plain_texts(count: int) -> list[tuple[str, list[str]]]:
    """Prompts with three responses each."""
    return [(f"Question {i}?", [f"Answer {i} {way}." for way in "abc"]) for i in range(count)]


def make_run(
    root: Path,
    texts: Sequence[tuple[str, Sequence[str]]],
    *,
    mode: str = "pointwise",
    shard_size: int = 8,
    dropped: Callable[[int], bool] = lambda place: place % 4 == 0,
    pair_margin: float = 0.5,
) -> RunFolder:
    """A labelled and filtered run: every fourth picked row is dropped by the filter."""
    run = RunFolder(root).create()
    CONSTITUTION.save(run.constitution)
    recipe = {
        "seed": 7, "student": {"model": "models/student-1"}, "teacher": {"model": "big-teacher"},
        "judge": {"mode": mode}, "filter": {}, "train": {"sft": {}, "dpo": {}},
        "evaluate": {"prompts": {"path": "p.jsonl"}},
    }  # fmt: skip
    run.write_text(run.recipe, strict_yaml.dump(recipe))
    made = records(texts, mode)
    settings = Pick(pairs="all", pair_margin=pair_margin, min_decided=0.3)
    asked = {"mode": mode, "clip": 0.01, "judge": JUDGE}
    for number, first in enumerate(range(0, len(made), shard_size)):
        part = made[first : first + shard_size]
        prompts = [record.with_(responses=(), verdicts=()) for record in part]
        bad = [Drop("prompts.jsonl:9", "prompts", "empty prompt")] if number == 0 else []
        _write(run, "prompts", SAMPLES, number, records_to_table(prompts, first), bad)
        _write(run, "samples", SAMPLES, number, records_to_table(part, first), [])
        for principle in CONSTITUTION.principles:
            key = principle.fingerprint
            rows = [(r.id, v) for r in part for v in r.verdicts if v.principle == key]
            stage = Stage(run, f"verdicts/{mode}/{key}", VERDICTS)
            stage.write(number, {"judge": JUDGE}, verdicts_to_table(rows))
        pairs = pick_pairs(part, CONSTITUTION, settings, **asked)  # type: ignore[arg-type]
        sft = pick_sft(part, CONSTITUTION, settings, **asked)  # type: ignore[arg-type]
        _write_picked(run, "pairs", pair_schema(False), number, *pairs, dropped)
        _write_picked(run, "sft", SFT_SCHEMA, number, *sft, dropped)
    return run


def _write_picked(
    run: RunFolder,
    name: str,
    schema: pa.Schema,
    number: int,
    rows: list[dict[str, Any]],
    drops: list[Drop],
    dropped: Callable[[int], bool],
) -> None:
    _write(run, f"picked/{name}", schema, number, pa.Table.from_pylist(rows, schema=schema), drops)
    left = [row for i, row in enumerate(rows) if not dropped(i)]
    gone = [
        Drop(row["record_id"], "filter", DRIFTED, f"{NEAREST} {HALF} #{number}.{i}")
        for i, row in enumerate(rows) if dropped(i)
    ]  # fmt: skip
    _write(run, name, schema, number, pa.Table.from_pylist(left, schema=schema), gone)


def _write(
    run: RunFolder, name: str, schema: pa.Schema, number: int, table: pa.Table, drops: list[Drop]
) -> None:
    Stage(run, name, schema).write(number, {"shard": number}, table, drops)


def fig(value: float, spread: float = 0.02) -> dict[str, float]:
    """A figure with its interval, as a loop writes it."""
    return {"value": value, "low": value - spread, "high": value + spread}


def figures(number: int, value: float) -> dict[str, Any]:
    """A finished round's figures."""
    reading = fig(value) | {"reason": None}
    silent = {"value": None, "low": None, "high": None, "reason": "fewer than 50 texts"}
    names = ("token_entropy", "distinct_1", "distinct_2", "distinct_3", "topic_entropy",
             "tail_coverage", "drift", "mean_tokens")  # fmt: skip
    return {
        "round": number, "attempt": 0, "judge": "teacher" if number == 0 else "student",
        "judge_accuracy": fig(0.9), "student_accuracy": fig(0.8),
        "labels": {"prompts": 24, "responses": 72, "verdicts": 216, "abstentions": 0, "picks": 20,
                   "pairs": 40, "dropped": {"filter": {DRIFTED: 4}}},
        "scores": [1] * 10, "win_rate": fig(0.6), "length_controlled": 0.58,
        "kept": fig(value - 0.05), "kept_by_principle": {"kind": value, "brief": 0.5, "true": 0.7},
        "metric": fig(value),
        "metric_by_principle": {"kind": value, "brief": 0.51, "true": 0.71}, "mean_tokens": 20.0,
        "collapse": dict.fromkeys(names, reading)
        | {"vendi": silent, "drifted": False, "drift_p": 0.5, "texts": 72},
    }  # fmt: skip


def make_loop(root: Path, rounds: int = 3) -> RunFolder:
    """A loop of so many finished rounds, stopped by its governor in the one after them."""
    run = RunFolder(root).create()
    for number in range(rounds):
        texts = [(f"Round {number}. {p}", said) for p, said in plain_texts(16)]
        make_run(root / "rounds" / f"{number:02d}", texts)
    for name in ("recipe.yaml", "constitution.yaml"):
        run.write_text(root / name, (root / "rounds" / "00" / name).read_text("utf-8"))
    found = [figures(n, 0.6 + 0.1 * n) for n in range(rounds)]
    base = {"metric": fig(0.5), "kept": fig(0.45), "mean_tokens": 30.0, "win_rate": None,
            "metric_by_principle": {"kind": 0.4, "brief": 0.5, "true": 0.6}}  # fmt: skip
    loop = {
        "format": 1, "status": "stopped", "base": base, "rounds": found, "best": rounds - 1,
        "stopped": {"round": rounds, "rule": "length", "reason": "answers grew by 40 %"},
        "rolled_back": [{"round": 1, "attempt": 0, "rule": "drift", "reason": "p = 0.001"}],
    }  # fmt: skip
    run.write_text(root / "loop.json", json.dumps(loop))
    lines = [
        {"round": n, "attempt": 0, "stage": stage, "seconds": 10.0, "device_seconds": 10.0,
         "requests": 100, "computed_tokens": 1000, "generated_tokens": 50, "money": 0.5}
        for n in range(rounds) for stage in ("sample", "judge", "judge", "dpo")
    ]  # fmt: skip
    run.write_text(root / "cost.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    told = [{**line, "seconds": 16.0} for line in lines if line["stage"] != "dpo"]
    label = {"tokens_each": 12.5, "money_each": 0.002, "pass_rate": 0.8, "human_low": 0.05,
             "human_high": 1.5}  # fmt: skip
    run.write_text(root / "estimate.json", json.dumps({"rows": told, "label": label}))
    return run
