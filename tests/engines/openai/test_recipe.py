"""The engine as a recipe names it: loaded, run through the pipeline, and started again."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import openai
import pytest

from rlaif import pipeline
from rlaif.constitution import Constitution, Principle
from rlaif.engines.load import load_engine
from rlaif.engines.openai import OpenAIEngine
from rlaif.errors import EngineError
from rlaif.recipe import Model, Recipe
from tests.engines.openai.misbehaving_server import Asked, Fault, MisbehavingServer, Status

KEY = "sk-very-secret-0123456789"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(openai._base_client, "INITIAL_RETRY_DELAY", 0.001)
    monkeypatch.setenv("MY_KEY", KEY)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    yield


def model(**changes: Any) -> Model:
    return Model.model_validate({"model": "m", "engine": "openai", **changes})


def recipe(folder: Path, server: MisbehavingServer, **options: Any) -> Recipe:
    principles = (Principle(id="long", text="Be long."), Principle(id="kind", text="Be kind."))
    Constitution(name="test", principles=principles).save(folder / "constitution.yaml")
    rows = [json.dumps({"prompt": f"prompt {i}"}) for i in range(12)]
    (folder / "prompts.jsonl").write_text("\n".join(rows))
    arguments = {"base_url": server.base_url, "api_key_env": "MY_KEY", "max_retries": 1, **options}
    spec = {"model": "m", "engine": "openai", "engine_args": arguments}
    return Recipe.model_validate(
        {
            "run": str(folder / "run"),
            "constitution": str(folder / "constitution.yaml"),
            "student": spec,
            "teacher": spec,
            "prompts": {"path": str(folder / "prompts.jsonl"), "shard_size": 4},
            "sample": {"n": 2},
        }
    )


def test_a_recipes_section_becomes_this_engine(tmp_path: Path) -> None:
    arguments = {"base_url": "http://127.0.0.1:1/v1", "labels": "top_logprobs 5", "served_as": "x"}
    with closing(load_engine(model(revision="r", engine_args=arguments), tmp_path)) as engine:
        assert isinstance(engine, OpenAIEngine)
        identity = engine.identity
    assert (identity["revision"], identity["server"]) == ("r", "x")
    assert identity["labels"] == "top_logprobs 5"


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"dtype": "bfloat16"}, "dtype: is the server's to choose"),
        ({"trust_remote_code": True}, "trust_remote_code: is the server's"),
        ({"engine_args": {"bas_url": "x"}}, "engine_args.bas_url: no such argument.*base_url"),
        ({"engine_args": {"state": "x"}}, "engine_args.state: no such argument"),
    ],
)
def test_what_a_server_cannot_be_told_is_refused(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(EngineError, match=match):
        load_engine(model(**changes))


def test_an_adapter_is_the_servers_to_load(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"adapter: is the server's to choose.*start the server"):
        load_engine(model(adapter=str(tmp_path)))


def test_a_missing_package_names_the_extra() -> None:
    code = "import sys; sys.modules['openai'] = None; import rlaif.engines.openai"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    last = done.stderr.strip().splitlines()[-1]
    assert "the openai engine needs an extra; pip install 'rlaif[openai]'" in last


def test_a_run_goes_on_where_the_server_left_it_and_never_writes_the_key(tmp_path: Path) -> None:
    down = True

    def plan(asked: Asked) -> Fault:
        return Status(500, f"no, {KEY}") if down and asked.number > 25 else None

    with MisbehavingServer(plan, key=KEY) as server:
        wanted = recipe(tmp_path, server, prices={"input": 1, "output": 1}, max_spend=1)
        with pytest.raises(EngineError, match="every finished shard is kept"):
            pipeline.label(wanted)
        down = False
        counts = pipeline.label(wanted)
        assert (counts.responses, counts.verdicts, counts.abstentions) == (24, 48, 0)
        asked = len(server.asked)
        assert pipeline.label(wanted) == counts_again(counts) and len(server.asked) == asked
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert any(path.parent.name == "engines" for path in files)
    assert not [path for path in files if KEY.encode() in path.read_bytes()]


def counts_again(counts: pipeline.Labelled) -> Any:
    """What a run counts that had nothing left to ask."""
    from dataclasses import replace

    return replace(counts, judged=())


def test_a_run_through_the_batch_endpoint_labels_the_same(tmp_path: Path) -> None:
    found = []
    for name, options in (("one", {}), ("two", {"batch": True, "batch_poll": 0.005})):
        folder = tmp_path / name
        folder.mkdir()
        with MisbehavingServer(key=KEY) as server:
            wanted = recipe(folder, server, served_as="judge", **options)
            found.append(pipeline.label(wanted))
            verdicts = sorted((folder / "run" / "data").rglob("*.parquet"))
            found.append([path.read_bytes() for path in verdicts])
        assert bool(server.batches) == bool(options)
    assert found[:2] == found[2:]
