"""The engine with a real vLLM, in its own environment; what every engine keeps is in
test_contract.py."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch

from rlaif.engines.load import load_engine
from rlaif.engines.process import ProcessEngine
from rlaif.engines.protocol import NO, YES, Engine, LabelScore, Sampling
from rlaif.engines.transformers import TransformersEngine
from rlaif.errors import EngineError, MissingExtraError
from rlaif.recipe import Model
from rlaif.records import Chat, Message
from tests.tiny_models import tiny_model_folder

QUICK = {"enforce_eager": True}
"""Starts without compiling; the contract's engine compiles."""
BLOCK = 32


def ask(text: str = "what is this") -> Chat:
    return (Message("user", text),)


def judge_prompts(prompts: int = 4, responses: int = 3, principles: int = 5) -> list[Chat]:
    """Prompts that share beginnings on three levels, in an order in which they do not meet."""
    return [
        (
            Message(
                "user",
                (
                    "Judge whether this keeps the principle.\n" * 2,
                    f"prompt {p} " * 9,
                    f"response {p}.{r} " * (7 + r),
                    f"\nprinciple {k}? yes or no",
                ),
            ),
        )
        for k in range(principles)
        for r in range(responses)
        for p in range(prompts)
    ]


def engine_of(folder: Path, python: Path, **arguments: Any) -> Engine:
    spec = {key: arguments.pop(key) for key in ("adapter", "dtype") if key in arguments}
    arguments = {"python": str(python), **QUICK, **arguments}
    spec = {"dtype": "float32", **spec, "engine_args": arguments}
    return load_engine(Model.model_validate({"model": str(folder), "engine": "vllm", **spec}))


@pytest.fixture(scope="module")
def engine(servable_folder: Path, vllm_python: Path) -> Iterator[Engine]:
    with closing(engine_of(servable_folder, vllm_python)) as made:
        yield made


def tokens_of(folder: Path, chats: list[Chat]) -> list[list[int]]:
    found = TransformersEngine(str(folder), device="cpu")._encoder.encode(chats)
    return [ids for ids in found if isinstance(ids, list)]


def least_computed(sequences: list[list[int]]) -> int:
    """Each sequence but its longest prefix of whole blocks that an earlier one has."""
    total, seen = 0, set[tuple[int, ...]]()
    for ids in sequences:
        blocks = [tuple(ids[:end]) for end in range(BLOCK, len(ids), BLOCK)]
        total += len(ids) - max((len(b) for b in blocks if b in seen), default=0)
        seen.update(tuple(ids[:end]) for end in range(BLOCK, len(ids) + 1, BLOCK))
    return total


def test_each_shared_block_is_computed_once(engine: Engine, servable_folder: Path) -> None:
    chats = judge_prompts()
    least = least_computed(tokens_of(servable_folder, chats))
    before = engine.usage.computed_tokens
    engine.score_labels(chats, [YES, NO])
    computed = engine.usage.computed_tokens - before
    assert computed == pytest.approx(least, rel=0.01)
    assert computed < 0.5 * sum(map(len, tokens_of(servable_folder, chats)))


def test_the_order_spares_a_cache_that_does_not_hold_everything(
    servable_folder: Path, vllm_python: Path
) -> None:
    chats = judge_prompts(14)
    small = {"kv_cache_memory_bytes": 2**20, "max_num_seqs": 2}  # 64 blocks
    least = least_computed(tokens_of(servable_folder, chats))
    assert least > 64 * BLOCK
    with closing(engine_of(servable_folder, vllm_python, **small)) as engine:
        engine.score_labels(chats, [YES, NO])
        assert engine.usage.computed_tokens == pytest.approx(least, rel=0.01)


def test_a_chat_asked_twice_is_computed_once(engine: Engine, servable_folder: Path) -> None:
    before = engine.usage.computed_tokens
    chats = [ask("once"), ask("other"), ask("once")]
    scores = engine.score_labels(chats, [YES, NO])
    assert scores[0] == scores[2] != scores[1]
    assert engine.usage.computed_tokens - before == sum(
        map(len, tokens_of(servable_folder, chats[:2]))
    )


def test_usage_counts_the_floor_and_what_was_said(engine: Engine, servable_folder: Path) -> None:
    before = engine.usage.floor_tokens, engine.usage.generated_tokens
    [generation] = engine.generate([ask()], Sampling(n=3, max_tokens=5), [0])
    [ids] = tokens_of(servable_folder, [ask()])
    assert engine.usage.floor_tokens - before[0] == len(ids)
    said = sum(r.tokens for r in generation.responses)
    assert engine.usage.generated_tokens - before[1] == said


