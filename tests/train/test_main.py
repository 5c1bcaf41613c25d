from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from rlaif.train.__main__ import main
from tests.train.tiny_run import QUICK, TinyRun


def test_an_error_is_one_line_and_status_2(
    tiny_run: Callable[..., TinyRun], capsys: pytest.CaptureFixture[str]
) -> None:
    run = tiny_run(sft={"learning_rte": 1})
    assert main(["sft", str(run.recipe)]) == 2
    told = capsys.readouterr().err
    assert "train.sft.learning_rte" in told.splitlines()[-1]
    assert "Traceback" not in told


def test_only_rank_0_tells(
    tiny_run: Callable[..., TinyRun],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RANK", "1")
    assert main(["dpo", str(tiny_run(sft=QUICK).recipe)]) == 2
    assert "train.dpo" not in capsys.readouterr().err


def test_an_unknown_stage_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["ppo", "recipe.yaml"])
    assert stopped.value.code == 2


def test_a_process_that_has_done_its_work_ends_whatever_thread_is_left() -> None:
    code = (
        "import atexit, threading\n"
        "from rlaif.train.__main__ import end\n"
        "atexit.register(print, 'registered')\n"
        "threading.Thread(target=threading.Event().wait).start()\n"
        "print('printed')\n"
        "end(3)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout.split()) == (3, ["printed", "registered"])
