from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlaif.engines.transformers import TransformersEngine, memory
from tests.tiny_models import tiny_llama_config, tiny_model_folder

CONFIG = tiny_llama_config()


def fits(free: int, weights: int = 0, passes: int = 1) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "free_bytes", lambda device: free)
        return memory.batch_tokens(CONFIG, torch.bfloat16, "cuda", weights, passes)


@given(st.integers(0, 2**40), st.integers(0, 2**36), st.integers(1, 4))
def test_a_pass_is_a_power_of_two_and_no_larger_than_its_share(
    free: int, weights: int, passes: int
) -> None:
    tokens = fits(free, weights, passes)
    assert tokens & (tokens - 1) == 0
    held = tokens * memory.bytes_a_token(CONFIG, torch.bfloat16) * passes
    assert tokens == 256 or held <= max(0, free - weights) / 2
    assert fits(2 * free, weights, passes) >= tokens


def test_what_is_free_here_is_something() -> None:
    assert 0 < memory.free_bytes("cpu") < 2**50


def test_a_run_that_goes_on_has_the_passes_it_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = str(tiny_model_folder(tmp_path / "model"))
    monkeypatch.setattr(memory, "free_bytes", lambda device: 2**21)
    first = TransformersEngine(model, state=tmp_path / "engines").identity
    monkeypatch.setattr(memory, "free_bytes", lambda device: 2**35)
    assert TransformersEngine(model, state=tmp_path / "engines").identity == first
    fresh = TransformersEngine(model).identity
    assert int(fresh["batch_tokens"]) > int(first["batch_tokens"])
    assert TransformersEngine(model, batch_tokens=77).identity["batch_tokens"] == "77"
