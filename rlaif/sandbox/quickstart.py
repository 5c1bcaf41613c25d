"""The main job on the embedded sandbox, from a constitution to a measurably better student.

    judge measured → label → SFT → DPO → reward model → evaluate → summary.json

Everything runs as it would with real models; only the measures are the sandbox's own, where every
label is known exactly. Started again on the same folder, it goes on where it was.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from rlaif import pipeline, strict_yaml
from rlaif.constitution import Constitution
from rlaif.engines.load import load_engine
from rlaif.errors import ConstitutionError
from rlaif.evaluate import scorecard
from rlaif.evaluate.rewards import reward_accuracy
from rlaif.journal import Stage
from rlaif.label.method import Method
from rlaif.label.rows import pair_schema
from rlaif.label.templates import load_template
from rlaif.progress import progress_bars
from rlaif.recipe import Recipe
from rlaif.records import Record, fingerprint
from rlaif.run_folder import RunFolder
from rlaif.sandbox import measure, prompts
from rlaif.sandbox.comparisons import comparisons, write_gate
from rlaif.stages import Progress

HERE = Path(__file__).parent
MODELS = ("base", "sft", "dpo")
_JUDGED = 300  # answers that the judge is measured on, seven questions each
_PAIRS_JUDGED = 120


def quickstart(
    out: Path, *, constitution: Path | None = None, seed: int = 0, quiet: bool = False
) -> dict[str, Any]:
    """Run the main job on the sandbox, and print and write what came of it.

    Args:
        out: the run folder.
        constitution: a constitution in the words of the sandbox; None takes the concierge's.
        seed: every random seed of the run follows from it.
        quiet: print nothing.

    Returns:
        What is in ``summary.json``.

    Raises:
        RlaifError: the constitution cannot be used, or the run folder.
    """
    run = RunFolder(out).create()
    recipe = _recipe(out, constitution, seed)
    loaded = Constitution.load(recipe.constitution)
    _refuse_unknown_words(recipe, loaded)
    assert recipe.gate is not None
    write_gate(Path(recipe.gate.data), loaded)
    recipe_file = run.recipe
    run.write_text(recipe_file, strict_yaml.dump(recipe.model_dump(mode="json")))
    seconds: dict[str, float] = {}
    summary: dict[str, Any] = {"seconds": seconds, "constitution": loaded.name, "seed": seed}
    console = Console(quiet=quiet)
    with progress_bars(console) as progress:
        with _timed(run, seconds, "judge"):
            summary["judge"] = _measure_judge(run, recipe)
        with _timed(run, seconds, "label"):
            counts = pipeline.label(recipe, progress)
            summary |= {
                k: getattr(counts, k)
                for k in ("prompts", "responses", "verdicts", "abstentions", "picks", "pairs")
            }
            summary |= _measure_pairs(run, recipe, loaded)
        for stage in ("sft", "dpo", "reward"):
            with _timed(run, seconds, stage):
                progress("training: " + stage, 0, 1)
                pipeline.train(stage, recipe_file, launch_file(), quiet=True)
                progress("training: " + stage, 1, 1)
        with _timed(run, seconds, "evaluate"):
            samples = _sample_all(run, recipe, progress)
            result = pipeline.evaluate(recipe, "dpo", progress)
            summary["win_rate"] = {"dpo_vs_base": result.win_rate} | {
                k: getattr(result, k) for k in ("low", "high", "length_controlled")
            }
            summary |= _measure_students(samples, loaded)
            summary["reward_model"] = _measure_reward_model(run, samples["base"], loaded)
    run.write_text(run.summary, json.dumps(_plain(summary), indent=2) + "\n")
    print_summary(summary, console)
    console.print(f"\n{run.summary}")
    return summary


def launch_file() -> Path | None:
    """The config file of `accelerate launch` for models this small; a GPU needs none."""
    import torch

    return None if torch.cuda.is_available() else HERE / "two-cpu.yaml"


def _recipe(out: Path, constitution: Path | None, seed: int) -> Recipe:
    given = Recipe.load(HERE / "recipe.yaml")
    assert given.gate is not None
    gate = given.gate.model_copy(update={"data": str(out.absolute() / "gate.jsonl")})
    changes: dict[str, object] = {"run": str(out), "seed": seed, "gate": gate}
    if constitution is not None:
        changes["constitution"] = constitution.absolute()
    return given.model_copy(update=changes)


def _refuse_unknown_words(recipe: Recipe, constitution: Constitution) -> None:
    """A principle with a word that the teacher has never seen would be judged at random."""
    tokens = json.loads((Path(recipe.teacher.model) / "tokenizer.json").read_text("utf-8"))
    known = tokens["model"]["vocab"]
    for i, principle in enumerate(constitution.principles):
        unknown = [word for word in prompts.words(principle.text) if word not in known]
        if unknown:
            raise ConstitutionError(
                f"the sandbox's teacher does not know the word {unknown[0]!r}",
                file=recipe.constitution,
                key=f"principles[{i}].text",
                value=principle.text,
                mend="say it in the words of rlaif/sandbox/principles.py, or take a real teacher",
            )


@contextmanager
def _timed(run: RunFolder, seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Add a stage's seconds; where it was done before, or failed, they are the longest it took."""
    file = run.root / "seconds" / f"{stage}.json"
    start = time.perf_counter()
    try:
        yield
    finally:
        took = time.perf_counter() - start
        before = json.loads(file.read_text("utf-8")) if file.exists() else 0.0
        seconds[stage] = round(max(took, before), 1)
        run.write_text(file, json.dumps(seconds[stage]))


