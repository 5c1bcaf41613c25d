"""The whole of labelling and evaluating, durably, with scripted models."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

import rlaif.pipeline
from rlaif import pipeline, strict_yaml
from rlaif.constitution import Constitution, Principle
from rlaif.engines.protocol import Label
from rlaif.engines.scripted import ScriptedEngine
from rlaif.errors import DataError, JournalError, RecipeError, TrainError
from rlaif.journal import Stage
from rlaif.label.rows import pair_schema
from rlaif.recipe import Recipe
from rlaif.records import Chat
from rlaif.run_folder import RunFolder
from rlaif.tables import SAMPLES

JOB = Path(__file__).parent / "label_job.py"


class Models:
    """A student and a teacher that every `load_engine` of the pipeline gives."""

    def __init__(self) -> None:
        sys.path.insert(0, str(JOB.parent))
        try:
            import label_job
        finally:
            sys.path.pop(0)
        self.student, self.teacher = label_job.student(), label_job.teacher()

    def load(self, spec: object, state: Path) -> ScriptedEngine:
        return self.teacher if getattr(spec, "model", "") == "teacher" else self.student

    @property
    def judged(self) -> int:
        return sum(len(chats) for method, chats in self.teacher.calls if method == "score_labels")


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> Models:
    found = Models()
    monkeypatch.setattr(rlaif.pipeline, "load_engine", found.load)
    return found


def write(folder: Path, principles: list[Principle] | None = None, **changes: object) -> Recipe:
    """A recipe of twenty prompts in shards of four, and its constitution."""
    principles = principles or [
        Principle(id="long", text="Be long."),
        Principle(id="kind", text="Be kind.", weight=2),
    ]
    Constitution(name="test", principles=tuple(principles)).save(folder / "constitution.yaml")
    prompts = folder / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": f"question {i}"}) + "\n" for i in range(20)))
    recipe: dict[str, object] = {
        "run": str(folder / "run"),
        "constitution": str(folder / "constitution.yaml"),
        "student": {"model": "student"},
        "teacher": {"model": "teacher"},
        "prompts": {"path": str(prompts), "shard_size": 4},
        "sample": {"n": 3},
        **changes,
    }
    (folder / "recipe.yaml").write_text(strict_yaml.dump(recipe))
    return Recipe.load(folder / "recipe.yaml")


def tree(folder: Path) -> dict[str, bytes]:
    """Every file that a run promises to be the same, however often it was killed."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for part in ("data", "manifests", "kept_aside")
        for path in sorted((folder / part).rglob("*"))
        if path.is_file()
    }


def test_labelling_goes_from_prompts_to_picks_and_pairs(tmp_path: Path, models: Models) -> None:
    counts = pipeline.label(write(tmp_path))
    assert (counts.prompts, counts.responses, counts.verdicts) == (20, 60, 120)
    assert counts.pairs > 0 and counts.picks > 0
    assert counts.judged == ("long", "kind")
    assert models.judged == 120
    assert models.teacher.closed and models.student.closed


def test_a_finished_run_asks_no_model_again(tmp_path: Path, models: Models) -> None:
    first = pipeline.label(write(tmp_path))
    before = tree(tmp_path / "run")
    models.teacher.calls.clear()
    models.student.calls.clear()
    again = pipeline.label(write(tmp_path))
    assert not models.teacher.calls and not models.student.calls
    assert again.judged == () and again.pairs == first.pairs
    assert tree(tmp_path / "run") == before


def test_an_edited_principle_is_judged_alone(tmp_path: Path, models: Models) -> None:
    pipeline.label(write(tmp_path))
    models.teacher.calls.clear()
    edited = [Principle(id="long", text="Be long."), Principle(id="kind", text="Be polite.")]
    counts = pipeline.label(write(tmp_path, edited))
    assert counts.judged == ("kind",)
    assert models.judged == 60
    asked = {chat[-1].text for _, chats in models.teacher.calls for chat in chats}
    assert all("Be polite." in text for text in asked)


