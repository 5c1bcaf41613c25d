"""Tiny random models and tokenizers, made by code, for tests that need a real one.

`tiny_model_folder(tmp_path)` is what most tests want: a folder that `from_pretrained` takes.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

CHATML = (
    "{% for m in messages %}"
    "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
WORDS = (
    " yes Yes YES no No NO A B 1 2 3 4 5 system user assistant judge whether a response keeps the "
    "principle prompt answer or what is harmless helpful honest this that which of better than "
)

SMALL: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
}
"""What configurations of many architectures take."""


def tiny_tokenizer(
    chat_template: str | None = CHATML, vocab_size: int = 512, **options: Any
) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer in which yes, no, A, B and 1 to 5 are single tokens.

    Its chat template is ChatML, its end token ``<|im_end|>``, its padding ``<|endoftext|>``.
    """
    options = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", **options}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_bpe(vocab_size)),
        additional_special_tokens=list(SPECIALS),
        **options,
    )
    tokenizer.chat_template = chat_template
    return tokenizer


@cache
def _bpe(vocab_size: int) -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        show_progress=False,
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    lines = [WORDS, WORDS.replace(" ", "\n"), "\n\n", "user\n\n", "assistant\nyes", "assistant\nno"]
    tokenizer.train_from_iterator(lines * 20, trainer)
    return tokenizer.to_str()


def tiny_llama_config(**changes: Any) -> LlamaConfig:
    """Two layers, 32 wide, four heads over two key-value heads, a context of 512 tokens."""
    settings = {
        "vocab_size": 512,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
        # ids of SPECIALS in `tiny_tokenizer`
        "bos_token_id": None,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    return LlamaConfig(**{**settings, **changes})


def tiny_model(config: PreTrainedConfig | None = None, seed: int = 0) -> PreTrainedModel:
    """A model of that configuration in float32, in eval mode, with weights that follow the seed.

    The weights are ten times larger than a fresh model's, so that what it says depends on what
    it reads: a fresh model's logits are almost flat.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config or tiny_llama_config())
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                weight.mul_(10)
    return model.float().eval()


def tiny_model_folder(
    folder: Path,
    config: PreTrainedConfig | None = None,
    *,
    seed: int = 0,
    tokenizer: PreTrainedTokenizerFast | None = None,
) -> Path:
    """Save a tiny random model and its tokenizer as `folder`, and return it.

    Without a `config` it is `tiny_llama_config` with as many token ids as the tokenizer has.
    """
    tokenizer = tokenizer or tiny_tokenizer()
    config = config or tiny_llama_config(vocab_size=len(tokenizer))
    tiny_model(config, seed).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
