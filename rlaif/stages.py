"""The stages made durable: each plain function, shard by shard, through the journal.

    prompts → samples → (revised) → verdicts → sft, pairs

What a shard depends on is said here, and nowhere else: the shards it was made of, the settings and
the model. pipeline.py puts these in order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from rlaif.constitution import Constitution, Principle
from rlaif.engines.protocol import Engine, Sampling
from rlaif.journal import Stage, run_stage
from rlaif.label.calibrate import Calibration
from rlaif.label.judge import judge
from rlaif.label.method import Method, distinct, principle_fingerprint
from rlaif.label.pick import pick_pairs, pick_sft
from rlaif.label.revise import Revising, revise
from rlaif.label.rows import SFT_SCHEMA, Row, pair_schema
from rlaif.label.sample import sample
from rlaif.prompts.load import load_prompts, shards
from rlaif.recipe import Prompts, Recipe
from rlaif.records import Drop, Record, Verdict
from rlaif.run_folder import RunFolder
from rlaif.tables import (
    SAMPLES,
    VERDICTS,
    join_verdicts,
    records_from_table,
    records_to_table,
    verdicts_from_table,
    verdicts_to_table,
)

Progress = Callable[[str, int, int], None]
"""Is told (stage, shards done, shards in all)."""


_Pick = Callable[..., tuple[list[Row], list[Drop]]]


def silent(stage: str, done: int, total: int) -> None:
    """The progress of a library call: none."""


def store_prompts(run: RunFolder, name: str, source: Prompts) -> Stage:
    """The usable prompts of a source as shards of records without responses."""
    stage = Stage(run, name, SAMPLES)
    total = first = 0
    for shard, (records, drops) in enumerate(shards(load_prompts(source), source.shard_size)):
        depends = {
            "records": [record.id for record in records],
            "dropped": [[drop.id, drop.reason] for drop in drops],
        }
        if not stage.done(shard, depends):
            stage.write(shard, depends, records_to_table(records, first), drops)
        total, first = shard + 1, first + len(records)
    stage.finish(total)
    return stage


def store_samples(
    run: RunFolder,
    name: str,
    prompts: Stage,
    engine: Engine,
    sampling: Sampling,
    seed: int,
    progress: Progress = silent,
) -> Stage:
    """Responses to every stored prompt, shard by shard."""
    stage = Stage(run, name, SAMPLES)
    count = len(prompts.shards())

    def make(shard: int) -> tuple[pa.Table, list[Drop]]:
        table = prompts.read(shard)
        records, drops = sample(records_from_table(table), engine, sampling, seed)
        return records_to_table(records, table["index"][0].as_py() if table.num_rows else 0), drops

    settings = sampling.as_dict()
    wanted = {"engine": dict(engine.identity), "sampling": settings, "seed": seed}
    jobs = [(i, wanted | {"prompts": prompts.digest(i)}) for i in range(count)]
    run_stage(
        stage, jobs, make, partial(engine_notes, engine), lambda done: progress(name, done, count)
    )
    return stage


def store_revisions(
    run: RunFolder,
    samples: Stage,
    engine: Engine,
    principles: Sequence[Principle],
    method: Revising,
    seed: int,
    progress: Progress = silent,
) -> Stage:
    """The stored samples with revisions added, shard by shard.

    A principle's text or wording decides them, and so does which principles there are to draw
    from; its weight and its veto do not.
    """
    stage = Stage(run, "revised", SAMPLES)
    count = len(samples.shards())

    def make(shard: int) -> tuple[pa.Table, list[Drop]]:
        table = samples.read(shard)
        records, drops = revise(records_from_table(table), engine, principles, method, seed)
        return records_to_table(records, table["index"][0].as_py() if table.num_rows else 0), drops

    wanted = {
        "engine": dict(engine.identity),
        "principles": [[p.text, p.critique, p.revision] for p in principles],
        "templates": [method.critique.fingerprint, method.revise.fingerprint],
        "critique": method.critique_sampling.as_dict(),
        "revision": method.sampling.as_dict(),
        "rounds": method.rounds,
        "seed": seed,
    }
    jobs = [(i, wanted | {"samples": samples.digest(i)}) for i in range(count)]
    run_stage(
        stage, jobs, make, partial(engine_notes, engine),
        lambda done: progress("revised", done, count),
    )  # fmt: skip
    return stage


def engine_notes(engine: Engine) -> dict[str, int]:
    """In a manifest: that batches had to be made smaller, so that another try may differ."""
    return {"halvings": engine.usage.halvings} if engine.usage.halvings else {}


@dataclass(frozen=True, slots=True)
class Verdicts:
    """The stored verdicts of one method: a stage for each principle text.

    Attributes:
        stages: by the principle's own fingerprint.
        asked: fingerprints of the principles that were judged just now.
    """

    stages: dict[str, Stage]
    asked: frozenset[str]

    def of(self, shard: int) -> list[tuple[str, Verdict]]:
        """All verdicts on one shard's records, a principle after the other."""
        return [row for s in self.stages.values() for row in verdicts_from_table(s.read(shard))]


