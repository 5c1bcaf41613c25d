from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from datasets import load_dataset
from huggingface_hub import DatasetCard, ModelCard

from rlaif.cli import loop
from rlaif.loop.hub import publish
from rlaif.loop.places import LoopFolder
from rlaif.loop.state import State
from rlaif.recipe import Recipe
from rlaif.recipe.looping import Seeds
from tests.loop.hub_server import HubServer
from tests.loop.scripted_loop import ScriptedLoop
from tests.train.tiny_run import environment

SECRET = "hf_averysecretone"


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ScriptedLoop:
    """A loop of two finished rounds."""
    loop = ScriptedLoop(tmp_path, monkeypatch, loop={"rounds": 2, "push_to_hub": "me/model"})
    loop.loop()
    return loop


def published(made: ScriptedLoop, **environ: str) -> subprocess.CompletedProcess[str]:
    """Publish in a process of its own, where the hub's address can be set."""
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from rlaif.errors import RlaifError\nfrom rlaif.loop.hub import publish\n"
        "from rlaif.loop.places import LoopFolder\nfrom rlaif.loop.state import State\n"
        "from rlaif.recipe import Recipe\n"
        "recipe = Recipe.load(sys.argv[1]); folder = LoopFolder(Path(recipe.run))\n"
        "try: publish(folder, recipe, State.read(folder))\n"
        "except RlaifError as error: sys.exit(f'rlaif: {error}')\n"
        "print('HEAVY', sorted({'torch', 'transformers', 'datasets'} & set(sys.modules)))\n"
    )
    settings = {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(made.root / "h")}
    return subprocess.run(
        [sys.executable, "-c", code, str(made.file)],
        env=environment(**settings | environ), capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def test_the_model_and_its_labels_arrive_with_the_right_bytes(made: ScriptedLoop) -> None:
    (made.run / "best" / "training_args.bin").write_bytes(b"a pickle")
    (made.run / "best" / "optimizer.pt").write_bytes(b"a pickle")
    with HubServer(SECRET) as hub:
        done = published(made, HF_ENDPOINT=hub.url, HF_TOKEN=SECRET)
    assert done.returncode == 0, done.stderr
    assert "HEAVY []" in done.stdout and "me/model-labels" in done.stdout
    best = {p.name: p.read_bytes() for p in (made.run / "best").iterdir()}
    del best["training_args.bin"], best["optimizer.pt"]
    assert hub.files["model", "me/model"] == best
    labels = {
        str(p.relative_to(made.run / "labels")): p.read_bytes()
        for p in (made.run / "labels").rglob("*")
        if p.is_file()
    }
    assert hub.files["dataset", "me/model-labels"] == labels
    assert {Path(name).parts[0] for name in labels} == {"README.md", "sft", "pairs"}


def test_what_an_earlier_push_left_does_not_stay_among_the_labels(made: ScriptedLoop) -> None:
    with HubServer(SECRET) as hub:
        repository = {"pairs/round-07-00000.parquet": b"old", ".gitattributes": b"theirs"}
        hub.files["dataset", "me/model-labels"] = repository
        done = published(made, HF_ENDPOINT=hub.url, HF_TOKEN=SECRET)
    assert done.returncode == 0, done.stderr
    assert "pairs/round-07-00000.parquet" not in repository
    assert ".gitattributes" in repository and "README.md" in repository


def test_a_refusal_is_one_line_without_the_token_and_can_be_tried_again(
    made: ScriptedLoop,
) -> None:
    before = made.told()
    with HubServer(SECRET) as hub:
        hub.refuse = 403
        done = published(made, HF_ENDPOINT=hub.url, HF_TOKEN=SECRET)
        assert done.returncode == 1
        assert done.stderr.startswith("rlaif: loop.push_to_hub: the hub refused")
        assert len(done.stderr.splitlines()) == 1 and "start again to push it" in done.stderr
        assert SECRET not in done.stderr + done.stdout
        assert made.told() == before and before["status"] == "finished"
        hub.refuse = None
        assert published(made, HF_ENDPOINT=hub.url, HF_TOKEN=SECRET).returncode == 0
    assert hub.files["model", "me/model"]


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"HF_TOKEN": ""}, "there is no token"),
        ({"HF_TOKEN": SECRET, "HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE"),
        ({"HF_TOKEN": SECRET, "HF_ENDPOINT": "http://127.0.0.1:1"}, "in the run folder"),
    ],
)
def test_without_a_hub_there_is_one_line_and_everything_is_in_the_folder(
    made: ScriptedLoop, environ: dict[str, str], said: str
) -> None:
    done = published(made, **environ)
    assert done.returncode == 1 and said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert (made.run / "best" / "README.md").is_file()
    assert (made.run / "labels" / "README.md").is_file()


