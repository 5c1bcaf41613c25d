"""What a student is taught before the first round: how to answer, and how to judge.

    instruction rows, labelled judgements → SFT rows → RUN/seed/data/sft
                                          → pairs    → RUN/judgements/data/judgements

A labelled judgement becomes the very question that the recipe's judge is asked, and the label word
its answer, so that the student learns the form in which it will be asked (arXiv:2401.10020, where
these are the EFT data). As a pair, it has a wrong word for the rejected answer. A row is one of

    {"prompt", "response", "principle", "keeps": true or false}     for a pointwise judge
    {"prompt", "response", "principle", "rating": 1 to 5}           for a rating one
    {"prompt", "responses": [two], "principle", "better": 0 or 1}   for a pairwise one

where `principle` is the id of one in the constitution, or a text of its own.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from rlaif.constitution import Constitution
from rlaif.errors import DataError, RecipeError
from rlaif.journal import Stage
from rlaif.label.method import LABELS, Method
from rlaif.label.rows import SFT_SCHEMA, pair_schema
from rlaif.prompts.load import read_chat
from rlaif.prompts.rows import BadRow, Row, Values, read_file_rows
from rlaif.recipe import Recipe
from rlaif.records import Chat, Drop, chat_to_json, record_id
from rlaif.run_folder import RunFolder
from rlaif.train.plan import JUDGEMENTS
from rlaif.train.start import sha256

_Example = tuple[Chat, str]
"""What is asked, and the right answer."""

_INSTRUCTION = "give rows of `messages`, or of `prompt` and `completion`"
_JUDGEMENT = {
    mode: f"a {mode} judge learns from rows of {keys}"
    for mode, keys in (
        ("pointwise", "`prompt`, `response`, `principle`, `keeps` (true or false)"),
        ("rating", "`prompt`, `response`, `principle`, `rating` (1 to 5)"),
        ("pairwise", "`prompt`, `responses`, `principle`, `better` (0 or 1)"),
    )
}
"""What a file is told that has no seed."""


def store_seeds(run: RunFolder, recipe: Recipe) -> Stage:
    """The recipe's seeds as rows to fine-tune on, in one shard; what is no seed is kept aside.

    Args:
        run: the seed's run folder; the caller holds its lock.
        recipe: with `loop.seeds`.

    Raises:
        DataError: a file cannot be read, or has no usable row.
        RecipeError: judgements to learn, and a judge that is to give its reasons first.
    """
    assert recipe.loop is not None and recipe.loop.seeds is not None
    seeds, method = recipe.loop.seeds, Method.load(recipe.judge)
    constitution = Constitution.load(recipe.constitution)
    stage, depends = Stage(run, "sft", SFT_SCHEMA), _depends(recipe, constitution, method)
    if not stage.done(0, depends):
        examples, drops = list[_Example](), list[Drop]()
        if seeds.instructions is not None:
            examples += _read(seeds.instructions, _instruction, _INSTRUCTION, drops)
        if seeds.evaluations is not None:
            examples += _judgements(recipe, constitution, method, drops)
        rows = [_row(*example) for example in examples]
        stage.write(0, depends, pa.Table.from_pylist(rows, schema=SFT_SCHEMA), drops)
    stage.finish(1)
    return stage


def store_judgements(run: RunFolder, recipe: Recipe) -> Stage:
    """So many of the recipe's labelled judgements as it wants in every DPO, as pairs, in one shard.

    Args:
        run: the run folder that rounds train on as well; the caller holds its lock.
        recipe: with `loop.seeds.evaluations`.

    Raises:
        DataError, RecipeError: as `store_seeds`.
    """
    assert recipe.loop is not None and recipe.loop.seeds is not None
    method, wanted = Method.load(recipe.judge), recipe.loop.seeds.evaluation_pairs
    constitution = Constitution.load(recipe.constitution)
    schema = pair_schema(recipe.pick.write_margin)  # as the pairs that they are trained on with
    stage = Stage(run, JUDGEMENTS, schema)
    depends = _depends(recipe, constitution, method) | {
        "pairs": wanted, "seed": recipe.seed, "columns": schema.names
    }  # fmt: skip
    if not stage.done(0, depends):
        examples = _judgements(recipe, constitution, method, [])  # drops are kept with the others
        dice = random.Random(f"judgements {recipe.seed}")
        drawn = dice.sample(examples, min(wanted, len(examples)))
        labels = [forms[0] for forms in LABELS[method.mode]]
        rows = [
            _pair(prompt, right, dice.choice([label for label in labels if label != right]))
            for prompt, right in drawn
        ]
        stage.write(0, depends, pa.Table.from_pylist(rows, schema=schema), [])
    stage.finish(1)
    return stage


def _depends(recipe: Recipe, constitution: Constitution, method: Method) -> dict[str, Any]:
    assert recipe.loop is not None and recipe.loop.seeds is not None
    seeds = recipe.loop.seeds
    given = {"instructions": seeds.instructions, "evaluations": seeds.evaluations}
    return {
        "seeds": {name: _digests(path) for name, path in given.items() if path is not None},
        "constitution": constitution.fingerprint,
        "judge": method.fingerprint({}),
    }


def _digests(path: Path) -> dict[str, str]:
    files = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
    return {file.name: sha256(file) for file in files}


def _judgements(
    recipe: Recipe, constitution: Constitution, method: Method, drops: list[Drop]
) -> list[_Example]:
    assert recipe.loop is not None and recipe.loop.seeds is not None
    assert recipe.loop.seeds.evaluations is not None
    if method.reasoning is not None:
        raise RecipeError(
            "seeds have no reasons to give", key="judge.reasoning", value=True,
            mend="set it to false, or leave out loop.seeds.evaluations",
        )  # fmt: skip
    read = partial(_judgement, constitution=constitution, method=method)
    return _read(recipe.loop.seeds.evaluations, read, _JUDGEMENT[method.mode], drops)


def _read(
    path: Path, read: Callable[[Values], list[_Example]], mend: str, drops: list[Drop]
) -> list[_Example]:
    if path.suffix.lower() in (".yaml", ".yml"):  # a gate takes a constitution, for its examples
        raise DataError("holds no seeds", file=path, mend=mend)
    made = [*_examples(read_file_rows(path), read, drops)]
    if not made:
        first = f", first: {drops[-1].reason} ({drops[-1].detail})" if drops else ""
        raise DataError(f"holds no usable seed{first}", file=path, mend=mend)
    return made


def _examples(
    given: Iterator[Row], read: Callable[[Values], list[_Example]], drops: list[Drop]
) -> Iterator[_Example]:
    for place, row in given:
        try:
            if isinstance(row, BadRow):
                raise row
            yield from read(row)
        except BadRow as bad:
            drops.append(Drop(place, "seeds", bad.reason, bad.detail))


def _instruction(row: Values) -> list[_Example]:
    if "messages" in row:
        *prompt, answer = row["messages"] or [None]
        return [(read_chat(prompt), _answer(answer))]
    if "prompt" not in row or "completion" not in row:
        raise BadRow("neither messages nor prompt and completion", f"it has: {', '.join(row):.80}")
    completion = row["completion"]
    answer = completion[-1] if isinstance(completion, list) and completion else completion
    return [(read_chat(row["prompt"]), _answer(answer))]


def _answer(value: object) -> str:
    text = value.get("content") if isinstance(value, Mapping) else value
    if not isinstance(text, str) or not text.strip():
        raise BadRow("no answer", f"{value!r:.80}")
    return text


def _judgement(row: Values, constitution: Constitution, method: Method) -> list[_Example]:
    """A question of the recipe's judge with its right answer; pairwise, in both orders."""
    for key in ("prompt", "principle", _KEYS[method.mode]):
        if row.get(key) is None:
            raise BadRow(f"no `{key}`, which a {method.mode} judge is taught by")
    texts = {p.id: p.text for p in constitution.principles}
    principle = texts.get(str(row["principle"]), str(row["principle"]))
    prompt, labels = read_chat(row["prompt"]), [forms[0] for forms in LABELS[method.mode]]
    if method.mode == "pairwise":
        responses, better = row.get("responses"), row["better"]
        if not isinstance(responses, list) or len(responses) != 2:
            raise BadRow("not two responses")
        if better not in (0, 1) or isinstance(better, bool):
            raise BadRow("`better` is not 0 or 1", f"{better!r:.80}")
        one, two = (_answer(response) for response in responses)
        return [
            (method.question(prompt, principle, one, two), labels[better]),
            (method.question(prompt, principle, two, one), labels[1 - better]),
        ]
    question = method.question(prompt, principle, _answer(row.get("response")))
    return [(question, labels[_place(row[_KEYS[method.mode]], method.mode)])]


