"""The work that engines are measured on: a random model, and prompts, responses and principles.

Speed does not depend on what the weights say, so a model of any shape is made at once; its tokens
are words, so that a text has as many tokens as words.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast, Qwen3Config

from rlaif.constitution import Constitution, Principle
from rlaif.engines.scripted import ScriptedEngine
from rlaif.label.judge import judge
from rlaif.label.method import Method, Mode
from rlaif.label.templates import load_template
from rlaif.records import Chat, Message, Record, Response, record_id

PRINCIPLES = 8
RESPONSES = 4
RESPONSE_TOKENS = 64
_PROMPT_TOKENS = (44, 233)
_PRINCIPLE_TOKENS = (12, 24)
_WORDS = 1950
_SPECIALS = ["<pad>", "<unk>", "<s>", "</s>"]
_TEMPLATE = (
    "{% for m in messages %}<s> {{ m['role'] }} {{ m['content'] }} </s> {% endfor %}"
    "{% if add_generation_prompt %}<s> assistant {% endif %}"
)
_LLAMA = {"max_position_embeddings": 2048, "tie_word_embeddings": True}
_QWEN = {"vocab_size": 151_936, "head_dim": 128, "num_key_value_heads": 8, **_LLAMA}
SHAPES: dict[str, Any] = {
    "3m": lambda: LlamaConfig(
        vocab_size=2048, hidden_size=256, intermediate_size=672, num_hidden_layers=4,
        num_attention_heads=8, num_key_value_heads=4, **_LLAMA,
    ),
    "25m": lambda: LlamaConfig(
        vocab_size=8192, hidden_size=512, intermediate_size=1408, num_hidden_layers=7,
        num_attention_heads=8, num_key_value_heads=4, **_LLAMA,
    ),
    "qwen3-0.6b": lambda: Qwen3Config(
        hidden_size=1024, intermediate_size=3072, num_hidden_layers=28, num_attention_heads=16,
        **_QWEN,
    ),
    "qwen3-4b": lambda: Qwen3Config(
        hidden_size=2560, intermediate_size=9728, num_hidden_layers=36, num_attention_heads=32,
        **_QWEN,
    ),
}  # fmt: skip


def make_model(shape: str, folder: Path, *, words: int = 2048, device: str = "cpu") -> Path:
    """A model with random weights in bfloat16, and a tokenizer of words, as a folder.

    Args:
        shape: a key of `SHAPES`.
        folder: where to; left as it is where it holds a model.
        words: how many of the model's tokens are words. The others say nothing: where a model of
            random weights is to be read again as it has spoken, all have to be.
        device: where the weights are drawn.
    """
    if (folder / "model.safetensors").exists() or (
        folder / "model.safetensors.index.json"
    ).exists():
        return folder
    config = SHAPES[shape]()
    config.bos_token_id, config.eos_token_id, config.pad_token_id = 2, 3, 0
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    _tokenizer(words).save_pretrained(folder)
    return folder


def _tokenizer(size: int) -> PreTrainedTokenizerFast:
    own = " ".join("".join(load_template(n).parts[::2]) for n in ("pointwise", "pairwise"))
    labels = "yes Yes YES no No NO A B 1 2 3 4 5 user assistant system"
    words = dict.fromkeys([*_SPECIALS, *labels.split(), *own.split(), *_vocabulary(size)])
    vocabulary = {word: i for i, word in enumerate(list(words)[:size])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", unk_token="<unk>", bos_token="<s>",
        eos_token="</s>", chat_template=_TEMPLATE,
    )  # fmt: skip


def _vocabulary(size: int = _WORDS) -> list[str]:
    return [f"w{i}" for i in range(max(size, _WORDS))]


def _text(rng: random.Random, least: int, most: int) -> str:
    return " ".join(rng.choices(_vocabulary(), k=rng.randint(least, most)))


def prompts(count: int) -> list[Record]:
    """Records with a prompt of 44 to 233 words, and nothing else."""
    rng = random.Random("prompts")
    chats = [(Message("user", _text(rng, *_PROMPT_TOKENS)),) for _ in range(count)]
    return [Record(record_id(chat), chat) for chat in chats]


def answered(count: int) -> list[Record]:
    """The same, each with four responses of 64 words."""
    rng = random.Random("responses")
    long = (RESPONSE_TOKENS, RESPONSE_TOKENS)
    return [
        record.with_(
            responses=tuple(
                Response(_text(rng, *long), RESPONSE_TOKENS, "stop") for _ in range(RESPONSES)
            )
        )
        for record in prompts(count)
    ]


def constitution() -> Constitution:
    """Eight principles of 12 to 24 words."""
    rng = random.Random("principles")
    rules = [Principle(id=f"p{i}", text=_text(rng, *_PRINCIPLE_TOKENS)) for i in range(PRINCIPLES)]
    return Constitution(name="random", principles=tuple(rules))


def questions(mode: Mode, count: int) -> tuple[Chat, ...]:
    """What a judge is asked of `count` prompts: 32 questions each, pairwise 96."""
    asked = ScriptedEngine(score=lambda chat, labels: [0.5, 0.5])
    method = Method(mode, load_template(mode))
    judge(answered(count), asked, constitution().principles, method)
    return asked.calls[0][1]


def write_prompts(count: int, file: Path) -> Path:
    """The prompts as a recipe reads them."""
    lines = (json.dumps({"prompt": record.prompt[0].text}) for record in prompts(count))
    file.write_text("\n".join(lines) + "\n")
    return file
