"""What a stage writes down of the engine that made its shards."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from rlaif.constitution import Principle
from rlaif.engines.protocol import Sampling
from rlaif.engines.scripted import ScriptedEngine
from rlaif.engines.transformers.budget import Budget
from rlaif.label.method import Method
from rlaif.label.templates import load_template
from rlaif.recipe import Prompts
from rlaif.run_folder import RunFolder
from rlaif.stages import store_prompts, store_samples, store_verdicts


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
