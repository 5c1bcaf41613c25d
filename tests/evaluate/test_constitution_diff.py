from __future__ import annotations

import io
from collections import Counter

import pytest
from rich.console import Console

from rlaif.constitution import Constitution, Principle
from rlaif.errors import RecipeError
from rlaif.evaluate.changed_label import Change, Picking
from rlaif.evaluate.constitution_diff import Diff, compare, edits
from rlaif.evaluate.constitution_diff_report import print_diff
from rlaif.label.calibrate import Calibration, Curve
from rlaif.recipe import Pick
from rlaif.records import Record, Verdict
from tests.label.scripted_judges import make_record

KIND = Principle(id="kind", text="Be kind.")
BRIEF = Principle(id="brief", text="Be brief.")
HOW = Picking(Pick(pairs="all", pair_margin=1.0), "pointwise", 0.001)


def constitution(*principles: Principle) -> Constitution:
    return Constitution(name="test", principles=principles)


def with_verdicts(record: Record, said: dict[Principle, tuple[float | None, ...]]) -> Record:
    return record.with_(
        verdicts=tuple(
            Verdict(p.fingerprint, i, None, x, 0.9, reason="no answer" if x is None else None)
            for p, row in said.items()
            for i, x in enumerate(row)
        )
    )


def diff(
    old: dict[Principle, tuple[float | None, ...]],
    new: dict[Principle, tuple[float | None, ...]],
    *texts: str,
    how: Picking = HOW,
) -> Diff:
    record = make_record(*(texts or ("a", "b")))
    sides = [with_verdicts(record, said) for said in (old, new)]
    rules = [constitution(*said) for said in (old, new)]
    return compare([sides[0]], [sides[1]], rules[0], rules[1], how)


POLITE = Principle(id="kind", text="Be polite.")


def test_the_same_constitution_changes_nothing() -> None:
    found = diff({KIND: (2.0, -2.0)}, {KIND: (2.0, -2.0)})
    assert (found.picks, found.pairs) == (Counter(same=1), Counter(same=1))
    assert (found.relabelled, found.examples, found.verdicts) == (0, [], {})


def test_a_pair_that_turns_round_is_shown_side_by_side_with_what_turned_it() -> None:
    found = diff({KIND: (2.0, -2.0), BRIEF: (0.0, 0.5)}, {POLITE: (-1.0, 1.0), BRIEF: (0.0, 0.5)})
    assert (found.picks, found.pairs) == (
        Counter({"other response": 1}),
        Counter({"turned round": 1}),
    )
    assert found.verdicts == {"kind": Counter(turned_round())}
    [change] = found.examples
    assert (change.old, change.new, change.prompt) == ("a", "b", "What is a tide?")
    # b over a: from -4 + 0.5 to 2 + 0.5 nats.
    assert change.swing == pytest.approx(6.0)
    assert change.why == (("kind", pytest.approx(6.0)),)


def turned_round() -> dict[str, int]:
    return {"turned round": 2}


def test_a_weight_moves_a_comparison_by_its_share() -> None:
    heavy = BRIEF.model_copy(update={"weight": 4.0})
    found = diff(
        {KIND: (1.0, -1.0), BRIEF: (-0.75, 0.75)}, {KIND: (1.0, -1.0), heavy: (-0.75, 0.75)}
    )
    [change] = found.examples
    assert (change.old, change.new) == ("a", "b")
    assert change.why == (("brief", pytest.approx(4.5)),)
    assert found.verdicts == {}


def test_a_principle_that_is_taken_out_is_named_as_what_moved() -> None:
    found = diff({KIND: (2.0, -2.0), BRIEF: (-1.0, 1.0)}, {BRIEF: (-1.0, 1.0)})
    [change] = found.examples
    assert (change.new, change.why) == ("b", (("kind", pytest.approx(4.0)),))


def test_a_label_that_comes_or_goes_says_why_there_is_none() -> None:
    tie, clear = {KIND: (1.0, 1.0)}, {POLITE: (2.0, -2.0)}
    for old, new, what in ((tie, clear, "new"), (clear, tie, "gone")):
        found = diff(old, new)  # type: ignore[arg-type]
        assert (found.picks, found.pairs) == (Counter({what: 1}), Counter({what: 1}))
        [change] = found.examples
        assert {change.old, change.new} == {"(tie)", "a"}
        assert change.swing == pytest.approx(4.0)


