"""The main job, small: real models, real launches, every figure there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlaif.errors import ConstitutionError
from rlaif.sandbox import quickstart as module
from rlaif.sandbox.quickstart import HERE, quickstart

WANTED = """
seconds.judge seconds.label seconds.sft seconds.dpo seconds.reward seconds.evaluate
prompts responses abstentions picks pairs pair_accuracy reward_model.accuracy
judge.accuracy judge.flip_rate judge.heldout_wording_accuracy
gold.base gold.sft gold.dpo gold.by_principle win_rate.dpo_vs_base
mean_tokens.base mean_tokens.dpo mean_tokens.gold
""".split()  # fmt: skip  # noqa: SIM905
PRINCIPLE = "name: mine\nprinciples:\n  - id: one\n    text: {}\n"


def test_a_word_that_the_teacher_never_saw_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(PRINCIPLE.format("The answer must be melodious."))
    with pytest.raises(ConstitutionError, match="'melodious'"):
        quickstart(tmp_path / "run", constitution=file, quiet=True)


def test_evaluation_prompts_are_not_among_the_labelled() -> None:
    prompts = [
        {json.loads(line)["prompt"] for line in (HERE / "data" / name).read_text().splitlines()}
        for name in ("label.jsonl", "evaluate.jsonl")
    ]
    assert len(prompts[0]) >= 500 and len(prompts[1]) >= 200
    assert not prompts[0] & prompts[1]


def test_the_main_job_end_to_end_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "_JUDGED", 40)
    small = module._recipe

    def recipe(*arguments: object) -> object:
        whole = small(*arguments)  # type: ignore[arg-type]
        prompts = whole.prompts.model_copy(update={"limit": 64, "shard_size": 32})
        held_out = whole.evaluate.prompts
        assert held_out is not None
        evaluate = whole.evaluate.model_copy(
            update={"prompts": held_out.model_copy(update={"limit": 32}), "n": 2}
        )
        blocks = {name: getattr(whole.train, name) | {"max_steps": 8} for name in ("dpo", "reward")}
        train = whole.train.model_copy(update=blocks)
        return whole.model_copy(update={"prompts": prompts, "evaluate": evaluate, "train": train})

    monkeypatch.setattr(module, "_recipe", recipe)
    summary = quickstart(tmp_path / "run")
    shown = capsys.readouterr().out
    assert "after DPO" in shown and "judge right" in shown
    stored = json.loads((tmp_path / "run" / "summary.json").read_text())
    for path in WANTED:
        value = stored
        for key in path.split("."):
            value = value[key]
        assert value is not None, path
    assert stored["prompts"] == 64 and stored["responses"] == 64 * 10
    assert 0.3 <= stored["gold"]["base"] <= 0.65
    assert set(stored["gold"]["by_principle"]["greeting"]) == {"base", "sft", "dpo"}
    weights = (tmp_path / "run/models/dpo/final/model.safetensors").read_bytes()
    again = quickstart(tmp_path / "run", quiet=True)
    assert {k: v for k, v in again.items() if k != "seconds"} == {
        k: v for k, v in summary.items() if k != "seconds"
    }
    assert (tmp_path / "run/models/dpo/final/model.safetensors").read_bytes() == weights