def write(made: ScriptedLoop, **changes: Any) -> LoopFolder:
    """The cards, without any push."""
    recipe, folder = Recipe.load(made.file), LoopFolder(made.run)
    assert recipe.loop is not None
    loop = recipe.loop.model_copy(update={"push_to_hub": None} | changes)
    publish(folder, recipe.model_copy(update={"loop": loop}), State.read(folder))
    return folder


def test_both_cards_are_those_that_the_hub_reads(made: ScriptedLoop) -> None:
    folder = write(made)
    model = ModelCard.load(folder.best / "README.md")
    assert model.data.pipeline_tag == "text-generation" and "dpo" in model.data.tags
    labels = DatasetCard.load(folder.root / "labels" / "README.md")
    assert [c["config_name"] for c in labels.data.to_dict()["configs"]] == ["pairs", "sft"]


def test_the_card_has_every_principle_the_figures_and_no_path_of_the_machine(
    made: ScriptedLoop,
) -> None:
    folder = write(made)
    text = (folder.best / "README.md").read_text()
    best = State.read(folder).best
    assert best is not None and best.win_rate is not None
    n, won, labels = best.round, best.win_rate, best.labels or {}
    counted = f"| {n} | teacher | {labels['prompts']} |"
    for said in ("Be kind.", "Be long.", f"round {n}: {won.value:.3f}", counted,
                 "not held against labelled comparisons", "mean tokens"):  # fmt: skip
        assert said in text
    other = (folder.root / "labels" / "README.md").read_text()
    assert str(made.root) not in text + other


def test_what_a_principle_says_cannot_break_the_table(made: ScriptedLoop) -> None:
    made.constitution(weight=2.0, veto=True)
    text = made.root.joinpath("constitution.yaml").read_text()
    (made.root / "constitution.yaml").write_text(text.replace("Be kind.", "Be | kind."))
    card = (write(made).best / "README.md").read_text()
    assert r"| kind | Be \| kind. | 2, a veto |" in card


def test_datasets_loads_the_folder_of_labels_as_it_is(made: ScriptedLoop, tmp_path: Path) -> None:
    folder = write(made)
    for config, column in (("pairs", "chosen"), ("sft", "completion")):
        rows = load_dataset(
            str(folder.root / "labels"), config, split="train", cache_dir=str(tmp_path / "cache")
        )
        state, name = State.read(folder), {"pairs": "pairs", "sft": "picks"}[config]
        best = state.best
        assert best is not None and column in rows.column_names
        last = best.round if config == "pairs" else 0  # only the first round fine-tunes on picks
        used = [one for one in state.rounds if one.round <= last]
        assert len(rows) == sum((one.labels or {})[name] for one in used)


def rounds_of(folder: LoopFolder, config: str) -> list[int]:
    """The rounds whose rows are among the labels."""
    files = (folder.root / "labels" / config).glob("*.parquet")
    return sorted({int(p.name.split("-")[1]) for p in files})


