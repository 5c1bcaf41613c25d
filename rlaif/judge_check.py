"""Is the judge good enough to label? Asked before anything is sampled, and kept in the run.

    gate.data → balanced comparisons → scorecard → pass, or stop
                                     ↘ calibration: what the pairs' probabilities are made by

RUN/judge/ then holds scorecard.json, scorecard.png and calibration.json; kept_aside.jsonl has the
rows that are no comparisons. Started again on the same comparisons, the judge is not asked again;
other limits alone ask it nothing.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from rlaif.constitution import Constitution
from rlaif.engines.protocol import Engine
from rlaif.errors import DataError, GateError
from rlaif.evaluate.comparison_files import load_comparisons
from rlaif.evaluate.comparisons import Comparison, judge_comparisons
from rlaif.evaluate.gate import balanced, failures
from rlaif.evaluate.scorecard import Scorecard, calibration, data_fingerprint, measure
from rlaif.evaluate.scorecard_report import from_json, picture, to_json
from rlaif.label.aggregate import fit_weights, with_weights
from rlaif.label.calibrate import Calibration
from rlaif.label.method import Method
from rlaif.recipe import Gate, Recipe
from rlaif.records import Drop, fingerprint
from rlaif.run_folder import RunFolder

_Margins = list[float | None]
_Found = tuple[Scorecard, Calibration | None, _Margins]


@dataclass(frozen=True, slots=True)
class Checked:
    """What is known of a judge that has passed the gate.

    Attributes:
        calibration: what pairs' probabilities are made by; None if the gate asks for none.
        comparisons: what it was measured on.
        margins: its margin on each, in nats in favour of the first response; None: undecided.
    """

    calibration: Calibration | None
    comparisons: tuple[Comparison, ...]
    margins: tuple[float | None, ...]


def check_judge(
    run: RunFolder, recipe: Recipe, constitution: Constitution, engine: Engine, method: Method
) -> Checked | None:
    """Measure the judge on the recipe's labelled comparisons, once, and hold it to the gate.

    Returns:
        What is known of the judge then; None without a gate.

    Raises:
        GateError: it falls short, and the gate says stop; the error holds the scorecard.
        DataError: the comparisons cannot be used, or are too few to calibrate on.
    """
    gate = recipe.gate
    if gate is None:
        return None
    comparisons, drops = load_comparisons(gate.data, constitution)
    rows = balanced(comparisons, gate.data)
    _keep_aside(run, drops, len(comparisons) - len(rows))
    key = fingerprint(
        [
            data_fingerprint(rows), method.fingerprint(engine.identity), constitution.fingerprint,
            recipe.judge.clip, recipe.pick.min_decided, gate.calibrate, gate.fit_weights,
        ]
    )  # fmt: skip
    rows, for_weights = _halves(rows) if gate.fit_weights else (rows, [])
    found = _stored(run, key)
    if found is None or _lacks_calibration(gate, *found[:2]):
        found, lacking = _measured(recipe, gate, constitution, rows, for_weights, engine, method)
        if lacking is not None and not failures(found[0], gate):
            raise lacking  # where the judge does not pass, that is said first
        _keep(run, key, *found)
    card, fitted, margins = found
    _hold_to(gate, card)
    return Checked(fitted, tuple(rows), tuple(margins))


def would_pass(
    recipe: Recipe, constitution: Constitution, engine: Engine, method: Method
) -> tuple[Scorecard, bool]:
    """Whether a judge passes the recipe's gate, measured as `check_judge` does; keeps nothing.

    Raises:
        DataError: the comparisons cannot be used.
    """
    gate = recipe.gate
    assert gate is not None
    comparisons, _ = load_comparisons(gate.data, constitution)
    rows = balanced(comparisons, gate.data)
    rows, for_weights = _halves(rows) if gate.fit_weights else (rows, [])
    (card, _, _), lacking = _measured(recipe, gate, constitution, rows, for_weights, engine, method)
    return card, lacking is None and not failures(card, gate)


def _lacks_calibration(gate: Gate, card: Scorecard, fitted: Calibration | None) -> bool:
    """It passes now, under other limits than it was measured for."""
    return gate.calibrate is not None and fitted is None and not failures(card, gate)


def _measured(
    recipe: Recipe,
    gate: Gate,
    constitution: Constitution,
    rows: Sequence[Comparison],
    for_weights: Sequence[Comparison],
    engine: Engine,
    method: Method,
) -> tuple[_Found, DataError | None]:
    """What a judge says of the comparisons; and why it cannot be calibrated on them, if so."""
    settings: dict[str, Any] = {"clip": recipe.judge.clip, "min_decided": recipe.pick.min_decided}
    weights: dict[str, float] = {}
    if gate.fit_weights:
        weights = _weights(for_weights, engine, constitution, method, settings)
    under = with_weights(constitution, weights)
    card, judged = measure(rows, engine, under, method, way=gate.calibrate or "platt", **settings)
    fitted, lacking = None, None
    if gate.calibrate is not None:
        judge = method.fingerprint(engine.identity)
        try:
            fitted = calibration(judged, judge, method, constitution, gate.calibrate)
            fitted = fitted.model_copy(update={"weights": weights})
        except DataError as error:  # too few labels
            lacking = error
    return (card, fitted, [j.margin for j in judged]), lacking


def _halves(rows: Sequence[Comparison]) -> tuple[list[Comparison], list[Comparison]]:
    """Two parts without a prompt in common; those about one principle are all in the first."""
    parts: tuple[list[Comparison], list[Comparison]] = ([], [])
    for c in rows:
        parts[c.principle is None and int(c.group, 16) % 2].append(c)
    return parts


def _weights(
    rows: Sequence[Comparison],
    engine: Engine,
    constitution: Constitution,
    method: Method,
    settings: dict[str, Any],
) -> dict[str, float]:
    judged = judge_comparisons(rows, engine, constitution, method, **settings)
    clear = [j for j in judged if j.margin is not None and j.comparison.better is not None]
    gaps = [[j.by_principle.get(p.id, 0.0) for p in constitution.principles] for j in clear]
    found = fit_weights(
        np.reshape(gaps, (len(gaps), len(constitution.principles))),
        [j.comparison.better == 0 for j in clear],
        [p.weight for p in constitution.principles],
    )
    return {p.fingerprint: float(w) for p, w in zip(constitution.principles, found, strict=True)}


def _hold_to(gate: Gate, card: Scorecard) -> None:
    short = failures(card, gate)
    if not short:
        return
    said = f"the judge does not pass: {'; '.join(short)}"
    if gate.on_failure == "warn":
        warnings.warn(said, stacklevel=3)
        return
    error = GateError(
        said, file=gate.data, key="gate",
        mend="take a better judge, another way of asking, or set gate.on_failure: warn",
    )  # fmt: skip
    error.scorecard = card
    raise error


def _keep_aside(run: RunFolder, drops: Sequence[Drop], left_out: int) -> None:
    """Rows that are no comparisons, and how many others balancing left out."""
    lines = "".join(json.dumps(asdict(drop)) + "\n" for drop in drops)
    run.write_text(_folder(run) / "kept_aside.jsonl", lines)
    run.log("gate", kept_aside=len(drops), left_out_by_balancing=left_out)


def _folder(run: RunFolder) -> Path:
    return run.root / "judge"


def _stored(run: RunFolder, key: str) -> _Found | None:
    """What was measured of this judge before; None where anything about it has changed."""
    file, fitted = _folder(run) / "scorecard.json", _folder(run) / "calibration.json"
    try:
        found = json.loads(file.read_text("utf-8"))
        if found["key"] != key:
            return None
        card = from_json(found["scorecard"])
        return card, Calibration.load(fitted) if found["calibrated"] else None, found["margins"]
    except (OSError, ValueError, KeyError, ValidationError, DataError):
        return None  # it can be measured again


def _keep(
    run: RunFolder, key: str, card: Scorecard, fitted: Calibration | None, margins: _Margins
) -> None:
    # The scorecard last: it says that the rest is there.
    folder = _folder(run)
    folder.mkdir(parents=True, exist_ok=True)
    if fitted is not None:
        text = json.dumps(fitted.model_dump(mode="json"), indent=2)
        run.write_text(folder / "calibration.json", text + "\n")
    picture([card], folder / "scorecard.png")
    found = {
        "key": key, "calibrated": fitted is not None, "scorecard": to_json(card),
        "margins": margins,
    }  # fmt: skip
    run.write_text(folder / "scorecard.json", json.dumps(found, indent=2) + "\n")