def test_what_was_asked_before_changes_no_computation(
    engine: Engine, servable_folder: Path
) -> None:
    chats, sampling = judge_prompts(1), Sampling(max_tokens=3)

    def computed(ask_it: Any) -> int:
        before = engine.usage.computed_tokens
        ask_it()
        return engine.usage.computed_tokens - before

    score, say = (
        lambda: engine.score_labels(chats, [YES, NO]),
        lambda: engine.generate(chats, sampling, [0] * len(chats)),
    )
    score()
    least = least_computed(tokens_of(servable_folder, chats))
    assert computed(score) == computed(score) == computed(say) == least
    # …but a judge's label comes after its reasons, of the same shard.
    assert computed(score) < least


def test_logits_that_are_not_finite_have_a_reason(
    servable_folder: Path, vllm_python: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(servable_folder, tmp_path / "nan"))
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"].fill_(float("nan"))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    reason = "the model's logits are not finite"
    with closing(engine_of(folder, vllm_python)) as engine:
        assert engine.score_labels([ask()], [YES, NO]) == [LabelScore(None, reason)]
        for sampling in (
            Sampling(temperature=0.0, max_tokens=4),
            Sampling(n=2, max_tokens=4),
            Sampling(top_p=0.9, max_tokens=1),
        ):
            [generation] = engine.generate([ask()], sampling, [0])
            assert (generation.responses, generation.reason) == ((), reason)


def test_a_text_that_ends_in_the_first_token_is_kept(
    servable_folder: Path, vllm_python: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(servable_folder, tmp_path / "first"))
    weights = load_file(folder / "model.safetensors")
    for name, weight in weights.items():  # what goes in comes out, and the first is the likeliest
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            weight.zero_()
    weights["model.embed_tokens.weight"].fill_(0.1)[0] = 0.3
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with closing(engine_of(folder, vllm_python)) as engine:
        [generation] = engine.generate([ask()], Sampling(n=4, max_tokens=3), [0])
        assert [(r.text, r.tokens) for r in generation.responses] == [("", 3)] * 4


def tuned(folder: Path, to: Path, **settings: Any) -> Path:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    settings = {"r": 5, "lora_alpha": 64, "target_modules": ["q_proj", "v_proj"], **settings}
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model = get_peft_model(model, LoraConfig(**settings))
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)
        for name, weight in model.named_parameters():
            if "lora_" in name:
                weight.normal_(std=0.2)
    model.save_pretrained(to)
    return to


def test_an_adapter_is_served_as_merging_it_would(
    servable_folder: Path, vllm_python: Path, tmp_path: Path
) -> None:
    adapter = tuned(servable_folder, tmp_path / "adapter")
    chats, folder = judge_prompts(2), str(servable_folder)
    merged = TransformersEngine(folder, dtype="float32", adapter=str(adapter), device="cpu")
    plain = TransformersEngine(folder, dtype="float32", device="cpu")
    with closing(engine_of(servable_folder, vllm_python, adapter=str(adapter))) as engine:
        served = engine.score_labels(chats, [YES, NO])
        assert engine.identity["adapter"]
    wanted, without = (e.score_labels(chats, [YES, NO]) for e in (merged, plain))
    for a, b, c in zip(served, wanted, without, strict=True):
        assert a.logprobs == pytest.approx(b.logprobs, abs=0.02)
        assert a.logprobs != pytest.approx(c.logprobs, abs=0.2)


def test_an_adapter_that_vllm_cannot_serve_is_an_error_in_one_line(
    servable_folder: Path, vllm_python: Path, tmp_path: Path
) -> None:
    adapter = tuned(servable_folder, tmp_path / "adapter", use_dora=True)
    with (
        closing(engine_of(servable_folder, vllm_python, adapter=str(adapter))) as engine,
        pytest.raises(EngineError, match=r"vLLM .*DoRA") as caught,
    ):
        engine.score_labels([ask()], [YES, NO])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"wings": 2}, r"engine_args.wings: no such argument of vLLM"),
        ({"max_model_len": 4096}, r"vLLM cannot load .*max_model_len \(4096\)"),
        ({"kv_cache_memory_bytes": 2**60}, r"vLLM cannot load .*memory"),
    ],
)
def test_arguments_go_to_vllm_untouched(
    servable_folder: Path, vllm_python: Path, arguments: dict[str, Any], told: str
) -> None:
    with (
        closing(engine_of(servable_folder, vllm_python, **arguments)) as engine,
        pytest.raises(EngineError, match=told) as caught,
    ):
        engine.score_labels([ask()], [YES, NO])
    assert "\n" not in str(caught.value)


