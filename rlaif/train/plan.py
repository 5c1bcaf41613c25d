"""What a stage trains and from what: decided first, and without importing anything heavy.

recipe + RUN/data + the model to start from → Plan → run.train

A plan's fingerprint covers all that decides the trained weights: the stage's block, the data's
digests, the model it starts from, the seed. A finished stage of the same fingerprint is skipped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from rlaif.errors import DataError, RecipeError, TrainError
from rlaif.recipe import PairChoice, Recipe
from rlaif.records import fingerprint
from rlaif.run_folder import RunFolder
from rlaif.train.start import Start, sha256, start_of_student

Stage = Literal["sft", "dpo", "reward"]
STAGES: tuple[Stage, ...] = get_args(Stage)

HELD_OUT = 0.05
"""Share of the prompts that no stage trains on, where any of them asks for an evaluation."""

DATA: Mapping[Stage, str] = {"sft": "sft", "dpo": "pairs", "reward": "pairs"}
JUDGEMENTS = "judgements"
OF_OTHERS: Mapping[str, tuple[str, ...]] = {
    "sft": ("sft",), "dpo": ("pairs", JUDGEMENTS), "reward": ("pairs",)
}  # fmt: skip
"""What is trained on of other runs: DPO learns from pairs of verdicts too; a reward model rates
answers, and would learn to rate "yes"."""

_NOT_OURS = {
    "output_dir": "remove it: models go to the run folder, under models/",
    "resume_from_checkpoint": "remove it: the newest whole checkpoint is found by itself",
    "save_only_model": "remove it: without the optimizer's state a killed run cannot go on",
}
# What only changes what is shown or kept, not what is learnt: no reason to train again.
_SHOWN = (
    *("disable_tqdm", "log_level", "log_level_replica", "log_on_each_node", "logging_first_step"),
    *("logging_nan_inf_filter", "logging_steps", "logging_strategy", "project", "report_to"),
    *("run_name", "push_to_hub", "hub_always_push", "hub_model_id", "hub_private_repo"),
    *("hub_revision", "hub_strategy", "hub_token", "dataset_num_proc"),
)
_KEPT = ("save_steps", "save_strategy", "save_total_limit")


@dataclass(frozen=True)
class Plan:
    """One stage of one recipe.

    Attributes:
        stage: what is trained.
        recipe_file: where the recipe was read from, for messages.
        recipe: the recipe.
        start: the model that training starts from.
        data: the Parquet files to train on, in order.
    """

    stage: Stage
    recipe_file: Path
    recipe: Recipe
    start: Start
    data: tuple[Path, ...]

    @classmethod
    def of(cls, stage: Stage, recipe_file: str | Path) -> Plan:
        """The plan for a stage of a recipe.

        Raises:
            RecipeError: the recipe cannot be used, or has no block for the stage.
            DataError: there is nothing to train on.
            TrainError: the model to start from is not there.
        """
        file = Path(recipe_file)
        recipe = Recipe.load(file)
        run = RunFolder(Path(recipe.run))
        _check_block(stage, recipe, file)
        data = _data_files(run, DATA[stage], file)
        for kind in OF_OTHERS[stage]:
            data += _earlier_files(recipe.train.also, kind)
        if stage != "sft" and recipe.train.sft is not None:
            start = cls.of("sft", file).as_start()
        else:
            start = start_of_student(recipe.train.start or recipe.student)
        return cls(stage, file, recipe, start, data)

    @property
    def run(self) -> RunFolder:
        """The run folder."""
        return RunFolder(Path(self.recipe.run))

    @property
    def folder(self) -> Path:
        """Everything of this stage and this fingerprint: final model, checkpoints, caches."""
        return self.run.model(self.stage)

    @property
    def final(self) -> Path:
        """The trained model, whole, with its tokenizer; `from_pretrained` takes it."""
        return self.folder / "final"

    @property
    def adapter(self) -> Path:
        """With LoRA: the adapter by itself. `final` is the model with the adapter merged in."""
        return self.folder / "adapter"

    @property
    def cache(self) -> Path:
        """Tokenized data and reference log-probabilities; removed once the model is trained."""
        return self.folder / "cache"

    @property
    def manifest(self) -> Path:
        """What the final model was made of, and the digests of its weights."""
        return self.run.manifests("models") / f"{self.stage}.json"

    @property
    def block(self) -> dict[str, Any]:
        """The arguments of TRL's config, as the recipe gives them."""
        # YAML reads `no` as false; TRL means the word.
        given = getattr(self.recipe.train, self.stage)
        return {k: "no" if k.endswith("_strategy") and v is False else v for k, v in given.items()}

    @property
    def soft_labels(self) -> bool:
        """Whether DPO trains on the labels' probabilities."""
        return self.stage == "dpo" and self.recipe.train.soft_labels

    @property
    def pairs(self) -> PairChoice:
        """Which pairs to train on; the SFT stage has none."""
        train = self.recipe.train
        return {"dpo": train.dpo_pairs, "reward": train.reward_pairs}.get(self.stage, PairChoice())

    @property
    def holds_out(self) -> bool:
        """Whether a share of the prompts is kept out of training.

        It is so in every stage as soon as one of them evaluates: a prompt that the SFT stage was
        trained on is no held-out prompt of the DPO stage.
        """
        train = self.recipe.train
        return any(evaluates(block) for block in (train.sft, train.dpo, train.reward) if block)

    @cached_property
    def depends(self) -> dict[str, Any]:
        """All that decides the trained weights, as plain JSON."""
        return {
            "stage": self.stage,
            "block": what_decides(self.block),
            "seed": self.recipe.seed,
            "lora": self.recipe.train.lora,
            "soft_labels": self.soft_labels,
            "pairs": self.pairs.model_dump(),
            "held_out": HELD_OUT if self.holds_out else 0,
            "data": self._digests(),
            "start": dict(self.start.identity),
            **({"continues": True} if self.continues else {}),
        }

    def _digests(self) -> dict[str, str]:
        """Of each file of rows, by name; those of other runs by their place among all files."""
        own = self.run.data(DATA[self.stage])
        return {
            p.name if p.parent == own else f"also/{i}/{p.name}": sha256(p)
            for i, p in enumerate(self.data)
        }

    @property
    def continues(self) -> bool:
        """Whether the adapter that the start model has is trained on, in place of a new one."""
        wanted = self.recipe.train.continue_adapter and self.stage != "reward"
        return wanted and self.start.adapter is not None

    @property
    def fingerprint(self) -> str:
        """Of `depends`: equal fingerprints train equal models."""
        return fingerprint(self.depends)

    def finished(self) -> bool:
        """Whether this very model is already trained and still there."""
        made = read_json(self.manifest)
        weights = made.get("weights", {})
        return (
            made.get("fingerprint") == self.fingerprint
            and bool(weights)
            and all(_size(self.final / name) == file["bytes"] for name, file in weights.items())
        )

    def as_start(self) -> Start:
        """This stage's model, as the one that the next stage starts from.

        Raises:
            TrainError: it is not trained yet, or was trained from something else.
        """
        if not self.finished():
            other = self.manifest.exists() and self.final.exists()
            raise TrainError(
                "is of another recipe or of other data" if other else "is not trained yet",
                file=self.final,
                mend=f"run {self.stage} first: python -m rlaif.train {self.stage} "
                f"{self.recipe_file}",
            )
        made = read_json(self.manifest)
        known_by = {key: made[key] for key in ("fingerprint", "weights")}
        identity: dict[str, Any] = {self.stage: known_by}
        if self.recipe.train.continue_adapter and self.recipe.train.lora is not None:
            base = self.start
            return Start(base.model, base.revision, self.adapter, identity)
        return Start(str(self.final), identity=identity)


