from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest

from rlaif.embedding_cache import EmbeddingCache, Entry
from rlaif.errors import DataError

WIDTH = 5


def entry(seed: int, truncated: bool = False) -> Entry:
    return np.random.default_rng(seed).standard_normal(WIDTH).astype(np.float32), truncated


@pytest.fixture
def cache(tmp_path: Path) -> EmbeddingCache:
    return EmbeddingCache(tmp_path, "model", WIDTH)


def test_what_was_kept_is_found_by_the_next_process_to_the_bit(
    cache: EmbeddingCache, tmp_path: Path
) -> None:
    texts = ["one", "ein Wörtchen", "雪", "a\ud800b"]
    cache.put(texts, [entry(i, truncated=i == 2) for i in range(4)])
    found = EmbeddingCache(tmp_path, "model", WIDTH).get([*texts, "never seen"])
    assert set(found) == set(texts)
    for i, text in enumerate(texts):
        np.testing.assert_array_equal(found[text][0], entry(i)[0])
        assert found[text][1] is (i == 2)


def test_more_texts_than_a_statement_has_parameters(cache: EmbeddingCache) -> None:
    texts = [str(i) for i in range(1234)]
    cache.put(texts, [entry(0)] * len(texts))
    assert set(cache.get(texts)) == set(texts)


def test_what_is_kept_already_stays(cache: EmbeddingCache) -> None:
    cache.put(["one"], [entry(0)])
    cache.put(["one", "two"], [entry(1), entry(2)])
    np.testing.assert_array_equal(cache.get(["one"])["one"][0], entry(0)[0])
    assert set(cache.get(["one", "two"])) == {"one", "two"}


def test_models_do_not_share_vectors(cache: EmbeddingCache, tmp_path: Path) -> None:
    cache.put(["one"], [entry(0)])
    assert EmbeddingCache(tmp_path, "other", WIDTH).get(["one"]) == {}


def test_vectors_of_another_width_are_refused(cache: EmbeddingCache, tmp_path: Path) -> None:
    cache.put(["one"], [entry(0)])
    with pytest.raises(DataError, match=r"sqlite: holds an embedding of width 5; the model's is 7"):
        EmbeddingCache(tmp_path, "model", 7)


def test_one_damaged_vector_is_refused(cache: EmbeddingCache, tmp_path: Path) -> None:
    cache.put(["one", "two", "three"], [entry(0), entry(1), entry(2)])
    with sqlite3.connect(tmp_path / "model.sqlite") as database:
        database.execute("UPDATE embeddings SET vector = x'00' WHERE text = "
                         "(SELECT max(text) FROM embeddings)")  # fmt: skip
    database.close()
    with pytest.raises(DataError, match=r"width 0\.25; the model's is 5"):
        EmbeddingCache(tmp_path, "model", WIDTH).get(["one", "two", "three"])


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.sqlite").write_bytes(bytes(range(256)) * 64)
    with pytest.raises(DataError, match=r"model\.sqlite: is no cache of embeddings.*remove the"):
        EmbeddingCache(tmp_path, "model", WIDTH)


def test_a_file_that_was_damaged_since_is_refused(cache: EmbeddingCache, tmp_path: Path) -> None:
    cache.put([str(i) for i in range(500)], [entry(i) for i in range(500)])
    file = tmp_path / "model.sqlite"
    whole = file.read_bytes()
    file.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
    with pytest.raises(DataError, match="is no cache of embeddings"):
        cache.get([str(i) for i in range(500)])


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="file/cache: cannot be made"):
        EmbeddingCache(tmp_path / "file" / "cache", "model", WIDTH)
