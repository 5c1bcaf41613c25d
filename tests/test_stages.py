"""What a stage writes down of the engine that made its shards."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from rlaif.constitution import Principle
from rlaif.engines.protocol import Label, LabelScore, Sampling
from rlaif.engines.scripted import ScriptedEngine
from rlaif.engines.transformers.budget import Budget
from rlaif.label.method import Method
from rlaif.label.templates import load_template
from rlaif.recipe import Prompts
from rlaif.records import Chat
from rlaif.run_folder import RunFolder
from rlaif.stages import store_prompts, store_samples, store_verdicts, stored_verdicts


def test_a_manifest_says_that_memory_ran_out_and_that_alone(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run").create()
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"p{i}"}) + "\n" for i in range(4)))
    prompts = store_prompts(run, "prompts", Prompts(path=str(file), shard_size=2))
    engine = ScriptedEngine(lambda chat: "said", lambda chat, labels: [0.9, 0.1])
    samples = store_samples(run, "samples", prompts, engine, Sampling(), seed=0)
    assert samples.manifest(0).notes == {}
    method = Method("pointwise", load_template("pointwise"))
    engine.usage.halvings = 2
    rules = [Principle(id="one", text="Be kind.")]
    verdicts = store_verdicts(run, "verdicts", samples, engine, rules, method)
    [stage] = verdicts.stages.values()
    assert [stage.manifest(i).notes for i in stage.shards()] == [{"halvings": 2}] * 2
    # It is no part of what the shard depends on: the shard holds.
    engine.usage.halvings = 0
    assert not store_verdicts(run, "verdicts", samples, engine, rules, method).asked


class Together(ScriptedEngine):
    """A judge whose verdicts are others in other batches, as all are in bfloat16."""

    def score_labels(self, chats: Sequence[Chat], labels: Sequence[Label]) -> list[LabelScore]:
        self._score = lambda chat, _: [0.9, 0.1 / len(chats)]
        return super().score_labels(chats, labels)


@pytest.mark.parametrize("engine", ["transformers", "openai"])
@pytest.mark.parametrize("lost", [{0}, {2}, {0, 1}, {0, 1, 2}])
def test_verdicts_that_a_kill_lost_are_those_of_the_whole_call_unless_each_is_paid_for(
    tmp_path: Path, lost: set[int], engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder(tmp_path / "run").create()
    monkeypatch.setattr(Together, "identity", {"engine": engine, "model": "m"})
    file = tmp_path / "prompts.jsonl"
    file.write_text(json.dumps({"prompt": "p"}) + "\n")
    prompts = store_prompts(run, "prompts", Prompts(path=str(file)))
    samples = store_samples(
        run, "samples", prompts, ScriptedEngine(lambda chat: "said"), Sampling(), seed=0
    )
    rules = [Principle(id=str(i), text=f"Be {what}.") for i, what in enumerate(("kind", "a", "b"))]
    method = Method("pointwise", load_template("pointwise"))

    def stage_of(rule: Principle) -> Path:
        [stage] = stored_verdicts(
            run, "verdicts", [rule], method, Together().identity
        ).stages.values()
        return run.manifests(stage.name) / "00000.json"

    def all_of(rules: list[Principle]) -> tuple[list[bytes], int]:
        judge = Together()
        store_verdicts(run, "verdicts", samples, judge, rules, method)
        manifests = [stage_of(rule).read_bytes() for rule in rules]
        return manifests, judge.usage.requests

    whole, asked = all_of(rules)
    assert asked == 3
    for i in lost:
        stage_of(rules[i]).unlink()
    again, asked = all_of(rules)
    if engine == "openai":
        assert asked == len(lost)
    else:
        assert again == whole  # with the digests of all verdicts
    # An edited principle is asked about alone, whatever it was asked with.
    edited = [*rules[:2], Principle(id="2", text="Be c.")]
    assert all_of(edited)[1] == 1


def test_a_manifest_from_before_there_were_notes_still_holds(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run").create()
    file = tmp_path / "prompts.jsonl"
    file.write_text(json.dumps({"prompt": "p"}) + "\n")
    stage = store_prompts(run, "prompts", Prompts(path=str(file)))
    manifest = run.manifests("prompts") / "00000.json"
    values = json.loads(manifest.read_text())
    del values["notes"]
    manifest.write_text(json.dumps(values))
    assert stage.done(0, stage.manifest(0).depends)


def test_a_processor_that_has_no_memory_left_is_given_less() -> None:
    budget = Budget(64, "m")

    def work(tokens: int) -> int:
        if tokens > 16:
            try:
                torch.empty(2**60, dtype=torch.uint8)
            except RuntimeError as error:
                assert not isinstance(error, torch.OutOfMemoryError)
                raise
        return tokens

    with pytest.warns(RuntimeWarning, match="out of memory"):
        assert budget.retry(work) == 16
    assert budget.halvings == 2
    with pytest.raises(RuntimeError, match="other"):
        budget.retry(lambda _: (_ for _ in ()).throw(RuntimeError("other")))
