from __future__ import annotations

import sys
from pathlib import Path

import pytest

from rlaif.engines.chat import ChatEncoder

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
import trust_attacks


def test_an_attack_that_reached_the_frame_would_be_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert trust_attacks.moved_tokens() == 0
    read = ChatEncoder._tokenize
    monkeypatch.setattr(ChatEncoder, "_tokenize_content", lambda self, texts: read(self, texts))
    assert trust_attacks.moved_tokens() > 0


def test_rows_say_what_is_wanted_and_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trust_attacks, "LABELS", ["rating"])
    found = trust_attacks.rows(3)
    for row in found:
        assert row.keys() == {"name", "wanted", "measured", "holds"}
    [too_long] = [row["measured"] for row in found if "too long" in row["name"]]
    assert (len(found), too_long) == (4, 0)
