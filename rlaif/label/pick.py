"""What is trained on: the last stage of labelling, from judged records to rows for TRL.

    judge → (scores) → pick → train

Every record gives rows, or a drop that says why not; choose.py has the rules and the reasons.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rlaif.constitution import Constitution
from rlaif.errors import RecipeError
from rlaif.label.calibrate import Calibration
from rlaif.label.choose import Pair, best_of_n, preferences
from rlaif.label.method import Mode
from rlaif.label.rows import Row, pair_row, sft_row
from rlaif.label.scores import refuse_pairwise_vetoes, score_record
from rlaif.recipe import Pick as Settings
from rlaif.records import Drop, Record

NO_SURER = "no more likely right than wrong"


def pick_sft(
    records: Sequence[Record],
    constitution: Constitution,
    settings: Settings,
    *,
    mode: Mode,
    clip: float,
    judge: str,
) -> tuple[list[Row], list[Drop]]:
    """The best response of each record, if it leads the mean of the others by `min_margin`.

    Args:
        records: with verdicts of the mode under the constitution's principles.
        constitution: whose weights and vetoes apply.
        settings: the recipe's `pick` section.
        mode: how the judge was asked.
        clip: probabilities are kept this far from 0 and 1; above 0, below 0.5.
        judge: what the rows name as their judge, `Method.fingerprint`.

    Returns:
        Rows with the columns of `SFT_SCHEMA`, and a drop of stage "sft" for every other record.

    Raises:
        RecipeError: a principle has a veto, in pairwise mode.
    """
    refuse_pairwise_vetoes(constitution, mode)
    origin = {"constitution": constitution.fingerprint, "judge": judge}
    rows, drops = [], []
    for record in records:
        scores = score_record(
            record, constitution, mode=mode, clip=clip, min_decided=settings.min_decided
        )
        best = best_of_n(record, scores, settings)
        if isinstance(best, Drop):
            drops.append(best)
        else:
            index, margin = best
            rows.append(sft_row(record, index, scores.score[index], margin) | origin)
    return rows, drops


def pick_pairs(
    records: Sequence[Record],
    constitution: Constitution,
    settings: Settings,
    *,
    mode: Mode,
    clip: float,
    judge: str,
    calibration: Calibration | None = None,
) -> tuple[list[Row], list[Drop]]:
    """The pairs of each record that `settings.pairs` names and whose margin is `pair_margin`.

    Args:
        records, constitution, settings, mode, clip, judge: as in `pick_sft`.
        calibration: of this judge; what a pair's probability is then made by, and what
            `settings.min_confidence` needs.

    Returns:
        Rows with the columns of `pair_schema`, and a drop of stage "pairs" for every record that
        gives none.

    Raises:
        RecipeError: a principle has a veto, in pairwise mode.
    """
    refuse_pairwise_vetoes(constitution, mode)
    origin = {"constitution": constitution.fingerprint, "judge": judge}
    rows, drops = [], []
    for record in records:
        scores = score_record(
            record, constitution, mode=mode, clip=clip, min_decided=settings.min_decided
        )
        pairs = preferences(record, scores, settings)
        if isinstance(pairs, Drop):
            drops.append(pairs)
            continue
        sure = _sure_enough(pairs, settings, calibration)
        if not sure:
            drops.append(_unsure(record, pairs, settings, calibration))
        for (chosen, rejected), margin in sure.items():
            gaps = scores.margins[chosen, rejected].by_principle.values()
            concession = max(0.0, -min(gaps, default=0.0))
            row = pair_row(record, chosen, rejected, margin, concession) | origin
            row |= _calibrated(margin, calibration)
            rows.append(row | {"margin": margin} if settings.write_margin else row)
    return rows, drops


def _calibrated(margin: float, calibration: Calibration | None) -> Row:
    if calibration is None:
        return {}
    probability = calibration.pair.confidence(margin)
    return {"chosen_probability": probability, "probability_calibrated": True}


def _sure_enough(
    pairs: Mapping[Pair, float], settings: Settings, calibration: Calibration | None
) -> Mapping[Pair, float]:
    """Those that are more likely right than wrong and, where that is asked for, surer still."""
    least = settings.min_confidence
    if calibration is None and least is not None:
        raise RecipeError(
            "confidence means nothing before it is calibrated", key="pick.min_confidence",
            value=least, mend="add a `gate` with labelled comparisons, and `calibrate`",
        )  # fmt: skip
    if calibration is None:
        return pairs
    sure = {pair: calibration.pair.confidence(margin) for pair, margin in pairs.items()}
    return {p: m for p, m in pairs.items() if sure[p] > 0.5 and sure[p] >= (least or 0.0)}


def _unsure(
    record: Record,
    pairs: Mapping[Pair, float],
    settings: Settings,
    calibration: Calibration | None,
) -> Drop:
    assert calibration is not None
    best = max(map(calibration.pair.confidence, pairs.values()))
    reason = f"confidence under {settings.min_confidence}" if best > 0.5 else NO_SURER
    return Drop(record.id, "pairs", reason, f"greatest {best:.3f}")
