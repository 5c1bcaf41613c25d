from __future__ import annotations

import pytest
import torch

from rlaif.engines.transformers.attention import NAME, attention, attention_in
from tests.tiny_models import tiny_model


class Layer(torch.nn.Module):
    is_causal = True


def test_a_layer_that_asks_for_more_is_refused() -> None:
    state = torch.zeros(1, 1, 3, 8)
    with pytest.raises(NotImplementedError, match="s_aux"):
        attention(Layer(), state, state, state, None, s_aux=torch.zeros(1))
    both_ways = Layer()
    both_ways.is_causal = False
    with pytest.raises(NotImplementedError, match="both ways"):
        attention(both_ways, state, state, state, None)


def test_a_model_that_fails_meanwhile_attends_as_before() -> None:
    model = tiny_model()
    with pytest.raises(KeyError), attention_in(model) as able:
        assert able and model.config._attn_implementation == NAME
        raise KeyError
    assert model.config._attn_implementation == "sdpa"
