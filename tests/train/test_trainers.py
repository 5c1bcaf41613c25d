"""What TRL's trainers are given, and what they make of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, AutoTokenizer

from rlaif.errors import RecipeError
from rlaif.train import run as run_module
from rlaif.train.plan import Stage
from rlaif.train.run import train
from tests.tiny_models import tiny_model_folder, tiny_tokenizer
from tests.train.tiny_run import QUICK, TinyRun, chat, pairs, picks, write_rows

Make = Callable[..., TinyRun]


@pytest.fixture
def trainers(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The trainers that `train` makes, for a look at them afterwards."""
    from rlaif.train import trainers as module

    made: list[Any] = []
    original = module.make_trainer

    def keep(*args: Any, **kwargs: Any) -> Any:
        made.append(original(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(module, "make_trainer", keep)
    return made


def first_batch(trainer: Any) -> dict[str, Any]:
    batch: dict[str, Any] = next(iter(trainer.get_train_dataloader()))
    return batch


def rendered(model: Path, row: dict[str, Any], answer: str) -> str:
    text = AutoTokenizer.from_pretrained(model).apply_chat_template(
        row["prompt"] + row[answer], tokenize=False
    )
    assert isinstance(text, str)
    return text


@pytest.mark.parametrize("stage", ["dpo", "reward"])
def test_a_pair_is_the_chat_template_s_text_with_the_prompt_once(
    tiny_run: Make, trainers: list[Any], stage: Stage
) -> None:
    run = tiny_run(**{stage: {**QUICK, "max_steps": 1}})
    train(stage, run.recipe)
    batch, tokenizer = first_batch(trainers[0]), trainers[0].processing_class
    texts = [
        tokenizer.decode(ids[mask.bool()])
        for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
    ]
    for name, half in (("chosen", texts[:4]), ("rejected", texts[4:])):
        expected = {rendered(run.root / "student", row, name) for row in pairs()}
        assert set(half) <= expected
        assert all(text.count("Say word number") == 1 for text in half)


def test_dpo_learns_from_the_completions_alone(tiny_run: Make, trainers: list[Any]) -> None:
    train("dpo", tiny_run(dpo={**QUICK, "max_steps": 1}).recipe)
    batch, tokenizer = first_batch(trainers[0]), trainers[0].processing_class
    for ids, mask in zip(batch["input_ids"], batch["completion_mask"], strict=True):
        text = tokenizer.decode(ids[mask.bool()])
        assert text.startswith(("a helpful answer", "no"))
        assert text.rstrip("\n").endswith("<|im_end|>")


def test_sft_learns_from_the_completions_alone(tiny_run: Make, trainers: list[Any]) -> None:
    train("sft", tiny_run(sft={**QUICK, "max_steps": 1}).recipe)
    batch, tokenizer = first_batch(trainers[0]), trainers[0].processing_class
    for ids, labels in zip(batch["input_ids"], batch["labels"], strict=True):
        text = tokenizer.decode(ids[labels != -100])
        assert text.startswith("a helpful answer")
        assert "<|im_start|>user" in tokenizer.decode(ids)


def test_a_student_without_a_chat_template_is_refused(tiny_run: Make) -> None:
    run = tiny_run(sft=QUICK)
    tiny_model_folder(run.root / "plain", tokenizer=tiny_tokenizer(chat_template=None))
    run.student["model"] = str(run.root / "plain")
    run.save()
    with pytest.raises(RecipeError, match=r"student\.model: its tokenizer has no chat template"):
        train("sft", run.recipe)


@pytest.mark.parametrize("stage", ["sft", "dpo", "reward"])
def test_other_columns_change_nothing(tiny_run: Make, stage: Stage) -> None:
    run = tiny_run(**{stage: QUICK})
    train(stage, run.recipe)
    before = run.weights(stage)
    more = {"label": [1] * 24, "labels": [2] * 24, "score_margin": [9.0] * 24, "weight": [3.0] * 24}
    write_rows(run.folder / "data" / "pairs", pairs(24, **more))
    write_rows(run.folder / "data" / "sft", [row | {"labels": 1, "margin": 2.0} for row in picks()])
    train(stage, run.recipe)
    assert run.weights(stage) == before
    assert len(run.log("set_aside")) == 1  # it was trained again


def test_the_margin_that_a_recipe_asks_for_is_in_the_reward_model_s_loss(tiny_run: Make) -> None:
    run = tiny_run(reward={**QUICK, "max_steps": 1})
    train("reward", run.recipe)
    without = run.history("reward")[0]["loss"]
    write_rows(run.folder / "data" / "pairs", pairs(24, margin=[2.0] * 24))
    train("reward", run.recipe)
    assert run.history("reward")[0]["loss"] > without + 1


def test_dpo_takes_no_margin(tiny_run: Make) -> None:
    run = tiny_run(dpo=QUICK)
    train("dpo", run.recipe)
    before = run.weights("dpo")
    write_rows(run.folder / "data" / "pairs", pairs(24, margin=[2.0] * 24))
    train("dpo", run.recipe)
    assert run.weights("dpo") == before


def test_dpo_trains_on_verdicts_whatever_is_chosen_among_pairs(tiny_run: Make) -> None:
    """What says whether a pair of answers is worth learning from says nothing of a verdict."""
    verdict = {"score_margin": [0.0] * 8, "concession": [0.0] * 8, "chosen_probability": [1.0] * 8}
    run = tiny_run(dpo=QUICK)
    other = run.root / "other"
    write_rows(other / "data" / "judgements", pairs(8, **verdict), shards=1)
    run.train |= {"dpo_pairs": {"max_margin": 1.5, "max_concession": 0.0}, "also": [str(other)]}
    run.save()
    train("dpo", run.recipe)
    told = run.manifest("dpo")["rows"]
    assert (told["trained_on"], told["not_chosen"]) == (4 + 8, 20)


def test_soft_labels_are_the_default_and_can_be_left(tiny_run: Make) -> None:
    run = tiny_run(dpo=QUICK)
    train("dpo", run.recipe)
    soft = run.weights("dpo")
    run.train["soft_labels"] = False
    run.save()
    train("dpo", run.recipe)
    hard = run.weights("dpo")
    write_rows(run.folder / "data" / "pairs", pairs(24, chosen_probability=[1.0] * 24))
    run.train["soft_labels"] = True
    run.save()
    train("dpo", run.recipe)
    assert soft != hard
    assert run.history("dpo")[1]["loss"] != pytest.approx(0.6931, abs=1e-3)


@pytest.mark.parametrize("stage", ["sft", "dpo", "reward"])
def test_without_a_padding_token_the_end_token_pads(tiny_run: Make, stage: Stage) -> None:
    run = tiny_run(**{stage: {**QUICK, "max_steps": 1}})
    tokenizer = tiny_tokenizer(pad_token=None)
    assert tokenizer.pad_token is None
    folder = tiny_model_folder(run.root / "padless", tokenizer=tokenizer)
    run.student["model"] = str(folder)
    run.save()
    final = train(stage, run.recipe)
    saved = AutoTokenizer.from_pretrained(final)
    assert saved.pad_token == saved.eos_token == "<|im_end|>"
    assert AutoConfig.from_pretrained(final).pad_token_id == saved.eos_token_id


def test_rows_that_are_too_long_are_counted(
    tiny_run: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tiny_run(reward={**QUICK, "max_steps": 1, "max_length": 60})
    rows = pairs()
    rows[3]["chosen"][0]["content"] = "word " * 100
    write_rows(run.folder / "data" / "pairs", rows)
    train("reward", run.recipe)
    assert run.manifest("reward")["rows"] == {
        "trained_on": 23,
        "held_out": 0,
        "too_long": 1,
        "not_chosen": 0,
    }
    assert "1 of 24 rows are longer than max_length" in capsys.readouterr().out


def test_held_out_pairs_are_evaluated_and_never_trained_on(
    tiny_run: Make, trainers: list[Any]
) -> None:
    run = tiny_run(dpo={**QUICK, "eval_strategy": "steps", "eval_steps": 1})
    write_rows(run.folder / "data" / "pairs", pairs(160))
    train("dpo", run.recipe)
    sides = [
        {tuple(ids) for ids in rows["prompt_ids"]}
        for rows in (trainers[0].train_dataset, trainers[0].eval_dataset)
    ]
    assert sides[1]
    assert not sides[0] & sides[1]
    assert run.manifest("dpo")["rows"]["held_out"] == len(trainers[0].eval_dataset)
    assert "eval_loss" in run.history("dpo")[1]


def test_what_dpo_evaluates_on_sft_was_not_trained_on(tiny_run: Make, trainers: list[Any]) -> None:
    run = tiny_run(
        sft={**QUICK, "max_steps": 1}, dpo={**QUICK, "max_steps": 1, "eval_strategy": "epoch"}
    )
    write_rows(run.folder / "data" / "pairs", pairs(160))
    write_rows(run.folder / "data" / "sft", picks(160))
    for stage in ("sft", "dpo"):
        run_module.train(stage, run.recipe)
    sft, dpo = trainers
    trained = {sft.processing_class.decode(ids) for ids in sft.train_dataset["input_ids"]}
    evaluated = {dpo.processing_class.decode(ids) for ids in dpo.eval_dataset["prompt_ids"]}
    assert evaluated
    assert not [text for text in trained for prompt in evaluated if text.startswith(prompt)]


@pytest.mark.parametrize("stage", ["dpo", "reward"])
def test_pairs_of_like_length_can_share_a_batch(
    tiny_run: Make, trainers: list[Any], stage: Stage
) -> None:
    """Without their lengths, TRL's pairs end the training with an error."""
    block = {**QUICK, "train_sampling_strategy": "group_by_length", "eval_strategy": "steps"}
    run = tiny_run(**{stage: block})
    words = [1 + 11 * (i % 3) for i in range(96)]
    rejected = [chat("no" + " 1 2" * n, "assistant") for n in words]
    write_rows(run.folder / "data" / "pairs", pairs(96, rejected=rejected))
    train(stage, run.recipe)
    dataset = trainers[0].train_dataset
    for pair in dataset:
        answer = max(len(pair["chosen_ids"]), len(pair["rejected_ids"]))
        assert pair["length"] == answer + len(pair.get("prompt_ids", []))
    widths = [batch["input_ids"].shape[1] for batch in trainers[0].get_train_dataloader()]
    longest = max(dataset["length"])
    assert sum(width == longest for width in widths) <= len(widths) // 2  # 1 pair in 3 is so long
