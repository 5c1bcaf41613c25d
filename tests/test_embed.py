from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rlaif import embed
from rlaif.embed import EMPTY, NOT_FINITE, NOT_TEXT, Embedder
from rlaif.embedding_cache import EmbeddingCache
from rlaif.errors import EngineError, MissingExtraError


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return Embedder()


class Calls:
    """Notes what the model is given; `spoil` is called with it and the vectors."""

    def __init__(self, encode: Any) -> None:
        self.encode, self.texts = encode, list[str]()
        self.spoil: Any = None

    def __call__(self, texts: Sequence[str], **options: Any) -> Any:
        self.texts += texts
        found = self.encode(texts, **options)
        if self.spoil is not None:
            found = found.clone()
            self.spoil(texts, found)
        return found


@pytest.fixture
def calls(embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> Calls:
    noted = Calls(embedder._model.encode)
    monkeypatch.setattr(embedder._model, "encode", noted)
    return noted


@pytest.fixture
def cached(embedder: Embedder, tmp_path: Path) -> Iterator[Embedder]:
    """The embedder with an empty cache."""
    embedder._cache = EmbeddingCache(tmp_path, embedder.fingerprint, embedder.width)
    yield embedder
    embedder._cache = None


def test_texts_keep_their_order_and_equal_ones_are_embedded_once(
    embedder: Embedder, calls: Calls
) -> None:
    texts = ["rain in spring", "a much longer line about the price of bread", "tea"]
    found = embedder([*texts, texts[0], texts[2]])
    assert sorted(calls.texts) == sorted(texts)
    for i, text in enumerate([*texts, texts[0], texts[2]]):
        assert found.vectors[i] @ embedder([text]).vectors[0] > 0.999
    np.testing.assert_array_equal(found.vectors[0], found.vectors[3])
    assert found.vectors[0] @ found.vectors[1] < 0.8


def test_a_vector_has_length_one(embedder: Embedder) -> None:
    found = embedder(["tea", "雪が降る", "Ο καιρός είναι καλός", "سلام", "🙂🙃"])
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1, atol=1e-6)
    assert found.vectors.dtype == np.float32
    assert found.vectors.shape == (5, embedder.width)
    assert found.usable.all()


def test_what_cannot_be_embedded_has_its_reason_and_the_rest_a_vector(embedder: Embedder) -> None:
    found = embedder(["tea", "", " \n\t", "a\ud800b", "tea"])
    assert found.faults == (None, EMPTY, EMPTY, NOT_TEXT, None)
    assert found.usable.tolist() == [True, False, False, False, True]
    assert not found.vectors[1:4].any()
    assert found.vectors[0] @ found.vectors[4] == pytest.approx(1)


def test_nothing_but_unusable_texts(embedder: Embedder, calls: Calls) -> None:
    assert embedder([]).vectors.shape == (0, embedder.width)
    assert embedder([""]).faults == (EMPTY,)
    assert calls.texts == []


def test_a_text_that_was_cut_is_told(embedder: Embedder) -> None:
    assert embedder.max_tokens == 256
    lines = ["tea", "tea " * 254, "tea " * 255, "tea " * 300]
    assert embedder(lines).truncated.tolist() == [False, False, True, True]


def test_ten_megabytes_reach_the_model_as_their_beginning(embedder: Embedder, calls: Calls) -> None:
    words = "violin repair " * 1000
    found = embedder([words + "x " * 5_000_000, " " * 10_000_000 + "violin", words])
    assert max(map(len, calls.texts)) < 20_000
    assert found.truncated.tolist() == [True, False, True]
    assert found.vectors[0] @ found.vectors[2] > 0.999
    assert found.vectors[1] @ embedder(["violin"]).vectors[0] > 0.999


def test_a_vector_that_is_not_finite_is_a_fault_and_is_not_kept(
    cached: Embedder, calls: Calls
) -> None:
    def spoil(texts: Sequence[str], vectors: torch.Tensor) -> None:
        vectors[texts.index("tea")] = torch.nan

    calls.spoil = spoil
    found = cached(["rain", "tea", "bread"])
    assert found.faults == (None, NOT_FINITE, None)
    assert np.isfinite(found.vectors).all()
    assert not found.vectors[1].any()
    calls.spoil = None
    assert cached(["rain", "tea"]).faults == (None, None)
    assert calls.texts.count("rain") == 1


def test_what_is_in_the_cache_is_not_embedded_again(cached: Embedder, calls: Calls) -> None:
    long = "tea " * 300
    first = cached(["rain", long])
    again = cached([long, "bread", "rain", ""])
    assert sorted(calls.texts) == sorted(["rain", long, "bread"])
    np.testing.assert_array_equal(again.vectors[[2, 0]], first.vectors)
    assert again.truncated.tolist() == [True, False, False, False]


def test_a_run_that_dies_keeps_what_it_had_embedded(
    cached: Embedder, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(texts: Sequence[str], _: torch.Tensor) -> None:
        if "bread" in texts:
            raise KeyboardInterrupt

    monkeypatch.setattr(embed, "_AT_ONCE", 2)
    calls.spoil = spoil
    with pytest.raises(KeyboardInterrupt):
        cached(["rain", "tea", "bread", "snow"])
    calls.spoil = None
    calls.texts.clear()
    cached(["rain", "tea", "bread", "snow"])
    assert sorted(calls.texts) == ["bread", "snow"]


def test_the_tokens_of_a_text_have_vectors(embedder: Embedder) -> None:
    one, two, broken, empty = embedder.tokens(["a cup of tea", "tea", "a\ud800b", ""])
    assert (len(one), len(two), len(broken)) == (4, 1, 0)
    assert len(empty) > 0  # the special tokens, as there are no others
    np.testing.assert_allclose(np.linalg.norm(one, axis=1), 1, atol=1e-5)
    similar = (one @ two.T)[:, 0]
    assert similar.argmax() == 3


def test_the_fingerprint_tells_what_decides_a_vector(
    embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(**changes: Any) -> str:
        for name, value in changes.items():
            monkeypatch.setattr(embedder, name, value)
        monkeypatch.delitem(embedder.__dict__, "identity", raising=False)
        return embedder.fingerprint

    found = [told(_dtype=torch.float32), told(_dtype=torch.bfloat16)]
    monkeypatch.setattr(embedder._model, "max_seq_length", 128)
    found += [told(), told(_folder=Path(embed.__file__).parent / "templates")]
    assert len(set(found)) == 4


def test_a_model_that_cannot_be_loaded_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(EngineError, match=r"cannot load .*sentence-transformers model"):
        Embedder(str(tmp_path))
    monkeypatch.setattr(embed, "find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"rlaif\[minilm\]"):
        Embedder()


def test_a_model_of_the_hub_counts_by_the_commit_that_its_branch_stood_for(
    embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder.__dict__.pop("identity", None)
    config = embedder._model[0].auto_model.config
    with monkeypatch.context() as patch:
        patch.setattr(embedder, "_folder", Path("org/model"))
        patch.setattr(config, "_commit_hash", "abc", raising=False)
        assert embedder.identity["revision"] == "abc"
    embedder.__dict__.pop("identity", None)
