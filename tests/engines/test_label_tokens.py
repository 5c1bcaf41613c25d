from __future__ import annotations

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from rlaif.engines.label_tokens import label_token_ids
from rlaif.engines.protocol import LETTERS, NO, RATINGS, YES
from rlaif.errors import EngineError
from tests.tiny_models import tiny_tokenizer

TOKENIZER = tiny_tokenizer()


def tokenizer_of(
    vocabulary: list[str], *, lower: bool = False, sentencepiece: bool = False
) -> PreTrainedTokenizerFast:
    ids = {token: i for i, token in enumerate(["<unk>", *vocabulary])}
    raw = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Metaspace() if sentencepiece else pre_tokenizers.Whitespace()
    if lower:
        raw.normalizer = normalizers.Lowercase()
    return PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>")


def test_a_label_is_all_of_its_single_token_forms() -> None:
    [yes, no] = label_token_ids(TOKENIZER, [YES, NO], "tiny")
    tokens = {TOKENIZER.decode([i]) for i in yes}
    assert tokens == {"yes", " yes", "Yes", " Yes", "YES", " YES"}
    assert not set(yes) & set(no)
    assert len(set(yes)) == len(yes)


def test_letters_and_ratings_are_single_tokens() -> None:
    for labels in (LETTERS, RATINGS):
        ids = label_token_ids(TOKENIZER, labels, "tiny")
        assert [TOKENIZER.decode(i[:1]) for i in ids] == [label[0] for label in labels]


def test_a_label_that_is_not_a_single_token_names_its_tokens_and_the_mend() -> None:
    with pytest.raises(EngineError) as caught:
        label_token_ids(TOKENIZER, [("zyzzyva",)], "tiny")
    message = str(caught.value)
    assert "'zyzzyva' is not a single token of tiny" in message
    assert "'z', 'y'" in message
    assert "choose a label word" in message


def test_only_the_first_form_must_be_a_single_token() -> None:
    [ids] = label_token_ids(TOKENIZER, [("yes", "zyzzyva")], "tiny")
    assert {TOKENIZER.decode([i]) for i in ids} == {"yes", " yes"}


def test_an_unknown_word_is_not_a_token() -> None:
    with pytest.raises(EngineError, match="not a single token"):
        label_token_ids(tokenizer_of(["no"]), [("yes",)], "m")
    [ids] = label_token_ids(tokenizer_of(["yes"]), [YES], "m")
    assert ids == [1]


def test_a_byte_is_not_a_token() -> None:
    with pytest.raises(EngineError, match="not a single token"):
        label_token_ids(tokenizer_of(["<0x41>"]), [("<0x41>",)], "m")


def test_a_lower_casing_tokenizer_is_fine_until_labels_collide() -> None:
    lower = tokenizer_of(["yes", "no", "a"], lower=True)
    assert label_token_ids(lower, [YES, NO], "m") == [[1], [2]]
    with pytest.raises(EngineError, match=r"'A' and 'a' share a token of m \(got \['a'\]\)"):
        label_token_ids(lower, [("A",), ("a",)], "m")


def test_a_sentencepiece_tokenizer_counts_the_word_with_and_without_its_space() -> None:
    both = tokenizer_of(["▁yes", "yes", "▁no"], sentencepiece=True)
    assert label_token_ids(both, [YES, NO], "m") == [[1, 2], [3]]
