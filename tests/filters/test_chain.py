"""The filters in a row: every reason is kept, texts decide, and what cannot be read is a drop."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlaif.embed import Embedder
from rlaif.errors import DataError
from rlaif.filters.chain import Fitted, filter_rows, fit_filters
from rlaif.filters.density import fit_density
from rlaif.prompts.rows import BadRow
from rlaif.recipe import Density, Drift, Filter
from tests.filters.gold import DRAGONS, gold

LOOSE = Filter(copy_overlap=None, near_duplicates=None, max_lost=None, drift=None)


@pytest.fixture(scope="module")
def embed(tmp_path_factory: pytest.TempPathFactory) -> Embedder:
    return Embedder(cache=tmp_path_factory.mktemp("embeddings"))


def texts(rows: list[dict[str, str]]) -> list[str]:
    return [f"{row['prompt']}\n{row['completion']}" for row in rows]


def fitted(embed: Embedder, **settings: object) -> Fitted:
    wanted = Filter(**LOOSE.model_dump() | settings)
    return fit_filters(wanted, texts(gold(180, 1)), embed)


def ids(rows: object) -> list[str]:
    return [f"row {i}" for i in range(len(rows))]  # type: ignore[arg-type]


def test_other_topics_are_dropped_and_the_same_topics_are_kept(embed: Embedder) -> None:
    rows = [*gold(60, 2), *DRAGONS]
    found = filter_rows(rows, ids(rows), fitted(embed), embed)
    gone = {drop.id for drop in found.drops if drop.reason.startswith("drift")}
    assert {f"row {i}" for i in range(60, 66)} <= gone
    assert sum(i < 60 for i in found.kept) >= 48
    assert found.figures["kept"] + sum(found.figures["dropped"].values()) == len(rows)


def test_pairs_with_one_chosen_text_stay_or_go_together(embed: Embedder) -> None:
    chosen = gold(1, 3)[0]
    rows = [
        {"prompt": chosen["prompt"], "chosen": chosen["completion"], "rejected": f"No {i}."}
        for i in range(5)
    ]
    strict = fitted(embed, near_duplicates=0.9)
    found = filter_rows(rows, ids(rows), strict, embed)
    assert len(found.kept) in (0, 5)
    assert found.figures["texts"] == 1


def test_a_near_copy_of_another_row_is_dropped_with_what_it_copies(embed: Embedder) -> None:
    row = next(
        r for r in gold(60, 4) if filter_rows([r], ["x"], fitted(embed), embed).kept
    )  # one that the band keeps
    copy = {**row, "completion": row["completion"].replace(".", " .")}
    found = filter_rows([row, copy], ["first", "copy"], fitted(embed, near_duplicates=0.95), embed)
    assert found.kept == (0,)
    (drop,) = found.drops
    assert (drop.id, drop.reason) == ("copy", "redundant: close to another row")
    assert row["prompt"] in drop.detail


def test_bertscore_is_a_second_metric_of_drift(embed: Embedder) -> None:
    rows = [*gold(12, 2), *DRAGONS]
    wide = {"low": -1.0, "high": 1.0}
    found = filter_rows(rows, ids(rows), fitted(embed, **wide, min_bertscore=0.5), embed)
    unlike = "drift: low BERTScore with the nearest anchors"
    assert {d.id for d in found.drops if d.reason == unlike} == {f"row {i}" for i in range(12, 18)}
    assert all(d.detail.startswith("F1 0.") for d in found.drops)


def test_a_row_that_cannot_be_read_is_a_drop(embed: Embedder) -> None:
    rows = [BadRow("not valid JSON", "at 3"), {"score": 1}, {"prompt": " ", "completion": ""}]
    found = filter_rows(rows, ids(rows), fitted(embed), embed)
    assert found.kept == ()
    assert [(d.id, d.reason) for d in found.drops] == [
        ("row 0", "not valid JSON"),
        ("row 1", "no column of a training row"),
        ("row 2", "empty text"),
    ]


@pytest.mark.parametrize("on_alarm", ["warn", "discard"])
def test_a_batch_about_one_thing_is_an_alarm(embed: Embedder, on_alarm: str) -> None:
    rows = [row for row in gold(400, 5) if row["prompt"].endswith("?")]
    sums = [row for row in rows if "plus" in row["prompt"]]
    wide = Filter(
        **LOOSE.model_dump() | {"low": -1.0, "high": 1.0, "drift": Drift(on_alarm=on_alarm)}
    )
    found = filter_rows(sums, ids(sums), fit_filters(wide, texts(gold(180, 1)), embed), embed)
    assert found.figures["drift"]["before"]["alarm"]
    if on_alarm == "warn":
        assert len(found.kept) == len(sums)
    else:
        assert not found.kept
        assert {d.reason for d in found.drops} == {
            "drift: the batch is not distributed as the anchors are"
        }


def test_too_few_rows_for_a_distribution_are_told_and_kept(embed: Embedder) -> None:
    rows = gold(6, 7)
    wide = Filter(**LOOSE.model_dump() | {"low": -1.0, "high": 1.0, "drift": Drift()})
    found = filter_rows(rows, ids(rows), fit_filters(wide, texts(gold(180, 1)), embed), embed)
    assert len(found.kept) == 6
    assert found.figures["drift"] == {"measured": False, "why": "fewer than 20 rows to compare"}


def test_answers_that_say_little_are_dropped_or_shortened(embed: Embedder, tmp_path: Path) -> None:
    empty = [
        f"Well, {a} {b}."
        for a in ("as I said,", "you know,", "of course,", "sure,", "okay,")
        for b in ("that is that", "it is what it is", "there we are", "so be it", "why not")
    ]
    says = [f"The {a} of {b} is made of {c}." for a in ("roof", "door", "floor", "wall", "bridge")
            for b, c in (("Rome", "stone"), ("Oslo", "oak"), ("Lima", "clay"), ("Cairo", "brick"),
                         ("Paris", "iron"))]  # fmt: skip
    classifier = tmp_path / "density.json"
    fit_density(says, empty, embed).save(classifier)
    rows = [
        {"prompt": "Of what?", "completion": "Well, sure, that is that. The roof is made of oak."},
        {"prompt": "Of what?", "completion": "Well, okay, so be it. Well, sure, why not."},
    ]
    settings = Filter(
        **LOOSE.model_dump()
        | {"low": -1.0, "high": 1.0, "density": Density(classifier=classifier, min_share=0.5)}
    )
    anchored = fit_filters(settings, texts(gold(180, 1)), embed)
    found = filter_rows(rows, ids(rows), anchored, embed)
    assert found.kept == (0,)
    assert found.shortened[0].strip() == "The roof is made of oak."
    assert found.drops[0].id == "row 1"


def test_anchors_that_are_too_few_for_a_band_are_one_line(embed: Embedder) -> None:
    with pytest.raises(DataError, match="too few different anchors") as caught:
        fit_filters(LOOSE, texts(gold(8, 1)), embed)
    assert "\n" not in str(caught.value)


def test_the_figures_are_plain_data(embed: Embedder) -> None:
    rows = gold(40, 9)
    found = filter_rows(rows, ids(rows), fitted(embed, drift=Drift()), embed)
    assert json.loads(json.dumps(found.figures))["drift"]["measured"]


def test_what_is_left_out_as_redundant_still_counts_in_the_distribution(embed: Embedder) -> None:
    """People's own texts are no drift, also where most of some topics are said already."""
    rows = gold(400, 11)
    anchored = fitted(embed, high_quantile=0.7, drift=Drift())
    found = filter_rows(rows, ids(rows), anchored, embed)
    assert found.figures["dropped"]["redundant: close to an anchor"] > 40
    assert not found.figures["drift"]["before"]["alarm"]
    assert not any("one too many" in reason for reason in found.figures["dropped"])
