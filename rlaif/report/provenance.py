"""What made a run, so that it can be made again: settings, models, seeds, versions, digests.

recipe.yaml, constitution.yaml, manifests → [provenance] → page.py
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from rlaif import __version__
from rlaif.constitution import Constitution
from rlaif.errors import RlaifError
from rlaif.report.counts import Stored, stored
from rlaif.report.figures import Plain, Story, scorecard
from rlaif.report.shards import manifests, stages_under
from rlaif.run_folder import RunFolder


class Provenance(NamedTuple):
    """What made the run.

    Attributes:
        facts: what and how, a line each.
        identities: by model ("student", "judge"), what its engine told of itself.
        stored: the data of every round, by round.
        recipe, constitution: the files' texts.
    """

    facts: list[tuple[str, str]]
    identities: dict[str, Mapping[str, str]]
    stored: list[tuple[int, list[Stored]]]
    recipe: str
    constitution: str


def read_provenance(run: RunFolder, recipe: Plain, story: Story, judge: str | None) -> Provenance:
    """What made the run, as far as it has come."""
    newest = story.rounds[-1].run if story.rounds else run
    identities = {
        "student": _engine(newest, "samples"),
        "judge": dict(scorecard(newest).get("judge") or {}),
    }
    facts = [
        ("constitution", _constitution(run)),
        ("judge", judge or ""),
        ("student", _model(recipe.get("student"))),
        ("teacher", _model(recipe.get("teacher"))),
        ("seed", str(recipe.get("seed", ""))),
        ("rlaif, which wrote this page", __version__),
    ]
    facts += sorted(_versions(identities.values()).items())
    return Provenance(
        [fact for fact in facts if fact[1]],
        {name: identity for name, identity in identities.items() if identity},
        [(one.number, _stored(one.run)) for one in story.rounds],
        _text(run, "recipe.yaml"),
        _text(run, "constitution.yaml"),
    )


def _constitution(run: RunFolder) -> str:
    try:
        found = Constitution.load(run.constitution)
    except RlaifError:
        return ""
    return f"{found.name}, version {found.version}, fingerprint {found.fingerprint}"


def _model(section: Any) -> str:
    if not isinstance(section, dict):
        return ""
    revision = f" at {section['revision']}" if section.get("revision") else ""
    return f"{section.get('model', '')}{revision} ({section.get('engine', 'transformers')})"


def _engine(run: RunFolder, stage: str) -> dict[str, str]:
    for manifest in manifests(run, stage).values():
        return dict(manifest.depends.get("engine") or {})
    return {}


def _versions(identities: Any) -> dict[str, str]:
    libraries = ("torch", "transformers", "vllm")
    return {name: i[name] for i in identities for name in libraries if i.get(name)}


def _stored(run: RunFolder) -> list[Stored]:
    flow = ("prompts", "samples", "revised", "verdicts", "picked", "reviewed", "sft", "pairs",
            "evaluate")  # fmt: skip
    stages = [stage for name in flow for stage in stages_under(run, name)]
    return stored(run, stages)


def _text(run: RunFolder, name: str) -> str:
    try:
        return (run.root / name).read_text("utf-8", errors="replace")
    except OSError:
        return ""
