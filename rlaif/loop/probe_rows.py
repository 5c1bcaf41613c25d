"""What labelling made of a probe's prompts: rows, how long they are, and enough of them to train.

RUN/estimate/rounds/00/data → Rows → scale.py
                            → RUN/estimate/more/data: the same rows, as often as steps need them
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rlaif.loop.probe_recipe import STEPS, rows_a_step
from rlaif.recipe import PairChoice, Recipe
from rlaif.run_folder import RunFolder
from rlaif.train.plan import OF_OTHERS

_DATA = {"sft": "sft", "dpo": "pairs", "reward": "pairs"}


@dataclass(frozen=True, slots=True)
class Rows:
    """What a probe's prompts have brought.

    Attributes:
        sft, dpo, reward: rows to train each on, after the recipe's choice among pairs.
        picked: rows before the critic and the filters.
        labels: pairs; picks where the recipe trains on nothing else.
        labelled: prompts with at least one label.
        tokens: mean length of all responses.
        picked_tokens: of the picks; None where there are none.
        chosen_tokens, rejected_tokens: in the pairs that DPO is trained on; None likewise.
    """

    sft: int
    dpo: int
    reward: int
    picked: int
    labels: int
    labelled: int
    tokens: float
    picked_tokens: float | None
    chosen_tokens: float | None
    rejected_tokens: float | None

    def of(self, stage: str) -> int:
        """Rows for a training."""
        return int(getattr(self, stage))

    def growth(self, recipe: Recipe) -> float:
        """Length of a trained student's answers, over those of the student that was probed.

        One that is fine-tuned on picks answers as long as they are, and a preference moves it on
        by what lies between the chosen and the rejected.
        """
        found = 1.0
        if recipe.train.sft is not None and self.picked_tokens and self.tokens:
            found *= self.picked_tokens / self.tokens
        if recipe.train.dpo is not None and self.chosen_tokens and self.rejected_tokens:
            found *= self.chosen_tokens / self.rejected_tokens
        return found


def labels(run: RunFolder, recipe: Recipe) -> Rows:
    """What a labelled run folder holds."""
    sft, pairs = _table(run, "sft"), _table(run, "pairs")
    train = recipe.train
    answers = _tokens(run)
    every = [n for lengths in answers.values() for n in lengths]
    preferred = _chosen(pairs, train.dpo_pairs)
    labelled = sft if train.dpo is None and train.reward is None else pairs
    ids = labelled["record_id"].to_pylist() if labelled.num_rows else []
    return Rows(
        sft=sft.num_rows,
        dpo=preferred.num_rows,
        reward=_chosen(pairs, train.reward_pairs).num_rows,
        picked=sum(_table(run, f"picked/{n}").num_rows for n in ("sft", "pairs"))
        or sft.num_rows + pairs.num_rows,
        labels=labelled.num_rows,
        labelled=len(set(ids)),
        tokens=sum(every) / max(1, len(every)),
        picked_tokens=_mean(sft, "response_index", answers),
        chosen_tokens=_mean(preferred, "chosen_index", answers),
        rejected_tokens=_mean(preferred, "rejected_index", answers),
    )


def also_trained_on(recipe: Recipe, stage: str) -> int:
    """Rows of other runs that the recipe names, after its choice among pairs."""
    train = recipe.train
    choice = {"dpo": train.dpo_pairs, "reward": train.reward_pairs}.get(stage, PairChoice())
    tables = (_table(RunFolder(run), kind) for kind in OF_OTHERS[stage] for run in train.also)
    return sum(_chosen(table, choice).num_rows for table in tables)


def rows_of(run: RunFolder, name: str) -> int:
    """Rows of one kind that a run folder holds."""
    return int(_table(run, name).num_rows)


def repeated(run: RunFolder, more: RunFolder, recipe: Recipe, rows: Rows) -> None:
    """Write a run's rows as often as a few whole steps need them."""
    for name in ("sft", "pairs"):
        stages = [s for s in _DATA if _DATA[s] == name and getattr(recipe.train, s) is not None]
        table = _table(run, name)
        times = max(
            (-(-STEPS * rows_a_step(recipe, s) // rows.of(s)) for s in stages if rows.of(s)),
            default=0,
        )
        if times > 1:
            folder = more.data(name)
            folder.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.concat_tables([table] * (times - 1)), folder / "00000.parquet")


def _table(run: RunFolder, name: str) -> pa.Table:
    tables = [pq.read_table(file) for file in sorted(run.data(name).glob("*.parquet"))]
    return pa.concat_tables(tables) if tables else pa.table({})


def _chosen(pairs: pa.Table, choice: PairChoice) -> pa.Table:
    """As rlaif/train/data.py chooses, but for a limit."""
    if not pairs.num_rows:
        return pairs
    for column, most in (
        ("score_margin", choice.max_margin), ("concession", choice.max_concession)
    ):  # fmt: skip
        if most is not None:
            pairs = pairs.filter(pc.less_equal(pairs[column], most))
    return pairs


def _tokens(run: RunFolder) -> dict[str, list[int]]:
    """The length of each response, by its record."""
    names = [name for name in ("revised", "samples") if run.data(name).is_dir()]
    table = _table(run, names[0]) if names else pa.table({})
    rows: list[dict[str, Any]] = table.to_pylist()
    return {row["record_id"]: [r["tokens"] for r in row["responses"]] for row in rows}


def _mean(table: pa.Table, column: str, answers: dict[str, list[int]]) -> float | None:
    """Mean length of the responses that rows name by their index."""
    if not table.num_rows:
        return None
    ids: list[str] = table["record_id"].to_pylist()
    places: list[int] = table[column].to_pylist()
    return sum(answers[i][k] for i, k in zip(ids, places, strict=True)) / len(ids)
