"""A real loop, killed at named moments and started again: it ends as if nothing had happened.

One undisturbed run and one that is killed; what takes long is shared between the tests.
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.loop.tiny_loop import MOMENTS, TinyLoop, make_models
from tests.train.tiny_run import ROOT


@dataclass
class Undisturbed:
    """A loop that ran through, and what its parent process was seen to be meanwhile."""

    loop: TinyLoop
    status: int
    printed: str
    largest: int
    mapped: set[str]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Undisturbed:
    loop = TinyLoop(tmp_path_factory.mktemp("undisturbed"), models)
    process = loop.start()
    largest, mapped = 0, set[str]()

    def watch() -> None:
        nonlocal largest
        while process.poll() is None:
            try:
                largest = max(largest, psutil.Process(process.pid).memory_info().rss)
                maps = Path(f"/proc/{process.pid}/maps").read_text()
                mapped.update(Path(line.split()[-1]).name for line in maps.splitlines())
            except (psutil.NoSuchProcess, OSError):
                break
            time.sleep(0.2)

    watcher = threading.Thread(target=watch)
    watcher.start()
    printed, _ = process.communicate(timeout=900)
    watcher.join()
    return Undisturbed(loop, process.returncode, printed, largest, mapped)


def moment(folder: Path, event: str, path: str, who: str) -> dict[str, str]:
    once = (
        folder / f"came-{len(list(folder.glob('came-*')))}-{path[-12:-1].replace('/', '-')}-{who}"
    )
    return {"event": event, "path": path, "who": who, "once": str(once)}


@dataclass
class Killed:
    """A loop that was killed and started again, with what each start ended as and printed."""

    loop: TinyLoop
    starts: list[tuple[int, str]]
    came: list[bool]
    left: list[list[str]]


STARTS = {
    "the parent alone, while sampling": [
        ("os.rename", r"rounds/00/data/samples/00001\.parquet$", "parent")
    ],
    "the whole tree, while judging": [
        ("os.rename", r"rounds/00/data/verdicts/pointwise/\w+/00001\.parquet$", "tree")
    ],
    "the parent alone, in training between checkpoints": [
        ("os.mkdir", r"rounds/00/models/sft/checkpoint-4$", "parent")
    ],
    "between two stages": [("os.rename", r"finished/00-sft\.json$", "tree")],
    "the whole tree, while the model is saved": [
        # These two the kernel might have killed; the loop itself starts them again.
        ("os.rename", r"rounds/01/data/samples/00001\.parquet$", "self"),
        ("os.mkdir", r"rounds/01/models/dpo/checkpoint-4$", "self"),
        ("open", r"rounds/01/models/dpo/final\.partial/", "tree"),
    ],
    "not at all": [],
}


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Killed:
    folder = tmp_path_factory.mktemp("killed")
    found = Killed(TinyLoop(folder, models), [], [], [])
    for number, moments in enumerate(STARTS.values()):
        made = [
            {"event": event, "path": path, "who": who, "once": str(folder / f"came-{number}-{i}")}
            for i, (event, path, who) in enumerate(moments)
        ]
        process = found.loop.start(RLAIF_MOMENTS=json.dumps(made), PYTHONPATH=f"{MOMENTS}:{ROOT}")
        printed, _ = process.communicate(timeout=900)
        found.left.append(left_of(process.pid))
        found.starts.append((process.returncode, printed))
        found.came.append(all(Path(one["once"]).exists() for one in made))
    return found


def left_of(root: int) -> list[str]:
    """What is still there of a loop, half a minute after its end at most."""
    end = time.monotonic() + 30
    while True:
        left = [
            " ".join(process.cmdline())
            for process in psutil.process_iter()
            if _environment(process).get("RLAIF_MOMENTS_ROOT") == str(root)
        ]
        if not left or time.monotonic() > end:
            return left
        time.sleep(0.2)


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return {} if process.status() == psutil.STATUS_ZOMBIE else dict(process.environ())
    except psutil.Error:
        return {}


def test_two_rounds_run_through(undisturbed: Undisturbed) -> None:
    assert undisturbed.status == 0, undisturbed.printed
    loop = undisturbed.loop
    state = loop.state()
    assert state["status"] == "finished"
    assert [one["round"] for one in state["rounds"]] == [0, 1]
    assert set(loop.weights()) == {
        f"rounds/{made}/final/model.safetensors"
        for made in ("00/models/sft", "00/models/dpo", "01/models/dpo")
    }
    assert len(set(loop.weights().values())) == 3
    best = loop.run / "best" / "model.safetensors"
    kept = loop.run / "rounds" / f"{state['best']:02d}" / "models/dpo/final/model.safetensors"
    assert best.read_bytes() == kept.read_bytes()


def test_the_second_round_samples_from_the_first_one_s_model_and_trains_on_both_rounds_rows(
    undisturbed: Undisturbed,
) -> None:
    run = undisturbed.loop.run
    recipe = (run / "rounds/01/recipe.yaml").read_text()
    assert str(run / "rounds/00/models/dpo/final") in recipe
    rows = [undisturbed.loop.events("trained", n)[-1]["rows"]["trained_on"] for n in (0, 1)]
    assert rows[1] > rows[0]


def test_the_parent_holds_no_torch_and_stays_small(undisturbed: Undisturbed) -> None:
    assert undisturbed.mapped, "the parent was never looked at"
    assert not [name for name in undisturbed.mapped if "torch" in name]
    assert 0 < undisturbed.largest < 500 * 2**20


def test_each_kill_came_at_its_moment_and_left_no_process(killed: Killed) -> None:
    assert killed.came == [True] * len(STARTS)
    assert killed.left == [[]] * len(STARTS)
    assert [status for status, _ in killed.starts] == [-9] * 5 + [0]


def test_killed_five_times_it_ends_with_the_same_bytes(
    killed: Killed, undisturbed: Undisturbed
) -> None:
    assert killed.loop.labels() == undisturbed.loop.labels()
    assert killed.loop.weights() == undisturbed.loop.weights()
    assert killed.loop.state() == undisturbed.loop.state()


def test_no_finished_shard_is_done_twice(killed: Killed) -> None:
    for round_ in (0, 1):
        made = [(e["stage"], e["shard"]) for e in killed.loop.events("shard", round_)]
        assert len(made) == len(set(made))
        assert {("samples", n) for n in range(3)} <= set(made)


def test_a_training_goes_on_at_its_checkpoint_and_a_finished_one_is_not_done_again(
    killed: Killed,
) -> None:
    begun = [
        (e["stage"], e["resumed_from"]) for n in (0, 1) for e in killed.loop.events("train", n)
    ]
    assert begun == [
        ("models/sft", None), ("models/sft", "checkpoint-2"), ("models/dpo", None),
        # killed by itself at the fourth step, and while it was saved
        ("models/dpo", None), ("models/dpo", "checkpoint-2"), ("models/dpo", "checkpoint-4"),
    ]  # fmt: skip


def test_what_the_kernel_has_killed_is_started_again_by_the_loop(killed: Killed) -> None:
    printed = killed.starts[4][1]
    assert "01-sample: killed, perhaps for want of memory; started again" in printed
    assert "01-dpo: killed, perhaps for want of memory; started again" in printed


def test_a_corrupt_last_shard_is_done_again_alone(killed: Killed, undisturbed: Undisturbed) -> None:
    loop = killed.loop
    shard = loop.run / "rounds/01/data/samples/00002.parquet"
    shard.write_bytes(shard.read_bytes()[:-100])
    before = len(loop.events("shard", 1))
    status, printed = loop.loop()
    assert status == 0
    assert "01-sample: samples/00002.parquet is not what was written; it is done again" in printed
    assert printed.count("finished in") == 1
    assert [e["shard"] for e in loop.events("shard", 1)[before:] if e["stage"] == "samples"] == [2]
    assert loop.labels() == undisturbed.loop.labels()
