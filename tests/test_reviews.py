"""A run with a critic: what it is sure of is trained on, and what was picked is kept."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

import rlaif
from rlaif import pipeline, strict_yaml
from rlaif.constitution import Constitution, Principle
from rlaif.engines.scripted import Masses, ScriptedEngine
from rlaif.errors import RecipeError
from rlaif.journal import Stage
from rlaif.label.rows import SFT_SCHEMA, pair_schema
from rlaif.recipe import Recipe
from rlaif.records import Chat
from rlaif.run_folder import RunFolder
from tests.evaluate.test_scorecard import by_size, noise, probabilities
from tests.test_judge_check import Run, seen
from tests.test_pipeline import tree


def sees(chat: Chat, labels: object) -> Masses:
    """Another opinion: right more often than the judge, and its mistakes are others."""
    leans = [4 * by_size(text) + 2 * noise(text, "critic") for text in seen(chat)]
    return probabilities(leans[0] - (leans[1] if len(leans) > 1 else 0.0))


class WithCritic(Run):
    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(folder, monkeypatch)
        self.critic = ScriptedEngine(score=sees, name="critic")

    def load(self, spec: object, state: Path) -> ScriptedEngine:
        return self.critic if getattr(spec, "model", "") == "critic" else super().load(spec, state)

    def recipe(
        self, judge: str = "pointwise", templates: object = None, **critic: object
    ) -> Recipe:
        self.write(judge)
        data = strict_yaml.read(self.folder / "recipe.yaml", RecipeError).data
        assert isinstance(data, dict)
        data["critic"] = {"model": {"model": "critic"}, "mode": judge, **critic}
        data["judge"]["templates"] = templates
        (self.folder / "recipe.yaml").write_text(strict_yaml.dump(data))
        return Recipe.load(self.folder / "recipe.yaml")

    def stage(self, name: str) -> Stage:
        return Stage(RunFolder(self.folder / "run"), name, pair_schema(False))

    def stored(self, name: str, schema: pa.Schema | None = None) -> list[dict[str, object]]:
        stage = Stage(RunFolder(self.folder / "run"), name, schema or pair_schema(False))
        return [row for shard in stage.shards() for row in stage.read(shard).to_pylist()]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WithCritic:
    return WithCritic(tmp_path, monkeypatch)


def test_what_passes_is_trained_on_and_what_was_picked_is_kept(run: WithCritic) -> None:
    counts = pipeline.label(run.recipe(min_confidence=0.9))
    picked, kept = run.stored("picked/pairs"), run.stored("pairs")
    assert 0 < len(kept) <= len(picked)
    assert counts.pairs == len(kept)
    assert all(row["chosen_probability"] >= 0.9 for row in kept)
    dropped = sum(len(run.stage("pairs").drops(s)) for s in run.stage("pairs").shards())
    assert dropped == len(picked) - len(kept)


def test_nothing_passes_a_critic_that_is_never_sure_enough(run: WithCritic) -> None:
    counts = pipeline.label(run.recipe(min_confidence=1.0))
    assert counts.pairs == 0 and run.stored("picked/pairs")
    assert any("critic's confidence" in reason for reason in counts.dropped["pairs"])


def test_a_finished_review_asks_no_model_again(run: WithCritic) -> None:
    pipeline.label(run.recipe())
    before, asked = tree(run.folder / "run"), len(run.critic.calls)
    pipeline.label(run.recipe())
    assert len(run.critic.calls) == asked
    assert tree(run.folder / "run") == before


def test_picks_too_are_held_to_the_confidence(run: WithCritic) -> None:
    counts = pipeline.label(run.recipe(min_confidence=1.0))
    assert counts.picks == 0
    assert any("critic's confidence" in reason for reason in counts.dropped["sft"])


@pytest.mark.parametrize(
    ("of_judge", "of_critic"), [("pointwise", "pairwise"), ("pairwise", "pointwise")]
)
def test_judge_and_critic_may_be_asked_in_other_ways(run: WithCritic, of_judge, of_critic) -> None:
    counts = pipeline.label(run.recipe(of_judge, mode=of_critic, min_confidence=0.0))
    assert counts.picks == len(run.stored("picked/sft", SFT_SCHEMA)) > 0
    assert counts.pairs == len(run.stored("picked/pairs")) > 0


def test_a_corrected_gold_label_calibrates_the_critic_anew(run: WithCritic) -> None:
    file = run.folder / "run" / "judge" / "critic.json"
    recipe = run.recipe()
    pipeline.label(recipe)
    before = json.loads(file.read_text())["curve"]
    lines = [json.loads(line) for line in (run.folder / "gate.jsonl").read_text().splitlines()]
    for line in lines[:20]:
        line["better"] = None
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (run.folder / "gate.jsonl").write_text(text)
    pipeline.label(recipe)
    after = json.loads(file.read_text())["curve"]
    assert after != before


def test_checks_asked_in_other_words_are_asked_again(run: WithCritic) -> None:
    rules = Constitution(name="checks", principles=(Principle(id="true", text="Be true."),))
    rules.save(run.folder / "checks.yaml")
    shipped = Path(rlaif.__file__).parent / "templates" / "pointwise.txt"
    folder = run.folder / "templates"
    folder.mkdir()
    asked, critic = [], {"checks": "checks.yaml"}
    for words in ("", "Think. ", "Think. "):
        (folder / "pointwise.txt").write_text(words + shipped.read_text())
        before = [len(e.calls) for e in (run.teacher, run.critic)]
        pipeline.label(run.recipe("pairwise", templates="templates", **critic))
        after = [len(e.calls) for e in (run.teacher, run.critic)]
        grew = [a > b for a, b in zip(after, before, strict=True)]
        asked.append(grew)
    assert asked == [[True, True], [False, True], [False, False]]


def test_a_critic_without_labelled_comparisons_is_refused(run: WithCritic) -> None:
    run.recipe()
    data = strict_yaml.read(run.folder / "recipe.yaml", RecipeError).data
    assert isinstance(data, dict)
    del data["gate"]
    (run.folder / "recipe.yaml").write_text(strict_yaml.dump(data))
    with pytest.raises(RecipeError, match="critic: a critic's confidence means nothing"):
        Recipe.load(run.folder / "recipe.yaml")
