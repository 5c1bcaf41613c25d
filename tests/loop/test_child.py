from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from rlaif import lifeline
from rlaif.loop.child import Ended, InterruptedLoopError, run_child, signals
from tests.train.tiny_run import environment


def said(tmp_path: Path) -> Path:
    return tmp_path / "said" / "one.txt"


@pytest.mark.parametrize("status", [0, 2, 75])
def test_a_child_s_status_and_last_words_are_told(tmp_path: Path, status: int) -> None:
    code = (
        f"import sys; print('first'); print(); print('last', file=sys.stderr); sys.exit({status})"
    )
    ended = run_child(["-u", "-c", code], said(tmp_path))
    assert (ended.status, ended.said, ended.killed) == (status, "first\nlast", False)
    assert ended.seconds > 0


def test_only_what_this_child_printed_is_told_and_all_is_kept(tmp_path: Path) -> None:
    run_child(["-c", "print('of the first')"], said(tmp_path))
    ended = run_child(["-c", "for i in range(200): print(i)"], said(tmp_path))
    lines = ended.said.splitlines()
    assert lines[-1] == "199" and "of the first" not in lines and len(lines) < 200
    assert "100" in lines, "a launcher's own account takes up to a hundred lines"
    assert said(tmp_path).read_text().startswith("of the first\n0\n")


def test_what_is_no_text_is_told_as_well_as_it_can_be(tmp_path: Path) -> None:
    ended = run_child(["-c", "import os; os.write(1, b'a\\xff\\nb')"], said(tmp_path))
    assert ended.said == "a\ufffd\nb"


def test_a_child_knows_the_loop_s_variables_and_its_lifeline(tmp_path: Path) -> None:
    code = f"import os; print(os.environ['ONE'], os.environ[{lifeline.VARIABLE!r}])"
    assert run_child(["-c", code], said(tmp_path), {"ONE": "1"}).said == "1 stdin"


@pytest.mark.parametrize(
    ("status", "words", "killed"),
    [(-9, "", True), (137, "", True), (-15, "", False), (2, "", False), (0, "SIGKILL", False),
     (2, "CalledProcessError: Command '…' died with <Signals.SIGKILL: 9>.\nrlaif: …", True),
     (75, "SIGKILL", False)],
)  # fmt: skip
def test_a_child_that_the_kernel_killed_is_known_by_its_status_or_its_launcher_s_words(
    status: int, words: str, killed: bool
) -> None:
    assert Ended(status, 1.0, words).killed is killed


def test_what_a_killed_child_has_started_is_ended(tmp_path: Path) -> None:
    """Here without a lifeline, in the child's own group."""
    code = (
        "import os, signal, subprocess, sys\n"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(p.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = run_child(["-c", code], said(tmp_path))
    assert ended.killed
    gone(int(ended.said))


def gone(pid: int) -> None:
    end = time.monotonic() + 60
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < end, "it is still there"
        time.sleep(0.05)


LOOP = """
import sys
from pathlib import Path
from rlaif.loop.child import InterruptedLoopError, run_child, signals
CHILD = '''
import os, signal, subprocess, sys, time
from rlaif import lifeline
lifeline.hold()
HANDLER
below = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"],
                         start_new_session=True)
print(os.getpid(), below.pid, flush=True)
time.sleep(600)
'''
try:
    with signals():
        run_child(["-c", CHILD], Path(sys.argv[1]))
except InterruptedLoopError as interrupted:
    print("interrupted by", interrupted)
"""
TELLS = 'signal.signal(signal.SIGTERM, lambda *_: (print("told", flush=True), sys.exit(0)))'


def pids(file: Path) -> list[int]:
    """Of a child and of what it has started, once both are there."""
    end = time.monotonic() + 120
    while not (file.is_file() and file.read_text().endswith("\n")):
        assert time.monotonic() < end, "it did not start"
        time.sleep(0.05)
    return [int(one) for one in file.read_text().split()]


@pytest.mark.parametrize(
    ("number", "handler"),
    [(signal.SIGTERM, TELLS), (signal.SIGINT, TELLS), (signal.SIGHUP, TELLS),
     (signal.SIGTERM, "signal.signal(signal.SIGTERM, signal.SIG_IGN)")],
    ids=["term", "int", "hup", "a child that does not listen"],
)  # fmt: skip
def test_a_signal_reaches_the_child_and_leaves_nothing_behind(
    tmp_path: Path, number: signal.Signals, handler: str
) -> None:
    """A child that listens may end well; one that does not is ended all the same."""
    file = tmp_path / "said.txt"
    process = subprocess.Popen(
        [sys.executable, "-c", LOOP.replace("HANDLER", handler), str(file)],
        env=environment(), stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    found = pids(file)
    process.send_signal(number)
    printed, _ = process.communicate(timeout=120)
    assert printed == f"interrupted by {number.name}\n"
    assert ("told" in file.read_text()) == (handler == TELLS)
    for pid in found:
        gone(pid)


def test_a_loop_that_is_killed_takes_its_child_and_what_that_has_started_with_it(
    tmp_path: Path,
) -> None:
    file = tmp_path / "said.txt"
    process = subprocess.Popen(
        [sys.executable, "-c", LOOP.replace("HANDLER", ""), str(file)], env=environment()
    )
    found = pids(file)
    process.kill()
    process.wait()
    for pid in found:
        gone(pid)


def test_signals_are_what_they_were_afterwards() -> None:
    before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with pytest.raises(InterruptedLoopError) as interrupted, signals():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    assert interrupted.value.signal == signal.SIGTERM
    assert not isinstance(interrupted.value, Exception)
    after = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    assert after == before


def test_a_signal_that_nohup_has_it_ignore_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals():
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.1)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_outside_the_main_thread_signals_are_left_alone() -> None:
    problems: list[BaseException] = []

    def body() -> None:
        try:
            with signals():
                pass
        except BaseException as problem:
            problems.append(problem)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert problems == []