def _measure_judge(run: RunFolder, recipe: Recipe) -> dict[str, Any]:
    method = Method.load(recipe.judge)
    file = run.root / "judge.json"
    with closing(load_engine(recipe.teacher)) as teacher:
        key = fingerprint(
            [method.fingerprint(teacher.identity), recipe.seed, _JUDGED, _PAIRS_JUDGED]
        )
        if file.exists() and (stored := json.loads(file.read_text("utf-8")))["key"] == key:
            return dict(stored["measured"])
        seen, new = (
            measure.judge_accuracy(teacher, method, _JUDGED, recipe.seed, held_out=held_out)
            for held_out in (False, True)
        )
        pairwise = Method("pairwise", load_template("pairwise"))
        asked = comparisons(_PAIRS_JUDGED, recipe.seed)
        card, _ = scorecard.measure(
            asked, teacher, Constitution.load(recipe.constitution), pairwise, clip=recipe.judge.clip
        )
    measured = {
        "accuracy": seen.mean,
        "by_attribute": dict(seen.by_attribute),
        "heldout_wording_accuracy": new.mean,
        "heldout_wording_by_attribute": dict(new.by_attribute),
        "abstained": seen.abstained,
        "pairwise_accuracy": card.accuracy.value * card.accuracy.rows / card.comparisons,
        "flip_rate": card.flip_rate.value,
    }
    run.write_text(file, json.dumps({"key": key, "measured": measured}))
    return measured


def _measure_pairs(run: RunFolder, recipe: Recipe, constitution: Constitution) -> dict[str, Any]:
    stage = Stage(run, "pairs", pair_schema(recipe.pick.write_margin))
    rows = [row for shard in stage.shards() for row in stage.read(shard).to_pylist()]
    found = measure.pair_accuracy(rows, constitution)
    return {"pair_accuracy": found.confirmed, "pairs_tied_by_gold": found.ties}


def _sample_all(run: RunFolder, recipe: Recipe, progress: Progress) -> dict[str, list[Record]]:
    with run.lock():
        return {
            model: pipeline.read_records(pipeline.evaluation_samples(run, recipe, model, progress))
            for model in MODELS
        }


def _measure_students(
    samples: dict[str, list[Record]], constitution: Constitution
) -> dict[str, Any]:
    found = {model: measure.compliance(samples[model], constitution) for model in MODELS}
    by_principle = {
        p.id: {model: found[model][1].get(p.id, math.nan) for model in MODELS}
        for p in constitution.principles
    }
    lengths = {
        model: [r.tokens for record in samples[model] for r in record.responses]
        for model in ("base", "dpo")
    }
    gold = measure.gold_lengths([r.prompt[-1].text for r in samples["base"]], constitution)
    return {
        "gold": {model: found[model][0] for model in MODELS} | {"by_principle": by_principle},
        "mean_tokens": {m: sum(n) / len(n) for m, n in lengths.items()} | {"gold": gold},
    }


def _measure_reward_model(
    run: RunFolder, records: list[Record], constitution: Constitution
) -> dict[str, float]:
    prompt_of = {r.prompt[-1].text: r.prompt for r in records}
    pairs = [
        (prompt_of[prompt], better, worse)
        for prompt, better, worse in measure.gold_pairs(records, constitution)
    ]
    accuracy = reward_accuracy(run.model("reward") / "final", pairs)
    return {"accuracy": accuracy, "pairs": len(pairs)}


def print_summary(summary: dict[str, Any], console: Console) -> None:
    """The before/after table, and what the labels behind it were worth."""
    table = Table(title=f"Kept principles of the {summary['constitution']} constitution (gold)")
    table.add_column("principle")
    for name in ("base", "after SFT", "after DPO"):
        table.add_column(name, justify="right")
    gold = summary["gold"]
    for id_, row in gold["by_principle"].items():
        table.add_row(id_, *(_percent(row[model]) for model in MODELS))
    table.add_section()
    table.add_row("all", *(_percent(gold[model]) for model in MODELS), style="bold")
    console.print(table)
    judge, win = summary["judge"], summary["win_rate"]
    lengths = summary["mean_tokens"]
    for name, value in (
        ("judge right", f"{_percent(judge['accuracy'])}, in wordings it never saw "
                        f"{_percent(judge['heldout_wording_accuracy'])}"),
        ("pairs right", f"{_percent(summary['pair_accuracy'])} of {summary['pairs']}"),
        ("reward model right", _percent(summary["reward_model"]["accuracy"])),
        ("win rate over base", f"{_percent(win['dpo_vs_base'])} "
                               f"({_percent(win['low'])} to {_percent(win['high'])})"),
        ("mean tokens", f"{lengths['base']:.1f} → {lengths['dpo']:.1f} "
                        f"(the world's own: {lengths['gold']:.1f})"),
        ("seconds", ", ".join(f"{k} {v:.0f}" for k, v in summary["seconds"].items())),
    ):  # fmt: skip
        console.print(f"{name:<20}{value}", highlight=False)


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.1f} %"


def _plain(value: Any) -> Any:
    """JSON has no NaN: a figure that does not exist is null."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