def read_json(file: Path) -> dict[str, Any]:
    """The mapping in a JSON file; an empty one where there is no such file, or it is damaged."""
    try:
        value = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _size(file: Path) -> int | None:
    return file.stat().st_size if file.is_file() else None


def what_decides(block: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a block that the trained weights follow from."""
    # The best model is one of those that were saved.
    kept = () if block.get("load_best_model_at_end") else _KEPT
    return {k: v for k, v in block.items() if k not in (*_SHOWN, *kept)}


def evaluates(block: Mapping[str, Any]) -> bool:
    """Whether a block asks for an evaluation while it trains."""
    when = block.get("eval_strategy", "no")
    return when not in ("no", False, None) or bool(block.get("eval_on_start"))


def _check_block(stage: Stage, recipe: Recipe, file: Path) -> None:
    block = getattr(recipe.train, stage)
    if block is None:
        raise RecipeError(
            "no such block, so there is nothing to train",
            file=file,
            key=f"train.{stage}",
            mend="add it; `{}` takes TRL's defaults",
        )
    for key, mend in _NOT_OURS.items():
        if key in block:
            raise RecipeError(
                "not a recipe's to set", file=file, key=f"train.{stage}.{key}", mend=mend
            )


def _earlier_files(runs: Sequence[str | Path], data: str) -> tuple[Path, ...]:
    """The rows of other runs, in order; one that has none of this kind adds none."""
    return tuple(
        p for run in runs for p in sorted(RunFolder(Path(run)).data(data).glob("*.parquet"))
    )


def _data_files(run: RunFolder, data: str, recipe_file: Path) -> tuple[Path, ...]:
    files = tuple(sorted(run.data(data).glob("*.parquet")))
    if not files:
        raise DataError(
            "no Parquet files to train on",
            file=run.data(data),
            mend=f"run: rlaif label {recipe_file}",
        )
    return files
