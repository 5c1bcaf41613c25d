"""A run folder that was never run, as large as asked for: what the report is measured on.

Its shards are written by the journal in the columns of a real run. Its words are drawn from those
of planted_texts.jsonl by their frequency: text that repeats no phrase packs worse than real text.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rlaif import strict_yaml
from rlaif.constitution import Constitution, Principle
from rlaif.journal import Stage
from rlaif.label.rows import SFT_SCHEMA, pair_schema
from rlaif.records import Drop
from rlaif.run_folder import RunFolder
from rlaif.tables import SAMPLES, VERDICTS

HERE = Path(__file__).parent
PRINCIPLES = 12
RESPONSES = 4
_SHARD = 2048  # records
_PROMPT_WORDS, _RESPONSE_WORDS = 12, 22  # about 65 and 120 characters
_DROPPED_BY_PICK, _DROPPED_BY_FILTER = 0.02, 0.08

Floats = NDArray[np.float64]


class _Shard(NamedTuple):
    """One shard of records, before it is written.

    Attributes:
        ids, prompts: one a record.
        texts: [records, responses].
        log_odds: [principles, records, responses], in nats.
    """

    ids: list[str]
    prompts: list[str]
    texts: list[list[str]]
    log_odds: Floats


def make_run(root: Path, pairs: int, seed: int = 0) -> RunFolder:
    """A labelled and filtered run with so many picked pairs."""
    run, rng = RunFolder(root).create(), np.random.default_rng(seed)
    constitution = Constitution(
        name="synthetic",
        principles=tuple(
            Principle(id=f"principle-{i}", text=f"The answer keeps rule number {i}.")
            for i in range(PRINCIPLES)
        ),
    )
    constitution.save(run.constitution)
    run.write_text(run.recipe, strict_yaml.dump(_recipe(run)))
    words, chances = _words()
    records = math.ceil(pairs / (1 - _DROPPED_BY_PICK))
    for number, first in enumerate(range(0, records, _SHARD)):
        count = min(_SHARD, records - first)
        shard = _Shard(
            [f"{first + i:016x}" for i in rng.permutation(count)],
            _texts(rng, words, chances, count, _PROMPT_WORDS),
            np.reshape(
                _texts(rng, words, chances, count * RESPONSES, _RESPONSE_WORDS), (count, RESPONSES)
            ).tolist(),
            rng.normal(0, 2.5, (PRINCIPLES, count, RESPONSES)),
        )
        _write_records(run, number, shard, first)
        _write_verdicts(run, number, shard, constitution)
        _write_picks(run, number, shard, rng)
    return run


def _recipe(run: RunFolder) -> dict[str, Any]:
    return {
        "seed": 0, "run": str(run.root), "constitution": "constitution.yaml",
        "student": {"model": "student"}, "teacher": {"model": "teacher"},
        "prompts": {"path": "prompts.jsonl"}, "anchors": {"path": "anchors.jsonl"}, "filter": {},
        "train": {"sft": {}, "dpo": {}},
    }  # fmt: skip


def _words() -> tuple[NDArray[np.str_], Floats]:
    """Words and how often each comes, as a share."""
    text = (HERE / "planted_texts.jsonl").read_text("utf-8")
    counts = Counter(re.findall(r"[A-Za-z']+[.,?]?", text))
    found = np.array(list(counts.values()), float)
    return np.array(list(counts)), found / found.sum()


def _texts(
    rng: np.random.Generator, words: NDArray[np.str_], chances: Floats, count: int, length: int
) -> list[str]:
    lengths = rng.integers(length // 2, length + length // 2 + 1, count)
    drawn = rng.choice(words, int(lengths.sum()), p=chances)
    return [" ".join(part) for part in np.split(drawn, np.cumsum(lengths)[:-1])]


def _write_records(run: RunFolder, number: int, shard: _Shard, first: int) -> None:
    asked = {
        "record_id": shard.ids, "index": list(range(first, first + len(shard.ids))),
        "prompt": [[{"role": "user", "content": p}] for p in shard.prompts],
        "meta": ["{}"] * len(shard.ids),
    }  # fmt: skip
    said = [
        [{"text": text, "tokens": len(text.split()), "finish": "stop"} for text in texts]
        for texts in shard.texts
    ]
    none: list[list[Any]] = [[] for _ in shard.ids]
    for name, responses in (("prompts", none), ("samples", said)):
        table = pa.table(asked | {"responses": responses}).select(SAMPLES.names).cast(SAMPLES)
        Stage(run, name, SAMPLES).write(number, {"shard": number}, table)


def _write_verdicts(run: RunFolder, number: int, shard: _Shard, constitution: Constitution) -> None:
    count = len(shard.ids) * RESPONSES
    for principle, log_odds in zip(constitution.principles, shard.log_odds, strict=True):
        table = pa.table(
            {
                "record_id": np.repeat(shard.ids, RESPONSES),
                "principle": [principle.fingerprint] * count,
                "response": np.tile(np.arange(RESPONSES), len(shard.ids)),
                "other": pa.nulls(count, pa.int64()),
                "log_odds": log_odds.ravel(),
                "coverage": np.ones(count),
                "order_gap": pa.nulls(count, pa.float64()),
                "reason": pa.nulls(count, pa.string()),
                "rationale": pa.nulls(count, pa.string()),
            }
        )
        stage = Stage(run, f"verdicts/pointwise/{principle.fingerprint}", VERDICTS)
        stage.write(number, {"judge": "judge"}, table.cast(VERDICTS))


def _write_picks(run: RunFolder, number: int, shard: _Shard, rng: np.random.Generator) -> None:
    """The best over the worst response of each record; some are dropped, by the pick and after."""
    scores = shard.log_odds.sum(axis=0)
    tied = rng.permutation(len(shard.ids)) < int(_DROPPED_BY_PICK * len(shard.ids))
    apart = rng.random(len(shard.ids)) < _DROPPED_BY_FILTER
    best, worst = scores.argmax(1), scores.argmin(1)
    lead = scores.max(1) - scores.min(1)
    picked = [
        _pair(shard, int(i), int(best[i]), int(worst[i]), float(lead[i]))
        for i in np.flatnonzero(~tied)
    ]
    gone = {shard.ids[i] for i in np.flatnonzero(apart)}
    for name, schema in (("pairs", pair_schema(False)), ("sft", SFT_SCHEMA)):
        rows = picked if name == "pairs" else [_pick(row) for row in picked]
        ties = [
            Drop(shard.ids[i], name, "tie", "widest margin 0.000") for i in np.flatnonzero(tied)
        ]
        table = pa.Table.from_pylist(rows, schema=schema)
        Stage(run, f"picked/{name}", schema).write(number, {"shard": number}, table, ties)
        drops = [
            Drop(
                row["record_id"], "filter", "drift", f"cosine 0.{i % 100:02d}; nearest anchor: one"
            )
            for i, row in enumerate(rows)
            if row["record_id"] in gone
        ]
        left = pa.Table.from_pylist([r for r in rows if r["record_id"] not in gone], schema=schema)
        Stage(run, name, schema).write(number, {"shard": number}, left, drops)


def _pair(shard: _Shard, i: int, best: int, worst: int, margin: float) -> dict[str, Any]:
    return {
        "prompt": [{"role": "user", "content": shard.prompts[i]}],
        "chosen": [{"role": "assistant", "content": shard.texts[i][best]}],
        "rejected": [{"role": "assistant", "content": shard.texts[i][worst]}],
        "score_margin": margin, "concession": 0.0,
        "chosen_probability": 1 / (1 + float(np.exp(-margin / 8))), "probability_calibrated": True,
        "record_id": shard.ids[i], "chosen_index": best, "rejected_index": worst,
        "constitution": "c", "judge": "judge",
    }  # fmt: skip


def _pick(pair: dict[str, Any]) -> dict[str, Any]:
    return {
        "prompt": pair["prompt"], "completion": pair["chosen"], "score": 0.0,
        "score_margin": pair["score_margin"], "record_id": pair["record_id"],
        "response_index": pair["chosen_index"], "constitution": "c", "judge": "judge",
    }  # fmt: skip


def characters(run: RunFolder) -> float:
    """Characters of the prompt, the chosen and the rejected response of a pair, on average."""
    stage = Stage(run, "picked/pairs", pair_schema(False))
    rows = stage.read(0).to_pylist()
    texts = [m["content"] for r in rows for k in ("prompt", "chosen", "rejected") for m in r[k]]
    return sum(map(len, texts)) / len(rows)


def totals(run: RunFolder) -> dict[str, int]:
    """Rows of each stage of picks, from the manifests; to see that a run is what was asked for."""
    found = {}
    for name in ("picked/pairs", "pairs"):
        files = run.manifests(name).glob("*.json")
        found[name] = sum(json.loads(file.read_text("utf-8"))["rows"] for file in files)
    return found