def test_a_shorter_context_is_the_engine_own(servable_folder: Path, vllm_python: Path) -> None:
    long = ask("yes " * 80)
    with closing(engine_of(servable_folder, vllm_python, max_model_len=64)) as engine:
        good, bad = engine.score_labels([ask(), long], [YES, NO])
    assert good.logprobs is not None
    [ids] = tokens_of(servable_folder, [long])
    assert bad.reason == f"the prompt has {len(ids)} tokens, the context holds 64"


def test_a_text_that_vllm_would_cut_short_has_a_reason(
    engine: Engine, servable_folder: Path
) -> None:
    [ids] = tokens_of(servable_folder, [ask()])
    room = 512 - len(ids)
    [over] = engine.generate([ask()], Sampling(temperature=0.0, max_tokens=room + 1), [0])
    assert over.reason == (
        f"the prompt has {len(ids)} tokens and the answer {room + 1}, the context holds 512"
    )


def test_more_seeded_prompts_than_a_batch_holds_are_answered(
    engine: Engine, servable_folder: Path
) -> None:
    chats = [ask(f"{i} " + "yes no " * 200) for i in range(20)]
    assert sum(map(len, tokens_of(servable_folder, chats))) > 4096
    said = engine.generate(chats, Sampling(max_tokens=4), range(20))
    assert [g.reason for g in said] == [None] * 20


def test_a_model_that_vllm_cannot_run_is_an_error_in_one_line(
    vllm_python: Path, tmp_path: Path
) -> None:
    folder = tiny_model_folder(tmp_path / "m")  # its heads are 8 wide
    with (
        closing(engine_of(folder, vllm_python)) as engine,
        pytest.raises(EngineError, match=r"vLLM .*head_dim=8") as caught,
    ):
        engine.score_labels([ask()], [YES, NO])
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


def test_identity_needs_no_weights_and_follows_what_decides(
    servable_folder: Path, vllm_python: Path, tmp_path: Path
) -> None:
    def identity(folder: Path, **arguments: Any) -> dict[str, str]:
        with closing(engine_of(folder, vllm_python, **arguments)) as engine:
            return dict(engine.identity)

    first = identity(servable_folder)
    assert first["engine"] == "vllm" and first["vllm"] and first["device"] == "cpu"
    assert first["dtype"] == "float32"
    copy = Path(shutil.copytree(servable_folder, tmp_path / "copy"))
    assert identity(copy) == first
    (copy / "model.safetensors").write_bytes(b"cannot be loaded")
    assert identity(copy)["model"] != first["model"]
    assert identity(servable_folder, block_size=64) != first
    assert identity(servable_folder, dtype="bfloat16") != first


def test_what_is_wrong_with_a_model_is_said_before_it_is_used(
    vllm_python: Path, tmp_path: Path
) -> None:
    with pytest.raises(EngineError, match="no such model folder"):
        engine_of(tmp_path / "none", vllm_python)


def test_without_vllm_the_extra_is_named(servable_folder: Path) -> None:
    from importlib.util import find_spec

    if find_spec("vllm"):
        pytest.skip("it is installed here")
    arguments = {"model": str(servable_folder)}
    with pytest.raises(MissingExtraError, match=r"pip install 'rlaif\[vllm\]'"):
        ProcessEngine("rlaif.engines.vllm:VllmEngine", arguments)


def test_the_interpreter_comes_from_the_environment_too(
    servable_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLAIF_VLLM_PYTHON", "/no/such/python")
    spec = {"model": str(servable_folder), "engine": "vllm"}
    with pytest.raises(EngineError, match=r"python: .*\(got '/no/such/python'\)"):
        load_engine(Model.model_validate(spec))


def test_what_the_section_says_is_not_said_again_in_its_arguments(servable_folder: Path) -> None:
    arguments = {"dtype": "float32"}
    spec = {"model": str(servable_folder), "engine": "vllm", "engine_args": arguments}
    with pytest.raises(EngineError, match=r"engine_args.dtype: is no engine argument; set `dtype`"):
        load_engine(Model.model_validate(spec))
