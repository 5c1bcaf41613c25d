"""Real processes, and real kills: no waiting here is timed but by generous limits."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from rlaif import lifeline
from tests.train.tiny_run import environment

SCRIPT = """
import os, subprocess, sys, time
from pathlib import Path
from rlaif import lifeline
folder, depth = Path(sys.argv[1]), int(sys.argv[2])
if HOLD:
    lifeline.hold()
(folder / f"{depth}-{os.getpid()}").touch()
if depth:
    again = [sys.executable, "-c", sys.argv[3], sys.argv[1], str(depth - 1), sys.argv[3]]
    subprocess.Popen(again, start_new_session=OWN_SESSION)
time.sleep(600)
"""


def below(folder: Path, levels: int) -> list[psutil.Process]:
    """The processes of all levels, once they are there."""
    end = time.monotonic() + 120
    while len(found := sorted(folder.iterdir())) < levels:
        assert time.monotonic() < end, "they did not start"
        time.sleep(0.05)
    return [psutil.Process(int(path.name.partition("-")[2])) for path in found]


def started(folder: Path, script: str, levels: int) -> subprocess.Popen[bytes]:
    """A process that starts a chain of others below it and then waits, as a loop does."""
    code = (
        "import os, subprocess, sys, time\n"
        "reading, writing = os.pipe()\n"
        "subprocess.Popen([sys.executable, '-c', *sys.argv[1:]], stdin=reading,"
        f" env={{**os.environ, {lifeline.VARIABLE!r}: 'stdin'}}, start_new_session=True)\n"
        "os.close(reading)\n"
        "time.sleep(600)\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, script, str(folder), str(levels - 1), script],
        env=environment(),
    )


@pytest.mark.parametrize("own_session", [False, True])
def test_a_process_three_levels_down_ends_with_the_first_one(
    tmp_path: Path, own_session: bool
) -> None:
    """A death signal would reach the first level alone; a group's kill, none of another session."""
    script = SCRIPT.replace("HOLD", "True").replace("OWN_SESSION", str(own_session))
    parent = started(tmp_path, script, 3)
    chain = below(tmp_path, 3)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    _, alive = psutil.wait_procs(chain, timeout=60)
    assert not alive


def test_a_process_that_holds_takes_with_it_what_does_not(tmp_path: Path) -> None:
    """As `accelerate launch` does not, and the processes of another library."""
    script = SCRIPT.replace("HOLD", "depth == 2").replace("OWN_SESSION", "True")
    parent = started(tmp_path, script, 3)
    chain = below(tmp_path, 3)
    parent.kill()
    parent.wait()
    _, alive = psutil.wait_procs(chain, timeout=60)
    assert not alive


def test_a_process_whose_standard_input_is_no_such_pipe_lives_on() -> None:
    code = "from rlaif import lifeline; lifeline.hold(); import time; time.sleep(2); print('alive')"
    done = subprocess.run(
        [sys.executable, "-c", code], stdin=subprocess.DEVNULL, capture_output=True, text=True,
        env=environment(), timeout=120,
    )  # fmt: skip
    assert done.stdout == "alive\n"


def test_all_below_a_process_is_killed_and_not_the_process(tmp_path: Path) -> None:
    script = SCRIPT.replace("HOLD", "False").replace("OWN_SESSION", "True")
    top = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path), "2", script], env=environment()
    )
    chain = below(tmp_path, 3)
    lifeline.kill_below(top.pid)
    assert lifeline.below(top.pid) == []
    assert len(chain) == 3 and top.poll() is None
    top.kill()
    top.wait()
    lifeline.kill_below(top.pid)  # gone: nothing happens


def test_nothing_is_held_where_nobody_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(lifeline.VARIABLE, raising=False)
    lifeline.hold()
    assert "lifeline" not in {thread.name for thread in threading.enumerate()}
