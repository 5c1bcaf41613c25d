"""The labels of a loop as a data set of their own: RUN/labels/.

    RUN/rounds/NN/data/{sft,pairs} → RUN/labels/{sft,pairs}/*.parquet, README.md

`datasets.load_dataset("RUN/labels", "pairs")` takes it as it is. The rows are those that the best
model was trained on, or a reward model beside it: picks of a round that fine-tunes on none are left
out. They are there by their own files: nothing is written a second time.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from rlaif.constitution import Constitution
from rlaif.loop.cards import (
    counted,
    front_matter,
    judged,
    judges,
    named,
    principles,
    rounds_used,
    table,
)
from rlaif.loop.places import LoopFolder
from rlaif.loop.round_recipe import training_stages
from rlaif.loop.state import State
from rlaif.recipe import Loop, Recipe
from rlaif.run_folder import RunFolder, os_errors, sync_folder

_TRAINED_BY = {"pairs": {"dpo", "reward"}, "sft": {"sft"}}
CONFIGS = tuple(_TRAINED_BY)

_COLUMNS = {
    "prompt": "the chat that was answered, as messages",
    "completion": "the best of the answers",
    "chosen": "the better answer, as messages",
    "rejected": "the worse answer, as messages",
    "score": "of the answer under the constitution, in log-odds; null for what was given",
    "score_margin": "lead over the mean of the other answers, or over the rejected, in log-odds",
    "concession": "most by which the rejected is better under any one principle, in log-odds",
    "chosen_probability": "that the chosen answer is the better one",
    "probability_calibrated": "whether that was calibrated on labelled comparisons",
    "margin": "the margin for a reward model's loss",
    "record_id": "of the prompt; rows of one prompt have the same",
    "response_index": "which of the sampled answers it is",
    "chosen_index": "which of the sampled answers was chosen",
    "rejected_index": "which of the sampled answers was rejected",
    "constitution": "fingerprint of the constitution",
    "judge": "fingerprint of the judge and of how it was asked",
}


def write_labels(folder: LoopFolder, recipe: Recipe, state: State) -> Path:
    """Put the labels behind the best model into RUN/labels/, with their card.

    Returns:
        The folder.

    Raises:
        JournalError: the disk is full, and so on.
    """
    made, partial = folder.root / "labels", folder.root / "labels.partial"
    with os_errors(made, "written"):
        shutil.rmtree(partial, ignore_errors=True)
        RunFolder(partial).create()
        rows = {config: _put(folder, recipe, state, config, partial) for config in CONFIGS}
        card = label_card(folder, recipe, state, rows)
        (partial / "README.md").write_text(card, "utf-8", newline="\n")
        shutil.rmtree(made, ignore_errors=True)
        partial.rename(made)
        sync_folder(folder.root)
    return made


def _put(folder: LoopFolder, recipe: Recipe, state: State, config: str, partial: Path) -> int:
    """Link one kind of row; how many there are."""
    rows = 0
    for number in _rounds_trained(recipe, state, config):
        for file in sorted(folder.round(number).data(config).glob("*.parquet")):
            count = pq.read_metadata(file).num_rows
            if not count:
                continue
            rows += count
            (partial / config).mkdir(parents=True, exist_ok=True)
            _link(file, partial / config / f"round-{number:02d}-{file.name}")
    return rows


def _rounds_trained(recipe: Recipe, state: State, config: str) -> list[int]:
    """The rounds whose rows of one kind are in the best model's weights, or in a reward model's."""
    loop = recipe.loop or Loop(rounds=1)
    looped = recipe.model_copy(update={"loop": loop})
    used = [one.round for one in rounds_used(state, recipe)]
    in_weights = used if loop.start == "last" else used[-1:]
    by = _TRAINED_BY[config]
    took = [number for number in in_weights if by & set(training_stages(looped, number))]
    if loop.data == "replace":
        return took
    return [number for number in used if took and number <= took[-1]]


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copy2(source, target)


def label_card(folder: LoopFolder, recipe: Recipe, state: State, rows: dict[str, int]) -> str:
    """The data set's card as Markdown, with the front matter that the hub and `datasets` read.

    Args:
        folder: the loop's.
        recipe: the loop's.
        state: with a best round.
        rows: of each configuration.
    """
    constitution = Constitution.load(recipe.constitution)
    configs = [
        {"config_name": name, "data_files": f"{name}/*.parquet"} for name in CONFIGS if rows[name]
    ]
    facts: dict[str, Any] = {"tags": ["rlaif", "preference", "synthetic", "trl"]}
    if configs:
        facts["configs"] = configs
    last = rounds_used(state, recipe)[-1].round
    answered = f"{named(recipe.student)} and the models trained from it"
    parts = [
        front_matter(facts),
        f"# Labels under {constitution.name}\n\nAnswers of {answered}, labelled by "
        f"{judges(state, recipe)} under a written constitution: no person has labelled anything. "
        "Made by rlaif, in the formats that TRL documents.",
        "## Rows\n\n" + _rows(folder, recipe, state, rows),
        "## Counts\n\n" + counted(state, recipe),
        principles(constitution, None, None),
        judged(folder, recipe, last),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _rows(folder: LoopFolder, recipe: Recipe, state: State, rows: dict[str, int]) -> str:
    text = []
    for config in CONFIGS:
        if not rows[config]:
            continue
        last = _rounds_trained(recipe, state, config)[-1]
        files = sorted(folder.round(last).data(config).glob("*.parquet"))
        names = pq.read_schema(files[0]).names if files else []
        columns = [(name, _COLUMNS.get(name, "")) for name in names]
        text.append(
            f'`load_dataset(…, "{config}")`: {rows[config]:,} rows\n\n'
            + table(("column", "is"), columns)
        )
    return "\n\n".join(text) or "There are none."
