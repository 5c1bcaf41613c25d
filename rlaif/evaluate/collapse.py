"""Is the data collapsing? The same measures of every round's texts, beside the anchors' own.

    loop: round 1 → round 2 → … → [collapse]

A model that learns from its own words loses the rare ones first, then its variety (Shumailov et
al. 2024, Nature 631). No single figure shows all of that: a text can vary its words and say one
thing. Most figures depend on how many texts there are, so all rounds are measured at one size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rlaif.cells import Cells, Vectors, fit_cells
from rlaif.entropy import evenness
from rlaif.errors import DataError
from rlaif.evaluate.diversity import Tokens, cut, distinct, token_entropy, vendi
from rlaif.filters.drift import measure_drift
from rlaif.filters.drift_ngrams import Tokenize, words
from rlaif.prompts.topics import with_vector
from rlaif.records import seed_of

ANCHORS = "anchors"
"""The name of the first row."""


@dataclass(frozen=True, slots=True, eq=False)
class RoundTexts:
    """What one round made.

    Attributes:
        name: of the round.
        texts: prompts, responses, or what else is watched.
        vectors: [texts, width] their embeddings; a row of zeros, or not finite, is none.
    """

    name: str
    texts: Sequence[str]
    vectors: Vectors


@dataclass(frozen=True, slots=True)
class Reading:
    """One figure with its 95 % interval where it has one; or None, and why."""

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str | None = None

    def __post_init__(self) -> None:
        if (self.value is None) == (self.reason is None):
            raise ValueError("a reading has a value, or a reason for having none")


@dataclass(frozen=True, slots=True)
class CollapseRow:
    """One round, measured.

    Attributes:
        name: of the round; the first row is `ANCHORS`.
        texts: how many it has.
        unusable: how many of them have no embedding, and are in no figure.
        token_entropy: of single tokens, in nats.
        distinct_1, distinct_2, distinct_3: different n-grams over all n-grams.
        vendi: how many texts that have nothing in common would be as varied.
        topic_entropy: over the anchors' cells, 0 to 1, corrected for the number of texts.
        tail_coverage: share of the anchors' rare regions that have a text.
        drift: KL(anchors ‖ round) over the cells in nats, less what chance adds.
        mean_tokens: tokens a text.
        drifted: whether the drift is more than chance; None where it could not be measured.
        drift_p: its p-value, likewise.
        at_texts, at_tokens: the size at which what depends on it was measured.
    """

    name: str
    texts: int
    unusable: int
    token_entropy: Reading
    distinct_1: Reading
    distinct_2: Reading
    distinct_3: Reading
    vendi: Reading
    topic_entropy: Reading
    tail_coverage: Reading
    drift: Reading
    mean_tokens: Reading
    drifted: bool | None
    drift_p: float | None
    at_texts: int
    at_tokens: int

    def as_dict(self) -> dict[str, Any]:
        """The row as plain data, for JSON."""
        return asdict(self)

    @property
    def readings(self) -> Mapping[str, Reading]:
        """All figures by name, in order."""
        return {name: getattr(self, name) for name in MEASURES}


MEASURES = tuple(f.name for f in fields(CollapseRow) if f.type == "Reading")
"""The figures of a row, in order."""


@dataclass(frozen=True, slots=True)
class Watch:
    """How rounds are measured.

    Attributes:
        cells: regions of the anchors, where none are given: at most a tenth of their texts.
        tail: the rare regions are the smallest that hold together this share of the anchors.
        texts, tokens: the size to measure at; None takes that of the smallest round that is large
            enough. A watch that goes on over several calls needs them fixed.
        fewest_texts, fewest_tokens: a round of fewer has no figure that depends on its size.
        draws: samples of that size a figure is the mean of.
        permutations: of the drift's test; 0 leaves it out.
        tokenize: a text → its tokens.
        seed: of the draws and the cells.
    """

    cells: int = 50
    tail: float = 0.1
    texts: int | None = None
    tokens: int | None = None
    fewest_texts: int = 50
    fewest_tokens: int = 500
    draws: int = 5
    permutations: int = 200
    tokenize: Tokenize = field(default=words)
    seed: int = 0

    def __post_init__(self) -> None:
        for key in ("cells", "fewest_texts", "fewest_tokens", "draws"):
            if getattr(self, key) < 1:
                raise DataError("too small", key=key, value=getattr(self, key), mend="1 or more")
        if not 0 < self.tail < 1:
            raise DataError("is a share", key="tail", value=self.tail, mend="between 0 and 1")


def watch(
    rounds: Sequence[RoundTexts],
    anchors: RoundTexts,
    settings: Watch | None = None,
    cells: Cells | None = None,
) -> list[CollapseRow]:
    """The anchors' own row, and one a round. No figure depends on the order of a round's texts.

    Args:
        rounds: in their order.
        anchors: human texts, or whatever is to be kept.
        settings: how.
        cells: the regions; None fits `settings.cells` on the anchors.

    Raises:
        DataError: fewer usable anchors than `settings.fewest_texts`; texts and vectors of different
            number; vectors of another width than the anchors'.
    """
    settings = settings or Watch()
    gold = _usable(anchors, settings)
    if len(gold.vectors) < settings.fewest_texts:
        raise DataError(
            "too few anchors have an embedding", key="anchors", value=len(gold.vectors),
            mend=f"give {settings.fewest_texts} or more",
        )  # fmt: skip
    found = [_usable(one, settings) for one in rounds]
    if cells is None:
        cells = fit_cells(gold.vectors, _how_many(gold, settings), settings.seed)
    size = _common_size([gold, *found], settings)
    scale = _Scale(gold, cells, rare_cells(cells.counts(gold.vectors), settings.tail), *size)
    return [_row(one, scale, settings) for one in [gold._replace(name=ANCHORS), *found]]


def rare_cells(counts: NDArray[np.int64], tail: float) -> NDArray[np.intp]:
    """The smallest cells that hold together at most this share of the rows, but at least one."""
    filled = np.flatnonzero(counts)
    order = filled[np.argsort(counts[filled], kind="stable")]
    held = np.cumsum(counts[order]) / counts.sum()
    return np.sort(order[: max(1, int((held <= tail).sum()))])


class _Usable(NamedTuple):
    """The texts of a round that have an embedding, in an order that they alone decide."""

    name: str
    all: int
    tokens: list[Tokens]
    vectors: Vectors

    @property
    def token_count(self) -> int:
        return sum(map(len, self.tokens))


class _Scale(NamedTuple):
    """What all rounds are measured by."""

    anchors: _Usable
    cells: Cells
    rare: NDArray[np.intp]
    texts: int
    tokens: int


def _usable(one: RoundTexts, settings: Watch) -> _Usable:
    if one.vectors.ndim != 2 or len(one.vectors) != len(one.texts):
        raise DataError(
            f"{one.name}: {len(one.texts)} texts, and embeddings of shape {one.vectors.shape}",
            mend="give one row for each text",
        )
    kept = np.flatnonzero(with_vector(one.vectors)).tolist()
    kept.sort(key=lambda i: one.texts[i])
    tokens: list[Tokens] = [settings.tokenize(one.texts[i]) for i in kept]
    return _Usable(one.name, len(one.texts), tokens, one.vectors[kept])


def _how_many(anchors: _Usable, settings: Watch) -> int:
    distinct_ = len(np.unique(anchors.vectors, axis=0))
    return max(2, min(settings.cells, len(anchors.vectors) // 10, distinct_))


def _common_size(all_: Sequence[_Usable], settings: Watch) -> tuple[int, int]:
    """Texts and tokens to measure at: of the smallest that is large enough."""
    texts = [len(one.vectors) for one in all_]
    tokens = [one.token_count for one in all_]
    return (
        settings.texts or min((n for n in texts if n >= settings.fewest_texts), default=0),
        settings.tokens or min((n for n in tokens if n >= settings.fewest_tokens), default=0),
    )


def _row(one: _Usable, scale: _Scale, settings: Watch) -> CollapseRow:
    drift, drifted, p = _drift(one, scale, settings)
    return CollapseRow(
        name=one.name,
        texts=one.all,
        unusable=one.all - len(one.vectors),
        **_of_tokens(one, scale, settings),
        **_of_vectors(one, scale, settings),
        topic_entropy=_topic_entropy(one, scale, settings),
        drift=drift,
        mean_tokens=Reading(one.token_count / len(one.vectors)) if one.tokens else _none("texts"),
        drifted=drifted,
        drift_p=p,
        at_texts=scale.texts,
        at_tokens=scale.tokens,
    )


def _of_tokens(one: _Usable, scale: _Scale, settings: Watch) -> dict[str, Reading]:
    """What depends on the number of tokens."""
    names: dict[str, Callable[[Sequence[Tokens]], float]] = {
        "token_entropy": token_entropy,
        **{f"distinct_{n}": partial(distinct, n=n) for n in (1, 2, 3)},
    }
    if reason := _too_few(one.token_count, scale.tokens, settings.fewest_tokens, "tokens"):
        return dict.fromkeys(names, Reading(None, reason=reason))
    samples = [cut(one.tokens, scale.tokens, rng) for rng in _draws("tokens", settings)]
    return {name: _mean([of(sample) for sample in samples]) for name, of in names.items()}


def _of_vectors(one: _Usable, scale: _Scale, settings: Watch) -> dict[str, Reading]:
    """What depends on the number of texts."""
    if reason := _too_few(len(one.vectors), scale.texts, settings.fewest_texts, "texts"):
        return dict.fromkeys(("vendi", "tail_coverage"), Reading(None, reason=reason))
    place = scale.cells.of(one.vectors)
    samples = [
        rng.choice(len(place), scale.texts, replace=False) for rng in _draws("texts", settings)
    ]
    return {
        "vendi": _mean([vendi(one.vectors[sample]) for sample in samples]),
        "tail_coverage": _mean(
            [float(np.isin(scale.rare, place[sample]).mean()) for sample in samples]
        ),
    }


def _topic_entropy(one: _Usable, scale: _Scale, settings: Watch) -> Reading:
    if reason := _too_few(len(one.vectors), 0, settings.fewest_texts, "texts"):
        return Reading(None, reason=reason)
    found = evenness(scale.cells.counts(one.vectors), settings.seed)
    return Reading(found.value, found.low, found.high)


def _drift(
    one: _Usable, scale: _Scale, settings: Watch
) -> tuple[Reading, bool | None, float | None]:
    """How far it is from the anchors, whether that is more than chance, and the p-value."""
    reason = _too_few(len(one.vectors), 0, settings.fewest_texts, "texts")
    if one.name == ANCHORS and one.vectors is scale.anchors.vectors:
        reason = "these are the anchors"
    if not settings.permutations:
        reason = "not asked for"
    if reason:
        return Reading(None, reason=reason), None, None
    found = measure_drift(
        scale.anchors.vectors, one.vectors, cells=scale.cells,
        permutations=settings.permutations, seed=settings.seed,
    )  # fmt: skip
    kl = found.kl_human_synthetic
    return Reading(kl.value - kl.null_mean, kl.low, kl.high), found.alarm, found.p_value


def _draws(what: str, settings: Watch) -> list[np.random.Generator]:
    return [
        np.random.default_rng(seed_of(settings.seed, what, draw)) for draw in range(settings.draws)
    ]


def _too_few(have: int, size: int, fewest: int, what: str) -> str | None:
    """Why a round cannot be measured at this size; None if it can."""
    if not have:
        return f"no {what}"
    return f"{have} {what}, fewer than {max(size, fewest)}" if have < max(size, fewest) else None


def _none(what: str) -> Reading:
    return Reading(None, reason=f"no {what}")


def _mean(values: Sequence[float]) -> Reading:
    mean = math.fsum(values) / len(values)
    return Reading(mean) if math.isfinite(mean) else Reading(None, reason="texts are too short")
