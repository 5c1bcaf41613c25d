from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import Gemma3TextConfig, GPT2Config, LlamaConfig, PreTrainedConfig

from rlaif.engines import checkpoint
from rlaif.engines.protocol import NO, YES
from rlaif.engines.transformers import TransformersEngine
from rlaif.errors import EngineError
from rlaif.records import Message
from tests.tiny_models import tiny_model_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model_folder(tmp_path_factory.mktemp("models") / "tiny")


def one_line(error: BaseException) -> str:
    assert "\n" not in str(error)
    return str(error)


def test_a_missing_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EngineError) as caught:
        TransformersEngine("./nowhere")
    assert "no such model folder" in one_line(caught.value)
    assert "nowhere" in str(caught.value)


def test_a_folder_that_is_no_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(EngineError) as caught:
        TransformersEngine(str(tmp_path))
    assert f"cannot load {tmp_path}" in one_line(caught.value)
    assert "name a folder with config.json" in str(caught.value)


def test_broken_json_is_an_error_of_the_folder(tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path / "m")
    (folder / "config.json").write_text("{")
    with pytest.raises(EngineError, match="cannot load"):
        TransformersEngine(str(folder))


def test_weights_come_from_safetensors_alone(tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path / "m")
    torch.save(tiny_model_of(folder).state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    engine = TransformersEngine(str(folder))
    with pytest.raises(EngineError, match=r"cannot load .*model\.safetensors"):
        engine.score_labels([(Message("user", "x"),)], [YES, NO])


def test_an_argument_that_the_model_refuses_is_an_error(folder: Path) -> None:
    engine = TransformersEngine(str(folder), no_such_argument=1)
    with pytest.raises(EngineError, match="no_such_argument"):
        engine.score_labels([(Message("user", "x"),)], [YES, NO])


def test_the_dtype_is_what_is_asked_for(folder: Path) -> None:
    for name in ("float32", "bfloat16", "float16"):
        engine = TransformersEngine(str(folder), dtype=name)
        assert engine.identity["dtype"] == name
        assert engine._model.dtype == getattr(torch, name)
    with pytest.raises(EngineError, match=r"no such dtype .*int8"):
        TransformersEngine(str(folder), dtype="int8")


@pytest.mark.parametrize(
    ("capabilities", "wanted"),
    [({}, "float32"), ({"avx512_bf16": True}, "bfloat16"), ({"amx_bf16": True}, "bfloat16")],
)
def test_auto_is_bfloat16_only_where_a_cpu_multiplies_it(
    capabilities: dict[str, bool], wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    chosen = checkpoint.choose_dtype("auto", SimpleNamespace(), "cpu")
    assert chosen == getattr(torch, wanted)


def test_auto_on_a_gpu_is_bfloat16_or_the_float16_of_the_checkpoint() -> None:
    for kept in (torch.float32, torch.bfloat16, None):
        config = SimpleNamespace(dtype=kept)
        assert checkpoint.choose_dtype("auto", config, "cuda") == torch.bfloat16
    half = SimpleNamespace(dtype=torch.float16)
    assert checkpoint.choose_dtype("auto", half, "cuda:0") == torch.float16


@pytest.mark.filterwarnings("ignore:::peft")
@pytest.mark.parametrize("targets", [["q_proj", "v_proj"], ["q_proj", "embed_tokens"]])
def test_an_adapter_counts_in_scores_and_identity(
    folder: Path, tmp_path: Path, targets: list[str]
) -> None:
    # The second one sits on an embedding that is tied to the head, where merging is wrong.
    tuned = get_peft_model(tiny_model_of(folder), LoraConfig(r=4, target_modules=targets))
    with torch.no_grad():
        for name, weight in tuned.named_parameters():
            if "lora_" in name:
                weight.normal_(0, 0.3, generator=torch.Generator().manual_seed(0))
    tuned.save_pretrained(tmp_path)
    plain = TransformersEngine(str(folder), dtype="float32")
    adapted = TransformersEngine(str(folder), dtype="float32", adapter=str(tmp_path))
    assert adapted.identity["adapter"] != plain.identity["adapter"]
    ids = torch.tensor([[5, 9, 30, 77]])
    with torch.inference_mode():
        wanted = tuned.eval()(input_ids=ids).logits
        assert torch.allclose(adapted._model(input_ids=ids).logits, wanted, atol=1e-4)
        assert not torch.allclose(plain._model(input_ids=ids).logits, wanted, atol=1e-2)
    chats = [(Message("user", ("what is this", str(i))),) for i in range(6)]
    assert all(s.logprobs for s in adapted.score_labels(chats, [YES, NO]))


def tiny_model_of(folder: Path) -> torch.nn.Module:
    return checkpoint.load_weights(
        str(folder), None, False, adapter=None, dtype=torch.float32, device="cpu", arguments={}
    )


def test_an_adapter_must_be_a_folder_with_safetensors(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"adapter: the adapter has no adapter_config.json"):
        TransformersEngine(str(folder), adapter=str(tmp_path))
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.bin").write_bytes(b"")
    with pytest.raises(EngineError, match=r"no adapter_model.safetensors"):
        TransformersEngine(str(folder), adapter=str(tmp_path))


DYNAMIC = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}


def rope(rope_type: str, **more: object) -> LlamaConfig:
    return LlamaConfig(rope_parameters={**DYNAMIC, "rope_type": rope_type, **more})


LONG = {"short_factor": [1.0] * 64, "long_factor": [2.0] * 64}


@pytest.mark.parametrize(
    ("config", "changes"),
    [
        (LlamaConfig(), False),
        (rope("linear"), False),
        (rope("dynamic"), True),
        (rope("longrope", **LONG, original_max_position_embeddings=64), True),
        (Gemma3TextConfig(), False),  # one rotary embedding for each type of layer
        (Gemma3TextConfig(rope_parameters={"full_attention": DYNAMIC}), True),
        (GPT2Config(), False),
    ],
)
def test_a_rotary_embedding_that_adapts_is_read_by_one_pass_at_a_time(
    config: PreTrainedConfig, changes: bool
) -> None:
    assert checkpoint.changes_as_it_reads(config) is changes


def test_only_models_that_stay_as_they_are_get_several_passes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert TransformersEngine(str(folder), device="cpu")._passes == 2
    assert TransformersEngine(str(folder), device="cpu", trust_remote_code=True)._passes == 1
    monkeypatch.setattr(checkpoint, "changes_as_it_reads", lambda config: True)
    assert TransformersEngine(str(folder), device="cpu")._passes == 1
