"""What the student answers: the first stage behind the prompts.

    prompts → sample → judge → pick

An empty response, one that was cut off, and fewer responses than asked for stay in the record as
they are: the judge reads them like any other, and pick.py never chooses an empty or a cut one.
"""

from __future__ import annotations

from collections.abc import Sequence

from rlaif.engines.protocol import Engine, Generation, Sampling
from rlaif.records import Drop, Record, seed_of


def sample(
    records: Sequence[Record], engine: Engine, sampling: Sampling, seed: int
) -> tuple[list[Record], list[Drop]]:
    """Each record with up to `sampling.n` responses, and without verdicts on older ones.

    A record's seed follows from the run's seed and the record's id, so neither its place nor its
    neighbours decide its text.

    Args:
        records: prompts; any responses they have are replaced.
        engine: the student.
        sampling: how to sample.
        seed: the run's seed.

    Returns:
        The records that were answered, in order, and a drop for each that was not.
    """
    if not records:
        return [], []
    seeds = [seed_of(seed, record.id) for record in records]
    generations = engine.generate([record.prompt for record in records], sampling, seeds)
    answered, drops = [], []
    for record, generation in zip(records, generations, strict=True):
        if reason := _refusal(generation):
            drops.append(Drop(record.id, "sample", reason))
        else:
            answered.append(record.with_(responses=generation.responses, verdicts=()))
    return answered, drops


def _refusal(generation: Generation) -> str | None:
    if generation.reason is None and not generation.responses:
        return "no responses"
    return generation.reason