def test_a_weight_or_a_veto_judges_nothing_and_picks_anew(tmp_path: Path, models: Models) -> None:
    pipeline.label(write(tmp_path))
    before = tree(tmp_path / "run")
    models.teacher.calls.clear()
    edited = [
        Principle(id="long", text="Be long.", weight=5),
        Principle(id="kind", text="Be kind.", veto=True),
    ]
    counts = pipeline.label(write(tmp_path, edited))
    assert models.judged == 0 and counts.judged == ()
    after = tree(tmp_path / "run")
    same = [name for name in before if name.startswith("data/verdicts")]
    assert same and all(before[name] == after[name] for name in same)
    assert before["data/pairs/00000.parquet"] != after["data/pairs/00000.parquet"]


def test_a_longer_prompt_file_keeps_what_was_done(tmp_path: Path, models: Models) -> None:
    pipeline.label(
        write(tmp_path, prompts={"path": _twenty(tmp_path), "shard_size": 4, "limit": 8})
    )
    asked = len(models.student.calls)
    pipeline.label(write(tmp_path))
    assert len(models.student.calls) == asked + 3  # shards 2, 3 and 4


def _twenty(folder: Path) -> str:
    write(folder)
    return str(folder / "prompts.jsonl")


def test_a_veto_in_pairwise_mode_is_refused_before_any_model_is_asked(
    tmp_path: Path, models: Models
) -> None:
    vetoed = [Principle(id="kind", text="Be kind.", veto=True)]
    with pytest.raises(RecipeError, match="kind"):
        pipeline.label(write(tmp_path, vetoed, judge={"mode": "pairwise"}))
    assert not models.student.calls


@pytest.mark.parametrize("mode", ["pairwise", "rating"])
def test_every_mode_labels(tmp_path: Path, models: Models, mode: str) -> None:
    counts = pipeline.label(write(tmp_path, judge={"mode": mode}))
    assert counts.pairs > 0 and counts.abstentions == 0


def test_a_run_killed_at_any_moment_ends_in_the_same_bytes(tmp_path: Path) -> None:
    calm, rough = tmp_path / "calm", tmp_path / "rough"
    for folder in (calm, rough):
        folder.mkdir()
        write(folder, prompts={"path": _twenty(folder), "shard_size": 2})
    start = time.monotonic()
    subprocess.run([sys.executable, str(JOB), str(calm / "recipe.yaml")], check=True)
    whole = time.monotonic() - start
    rng = random.Random(0)
    kills = 0
    for _ in range(60):
        job = subprocess.Popen([sys.executable, str(JOB), str(rough / "recipe.yaml")])
        try:
            job.wait(timeout=rng.uniform(0.3, 0.9) * whole)
            break
        except subprocess.TimeoutExpired:
            job.send_signal(signal.SIGKILL)
            job.wait()
            kills += 1
            if kills == 8:
                subprocess.run([sys.executable, str(JOB), str(rough / "recipe.yaml")], check=True)
                break
    assert kills >= 1
    assert tree(rough / "run") == tree(calm / "run")


def test_a_run_without_revisions_asks_for_none_and_has_no_stage_of_them(
    tmp_path: Path, models: Models
) -> None:
    pipeline.label(write(tmp_path))
    assert not [call for call in models.teacher.calls if call[0] == "generate"]
    assert {Path(name).parts[1] for name in tree(tmp_path / "run")} == {
        "prompts", "samples", "verdicts", "sft", "pairs",
    }  # fmt: skip


def test_revisions_are_judged_and_picked_beside_their_drafts(
    tmp_path: Path, models: Models
) -> None:
    counts = pipeline.label(write(tmp_path, revise={}))
    assert (counts.responses, counts.verdicts) == (120, 240)
    assert counts.dropped.get("revised") is None
    run = RunFolder(tmp_path / "run")
    revised = pipeline.read_records(Stage(run, "revised", SAMPLES))
    sampled = pipeline.read_records(Stage(run, "samples", SAMPLES))
    assert [r.responses[:3] for r in revised] == [r.responses for r in sampled]
    assert all(len(r.meta["revisions"]) == 3 for r in revised)
    pairs = Stage(run, "pairs", pair_schema(False))
    rows = [row for i in pairs.shards() for row in pairs.read(i).to_pylist()]
    for column in ("chosen_index", "rejected_index"):  # each side is a draft here, a revision there
        assert {row[column] > 2 for row in rows} == {True, False}


