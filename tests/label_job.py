"""Label a recipe with scripted models: run by a test, which kills it."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Sequence

from rlaif import pipeline
from rlaif.engines.protocol import Label
from rlaif.engines.scripted import ScriptedEngine
from rlaif.recipe import Recipe
from rlaif.records import Chat


def student() -> ScriptedEngine:
    """Three answers to everything, of different lengths."""
    return ScriptedEngine(
        generate=lambda chat: [f"{chat[-1].text}, answer {'very ' * i}well" for i in range(3)],
        name="student",
    )


def teacher() -> ScriptedEngine:
    """Masses, critiques and revisions that follow from the question's text alone."""
    return ScriptedEngine(generate=_written, score=_masses, name="teacher")


def _written(chat: Chat) -> str:
    return f"said {zlib.crc32(chat[-1].text.encode())}"


def _masses(chat: Chat, labels: Sequence[Label]) -> list[float]:
    drawn = [1 + zlib.crc32(f"{chat[-1].text} {label[0]}".encode()) % 97 for label in labels]
    return [mass / sum(drawn) for mass in drawn]


if __name__ == "__main__":
    models = {"student": student(), "teacher": teacher()}
    pipeline.load_engine = lambda spec, state: models[spec.model]  # type: ignore[assignment]
    pipeline.label(Recipe.load(sys.argv[1]))
