from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from rlaif.errors import RecipeError
from rlaif.journal import Stage
from rlaif.loop.finished import STAGES, Finished, Label, damaged
from rlaif.loop.places import LoopFolder
from rlaif.run_folder import RunFolder

FILE = Path("recipe.yaml")
ROWS = pa.schema([pa.field("text", pa.string(), nullable=False)])


@pytest.fixture
def finished(tmp_path: Path) -> Finished:
    return Finished(LoopFolder(tmp_path))


def label(text: str) -> Label:
    return Label.read(text)


def test_labels_sort_in_the_order_in_which_stages_run() -> None:
    order = ["seed", "0/sample", "0/judge", "0/filter", "0/sft", "0/dpo", "0/reward", "0/evaluate",
             "1/prompts", "1/sample", "1/evaluate", "2/sample", "10/sample"]  # fmt: skip
    assert sorted(map(label, reversed(order))) == [label(text) for text in order]


def test_a_label_is_read_as_it_is_written_and_as_a_user_writes_it() -> None:
    for stage in STAGES:
        for number in (0, 7, 12):
            made = Label.of(-1 if stage == "seed" else number, stage)
            assert Label.read(str(made)) == made
    assert label("1/judge") == label("01/judge") == label("01-judge") == Label.of(1, "judge")
    assert label("judge") == Label.of(0, "judge")
    assert str(label("seed")) == "seed"


@pytest.mark.parametrize(
    "text", ["", "jugde", "1/", "-1/judge", "x/judge", "1/judge/2", "1.5/judge", "²/judge", "1"]
)
def test_a_stage_that_there_is_not_is_refused_with_those_that_there_are(text: str) -> None:
    with pytest.raises(RecipeError, match=r"--restart-from: no such stage .*ROUND/STAGE.*judge"):
        Label.read(text)


def test_a_stage_is_finished_once_it_is_written_and_only_for_what_it_was_made_of(
    finished: Finished,
) -> None:
    made_of = {"sample": {"n": 2}, "after": None}
    assert not finished.holds(label("0/sample"), made_of, FILE)
    finished.write(label("0/sample"), made_of)
    assert finished.holds(label("0/sample"), dict(reversed(made_of.items())), FILE)
    assert not finished.holds(label("1/sample"), made_of, FILE)
    assert finished.key(label("1/sample")) is None


def test_a_changed_recipe_is_refused_with_the_difference_and_the_way_to_do_it_on_purpose(
    finished: Finished,
) -> None:
    finished.write(label("1/sample"), {"sample": {"n": 2, "top_p": 1.0}, "seed": 0})
    with pytest.raises(RecipeError) as refused:
        finished.holds(label("1/sample"), {"sample": {"n": 4, "top_p": 1.0}, "new": 1}, FILE)
    told = str(refused.value)
    assert told.startswith("recipe.yaml: would change 01-sample, which is finished: ")
    assert "new was absent, is 1; sample.n was 2, is 4; seed was 0, is absent" in told
    assert "--restart-from 01/sample" in told
    assert "top_p" not in told
    finished.forget_from(Label.read(told.rpartition("--restart-from ")[2]))
    assert not finished.holds(label("1/sample"), {"sample": {"n": 4}}, FILE)


def test_a_stage_is_known_by_a_key_that_follows_from_what_it_was_made_of(
    finished: Finished,
) -> None:
    for name, made_of in (("0/sft", {"a": 1}), ("1/sft", {"a": 1}), ("2/sft", {"a": 2})):
        finished.write(label(name), made_of)
    keys = [finished.key(label(f"{n}/sft")) for n in range(3)]
    assert keys[0] == keys[1] != keys[2]


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"{}", b'{"fingerprint": "x"}'])
def test_a_record_that_is_damaged_is_none(finished: Finished, damage: bytes) -> None:
    finished.write(label("0/sample"), {"a": 1})
    finished.folder.finished("00-sample").write_bytes(damage)
    assert not finished.holds(label("0/sample"), {"a": 1}, FILE)


def test_restarting_forgets_a_stage_and_all_behind_it_and_nothing_before(
    finished: Finished,
) -> None:
    for name in ("seed", "0/sample", "0/dpo", "1/sample", "1/judge"):
        finished.write(label(name), {})
    finished.forget_from(label("0/dpo"))
    assert finished.labels() == [label("seed"), label("0/sample")]
    finished.forget_from(label("seed"))
    assert finished.labels() == []


def shard(run: RunFolder, name: str, number: int = 0) -> Path:
    Stage(run, name, ROWS).write(number, {}, pa.table({"text": ["x"]}, schema=ROWS))
    return run.data(name) / f"{number:05d}.parquet"


@pytest.mark.parametrize(
    ("stage", "data"),
    [("sample", "samples"), ("sample", "prompts"), ("judge", "verdicts/pointwise/ab12"),
     ("judge", "pairs"), ("filter", "reviewed/pairs"), ("evaluate", "evaluate/samples/dpo")],
)  # fmt: skip
@pytest.mark.parametrize("how", ["cut short", "one byte", "gone", "no manifest"])
def test_a_shard_that_is_not_what_was_written_is_seen(
    tmp_path: Path, stage: str, data: str, how: str
) -> None:
    run = whole(tmp_path)
    first, last = shard(run, data, 0), shard(run, data, 1)
    assert damaged(run, stage) is None
    if how == "gone":
        last.unlink()
    elif how == "no manifest":
        (run.manifests(data) / "00001.json").write_text("{")
    else:
        whole_bytes = last.read_bytes()
        last.write_bytes(whole_bytes[:-1] + (b"" if how == "cut short" else b"?"))
    assert damaged(run, stage) == f"{data}/00001.parquet is not what was written"
    assert first.exists()


def whole(root: Path) -> RunFolder:
    """A round with the least that each stage leaves."""
    run = RunFolder(root)
    shard(run, "samples", 0)
    for name in ("judge/asked.json", "figures.json"):
        run.write_text(root / name, "{}")
    return run


@pytest.mark.parametrize(
    ("stage", "file"),
    [("sample", "manifests/samples/00000.json"), ("judge", "judge/asked.json"),
     ("evaluate", "figures.json")],
)  # fmt: skip
def test_a_stage_without_its_output_is_not_whole(tmp_path: Path, stage: str, file: str) -> None:
    run = whole(tmp_path)
    assert damaged(run, stage) is None
    (tmp_path / file).unlink()
    assert damaged(run, stage) is not None


@pytest.mark.parametrize("stage", ["sft", "dpo", "reward", "seed"])
@pytest.mark.parametrize("how", ["cut short", "gone", "no manifest", "damaged manifest"])
def test_a_model_that_is_not_what_was_saved_is_seen(tmp_path: Path, stage: str, how: str) -> None:
    run, name = RunFolder(tmp_path), "sft" if stage == "seed" else stage
    weights = run.model(name) / "final" / "model.safetensors"
    run.write_bytes(weights, b"x" * 100)
    manifest = run.manifests("models") / f"{name}.json"
    run.write_text(manifest, json.dumps({"weights": {weights.name: {"bytes": 100}}}))
    assert damaged(run, stage) is None
    if how == "cut short":
        weights.write_bytes(b"x" * 99)
    elif how == "gone":
        weights.unlink()
    elif how == "no manifest":
        manifest.unlink()
    else:
        manifest.write_text('{"weights": ')
    assert damaged(run, stage) is not None
