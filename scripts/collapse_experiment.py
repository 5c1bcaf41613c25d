"""Does a student that learns from its own words collapse, and what keeps it from it?

    python scripts/collapse_experiment.py [--json FILE] [--figure FILE] [--small]
    python scripts/collapse_experiment.py --arms bc --beside FILE    # with what FILE has of a and d

Generation 0 learns from human texts; each later one is it, fine-tuned on what the last one wrote:

    a  replacing the data          c  replacing behind the anchor and drift filters
    b  accumulating it             d  accumulating behind them

Same seeds, same number of optimiser steps and of written texts in each arm; accumulating keeps the
human texts (Shumailov et al. 2024, Nature 631; Gerstgrasser et al. 2024, arXiv 2404.01413). It can
be stopped and started again: every finished generation is kept in --work.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from bench_rows import Row, note, row, show, write
from collapse_world import Subject, Text, compliance, human_texts, reached
from rich.console import Console

from rlaif.constitution import Constitution
from rlaif.records import Message, seed_of
from rlaif.sandbox import prompts

SANDBOX = Path(__file__).parent.parent / "rlaif" / "sandbox"
WORK = Path("runs/collapse")
ARMS = {
    "a": "replace",
    "b": "accumulate",
    "c": "replace, filtered",
    "d": "accumulate, filtered",
}
RARE = 4, 8
"""Human texts of a subject in the tail: about one in a thousand. Generation 0 says such a subject
about ten times in its probes; one that it says three times could be missed by chance."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The budget, the same for every arm.

    Attributes:
        generations: after generation 0.
        human: texts that people wrote.
        written: texts that a generation writes, prompt and answer, to be learned from.
        measured: texts whose compliance is measured, those among them.
        probes: prompts that it writes to see which subjects it still reaches.
        first_steps: optimiser steps of generation 0.
        steps: of each later generation.
        temperature: of writing; top-p is 1.
    """

    generations: int = 6
    human: int = 6000
    written: int = 1000
    measured: int = 3000
    probes: int = 10_000
    first_steps: int = 600
    steps: int = 150
    temperature: float = 1.0


SMALL = Plan(2, human=200, written=200, measured=300, probes=500, first_steps=40, steps=20)


@dataclass(frozen=True, slots=True)
class Generation:
    """What one generation wrote, measured.

    Attributes:
        arm, number, seed: which.
        tail_coverage: share of the tail's subjects that its probes reach.
        token_entropy: of the words of what it wrote, in nats.
        compliance: mean share of the applicable principles that an answer keeps. Where the prompt
            is none of the world's there is no gold; those are told apart, as `other`.
        other: share of the probes that are no prompt of the world.
        kept: texts that were added to the data.
        dropped: the others, by reason.
    """

    arm: str
    number: int
    seed: int
    tail_coverage: float
    token_entropy: float
    compliance: float
    other: float
    kept: int
    dropped: dict[str, int]


def constitution() -> Constitution:
    """What the human texts keep."""
    return Constitution.load(SANDBOX / "constitutions" / "concierge.yaml")


def rows_of(texts: Sequence[Text]) -> list[dict[str, Any]]:
    """What a student learns from a text: to write the prompt where none is given; to answer it."""
    found = []
    for text in texts:
        for asked, said in (("", text.prompt), text):
            found.append(
                {
                    "prompt": [{"role": "user", "content": asked}],
                    "completion": [{"role": "assistant", "content": said}],
                }
            )
    return found


def learn(
    start: Path, texts: Sequence[Text], steps: int, rate: float, seed: int, out: Path
) -> None:
    """Fine-tune a student on texts with TRL, in float32, and save it.

    Few processors multiply bfloat16, and on the others it takes seven times as long.
    """
    import transformers
    from datasets import Dataset, disable_progress_bars
    from trl import SFTConfig, SFTTrainer

    transformers.utils.logging.disable_progress_bar()
    disable_progress_bars()
    arguments = SFTConfig(
        output_dir=str(out), max_steps=steps, per_device_train_batch_size=64, learning_rate=rate,
        lr_scheduler_type="cosine", warmup_steps=10, adam_beta2=0.95, max_length=200, bf16=False,
        gradient_checkpointing=False, train_sampling_strategy="group_by_length", use_cpu=True,
        model_init_kwargs={"attn_implementation": "eager", "dtype": "float32"},
        logging_strategy="no", save_strategy="no", report_to="none", disable_tqdm=True,
        dataloader_pin_memory=False, seed=seed, data_seed=seed,
    )  # fmt: skip
    trainer = SFTTrainer(
        str(start), args=arguments, train_dataset=Dataset.from_list(rows_of(texts))
    )
    trainer.train()
    trainer.save_model(str(out))


def speak(model: Path, plan: Plan, seed: str) -> tuple[list[str], list[Text]]:
    """The probes; and the first of them answered, as the texts of this generation."""
    from rlaif.engines.protocol import Sampling
    from rlaif.engines.transformers.engine import TransformersEngine

    n = min(500, plan.probes)
    seeds = [seed_of("prompts", seed, i) for i in range(plan.probes // n)]
    # In float32: so small a model gains nothing from bfloat16.
    with closing(TransformersEngine(str(model), dtype="float32")) as engine:
        nothing = [(Message("user", ""),)] * len(seeds)
        asked = Sampling(n, plan.temperature, max_tokens=40)
        said = [r.text for g in engine.generate(nothing, asked, seeds) for r in g.responses]
        own = [prompt for prompt in said[: plan.measured] if prompt.strip()]
        seeds = [seed_of("answers", seed, i) for i in range(len(own))]
        answers = engine.generate(
            [(Message("user", prompt),) for prompt in own],
            Sampling(1, plan.temperature, max_tokens=80), seeds,
        )  # fmt: skip
    return said, [Text(p, g.responses[0].text) for p, g in zip(own, answers, strict=True)]


def token_entropy(texts: Sequence[Text]) -> float:
    """Of single words, in nats; of as many texts in every generation, so they can be compared."""
    counts = np.array(
        list(Counter(w for t in texts for part in t for w in prompts.words(part)).values())
    )
    shares = counts / counts.sum()
    return float(-(shares * np.log(shares)).sum())


class Filters:
    """The anchor and drift filters, fitted to the human texts."""

    def __init__(self, human: Sequence[Text], cache: Path, seed: int) -> None:
        from rlaif.embed import Embedder
        from rlaif.filters.chain import fit_filters
        from rlaif.recipe import Filter

        # Every answer of this world is made of the same sentences: shared letters say little.
        settings = Filter(
            copy_overlap=0.9, low_quantile=0.03, high_quantile=0.99, near_duplicates=0.99
        )  # fmt: skip
        self.embed = Embedder(cache=cache)
        self.fitted = fit_filters(settings, ["\n".join(t) for t in human], self.embed, seed)

    def __call__(self, texts: Sequence[Text]) -> tuple[list[Text], dict[str, int]]:
        """The texts that are kept, and the number of the others by reason."""
        from rlaif.filters.chain import filter_rows

        rows = [{"prompt": t.prompt, "completion": t.answer} for t in texts]
        found = filter_rows(rows, [str(i) for i in range(len(rows))], self.fitted, self.embed)
        return [texts[i] for i in found.kept], dict(found.figures["dropped"])


def run_seed(seed: int, plan: Plan, arms: str, work: Path) -> list[Generation]:
    """Generation 0 and every arm of one seed."""
    work = work / f"seed{seed}"
    people = human_texts(plan.human, constitution(), seed)
    written, first = generation(
        "-", 0, seed, people, people, SANDBOX / "models" / "student", plan, work, None
    )
    filters = cache(lambda: Filters(people, work / "embeddings", seed))
    found = [first]
    for arm in arms:
        offered, kept = [written], list[list[Text]]()
        for number in range(1, plan.generations + 1):
            told = work / f"{arm}{number}.kept.json"
            # Filtering takes as long as learning: what came of it is read where both are done.
            if not (told.exists() and (work / f"{arm}{number}.json").exists()):
                dropped = dict[str, int]()
                for batch in offered[len(kept) :]:
                    good, dropped = filters()(batch) if arm in "cd" else (batch, {})
                    kept.append(good)
                told.write_text(json.dumps({"kept": len(kept[-1]), "dropped": dropped}))
            data = data_of(arm, people, kept)
            new, one = generation(arm, number, seed, people, data, work / "-0", plan, work, written)
            offered.append(new)
            found.append(replace(one, **json.loads(told.read_text())))
            print(json.dumps(asdict(found[-1])), flush=True)
    return found


def data_of(arm: str, people: Sequence[Text], kept: Sequence[Sequence[Text]]) -> Sequence[Text]:
    """What an arm learns from, of the texts that were kept of each generation so far.

    A batch that was discarded whole leaves the data as they were.
    """
    if arm in "bd":
        return [*people, *(text for batch in kept for text in batch)]
    return next((batch for batch in reversed(kept) if batch), people)


def generation(
    arm: str,
    number: int,
    seed: int,
    people: Sequence[Text],
    data: Sequence[Text],
    start: Path,
    plan: Plan,
    work: Path,
    written: Sequence[Text] | None,
) -> tuple[list[Text], Generation]:
    """Learn, write and measure; or read what was done before."""
    out = work / f"{arm}{number}"
    record = work / f"{arm}{number}.json"
    if not record.exists():
        out.mkdir(parents=True, exist_ok=True)
        steps, rate = (plan.steps, 5e-4) if number else (plan.first_steps, 1e-3)
        learn(start, data, steps, rate, seed_of("learn", seed, arm, number) % 2**31, out)
        said, texts = speak(out, plan, f"{seed} {arm} {number}")
        record.write_text(json.dumps({"probes": said, "texts": [list(t) for t in texts]}))
    stored = json.loads(record.read_text())
    said, spoken = stored["probes"], [Text(*t) for t in stored["texts"]]
    texts = spoken[: plan.written]
    tail = tail_of(people, work)
    reach = reached(said)
    other = 1 - sum(reach.values()) / len(said)
    inside = [t for t in spoken if prompts.parse(t.prompt) is not None]
    return texts, Generation(
        arm, number, seed,
        tail_coverage=sum(reach[s] > 0 for s in tail) / len(tail),
        token_entropy=token_entropy(texts),
        compliance=compliance(inside, constitution()) if inside else math.nan, other=other,
        kept=len(data), dropped={},
    )  # fmt: skip


def tail_of(people: Sequence[Text], work: Path) -> list[Subject]:
    """The rare subjects of the human texts that generation 0 reaches."""
    said = json.loads((work / "-0.json").read_text())["probes"]
    first, human = reached(said), reached(t.prompt for t in people)
    return [s for s, n in human.items() if RARE[0] <= n <= RARE[1] and first[s]]


def others(file: Path, plan: Plan, found: Sequence[Generation]) -> list[Generation]:
    """Other arms of an earlier run: of the same plan, and of the same generation 0 to the digit."""
    told = json.loads(file.read_text())
    earlier = [Generation(**g) for g in told["generations"]]
    first, now = (
        {g.seed: g for g in some if g.number == 0 and g.seed in {f.seed for f in found}}
        for some in (earlier, found)
    )
    if told["plan"] != asdict(plan) or first != now:
        raise SystemExit(f"{file}: another plan or another generation 0: run all arms here")
    done = {g.arm for g in found}
    return [g for g in earlier if g.arm not in done and g.seed in now]


def table(found: Sequence[Generation], last: int) -> list[Row]:
    """What is wanted of the arms, by their worst seed."""
    first = {g.seed: g for g in found if g.number == 0}
    end = {(g.arm, g.seed): g for g in found if g.number == last}

    def of(arm: str, measure: str, relative: bool = False) -> list[float]:
        return [
            getattr(g, measure) / (getattr(first[seed], measure) if relative else 1)
            for (which, seed), g in end.items()
            if which == arm
        ]

    rows = []
    if of("a", "tail_coverage"):
        rows += [
            row("replace: tail coverage, highest", "<=", 0.7, max(of("a", "tail_coverage"))),
            row("replace: token entropy over generation 0's, highest", "<=", 0.9999,
                max(of("a", "token_entropy", True))),
        ]  # fmt: skip
    if of("d", "tail_coverage"):
        rows += [
            row("accumulate, filtered: tail coverage, lowest", ">=", 0.95,
                min(of("d", "tail_coverage"))),
            row("accumulate, filtered: token entropy over generation 0's, lowest", ">=", 0.95,
                min(of("d", "token_entropy", True))),
            row("accumulate, filtered: compliance lost, most", "<=", 0.01,
                max(first[s].compliance - end["d", s].compliance for s in first)),
            note("accumulate, filtered: prompts that are none, more than generation 0's, most",
                 max(end["d", s].other - first[s].other for s in first)),
        ]  # fmt: skip
    for arm, name in ARMS.items():
        for measure in ("tail_coverage", "token_entropy", "compliance", "other"):
            values = of(arm, measure)
            if values:
                rows.append(note(f"{name}: {measure}, mean of seeds", float(np.mean(values))))
    return rows


def figure(found: Sequence[Generation], file: Path) -> None:
    """A small plot a measure: a line a seed, a colour an arm."""
    from matplotlib.figure import Figure

    plot = Figure(figsize=(12, 3.6), layout="constrained")
    measures = {"tail_coverage": "tail coverage", "token_entropy": "token entropy (nats)",
                "compliance": "principles kept"}  # fmt: skip
    for axes, (measure, title) in zip(plot.subplots(1, 3), measures.items(), strict=True):
        for (arm, name), colour in zip(ARMS.items(), ("#c44e52", "#4c72b0", "#dd8452", "#55a868"),
                                       strict=True):  # fmt: skip
            for nth, seed in enumerate(sorted({g.seed for g in found})):
                line = sorted((g.number, getattr(g, measure)) for g in found
                              if g.seed == seed and g.arm in ("-", arm))  # fmt: skip
                if len(line) > 1:
                    axes.plot(*zip(*line, strict=True), "o-", color=colour, markersize=3,
                              alpha=0.8, label=None if nth else name)  # fmt: skip
        axes.set_title(title)
        axes.set_xlabel("generation")
        axes.spines[["top", "right"]].set_visible(False)
    plot.axes[0].legend(frameon=False, fontsize=8)
    plot.savefig(file, dpi=110, metadata={"Software": None})


def worker(seed: int, plan: Plan, arms: str, work: Path) -> list[Generation]:
    """`run_seed` on one core."""
    import torch

    torch.set_num_threads(1)
    return run_seed(seed, plan, arms, work)


def run(plan: Plan, seeds: Sequence[int], arms: str, work: Path) -> list[Generation]:
    """Every generation of every arm and seed, on two cores."""
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    keep_plan(plan, work)
    # Processes of one thread: two threads gain little on so small a model.
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        # What all arms of a seed begin with is made once, before any of them.
        first = [pool.submit(worker, seed, plan, "", work) for seed in seeds]
        found = [g for job in first for g in job.result()]
        jobs = [pool.submit(worker, seed, plan, arm, work) for arm in arms for seed in seeds]
        return found + [g for job in jobs for g in job.result() if g.number]


def keep_plan(plan: Plan, work: Path) -> None:
    """Write the plan down, so that what was done by another one is not taken for this one's."""
    file = work / "plan.json"
    if not file.exists():
        work.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(asdict(plan)) + "\n")
    elif json.loads(file.read_text()) != asdict(plan):
        raise SystemExit(f"{work}: holds generations of another plan: name another --work")


