"""How near to the human anchors a sample may be: the band, proposed from the anchors themselves.

Behind `rlaif anchor fit`; filters/anchor.py applies the band. The low end comes from how near
anchors are to the others when a tenth of them is held out; the high end from how alike two anchors
are at most that people wrote as different: copies are known by their letters (overlap.py), and what
is only close in meaning may well be new. A band is only as good as the anchors are dense: held out
by whole topics, they show what the band would do to a topic that they lack.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rlaif.cells import fit_cells
from rlaif.embed import Embedded, Vectors
from rlaif.errors import DataError
from rlaif.filters.closeness import FEWEST, Gauge, fit_gauge, held_out
from rlaif.filters.overlap import Grams, grams
from rlaif.nearest import check_vectors, nearest
from rlaif.records import Drop

Embed = Callable[[Sequence[str]], Embedded]
Measure = Literal["closeness", "cosine"]

STAGE = "anchor"
_DUPLICATE = 0.97  # cosine of two anchors that count as one
_LOOKED_AT = 10_000  # anchors that decide the band
_CAUGHT = 0.75  # a band that would drop less of unknown topics is thin
_DENSE = 10  # anchors a topic


@dataclass(frozen=True, eq=False)
class AnchorSet:
    """The human texts that samples are held against.

    Attributes:
        texts: those that have a vector.
        vectors: [texts, width] of length 1.
        drops: anchors without one, kept aside with the reason; the id is the place in the input.
    """

    texts: tuple[str, ...]
    vectors: Vectors
    drops: tuple[Drop, ...] = ()

    def __len__(self) -> int:
        return len(self.texts)

    @cached_property
    def gauge(self) -> Gauge:
        """What measures closeness to them."""
        return fit_gauge(distinct(self.vectors))

    @cached_property
    def grams(self) -> tuple[Grams, ...]:
        """The character 3-grams of each text."""
        return tuple(grams(text) for text in self.texts)


def anchor_set(texts: Sequence[str], embed: Embed) -> AnchorSet:
    """Embed the anchors; those that cannot be are kept aside.

    Raises:
        DataError: none can.
    """
    embedded = embed(texts)
    faults = list(enumerate(embedded.faults))
    drops = tuple(Drop(str(i), STAGE, fault) for i, fault in faults if fault is not None)
    keep = [i for i, fault in faults if fault is None]
    if not keep:
        raise DataError(
            "no usable anchors", value=len(texts), mend="give texts that people wrote, one a row"
        )
    return AnchorSet(tuple(texts[i] for i in keep), embedded.vectors[keep], drops)


@dataclass(frozen=True, slots=True)
class Band:
    """Between what ends a sample is kept.

    Attributes:
        low: under it a sample has drifted.
        high: at or over this cosine to an anchor it is redundant.
        measure: what `low` is held against: closeness.py's measure, or the cosine to the nearest
            anchor, which a band written by hand is about.
    """

    low: float
    high: float
    measure: Measure = "closeness"

    def __post_init__(self) -> None:
        if self.measure == "cosine" and not self.low < self.high:
            raise DataError(
                "the low end of a band must be under the high end", key="low", value=self.low,
                mend=f"give less than {self.high}",
            )  # fmt: skip


def fit_band(
    anchors: Vectors, low_quantile: float = 0.06, high_quantile: float = 0.999, seed: int = 0
) -> Band:
    """Propose both ends from the anchors, of which near-copies of each other count once.

    Args:
        anchors: [n, width] of length 1.
        low_quantile: the share of the anchors that would be called drift by the others.
        high_quantile: the share of the anchors whose nearest other is less like them than a
            redundant text.
        seed: of the anchors that are held out together.

    Raises:
        DataError: too few different anchors, or a number that is not finite.
        ValueError: the quantiles are not in order between 0 and 1.
    """
    if not 0 <= low_quantile < high_quantile <= 1:
        raise ValueError(f"quantiles {low_quantile} and {high_quantile} are not in order")
    apart = _looked_at(distinct(anchors), seed)
    own = held_out(apart, np.arange(len(apart)), seed)
    other = nearest(apart, apart, leave_out_self=True).similarity[:, 0]
    return Band(float(np.quantile(own, low_quantile)), float(np.quantile(other, high_quantile)))


def distinct(anchors: Vectors) -> Vectors:
    """The anchors without near-copies of earlier ones.

    Raises:
        DataError: none, or a number that is not finite.
    """
    check_vectors(anchors, what="anchors")
    while len(anchors) > 1:
        k = min(8, len(anchors) - 1)
        found = nearest(anchors, anchors, k, leave_out_self=True)
        earlier = found.index < np.arange(len(anchors))[:, None]
        copy = ((found.similarity >= _DUPLICATE) & earlier).any(1)
        if not copy.any():  # of a crowd of copies a pass may see only a part
            break
        anchors = anchors[~copy]
    return anchors


@dataclass(frozen=True, slots=True)
class Proposal:
    """A band, and whether the anchors support it.

    Attributes:
        band: what is proposed.
        anchors: texts that have a vector.
        distinct: of these, no near-copies of each other.
        topics: cells that the anchors were cut into.
        thin_topics: cells with fewer than ten anchors.
        caught: the share of anchors that the band would drop as drift if their whole topics were
            not among the anchors: what it does to texts about something else, or less than it does
            where a topic was cut in two and its other half stayed.
        unusable: anchors without a vector, by reason.
        warnings: what the user should know.
    """

    band: Band
    anchors: int
    distinct: int
    topics: int
    thin_topics: int
    caught: float
    unusable: dict[str, int]
    warnings: tuple[str, ...]

    def __str__(self) -> str:
        """One screen."""
        lines = [
            f"anchors    {self.anchors}, {self.distinct} different",
            f"topics     {self.topics}, {self.thin_topics} with fewer than {_DENSE} anchors",
            f"low end    {self.band.low:.3f} {self.band.measure}: under it a text has drifted",
            f"high end   {self.band.high:.3f} cosine: at or over it a text is redundant",
            f"drift      {self.caught:.0%} of texts on topics that the anchors lack are dropped",
        ]
        lines += [f"unusable   {n}: {reason}" for reason, n in self.unusable.items()]
        return "\n".join([*lines, *(f"warning    {one}" for one in self.warnings)])


def propose(
    anchors: AnchorSet, low_quantile: float = 0.06, high_quantile: float = 0.999, seed: int = 0
) -> Proposal:
    """A band for the anchors, with what stands behind it.

    Args:
        anchors: embedded.
        low_quantile, high_quantile, seed: as of `fit_band`.

    Raises:
        DataError, ValueError: as of `fit_band`.
    """
    band = fit_band(anchors.vectors, low_quantile, high_quantile, seed)
    apart = distinct(anchors.vectors)
    some = _looked_at(apart, seed)
    topics = _topics(some, seed)
    caught = float(np.mean(held_out(some, topics, seed) < band.low))
    sizes = np.bincount(topics) * len(apart) / len(some)
    thin, reasons = int((sizes < _DENSE).sum()), [drop.reason for drop in anchors.drops]
    return Proposal(
        band, len(anchors), len(apart), len(sizes), thin, caught,
        {reason: reasons.count(reason) for reason in dict.fromkeys(reasons)},
        tuple(_warnings(len(anchors), len(apart), thin / len(sizes), caught, low_quantile)),
    )  # fmt: skip


def _warnings(
    anchors: int, apart: int, thin: float, caught: float, low_quantile: float
) -> list[str]:
    """What is wrong with the anchors, and the mend."""
    found = []
    if caught < _CAUGHT:
        found.append(
            f"the anchors are thin: a band that keeps {1 - low_quantile:.0%} of them lets through "
            f"{1 - caught:.0%} of texts on topics that they lack; add anchors until each topic "
            f"has {_DENSE} or more, or raise the low quantile"
        )
    if thin > 0.5:
        found.append(f"most topics have fewer than {_DENSE} anchors; add some, or leave topics out")
    if apart < 0.9 * anchors:
        found.append(f"{anchors - apart} anchors are near-copies of others and count once")
    return found


def _topics(anchors: Vectors, seed: int) -> NDArray[np.intp]:
    """[n] what each is about: as many topics as each has anchors, for want of a count."""
    return fit_cells(anchors, round(len(anchors) ** 0.5), seed).of(anchors)


def _looked_at(anchors: Vectors, seed: int) -> Vectors:
    if len(anchors) < FEWEST * 10 // 9 + 1:
        raise DataError(
            "too few different anchors for a band", value=len(anchors),
            mend="give some hundreds, ten or more a topic, or write the band yourself",
        )  # fmt: skip
    if len(anchors) <= _LOOKED_AT:
        return anchors
    drawn = np.random.default_rng(seed).choice(len(anchors), _LOOKED_AT, replace=False)
    return anchors[np.sort(drawn)]