def test_the_student_revises_where_the_recipe_says_so(tmp_path: Path, models: Models) -> None:
    pipeline.label(write(tmp_path, revise={"model": "student"}))
    assert not [call for call in models.teacher.calls if call[0] == "generate"]
    assert len(models.student.calls) == 5 * 3  # samples, critiques and revisions of five shards


def test_a_weight_revises_nothing_anew_and_an_own_wording_does(
    tmp_path: Path, models: Models
) -> None:
    pipeline.label(write(tmp_path, revise={}))
    before = tree(tmp_path / "run")
    models.teacher.calls.clear()
    kind = Principle(id="kind", text="Be kind.", weight=5)
    heavier = [Principle(id="long", text="Be long."), kind]
    pipeline.label(write(tmp_path, heavier, revise={}))
    assert not models.teacher.calls
    after = tree(tmp_path / "run")
    assert all(after[name] == before[name] for name in before if "/revised/" in name)
    worded = [heavier[0], kind.model_copy(update={"critique": "Where is it unkind?"})]
    pipeline.label(write(tmp_path, worded, revise={}))
    asked = [chat for what, chats in models.teacher.calls if what == "generate" for chat in chats]
    assert any("Where is it unkind?" in chat[0].text for chat in asked)


@pytest.mark.parametrize("last", [3, 6, 7])
def test_revising_that_was_cut_short_goes_on_and_ends_in_the_same_bytes(
    tmp_path: Path, models: Models, last: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calm, rough = tmp_path / "calm", tmp_path / "rough"
    for folder in (calm, rough):
        folder.mkdir()
    pipeline.label(write(calm, revise={}))
    models.teacher.calls.clear()
    written = models.teacher.generate

    def fail(*given: object) -> object:
        if len(models.teacher.calls) == last:
            raise RuntimeError("killed")
        return written(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(models.teacher, "generate", fail)
    with pytest.raises(RuntimeError, match="killed"):
        pipeline.label(write(rough, revise={}))
    monkeypatch.setattr(models.teacher, "generate", written)
    pipeline.label(write(rough, revise={}))
    calls = [what for what, _ in models.teacher.calls if what == "generate"]
    assert len(calls) == 10 + last % 2  # a shard is two calls: only the one that was cut is redone
    assert tree(rough / "run") == tree(calm / "run")


def test_evaluating_prefers_what_the_teacher_prefers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def score(chat: Chat, labels: Sequence[Label]) -> list[float]:
        text = chat[-1].text
        better, surely = ("trained", 0.999) if "Be long." in text else ("base", 0.7)
        first = text.index(f"{better} answer") == text.index(" answer") - len(better)
        return [surely, 1 - surely] if first else [1 - surely, surely]

    teacher = ScriptedEngine(score=score, name="teacher")
    base = ScriptedEngine(lambda chat: f"base answer to {chat[-1].text}", name="base")
    trained = ScriptedEngine(lambda chat: f"trained answer to {chat[-1].text}", name="trained")

    def load(spec: object, state: Path) -> ScriptedEngine:
        model = getattr(spec, "model", "")
        return {"teacher": teacher, "student": base}.get(model, trained)

    monkeypatch.setattr(rlaif.pipeline, "load_engine", load)
    recipe = write(
        tmp_path,
        evaluate={"prompts": {"path": _other(tmp_path)}, "max_tokens": 16},
        train={"dpo": {}},
    )
    with pytest.raises(TrainError, match="not trained yet"):
        pipeline.evaluate(recipe)
    (tmp_path / "run" / "models" / "dpo" / "final").mkdir(parents=True)
    result = pipeline.evaluate(recipe)
    assert (result.win_rate, result.comparisons, result.flip_rate) == (1.0, 5, 0.0)
    stored = json.loads((tmp_path / "run" / "evaluate" / "dpo.json").read_text())
    assert stored["win_rate"] == result.win_rate
    # How the labels are clipped shapes what is trained on, and not what is measured.
    flat = recipe.judge.model_copy(update={"clip": 0.499})
    assert pipeline.evaluate(recipe.model_copy(update={"judge": flat})) == result
    # Clipped flat, a verdict counts by its weight alone, however sure it is.
    blind = recipe.evaluate.model_copy(update={"clip": 0.499})
    assert pipeline.evaluate(recipe.model_copy(update={"evaluate": blind})).win_rate == 0.0


@pytest.mark.parametrize("stage", ["dop", "base", "reward"])
def test_only_a_trained_student_can_be_evaluated(
    tmp_path: Path, models: Models, stage: str
) -> None:
    (tmp_path / "run" / "models" / "reward" / "final").mkdir(parents=True)
    recipe = write(tmp_path, evaluate={"prompts": {"path": _other(tmp_path)}}, train={"dpo": {}})
    with pytest.raises(RecipeError, match=rf"--stage: .*\(got '{stage}'\); use sft or dpo"):
        pipeline.evaluate(recipe, stage)
    assert not models.student.calls and not (tmp_path / "run" / "evaluate").exists()


@pytest.mark.parametrize("stage", ["sft", None])
def test_a_stage_that_is_not_trained_is_told_before_anything_is_sampled(
    tmp_path: Path, models: Models, stage: str | None
) -> None:
    recipe = write(tmp_path, evaluate={"prompts": {"path": _other(tmp_path)}}, train={"dpo": {}})
    with pytest.raises(TrainError, match="not trained yet"):
        pipeline.evaluate(recipe, stage)
    assert not models.student.calls


def _other(folder: Path) -> str:
    path = folder / "held-out.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"new {i}"}) + "\n" for i in range(5)))
    return str(path)


def test_a_prompt_that_was_labelled_cannot_measure(tmp_path: Path, models: Models) -> None:
    recipe = write(tmp_path, evaluate={"prompts": {"path": _twenty(tmp_path)}}, train={"dpo": {}})
    pipeline.label(recipe)
    with pytest.raises(DataError, match="also labelled"):
        pipeline.evaluate(recipe)


def test_evaluating_without_prompts_says_what_to_add(tmp_path: Path, models: Models) -> None:
    with pytest.raises(RecipeError, match=r"evaluate\.prompts"):
        pipeline.evaluate(write(tmp_path, train={"dpo": {}}))


def test_the_three_steps_apart_make_what_labelling_makes(tmp_path: Path, models: Models) -> None:
    whole, apart = tmp_path / "whole", tmp_path / "apart"
    for folder in (whole, apart):
        folder.mkdir()
    counts = pipeline.label(write(whole))
    recipe = write(apart)
    pipeline.sample(recipe)
    assert not (apart / "run" / "data" / "verdicts").exists()
    assert pipeline.judge(recipe) == counts.judged
    models.teacher.calls.clear()
    models.student.calls.clear()
    kept = pipeline.keep(recipe, asked=counts.judged)
    assert not models.teacher.calls and not models.student.calls, "keeping loads no model"
    assert kept == counts
    assert tree(apart / "run") == tree(whole / "run")


def test_a_step_before_its_turn_says_what_is_missing(tmp_path: Path, models: Models) -> None:
    recipe = write(tmp_path)
    with pytest.raises(JournalError, match="nothing is sampled yet"):
        pipeline.judge(recipe)
    pipeline.sample(recipe)
    with pytest.raises(JournalError, match="is not judged yet"):
        pipeline.keep(recipe)


def test_skipped_prompts_are_the_first_and_the_limit_counts_the_others(
    tmp_path: Path, models: Models
) -> None:
    source = {"path": _twenty(tmp_path), "shard_size": 4}
    ids = []
    for name, changes in (("all", {}), ("first", {"limit": 8}), ("next", {"skip": 8, "limit": 8})):
        (tmp_path / name).mkdir()
        pipeline.sample(write(tmp_path / name, prompts=source | changes))
        stage = Stage(RunFolder(tmp_path / name / "run"), "prompts", SAMPLES)
        ids.append([i for s in stage.shards() for i in stage.read(s)["record_id"].to_pylist()])
    assert ids[1] == ids[0][:8] and ids[2] == ids[0][8:16]