def store_verdicts(
    run: RunFolder,
    name: str,
    samples: Stage,
    engine: Engine,
    principles: Sequence[Principle],
    method: Method,
    progress: Progress = silent,
) -> Verdicts:
    """Verdicts on every stored response under every principle, each principle in its own place.

    A shard asks about all its missing principles in one call, so that they share their prefixes.
    A principle whose verdicts are stored is not asked about again: an edited one is judged alone,
    and an edited weight or veto judges nothing. Where some of a call's verdicts were lost, by a
    kill between two files, the whole call is made again and what was lost is stored: in bfloat16,
    fewer questions together would give other bytes.
    """
    stages = stored_verdicts(run, name, principles, method, engine.identity).stages
    judge_name = method.fingerprint(engine.identity)
    wanted = {
        p.fingerprint: {"principle": p.text, "judge": judge_name} for p in distinct(principles)
    }
    asked: set[str] = set()
    shard_numbers = samples.shards()
    for shard in shard_numbers:
        depends = {k: v | {"samples": samples.digest(shard)} for k, v in wanted.items()}
        missing = [
            p for p in distinct(principles)
            if not stages[p.fingerprint].done(shard, depends[p.fingerprint])
        ]  # fmt: skip
        if not missing:
            continue
        records = records_from_table(samples.read(shard))
        for together, lost in _calls(stages, shard, missing, principles, engine):
            judged = judge(records, engine, together, method)
            notes: dict[str, Any] = dict(engine_notes(engine))
            if len(together) > 1:
                notes["together"] = [p.fingerprint for p in together]
            for key in (p.fingerprint for p in lost):
                rows = [(r.id, v) for r in judged for v in r.verdicts if v.principle == key]
                stages[key].write(shard, depends[key], verdicts_to_table(rows), notes=notes)
                asked.add(key)
        progress(name, shard + 1, len(shard_numbers))
    for stage in stages.values():
        stage.finish(len(shard_numbers))
    return Verdicts(stages, frozenset(asked))


def _calls(
    stages: Mapping[str, Stage],
    shard: int,
    missing: Sequence[Principle],
    principles: Sequence[Principle],
    engine: Engine,
) -> Iterator[tuple[list[Principle], list[Principle]]]:
    """For one shard: what to ask about in a call, and whose verdicts of these to store.

    That is a call again of which some verdicts are stored, and then all others together. A server
    makes its batches as it likes, and is paid for each question: it is asked for no verdict twice.
    """
    by_key = {p.fingerprint: p for p in distinct(principles)}
    left = {p.fingerprint: p for p in missing}
    stored = [] if engine.identity.get("engine") == "openai" else by_key.keys() - left.keys()
    for key in sorted(stored):
        together = stages[key].manifest(shard).notes.get("together", [])
        if not by_key.keys() >= set(together):
            continue  # one of them is no longer in the constitution: there is no such call
        lost = [left.pop(key) for key in together if key in left]
        if lost:
            yield [by_key[key] for key in together], lost
    if left:
        yield list(left.values()), list(left.values())


def stored_verdicts(
    run: RunFolder,
    name: str,
    principles: Sequence[Principle],
    method: Method,
    identity: Mapping[str, str],
) -> Verdicts:
    """Where a judge's verdicts lie, whether or not they are there yet; asks nothing.

    Args:
        run, name, principles, method: as for `store_verdicts`.
        identity: of the judge's engine.
    """
    keys = {p.fingerprint: principle_fingerprint(p, method, identity) for p in distinct(principles)}
    stages = {k: Stage(run, f"{name}/{method.mode}/{key}", VERDICTS) for k, key in keys.items()}
    return Verdicts(stages, frozenset())


def judged_records(samples: Stage, verdicts: Verdicts, shard: int) -> list[Record]:
    """One shard's records with their stored verdicts."""
    return join_verdicts(records_from_table(samples.read(shard)), verdicts.of(shard))


def picked_stages(run: RunFolder, recipe: Recipe) -> dict[str, Stage]:
    """Where picks go: "sft" and "pairs"; in RUN/data/picked/ where more is to come behind them."""
    place = "" if recipe.critic is None and recipe.filter is None else "picked/"
    return {
        "sft": Stage(run, f"{place}sft", SFT_SCHEMA),
        "pairs": Stage(run, f"{place}pairs", pair_schema(recipe.pick.write_margin)),
    }


def store_picks(
    run: RunFolder,
    recipe: Recipe,
    constitution: Constitution,
    judge_name: str,
    samples: Stage,
    verdicts: Verdicts,
    calibration: Calibration | None = None,
) -> dict[str, Stage]:
    """SFT rows and preference pairs of every stored record; asks no model.

    Args:
        run, recipe, constitution, judge_name, samples, verdicts: what they are made of.
        calibration: of the judge, for the pairs' probabilities.

    Returns:
        The stages "sft" and "pairs", by these names; where a critic or filters come behind them,
        they lie in RUN/data/picked/.
    """
    made = picked_stages(run, recipe)
    wanted = {
        "constitution": constitution.fingerprint,
        "pick": recipe.pick.model_dump(mode="json"),
        "mode": recipe.judge.mode,
        "clip": recipe.judge.clip,
        "judge": judge_name,
    }
    if calibration is not None:
        wanted["calibration"] = calibration.fingerprint
    shards = samples.shards()
    depends = [
        wanted
        | {
            "samples": samples.digest(shard),
            "verdicts": [stage.digest(shard) for stage in verdicts.stages.values()],
        }
        for shard in shards
    ]
    pairs = partial(pick_pairs, calibration=calibration)
    for name, pick in (("sft", pick_sft), ("pairs", pairs)):

        def make(
            shard: int, stage: Stage = made[name], pick: _Pick = pick
        ) -> tuple[pa.Table, list[Drop]]:
            rows, drops = pick(
                judged_records(samples, verdicts, shard),
                constitution,
                recipe.pick,
                mode=recipe.judge.mode,
                clip=recipe.judge.clip,
                judge=judge_name,
            )
            return pa.Table.from_pylist(rows, schema=stage.schema), drops

        run_stage(made[name], list(zip(shards, depends, strict=True)), make)
    return made
