"""The main job on the embedded sandbox, from a constitution to a measurably better student.

    gate → round 0 → round 1 → report.html        each: sample → judge → filter → (SFT) → DPO

It is `rlaif loop` on `recipe.yaml` beside this file, as it would run with real models; only the
metric is the sandbox's own, where every label is known exactly. Started again on the same folder,
it goes on where it was.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from rlaif import strict_yaml
from rlaif.constitution import Constitution
from rlaif.errors import ConstitutionError
from rlaif.loop.figures import Figure, Figures
from rlaif.loop.places import LoopFolder
from rlaif.loop.rounds import run_loop
from rlaif.loop.spending import read_cost, total
from rlaif.loop.state import State
from rlaif.recipe import Anchors, Recipe
from rlaif.report import write_report
from rlaif.run_folder import RunFolder
from rlaif.sandbox import measure, prompts
from rlaif.sandbox.answers import answer
from rlaif.sandbox.comparisons import write_gate

HERE = Path(__file__).parent

_ANCHORS = 400
_ANCHOR_SEED = 11  # prompts that are drawn for nothing else


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
    console = Console(quiet=quiet)
    recipe_file = write_inputs(out, constitution, seed)

    def say(text: str) -> None:
        console.print(text, highlight=False, style="dim")

    state = run_loop(recipe_file, say=say)
    summary = _summary(out, state, Recipe.load(recipe_file))
    run = RunFolder(out)
    run.write_text(run.summary, json.dumps(summary, indent=2) + "\n")
    print_summary(summary, console)
    console.print(f"\n{write_report(out)}", soft_wrap=True)
    return summary


def write_inputs(
    out: Path,
    constitution: Path | None = None,
    seed: int = 0,
    change: Callable[[dict[str, Any]], None] | None = None,
) -> Path:
    """The quickstart's recipe and the files that it names, in ``out/inputs``.

    Args:
        out: the run folder.
        constitution: as for `quickstart`.
        seed: of the run.
        change: changes the recipe, as plain data, before it is written.

    Returns:
        The recipe's file.

    Raises:
        ConstitutionError: a principle in words that the sandbox does not have.
    """
    run = RunFolder(out.absolute()).create()
    inputs = run.root / "inputs"
    given = Recipe.load(HERE / "recipe.yaml")
    file = (constitution or given.constitution).absolute()
    loaded = Constitution.load(file)
    _refuse_unknown_words(given, loaded, file)
    inputs.mkdir(parents=True, exist_ok=True)
    write_gate(inputs / "gate.jsonl", loaded)
    write_anchors(inputs / "anchors.jsonl", loaded)
    assert given.gate is not None
    recipe = given.model_copy(
        update={
            "run": str(run.root), "seed": seed, "constitution": file,
            "gate": given.gate.model_copy(update={"data": inputs / "gate.jsonl"}),
            "anchors": Anchors(path=str(inputs / "anchors.jsonl")),
        }
    ).model_dump(mode="json")  # fmt: skip
    if not _has_gpu():
        recipe["loop"]["launch"] = str(HERE / "two-cpu.yaml")
        for stage in ("sft", "dpo"):
            recipe["train"][stage]["bf16"] = multiplies_bfloat16()
    if change is not None:
        change(recipe)
    run.write_text(inputs / "recipe.yaml", strict_yaml.dump(recipe))
    return inputs / "recipe.yaml"


def write_anchors(file: Path, constitution: Constitution) -> None:
    """What people of this world would write: prompts, and answers that keep every principle."""
    rng = random.Random("anchors")
    wished = {w.attribute: w.present for w in measure.wishes(constitution).values() if w}
    rows = [
        {"prompt": prompt, "completion": answer(prompt, wished, rng)}
        for prompt in prompts.prompts(_ANCHORS, "label", _ANCHOR_SEED)
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    file.write_text(text, encoding="utf-8", newline="\n")


def launch_file() -> Path | None:
    """The config file of `accelerate launch` for models this small; a GPU needs none."""
    return None if _has_gpu() else HERE / "two-cpu.yaml"


def _has_gpu() -> bool:
    """Without torch, which this process is to stay free of."""
    return Path("/proc/driver/nvidia/gpus").is_dir()


def multiplies_bfloat16(processor: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether training in it is faster here than in float32; elsewhere it takes several times as
    long. Without torch, too."""
    try:
        able = processor.read_text("utf-8", errors="replace").split()
    except OSError:
        return False
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(able)