def test_pairs_may_change_where_the_pick_does_not() -> None:
    found = diff({KIND: (3.0, 0.0, -0.9)}, {POLITE: (3.0, -0.9, 0.0)}, "a", "b", "c")
    assert found.picks == Counter(same=1)
    assert found.pairs == Counter({"same": 2})
    found = diff({KIND: (3.0, 1.0, -1.0)}, {POLITE: (3.0, -1.0, 1.0)}, "a", "b", "c")
    assert found.pairs == Counter({"same": 2, "turned round": 1})
    [change] = found.examples
    assert (change.old, change.new) == ("b", "c")
    found = diff({KIND: (3.0, 0.0, -0.9)}, {POLITE: (3.0, 0.0, -1.5)}, "a", "b", "c")
    assert found.pairs == Counter({"same": 2, "new": 1})
    [change] = found.examples
    assert (change.old, change.new) == ("(no such pair)", "b — rather than — c")
    assert change.swing == pytest.approx(1.5)


def test_verdicts_that_turn_and_those_that_one_wording_alone_has_are_told_apart() -> None:
    found = diff(
        {KIND: (1.0, 1.0, None, None, -1.0)}, {POLITE: (2.0, -1.0, None, 1.0, -3.0)}, *"abcde"
    )
    assert found.verdicts == {
        "kind": Counter({"same": 3, "turned round": 1, "decided under one alone": 1})
    }


def test_a_veto_is_part_of_the_change() -> None:
    strict = BRIEF.model_copy(update={"veto": True})
    said = (-0.5, 0.5)
    found = diff({KIND: (3.0, -3.0), BRIEF: said}, {KIND: (3.0, -3.0), strict: said})
    [change] = found.examples
    assert (change.old, change.new) == ("a", "b")
    assert change.swing == pytest.approx(5.0 + 1.0)


def test_pairs_are_counted_as_the_recipe_picks_them() -> None:
    how = Picking(Pick(pairs="best_worst", pair_margin=5.0), "pointwise", 0.001)
    found = diff({KIND: (2.0, -2.0)}, {POLITE: (3.0, -3.0)}, how=how)
    assert (found.picks, found.pairs) == (Counter(same=1), Counter(new=1))


def test_a_confidence_that_the_run_asks_for_is_asked_of_the_new_pairs_too() -> None:
    curve = Curve(way="temperature", slopes=(0.5,), rows=99)
    calibration = Calibration(judge="j", mode="pointwise", data="d", pair=curve)
    picking = Pick(pairs="all", pair_margin=1.0, min_confidence=0.8)  # 2.8 nats
    how = Picking(picking, "pointwise", 0.001, calibration)
    found = diff({KIND: (1.5, -1.5)}, {POLITE: (1.0, -1.0)}, how=how)
    assert (found.picks, found.pairs) == (Counter(same=1), Counter(gone=1))


def test_a_veto_in_pairwise_mode_is_refused() -> None:
    veto = KIND.model_copy(update={"veto": True})
    how = Picking(Pick(), "pairwise", 0.01)
    with pytest.raises(RecipeError, match="kind"):
        diff({KIND: (1.0, 1.0)}, {veto: (1.0, 1.0)}, how=how)


def test_edits_are_named() -> None:
    old = constitution(KIND, BRIEF, Principle(id="old", text="Be old."))
    changed = BRIEF.model_copy(update={"weight": 2.5, "veto": True, "examples": ()})
    new = constitution(POLITE, changed, Principle(id="new", text="Be new."))
    assert edits(old, new) == [
        ("kind", "reworded"), ("brief", "weight 1 → 2.5, now a veto"), ("new", "added"),
        ("old", "removed"),
    ]  # fmt: skip
    assert edits(old, old) == []


def test_shards_add_up_and_keep_the_widest_changes() -> None:
    whole = Diff()
    for swing in (1.0, 3.0, 2.0):
        part = Diff(
            records=2, verdicts={"kind": Counter(same=1)}, picks=Counter(same=1),
            pairs=Counter(new=1), relabelled=1, examples=[Change("p", "a", "b", swing)],
        )  # fmt: skip
        whole.update(part, most=2)
    assert (whole.records, whole.relabelled) == (6, 3)
    assert (whole.verdicts["kind"]["same"], whole.pairs["new"]) == (3, 3)
    assert [change.swing for change in whole.examples] == [3.0, 2.0]


def test_the_report_prints_texts_as_they_are() -> None:
    change = Change("p [bold]", "old [red]text", "new " + "x" * 999, 4.2, (("kind", 3.0),))
    found = Diff(4, {"kind": Counter({"turned round": 7})}, Counter(same=3), Counter(), 1, [change])
    out = io.StringIO()
    print_diff(found, [("kind", "reworded")], ["kind"], Console(file=out, width=200))
    said = out.getvalue()
    for part in ("kind: reworded", "judged for this: kind", "[bold]", "[red]text", "kind +3.0", "7",
                 "1 of 4 prompts are labelled otherwise (25.0%)", "x…"):  # fmt: skip
        assert part in said
