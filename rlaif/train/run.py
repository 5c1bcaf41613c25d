"""Train one stage, from wherever an earlier attempt has left it.

    finished?                          → nothing to do
    a folder of another fingerprint    → set aside whole, never mixed
    checkpoints of this fingerprint    → go on from the newest that is whole
    otherwise                          → start

__main__ → train → RUN/models/<stage>/final, RUN/manifests/models/<stage>.json
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlaif.errors import DataError, RecipeError
from rlaif.run_folder import RunFolder
from rlaif.train.plan import Plan, Stage

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from rlaif.train.arguments import Config
    from rlaif.train.launch import Launch
    from rlaif.train.trainers import Trainer


def train(stage: Stage, recipe_file: str | Path) -> Path:
    """Train a stage of a recipe, unless that is done already.

    Every process of a launch calls this. The trained model is a whole one, with its tokenizer,
    which `from_pretrained` takes; where LoRA was trained, its adapter is beside it in ``adapter``.

    Returns:
        The trained model's folder, ``RUN/models/<stage>/final``.

    Raises:
        RecipeError: the recipe, or a value in it that TRL or peft does not take.
        DataError: nothing to train on, or a row that cannot be trained on.
        TrainError: the model to start from is missing, or the launch is not what it seems.
        JournalError: the run folder cannot be read or written, or is being worked in.
    """
    plan = Plan.of(stage, recipe_file)
    if plan.finished():
        _say(f"{stage}: already trained: {plan.final}")
        return plan.final
    from rlaif.train.arguments import config
    from rlaif.train.launch import Launch, leave_group, on_rank_0

    with ExitStack() as held:
        args = config(plan)
        held.callback(leave_group)
        launch = Launch.of(args, os.environ)
        lock = RunFolder(plan.run.root / "locks" / f"train-{stage}").lock()
        on_rank_0(lambda: held.enter_context(lock))
        _train(plan, args, launch)
    _say(f"{stage}: trained: {plan.final}")
    return plan.final


def _train(plan: Plan, args: Config, launch: Launch) -> None:
    from rlaif.train.final import ready_start, save_final
    from rlaif.train.folder import close_folder, open_folder
    from rlaif.train.launch import on_rank_0
    from rlaif.train.loop import run_loop
    from rlaif.train.lora import lora_config, with_adapter
    from rlaif.train.pace import Pace
    from rlaif.train.trainers import make_trainer

    began = time.perf_counter()
    lora = None if plan.continues else lora_config(plan)
    _check_data(plan)
    checkpoint = on_rank_0(lambda: open_folder(plan, launch))
    start = on_rank_0(lambda: ready_start(plan))
    rows, held_out, not_chosen = _rows(plan)
    evaluates = args.eval_strategy != "no" or args.eval_on_start
    trainer = make_trainer(
        plan,
        model=with_adapter(plan, args, start) if plan.continues else start,
        args=args,
        train_dataset=rows,
        eval_dataset=held_out if evaluates else None,
        processing_class=_tokenizer(plan, args, start),
        peft_config=lora,
    )
    counts = _row_counts(plan, trainer, rows, held_out) | {"not_chosen": not_chosen}
    facts = {"launch": asdict(launch), "rows": counts}
    ready = time.perf_counter()
    pace = Pace()
    trainer.add_callback(pace)
    steps = run_loop(trainer, checkpoint)
    trainer.save_state()
    trained = time.perf_counter()
    save_final(plan, trainer, start, facts)
    seconds = {
        "start": ready - began,
        "train": trained - ready,
        "save": time.perf_counter() - trained,
    }
    told = facts | {"pace": pace.told(trainer, launch.world_size)}
    on_rank_0(lambda: close_folder(plan, told, checkpoint, steps, seconds))


def _check_data(plan: Plan) -> None:
    from rlaif.train.data import ID, check, choice_columns, columns_of
    from rlaif.train.trainers import columns

    wanted = columns(plan, columns_of(plan.data))
    check(plan.data, [*wanted, *choice_columns(plan.pairs), ID], plan.recipe_file)


def _rows(plan: Plan) -> tuple[Dataset, Dataset | None, int]:
    """The rows to train on, those held out, if any are, and how many the recipe leaves out."""
    from rlaif.train.data import ID, choice_columns, choose, columns_of, hold_out, load
    from rlaif.train.trainers import columns

    wanted = columns(plan, columns_of(plan.data))
    given = load(plan.data, [*wanted, *choice_columns(plan.pairs), ID], plan.cache)
    rows = choose(given, plan.pairs, plan.recipe.seed, f"train.{plan.stage}_pairs")
    left_out = len(given) - len(rows)
    if not plan.holds_out:
        return rows.select_columns(wanted), None, left_out
    train_rows, held = hold_out(rows, plan.recipe.seed)
    return train_rows.select_columns(wanted), held.select_columns(wanted), left_out


def _tokenizer(plan: Plan, args: Config, start: str) -> PreTrainedTokenizerBase:
    """The start model's own tokenizer, with the chat template that training has to use.

    Raises:
        RecipeError: it has no chat template.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(
        start, revision=plan.start.revision, trust_remote_code=args.trust_remote_code
    )
    if tokenizer.chat_template is None and not getattr(args, "chat_template_path", None):
        raise RecipeError(
            "its tokenizer has no chat template, so it is not known how a chat is written",
            file=plan.recipe_file,
            key="student.model",
            value=plan.recipe.student.model,
            mend="take a chat model, or set train.sft.chat_template_path",
        )
    return tokenizer


def _row_counts(
    plan: Plan, trainer: Trainer, rows: Dataset, held_out: Dataset | None
) -> dict[str, Any]:
    """How many rows there are, and how many of them TRL leaves out because they are too long.

    Raises:
        DataError: none is left.
    """
    packed = getattr(trainer.args, "packing", False)
    too_long = None if packed else len(rows) - len(trainer.train_dataset)
    if len(trainer.train_dataset) == 0:
        raise DataError(
            f"each of the {len(rows)} rows is longer than max_length",
            key=f"train.{plan.stage}.max_length",
            value=trainer.args.max_length,
            mend="raise it",
        )
    if too_long:
        _say(f"{plan.stage}: {too_long} of {len(rows)} rows are longer than max_length: left out")
    held = 0 if held_out is None else len(held_out)
    return {"trained_on": len(rows) - (too_long or 0), "held_out": held, "too_long": too_long}


def _say(text: str) -> None:
    if os.environ.get("RANK", "0") == "0":
        print(text, flush=True)
