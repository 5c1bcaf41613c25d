"""Align a language model to a written constitution, without human labels.

    from rlaif import Constitution, Recipe, judge, pick_pairs, sample

1. `sample`: a student answers prompts, several times each.
2. `judge`: a teacher gives each answer a probability of keeping each principle.
3. `pick_sft`, `pick_pairs`: the best answers, and preference pairs, in TRL's formats.
4. ``accelerate launch -m rlaif.train {sft,dpo,reward} RECIPE`` trains on them.
5. `win_rate`: is the student better now?

`rlaif.pipeline` does it all for a recipe, durably.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rlaif.constitution import Constitution, Principle
    from rlaif.engines.load import load_engine
    from rlaif.engines.protocol import Sampling
    from rlaif.engines.scripted import ScriptedEngine
    from rlaif.errors import RlaifError
    from rlaif.evaluate.winrate import win_rate
    from rlaif.label.judge import judge
    from rlaif.label.method import Method
    from rlaif.label.pick import pick_pairs, pick_sft
    from rlaif.label.sample import sample
    from rlaif.prompts.load import load_prompts
    from rlaif.recipe import Recipe
    from rlaif.records import Record

__version__ = "0.1.0"

# Imported at first use: `rlaif --help` must not wait for pydantic, pyarrow or torch.
_HOMES = {
    "Constitution": "constitution",
    "Method": "label.method",
    "Principle": "constitution",
    "Recipe": "recipe",
    "Record": "records",
    "RlaifError": "errors",
    "Sampling": "engines.protocol",
    "ScriptedEngine": "engines.scripted",
    "judge": "label.judge",
    "load_engine": "engines.load",
    "load_prompts": "prompts.load",
    "pick_pairs": "label.pick",
    "pick_sft": "label.pick",
    "sample": "label.sample",
    "win_rate": "evaluate.winrate",
}
__all__ = [
    "Constitution",
    "Method",
    "Principle",
    "Recipe",
    "Record",
    "RlaifError",
    "Sampling",
    "ScriptedEngine",
    "judge",
    "load_engine",
    "load_prompts",
    "pick_pairs",
    "pick_sft",
    "sample",
    "win_rate",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"rlaif.{_HOMES[name]}"), name)