def rows(small: bool) -> list[Row]:
    """The experiment's rows, for `bench_filters.py`; what is done already is read."""
    plan = SMALL if small else Plan()
    found = run(plan, range(1 if small else 3), "".join(ARMS), WORK / "small" if small else WORK)
    return table(found, plan.generations)


def main(
    json_file: Annotated[Path | None, typer.Option("--json")] = None,
    figure_file: Annotated[Path | None, typer.Option("--figure")] = None,
    work: Annotated[Path, typer.Option(help="what is done is kept here")] = Path("runs/collapse"),
    seeds: int = 3,
    first_seed: int = 0,
    arms: str = "abcd",
    generations: int = 6,
    temperature: float = 1.0,
    beside: Annotated[
        Path | None, typer.Option(help="a --json of earlier, whose other arms are shown too")
    ] = None,
    small: Annotated[bool, typer.Option(help="a look, not a result")] = False,
) -> None:
    """Run the experiment, print its table, draw it."""
    plan = SMALL if small else Plan(generations, temperature=temperature)
    which = range(first_seed, first_seed + (1 if small else seeds))
    found = run(plan, which, arms, work)
    if beside is not None:
        found += others(beside, plan, found)
    rows = table(found, plan.generations)
    show(rows, Console(width=120))
    if json_file is not None:
        write(rows, json_file)
        told = json.loads(json_file.read_text()) | {
            "plan": asdict(plan), "generations": [asdict(g) for g in found]
        }  # fmt: skip
        json_file.write_text(json.dumps(told, indent=1) + "\n")
    if figure_file is not None:
        figure(found, figure_file)


if __name__ == "__main__":
    typer.run(main)
