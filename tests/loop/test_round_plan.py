"""What a round's stages are made of, before any of them is done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlaif.loop.depends import Digests
from rlaif.loop.finished import Finished
from rlaif.loop.places import LoopFolder
from rlaif.loop.round_plan import Made, Planned, stages
from rlaif.loop.running import Running
from rlaif.records import fingerprint
from tests.loop.test_round_recipe import loaded


def planned(root: Path, number: int, **sections: Any) -> dict[str, Planned]:
    """A round's stages, by their labels."""
    recipe = loaded(root, **sections)
    folder = LoopFolder(Path(recipe.run))
    running = Running(
        root / "recipe.yaml", recipe, folder, Finished(folder), Digests(), print
    )  # fmt: skip
    student, judge = Made(recipe.student, "student's key"), Made(recipe.teacher, "judge's key")
    return {str(one.label): one for one in stages(running, number, 0, student, judge, [])}


def test_each_stage_follows_from_the_one_before_it_and_a_reward_model_leads_to_none(
    tmp_path: Path,
) -> None:
    found = planned(tmp_path, 0, train={"sft": {}, "dpo": {}, "reward": {}})
    assert list(found) == [
        "00-sample", "00-judge", "00-sft", "00-dpo", "00-reward", "00-evaluate",
    ]  # fmt: skip
    keys = {name: fingerprint(one.made_of) for name, one in found.items()}
    assert [one.made_of["after"] for one in found.values()] == [
        "student's key", keys["00-sample"], keys["00-judge"], keys["00-sft"], keys["00-dpo"],
        keys["00-dpo"],
    ]  # fmt: skip
    left = {name: one.student.key for name, one in found.items() if one.student is not None}
    assert left == {name: keys[name] for name in ("00-sft", "00-dpo")}
    assert not (tmp_path / "run").exists(), "planning writes nothing"


def test_prompts_of_its_own_are_a_round_s_first_stage_and_what_it_samples_for(
    tmp_path: Path,
) -> None:
    gaps: dict[str, Any] = {"anchors": {"path": "prompts.jsonl"}, "loop": {"prompts": "gaps"}}
    assert "00-prompts" not in planned(tmp_path, 0, **gaps)
    found = planned(tmp_path, 1, **gaps)
    assert list(found)[:2] == ["01-prompts", "01-sample"]
    asked = [found[name].recipe["prompts"]["path"] for name in ("01-prompts", "01-sample")]
    assert asked == [str(tmp_path / "prompts.jsonl"), str(tmp_path / "run/rounds/01/prompts.jsonl")]