def _refuse_unknown_words(recipe: Recipe, constitution: Constitution, file: Path) -> None:
    """A principle with a word that the teacher has never seen would be judged at random."""
    tokens = json.loads((Path(recipe.teacher.model) / "tokenizer.json").read_text("utf-8"))
    known = tokens["model"]["vocab"]
    for i, principle in enumerate(constitution.principles):
        unknown = [word for word in prompts.words(principle.text) if word not in known]
        if unknown:
            raise ConstitutionError(
                f"the sandbox's teacher does not know the word {unknown[0]!r}",
                file=file,
                key=f"principles[{i}].text",
                value=principle.text,
                mend="say it in the words of rlaif/sandbox/principles.py, or take a real teacher",
            )


def _summary(out: Path, state: State, recipe: Recipe) -> dict[str, Any]:
    folder = LoopFolder(out)
    constitution = Constitution.load(recipe.constitution)
    spent = read_cost(folder.cost)
    stages = dict.fromkeys(line["stage"] for line in spent)
    asked = [
        json.loads(line)["prompt"]
        for line in (HERE / "data" / "evaluate.jsonl").read_text("utf-8").splitlines()
    ]
    return {
        "constitution": constitution.name,
        "seed": recipe.seed,
        "base": None if state.base is None else state.base.as_dict(),
        "rounds": [one.as_dict() for one in state.rounds],
        "best": None if state.best is None else state.best.round,
        "stopped": None if state.stopped is None else state.stopped.reason,
        "mean_tokens_gold": measure.gold_lengths(asked, constitution),
        "seconds": {
            stage: round(total(line for line in spent if line["stage"] == stage).seconds, 1)
            for stage in stages
        },
    }


def print_summary(summary: dict[str, Any], console: Console) -> None:
    """The table of principles, round by round, and what the labels behind it were worth.

    A run that has stopped before there was any figure has no table, but a reason.
    """
    if not summary["rounds"]:
        console.print(
            f"stopped before anything was trained: {summary['stopped']}",
            highlight=False, markup=False, soft_wrap=True,
        )  # fmt: skip
        return
    base = Figures.from_dict(summary["base"])
    rounds = [Figures.from_dict(one) for one in summary["rounds"]]
    columns = [base, *rounds]
    table = Table(title=f"Kept principles of the {summary['constitution']} constitution (gold)")
    table.add_column("principle")
    for name in ("before", *(f"round {one.round}" for one in rounds)):
        table.add_column(name, justify="right")
    for id_ in base.metric_by_principle:
        table.add_row(id_, *(_percent(one.metric_by_principle.get(id_)) for one in columns))
    table.add_section()
    table.add_row("all", *(_value(one.metric) for one in columns), style="bold")
    console.print(table)
    last = rounds[-1]
    told = [
        ("judge right", _with_interval(last.judge_accuracy) + ", of labelled comparisons"),
        ("pairs", " + ".join(str((one.labels or {}).get("pairs", "–")) for one in rounds)),
        ("kept aside", " + ".join(str(_dropped(one)) for one in rounds)),
        ("wins over the last", ", ".join(_with_interval(one.win_rate) for one in rounds)),
        ("mean tokens", " → ".join(f"{one.mean_tokens or 0:.1f}" for one in columns)
                        + f" (the world's own: {summary['mean_tokens_gold']:.1f})"),
        ("seconds", ", ".join(f"{k} {v:.0f}" for k, v in summary["seconds"].items())),
        ("best", _best(summary)),
    ]  # fmt: skip
    for name, value in told:
        console.print(f"{name:<20}{value}", highlight=False)


def _best(summary: dict[str, Any]) -> str:
    if summary["best"] is not None:
        return f"round {summary['best']}"
    return "no round" + (f": stopped, {summary['stopped']}" if summary["stopped"] else "")


def _dropped(figures: Figures) -> int:
    dropped = (figures.labels or {}).get("dropped", {})
    return sum(sum(reasons.values()) for reasons in dropped.values())


def _value(figure: Figure | None) -> str:
    return _percent(None if figure is None else figure.value)


def _with_interval(figure: Figure | None) -> str:
    if figure is None or figure.low is None or figure.high is None:
        return _value(figure)
    return f"{_percent(figure.value)} ({_percent(figure.low)} to {_percent(figure.high)})"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"
