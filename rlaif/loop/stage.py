"""One stage of a loop, in this process: `python -m rlaif.loop.stage STAGE RUN --round N …`.

    rounds.py → child.py → [this process] → pipeline.py, or `accelerate launch`

It works on the recipe in the round's own folder. Its exit status says how it ended; what it says is
kept in RUN/said/.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from rlaif import lifeline
from rlaif.errors import BudgetError, GateError, RlaifError, TrainError
from rlaif.loop.child import InterruptedLoopError
from rlaif.loop.finished import TRAINING
from rlaif.loop.places import LoopFolder, figures_file
from rlaif.loop.spending import Books, Spent
from rlaif.recipe import Recipe
from rlaif.records import record_id
from rlaif.run_folder import RunFolder

FAILED, REFUSED, PAUSED = 2, 3, 75
"""Exit statuses: an error; a judge under its gate; the budget is spent."""

_BEAT_SECONDS = 5.0
"""How often a training's seconds are written down."""


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be done.

    Attributes:
        folder: the loop's.
        loop: its recipe.
        recipe: the round's.
        run: the round's folder.
        number, attempt: the round's; -1 for the seed.
        judge: "teacher" or "student".
        books: take down what it costs.
    """

    folder: LoopFolder
    loop: Recipe
    recipe: Recipe
    run: RunFolder
    number: int
    attempt: int
    judge: str
    books: Books


def main(argv: list[str] | None = None) -> int:
    """Do one stage of a loop. 0: it is done; otherwise the last line printed says why not."""
    parser = argparse.ArgumentParser(prog="python -m rlaif.loop.stage", description=main.__doc__)
    parser.add_argument("stage")
    parser.add_argument("run", type=Path)
    parser.add_argument("--round", type=int, default=0)
    parser.add_argument("--attempt", type=int, default=0)
    parser.add_argument("--judge", default="teacher")
    options = parser.parse_args(argv)
    lifeline.hold()
    folder = LoopFolder(options.run)
    ending = threading.Lock()
    try:
        loop = Recipe.load(folder.run.recipe)
        run = folder.seed if options.round < 0 else folder.round(options.round)
        books = Books(folder.cost, loop, options.round, options.attempt, options.stage)
        recipe = Recipe.load(run.recipe)
        job = Job(folder, loop, recipe, run, options.round, options.attempt, options.judge, books)
        books.hold_to(Spent())
        with _stoppable(books, ending):
            books.watch(lambda error: _pause(books, error, ending))
            try:
                _STAGES[options.stage](job)
            finally:
                ending.acquire()  # and not released: nothing may pause or stop what has ended
                books.line()
    except InterruptedLoopError as stopped:
        return 128 + stopped.signal
    except BudgetError as error:
        return _said(error, PAUSED)
    except GateError as error:
        return _said(error, REFUSED)
    except RlaifError as error:
        return _said(error, FAILED)
    return 0


@contextmanager
def _stoppable(books: Books, ending: threading.Lock) -> Iterator[None]:
    """Let SIGTERM, by which the loop stops a stage, end it in order: what it has spent is spent.

    A second one ends it where it is.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        if not ending.locked():
            # At once, as what is at work may take longer to end than it is given time to; and in
            # a thread, as this may have come in the middle of a line.
            line = copy_context().run
            threading.Thread(target=line, args=(books.line,), name="line", daemon=True).start()
            raise InterruptedLoopError(number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _pause(books: Books, error: BudgetError, ending: threading.Lock) -> None:
    """End this process and all that it has started: another second cannot be paid for.

    To the main thread, what is killed here has failed, or even ended well where it was waited for
    here first. So it may not end this process in a way of its own: `ending` is whose is first.
    """
    ending.acquire()
    try:
        lifeline.kill_below(os.getpid())
        books.line()
        _said(error, PAUSED)
        sys.stderr.flush()
    finally:
        os._exit(PAUSED)


def _said(error: RlaifError, status: int) -> int:
    print(f"rlaif: {error}", file=sys.stderr)
    return status


def _sample(job: Job) -> None:
    from rlaif import pipeline

    pipeline.sample(job.recipe, job.books.progress)


def _judge(job: Job) -> None:
    from rlaif import pipeline

    pipeline.judge(job.recipe, job.books.progress)
    if job.recipe.critic is None and job.recipe.filter is None:
        pipeline.keep(job.recipe)  # nothing to drop: only counts what there is


def _filter(job: Job) -> None:
    from rlaif import pipeline

    pipeline.keep(job.recipe, job.books.progress)


def _seed(job: Job) -> None:
    from rlaif.loop.seeds import store_judgements, store_seeds

    assert job.loop.loop is not None and job.loop.loop.seeds is not None
    with job.run.lock():
        # The loop's recipe, where the seeds are named; the seed's own trains on them.
        store_seeds(job.run, job.loop)
    if job.loop.loop.seeds.evaluation_pairs:
        with job.folder.judgements.create().lock():
            store_judgements(job.folder.judgements, job.loop)
    _train("sft")(job)


def _prompts(job: Job) -> None:
    """The recipe's prompts and new ones for their gaps, but none that the evaluation asks."""
    from rlaif.prompts.load import load_prompts
    from rlaif.records import Message, Record
    from rlaif.topics import topics

    recipe = job.recipe.model_copy(update={"prompts": job.loop.prompts})
    found = topics(recipe, fill=True)
    assert found.filled is not None
    asked = job.loop.evaluate.prompts
    held_out = {r.id for r in load_prompts(asked) if isinstance(r, Record)} if asked else set()
    texts = [new.text for new in found.filled.new]
    new = [t for t in texts if record_id((Message("user", t),)) not in held_out]
    old = [
        [{"role": m.role, "content": m.text} for m in r.prompt]
        for r in load_prompts(job.loop.prompts)
        if isinstance(r, Record)
    ]
    rows = [*({"prompt": chat} for chat in old), *({"prompt": text} for text in new)]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    job.run.write_text(new_prompts_file(job.run), lines)
    job.run.log("new prompts", made=len(texts), used=len(new), stopped=found.filled.stopped)


def new_prompts_file(run: RunFolder) -> Path:
    """The prompts of a round that has some of its own."""
    return run.root / "prompts.jsonl"


def _train(stage: str) -> Callable[[Job], None]:
    def train(job: Job) -> None:
        from rlaif.pipeline import train_command

        assert job.loop.loop is not None
        command = train_command(stage, job.run.recipe, job.loop.loop.launch)
        process = subprocess.Popen(command)
        while True:
            try:
                status = process.wait(_BEAT_SECONDS)
                break
            except subprocess.TimeoutExpired:
                job.books.line()
        if status:
            raise TrainError(f"{stage} ended with exit status {status}", file=job.run.recipe)

    return train


def _evaluate(job: Job) -> None:
    from rlaif import pipeline
    from rlaif.loop.measure import measure_round
    from rlaif.loop.round_recipe import training_stages
    from rlaif.loop.track import track

    stage = [s for s in training_stages(job.loop, job.number) if s != "reward"][-1]
    # Whoever labels, the yardstick is the same in every round: the recipe's teacher.
    measured = job.recipe.model_copy(
        update={"teacher": job.loop.teacher, "evaluate": job.loop.evaluate}
    )
    won = None
    if job.loop.evaluate.prompts is not None:
        won = pipeline.evaluate(measured, stage, job.books.progress)
    with job.run.lock():
        figures, before = measure_round(
            job.loop, job.recipe, job.run, number=job.number, attempt=job.attempt,
            judge="student" if job.judge == "student" else "teacher", stage=stage, won=won,
            embeddings=job.folder.root / "embeddings",
        )  # fmt: skip
        if before is not None:
            _write(job.run, job.run.root / "before.json", before.as_dict())
        _write(job.run, figures_file(job.run), figures.as_dict())
    track(job.loop, job.folder.root, figures)


def _write(run: RunFolder, file: Path, data: Mapping[str, object]) -> None:
    run.write_text(file, json.dumps(data, indent=2) + "\n")


_STAGES: Mapping[str, Callable[[Job], None]] = {
    "seed": _seed,
    "prompts": _prompts,
    "sample": _sample,
    "judge": _judge,
    "filter": _filter,
    **{stage: _train(stage) for stage in TRAINING},
    "evaluate": _evaluate,
}


if __name__ == "__main__":
    STATUS = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # All is written: native libraries that abort while they are taken down change nothing.
    os._exit(STATUS)
