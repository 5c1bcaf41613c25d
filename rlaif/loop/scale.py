"""From what a probe took to what a stage will take: a start, and so much a prompt or a step.

    the probe's books → parts, each a start and so much a unit → the stage at its real size

A shard's first line in the books holds the start as well (models are loaded, a gate is asked); the
second is a shard alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from rlaif.loop.probe import Lines, Trained
from rlaif.loop.spending import Spent, times, total

_LEAST = 0.1
"""Shorter answers never make judging cheaper than this share."""
_FORWARD = 1 / 3
"""Share of a training step that a forward pass of its rows takes; the backward takes the rest."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a stage.

    Attributes:
        start: what it takes whatever its size.
        each: what a prompt takes.
    """

    start: Spent
    each: Spent

    def of(self, units: float) -> Spent:
        """What so many prompts take."""
        return self.start + times(self.each, units)


def parts(lines: Lines, units: int, shard: int, gpu_hour: float) -> dict[str, Part]:
    """The parts of a stage, by name; "" is what belongs to none. Money is a server's alone.

    Args:
        lines: of the probe's books.
        units: prompts that it asked.
        shard: prompts in its first shard.
        gpu_hour: the price of a device, which is taken out.
    """
    found: dict[str, list[Mapping[str, Any]]] = {}
    for line in lines:
        found.setdefault(str(line.get("part", "")), []).append(line)
    return {
        name: _part([_server_only(line, gpu_hour) for line in own], units, shard, name)
        for name, own in found.items()
    }


def _server_only(line: Mapping[str, Any], gpu_hour: float) -> Spent:
    spent = total([dict(line)])
    return replace(spent, money=max(0.0, spent.money - spent.device_seconds / 3600 * gpu_hour))


def _part(lines: Sequence[Spent], units: int, shard: int, name: str) -> Part:
    whole = sum(lines, Spent())
    if not name or name.startswith("filter: "):  # of a whole batch at once
        return Part(whole, Spent())
    if len(lines) == 1:
        return Part(Spent(), times(whole, 1 / units))
    each = times(sum(lines[1:], Spent()), 1 / (units - shard))
    start = lines[0] - times(each, shard)
    positive = (max(0.0, getattr(start, f.name)) for f in fields(Spent))
    return Part(Spent(*positive), each)


def longer_answers(part: Part, growth: float) -> Part:
    """Sampling, where the answers are so many times as long as in the probe."""
    each = part.each
    grown: dict[str, Any] = {
        name: getattr(each, name) * growth
        for name in ("generated_tokens", "seconds", "device_seconds", "money")
    }
    return Part(part.start, replace(each, **grown))


def longer_judged(part: Part, growth: float, answer_tokens: float) -> Part:
    """Judging, where the answers are so many times as long.

    Args:
        part: of the probe.
        growth: how many times.
        answer_tokens: of the answers to a prompt in the probe, once each way they are read.
    """
    each = part.each
    if not each.computed_tokens:
        return part
    more = (growth - 1) * answer_tokens / each.computed_tokens
    factor = max(_LEAST, 1 + more)
    scaled: dict[str, Any] = {
        name: getattr(each, name) * factor
        for name in ("computed_tokens", "seconds", "device_seconds", "money")
    }
    return Part(part.start, replace(each, **scaled))


def texts_read(mode: str, answers: int) -> int:
    """Texts that a judge reads of so many answers, each shared beginning once."""
    return answers**2 if mode == "pairwise" else answers


def steps_of(block: Mapping[str, Any], pace: Mapping[str, Any], given: int, rows: float) -> int:
    """Steps that a training takes.

    Args:
        block: of the recipe.
        pace: of the probe's training.
        given: rows that this one was given.
        rows: that the real one will be given.
    """
    own = int(block.get("max_steps", -1))
    if own > 0:
        return own
    sequences: float = rows * pace["rows"] / max(1, given)  # packed, and without what is too long
    an_epoch, epochs = math.ceil(sequences / int(pace["rows_a_step"])), float(pace["epochs"])
    return math.ceil(epochs * an_epoch)


def training(block: Mapping[str, Any], probe: Trained, rows: float, gpu_hour: float) -> Spent:
    """What a training takes on so many rows.

    Saving checkpoints and evaluating on the way are not in it.
    """
    spent = sum((_server_only(line, gpu_hour) for line in probe.lines), Spent())
    a_step = probe.pace["seconds_a_step"] or 0.0
    more = (steps_of(block, probe.pace, probe.given, rows) - probe.steps) * a_step
    if block.get("precompute_ref_log_probs"):
        more += (rows - probe.given) * a_step / probe.pace["rows_a_step"] * _FORWARD
    seconds = max(0.0, spent.seconds + more)
    devices = spent.device_seconds / spent.seconds if spent.seconds else 1.0
    return replace(spent, seconds=seconds, device_seconds=seconds * devices)