_KEYS = {"pointwise": "keeps", "rating": "rating", "pairwise": "better"}


def _place(value: object, mode: str) -> int:
    """Which label word is right."""
    if mode == "pointwise":
        if not isinstance(value, bool):
            raise BadRow("`keeps` is not true or false", f"{value!r:.80}")
        return 0 if value else 1
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 5:
        raise BadRow("`rating` is not 1 to 5", f"{value!r:.80}")
    return value - 1


def _row(prompt: Chat, answer: str) -> dict[str, Any]:
    return {
        "prompt": chat_to_json(prompt),
        "completion": _said(answer),
        "score": None,
        "score_margin": 0.0,
        "record_id": record_id(prompt),
        "response_index": 0,
        **_ORIGIN,
    }


def _pair(prompt: Chat, right: str, wrong: str) -> dict[str, Any]:
    """A pair that no choice among pairs leaves out, and that is certain."""
    return {
        "prompt": chat_to_json(prompt),
        "chosen": _said(right),
        "rejected": _said(wrong),
        "score_margin": 0.0,
        "margin": 0.0,
        "concession": 0.0,
        "chosen_probability": 1.0,
        "probability_calibrated": False,
        "record_id": record_id(prompt),
        "chosen_index": 0,
        "rejected_index": 1,
        **_ORIGIN,
    }


def _said(answer: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": answer}]


_ORIGIN = {"constitution": "", "judge": "seed"}