@pytest.fixture
def second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ScriptedLoop:
    """A loop of two finished rounds, the second of which is the best."""
    loop = ScriptedLoop(tmp_path, monkeypatch)
    loop.loop()
    state = loop.told()
    state["rounds"][1]["metric"] = {"value": 1.0, "low": None, "high": None}
    state["rounds"][0]["metric"] = {"value": 0.0, "low": None, "high": None}
    (loop.run / "loop.json").write_text(json.dumps(state))
    assert State.read(LoopFolder(loop.run)).best == State.read(LoopFolder(loop.run)).rounds[1]
    return loop


@pytest.mark.parametrize(
    ("settings", "pairs"),
    [
        ({}, [0, 1]),
        ({"data": "replace"}, [0, 1]),  # its weights were trained through both
        ({"start": "first"}, [0, 1]),
        ({"data": "replace", "start": "first"}, [1]),
    ],
)
def test_labels_are_those_that_the_best_models_weights_have_seen(
    second: ScriptedLoop, settings: dict[str, str], pairs: list[int]
) -> None:
    folder = write(second, **settings)
    assert rounds_of(folder, "pairs") == pairs
    counted = (folder.root / "labels" / "README.md").read_text()
    assert [f"| {n} | teacher |" in counted for n in (0, 1)] == [n in pairs for n in (0, 1)]


@pytest.mark.parametrize(
    ("settings", "sft"),
    [
        ({}, [0]),
        ({"sft": "every"}, [0, 1]),
        ({"start": "first"}, []),  # of the round that was fine-tuned nothing is left
        ({"start": "first", "sft": "every"}, [0, 1]),
        ({"data": "replace", "start": "first"}, []),  # the best model's round trains none
        ({"seeds": Seeds()}, []),  # the seeds were the first fine-tuning
    ],
)
def test_picks_that_no_fine_tuning_has_taken_are_not_among_the_labels(
    second: ScriptedLoop, settings: dict[str, Any], sft: list[int]
) -> None:
    folder = write(second, **settings)
    assert rounds_of(folder, "sft") == sft
    card = (folder.root / "labels" / "README.md").read_text()
    assert ('load_dataset(…, "sft")' in card) == bool(sft) and "| chosen |" in card


@pytest.mark.parametrize(
    ("judges", "said"),
    [
        (("teacher", "teacher"), "labelled by the judge teacher under"),
        (("student", "student"), "labelled by the model itself under"),
        (("teacher", "student"), "labelled by the judge teacher and then the model itself under"),
    ],
)
def test_the_labels_card_says_who_labelled(
    second: ScriptedLoop, judges: tuple[str, str], said: str
) -> None:
    state = second.told()
    for one, judge in zip(state["rounds"], judges, strict=True):
        one["judge"] = judge
    (second.run / "loop.json").write_text(json.dumps(state))
    assert said in (write(second).root / "labels" / "README.md").read_text()


def test_a_judge_of_a_round_behind_the_best_has_not_labelled_for_it(second: ScriptedLoop) -> None:
    state = second.told()
    state["rounds"][1] |= {"judge": "student", "metric": {"value": -1.0, "low": None, "high": None}}
    (second.run / "loop.json").write_text(json.dumps(state))
    folder = write(second)
    for card in (folder.best / "README.md", folder.root / "labels" / "README.md"):
        assert "the model itself" not in card.read_text()


def test_a_card_does_not_make_the_best_model_be_copied_again(made: ScriptedLoop) -> None:
    folder = write(made)
    made.loop()
    assert (folder.best / "README.md").is_file()


def test_without_a_best_round_nothing_is_written(made: ScriptedLoop) -> None:
    folder = LoopFolder(made.run)
    publish(folder, Recipe.load(made.file), State())
    assert not (folder.root / "labels").exists()


def test_the_command_writes_the_cards_at_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = ScriptedLoop(tmp_path, monkeypatch)
    loop(made.file)
    assert (made.run / "best" / "README.md").is_file()
    assert (made.run / "labels" / "README.md").is_file()
