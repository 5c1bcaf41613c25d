from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rlaif.constitution import Principle
from rlaif.engines.scripted import ScriptedEngine
from rlaif.label.method import Method, missing, principle_fingerprint
from rlaif.label.templates import load_template
from rlaif.recipe import Judge
from tests.label.scripted_judges import make_method

METHOD = make_method()
BRIEF = Principle(id="brief", text="Be brief.")
KIND = Principle(id="kind", text="Be kind.")
IDENTITY = ScriptedEngine().identity


def name_of(principle: Principle, method: Method = METHOD, identity=IDENTITY) -> str:  # type: ignore[no-untyped-def]
    return principle_fingerprint(principle, method, identity)


@pytest.mark.parametrize(
    "change", [{"id": "short"}, {"weight": 2.0}, {"veto": True}, {"critique": "How long is it?"}]
)
def test_weight_veto_and_id_leave_stored_verdicts_standing(change: dict[str, object]) -> None:
    assert name_of(BRIEF.model_copy(update=change)) == name_of(BRIEF)


@pytest.mark.parametrize(
    "other",
    [
        replace(METHOD, mode="rating"),
        replace(METHOD, template=load_template("rating")),
        replace(METHOD, min_coverage=0.4),
        replace(METHOD, reasoning=load_template("reasoning")),
        replace(METHOD, reasoning=load_template("reasoning"), max_reasoning_tokens=64),
    ],
)
def test_another_way_of_asking_is_another_verdict(other: Method) -> None:
    assert name_of(BRIEF, other) != name_of(BRIEF)


def test_another_text_or_engine_is_another_verdict() -> None:
    names = {name_of(BRIEF), name_of(KIND), name_of(BRIEF, identity={"model": "other"})}
    assert len(names) == 3


def test_length_of_reasoning_is_nothing_without_reasoning() -> None:
    assert name_of(BRIEF, replace(METHOD, max_reasoning_tokens=9)) == name_of(BRIEF)


def test_only_what_is_not_stored_is_missing() -> None:
    again = Principle(id="again", text="Be brief.")
    assert missing([BRIEF, KIND, again], METHOD, IDENTITY, ()) == [BRIEF, KIND]
    assert missing([BRIEF, KIND], METHOD, IDENTITY, {name_of(BRIEF)}) == [KIND]
    assert missing([again], METHOD, IDENTITY, {name_of(BRIEF)}) == []


def test_method_is_what_the_recipe_says(tmp_path: Path) -> None:
    (tmp_path / "pairwise.txt").write_text(
        "{{ prompt }}{{ principle }}{{ response_a }}{{ response_b }}"
    )
    settings = Judge(
        mode="pairwise",
        min_coverage=0.3,
        reasoning=True,
        max_reasoning_tokens=9,
        templates=tmp_path,
    )
    template = load_template("pairwise", tmp_path)
    assert Method.load(settings) == Method("pairwise", template, 0.3, load_template("reasoning"), 9)
    assert Method.load(Judge()) == METHOD
