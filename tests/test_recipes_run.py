"""Each shipped recipe, run from its first prompt to its last figure, with tiny models in its place.

The YAML is the shipped one. Replaced are models, data, sizes and the run folder, and what a model
of random weights cannot do: end an answer by itself, put its mass on "yes" and "no", pass a gate.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import Qwen3Config

from rlaif.loop.round_recipe import merged, training_stages
from rlaif.loop.spending import read_cost
from rlaif.recipe import Recipe
from tests.engines import vllm_server
from tests.engines.openai.misbehaving_server import MisbehavingServer
from tests.loop.differing_judge import differing
from tests.tiny_models import tiny_model_folder, tiny_tokenizer
from tests.train.tiny_run import environment

ROOT = Path(__file__).parents[1]
SIZES: dict[str, Any] = {
    "max_steps": 2, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 1,
    "max_length": 256, "report_to": "none", "disable_tqdm": True,
}  # fmt: skip
RANDOM: dict[str, Any] = {
    "sample": {"stop": list("aeionrt")},
    "judge": {"min_coverage": 0.0},
    "gate": {"on_failure": "warn"},
    "pick": {"min_margin": 0.0, "pair_margin": 0.0, "prefer_shorter_within": None},
}


def tiny_qwen(folder: Path, seed: int) -> Path:
    """Random weights in the architecture that the recipes name; wide enough for vLLM on a CPU."""
    tokenizer = tiny_tokenizer()
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, head_dim=32, max_position_embeddings=1024,
        tie_word_embeddings=True, bos_token_id=None, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    return tiny_model_folder(folder, config, seed=seed, tokenizer=tokenizer)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("student", "teacher")):
        tiny_qwen(folder / name, seed)
    return folder


def write_rows(file: Path, *texts: str) -> None:
    file.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))


def tiny(name: str, folder: Path, models: Path, **sections: Mapping[str, Any]) -> Path:
    """A shipped recipe in small; `sections` are replaced besides, key by key."""
    shipped = Recipe.load(ROOT / "recipes" / name / "recipe.yaml").model_dump(mode="json")
    write_rows(folder / "prompts.jsonl", *(f"what is number {i}" for i in range(24)))
    write_rows(folder / "held-out.jsonl", *(f"who is number {i}" for i in range(3)))
    words = ({"prompt": f"say word {i}", "completion": f"it is word {i}"} for i in range(24))
    anchors = "".join(json.dumps(row) + "\n" for row in words)
    (folder / "anchors.jsonl").write_text(anchors)
    here = {"dataset": None, "config": None}
    small: dict[str, Any] = {
        "run": str(folder / "run"),
        "student": {"model": str(models / "student"), "dtype": "float32"},
        "teacher": {"model": str(models / "teacher"), "dtype": "float32"},
        "prompts": here | {"path": str(folder / "prompts.jsonl"), "limit": 6, "shard_size": 3},
        "evaluate": {
            "prompts": here | {"path": str(folder / "held-out.jsonl")}, "max_tokens": 8
        },
        "sample": {"max_tokens": 24},
        "train": {k: SIZES for k in ("sft", "dpo", "reward") if shipped["train"][k] is not None},
    }  # fmt: skip
    if shipped["anchors"] is not None:
        small["anchors"] = here | {"path": str(folder / "anchors.jsonl")}
    file = folder / "recipe.yaml"
    made = merged(merged(merged(shipped, RANDOM), small), sections)
    file.write_text(yaml.safe_dump(made))
    return file


def run(file: Path, **environ: str) -> Path:
    """`rlaif loop` to its end; the run folder."""
    done = subprocess.run(
        [sys.executable, "-m", "rlaif.cli", "loop", str(file)],
        env=environment(**environ), capture_output=True, text=True, timeout=1800,
    )  # fmt: skip
    recipe = Recipe.load(file)
    said = "".join(
        p.read_text()[-2000:] for p in Path(recipe.run).glob("said/*") if done.returncode
    )
    assert done.returncode == 0, done.stdout + done.stderr + said
    return Path(recipe.run)


def assert_ran(folder: Path, recipe: Recipe) -> None:
    """All stages of the first round came to their figures, and the loop to an end of its own.

    A random student seldom gets better, and then the recipe's own rule ends the loop there.
    """
    state = json.loads((folder / "loop.json").read_text())
    assert state["status"] in ("finished", "stopped")
    if state["stopped"] is not None:
        assert state["stopped"]["rule"] != "judge"
    first = state["rounds"][0]
    assert first["labels"]["pairs"] > 0 and first["win_rate"] is not None
    for stage in training_stages(recipe, 0):
        weights = folder / "rounds" / "00" / "models" / stage / "final" / "model.safetensors"
        assert weights.is_file()
    stages = {line["stage"] for line in read_cost(folder / "cost.jsonl") if line["round"] == 0}
    assert {"sample", "judge", "evaluate", *training_stages(recipe, 0)} <= stages


def test_one_gpu_lora(tmp_path: Path, models: Path) -> None:
    file = tiny("one-gpu-lora", tmp_path, models)
    folder = run(file)
    assert_ran(folder, Recipe.load(file))
    assert (folder / "rounds/00/models/dpo/adapter/adapter_config.json").is_file()


def test_a_teacher_behind_a_server_is_paid_by_the_recipes_prices(
    tmp_path: Path, models: Path
) -> None:
    with MisbehavingServer(differing, key="a-key") as server:
        teacher = {
            "model": "m", "dtype": "auto", "engine_args": {"base_url": server.base_url}
        }  # fmt: skip
        file = tiny("api-teacher", tmp_path, models, teacher=teacher)
        folder = run(file, OPENAI_API_KEY="a-key")
        assert_ran(folder, Recipe.load(file))
        spent = read_cost(folder / "cost.jsonl")
        hours = sum(line["device_seconds"] for line in spent) / 3600
        prices = 0.4 * server.billed_prompt + 1.6 * server.billed_output
        money = sum(line["money"] for line in spent)
        assert money - 2 * hours == pytest.approx(prices / 1e6, rel=0.05)


def no_vllm() -> str | None:
    """Why there is no vLLM; None where there is."""
    reason = vllm_server.why_not()
    if reason is None and not vllm_server.PYTHON.exists():
        reason = "scripts/install-vllm has not been run"
    return reason


@pytest.fixture(scope="module")
def engine() -> dict[str, Any]:
    """vLLM where it is; the shipped recipe with transformers, and loudly, where it is not."""
    reason = no_vllm()
    if reason is None:
        given = {"python": str(vllm_server.PYTHON), "enforce_eager": True}
        return {
            "engine": "vllm",
            "engine_args": given | {"max_model_len": 1024, "gpu_memory_utilization": 0.2},
        }
    pytest.skip(f"NOT TESTED with vLLM: {reason}")


def test_self_rewarding_with_vllm_and_zero3_on_two_processes(
    tmp_path: Path, models: Path, engine: dict[str, Any]
) -> None:
    file = tiny("self-rewarding-8b", tmp_path, models, student=engine, teacher=engine)
    recipe = Recipe.load(file)
    assert recipe.loop is not None and recipe.loop.launch is not None
    assert recipe.loop.launch.name == "zero3.yaml"
    folder = run(file)
    assert_ran(folder, recipe)
    assert_self_rewarding(folder)
    events = [json.loads(x) for x in (folder / "rounds/00/log.jsonl").read_text().splitlines()]
    launch = next(e["launch"] for e in events if e["event"] == "trained")
    assert (launch["world_size"], launch["distributed_type"]) == (2, "DEEPSPEED ZeRO-3")


def test_self_rewarding_without_vllm(tmp_path: Path, models: Path) -> None:
    """The same recipe, where vLLM and several processes are not to be had."""
    if no_vllm() is None:
        pytest.skip("the same recipe has run with vLLM")
    file = tiny("self-rewarding-8b", tmp_path, models)
    given = yaml.safe_load(file.read_text())
    plain = {"engine": "transformers", "engine_args": {}}
    for who in ("student", "teacher"):
        given[who] |= plain
    given["loop"]["launch"] = None
    file.write_text(yaml.safe_dump(given))
    folder = run(file)
    assert_ran(folder, Recipe.load(file))
    assert_self_rewarding(folder)


def assert_self_rewarding(folder: Path) -> None:
    """The student labels its own answers, and the answers are watched beside the anchors."""
    first = json.loads((folder / "loop.json").read_text())["rounds"][0]
    assert first["judge"] == "student"
    student = Recipe.load(folder / "rounds/00/recipe.yaml")
    assert student.teacher.model == student.student.model
    assert first["student_accuracy"] is not None
