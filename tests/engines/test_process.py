from __future__ import annotations

import gc
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.engines import wire
from rlaif.engines.process import ProcessEngine
from rlaif.engines.protocol import NO, YES, Engine, Generation, LabelScore, Sampling, Usage
from rlaif.errors import EngineError, MissingExtraError, RlaifError
from rlaif.records import Chat, Message
from tests.tiny_models import tiny_model_folder

ROOT = str(Path(__file__).resolve().parents[2])
texts = st.text(st.characters(), max_size=20)  # surrogates too
contents = texts | st.lists(texts, max_size=3).map(tuple)
chats_of = st.lists(
    st.lists(st.builds(Message, st.sampled_from(["user", "assistant"]), contents)).map(tuple)
)


@pytest.fixture(autouse=True)
def _tests_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", ROOT)


def engine_of(name: str, **arguments: Any) -> ProcessEngine:
    return ProcessEngine(f"tests.engines.worker_engines:{name}", arguments)


def ask(text: str = "a") -> Chat:
    return (Message("user", text),)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with suppress(FileNotFoundError):  # nobody may have waited for an orphan yet
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def wait_for(condition: Any, seconds: float = 30) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.05)
    return False


@given(chats_of)
def test_chats_come_through_as_they_are(chats: list[Chat]) -> None:
    sent = wire.frame(wire.pack_chats(chats))
    assert wire.unpack_chats(wire.json.loads(sent[wire.HEADER.size :])) == chats


@given(st.lists(st.from_type(LabelScore)), st.lists(st.from_type(Generation)))
def test_every_part_of_an_answer_comes_through(
    scores: list[LabelScore], generations: list[Generation]
) -> None:
    def sent(packed: Any) -> Any:
        return wire.json.loads(wire.frame(packed)[wire.HEADER.size :])

    # repr, because NaN is not equal to itself
    assert repr(wire.unpack_scores(sent(wire.pack_scores(scores)))) == repr(scores)
    assert wire.unpack_generations(sent(wire.pack_generations(generations))) == generations


def test_a_shared_segment_crosses_once() -> None:
    shared = "a long response " * 100
    chats = [(Message("user", (shared, f"principle {i}")),) for i in range(50)]
    assert len(wire.frame(wire.pack_chats(chats))) < 2 * len(shared) + 50 * 60


def test_it_answers_as_the_engine_in_this_process_does(tmp_path: Path) -> None:
    from rlaif.engines.transformers import TransformersEngine

    folder = str(tiny_model_folder(tmp_path / "m"))
    chats = [ask("what is this"), (Message("user", ("yes\n", "no")), Message("assistant", "A"))]
    chats.append(ask("yes " * 600))  # too long
    sampling = Sampling(n=2, max_tokens=6, stop=("B",))
    here = TransformersEngine(folder, dtype="float32")
    name = "rlaif.engines.transformers:TransformersEngine"
    with closing(ProcessEngine(name, {"model": folder, "dtype": "float32"})) as there:
        assert isinstance(there, Engine)
        assert dict(there.identity) == dict(here.identity)
        assert there.generate(chats, sampling, [1, 2, 3]) == here.generate(
            chats, sampling, [1, 2, 3]
        )
        ours, theirs = (e.score_labels(chats, [YES, NO]) for e in (here, there))
        for mine, other in zip(ours, theirs, strict=True):
            assert mine.reason == other.reason
            assert mine.logprobs == pytest.approx(other.logprobs, abs=1e-6)
        assert there.usage == here.usage != Usage()


def test_what_json_lacks_comes_through() -> None:
    with closing(engine_of("odd_numbers")) as engine:
        good, none = engine.generate([ask(), ask("no")], Sampling(), [0, 0])
        assert [(r.text, r.tokens, r.finish) for r in good.responses] == [
            ("\ud800 漢\x00", 7, "length"),
            ("", 0, "stop"),
        ]
        assert (none.responses, none.reason) == ((), "the script has no answer")
        [score] = engine.score_labels([ask()], [YES, NO, ("maybe",)])
        assert score.logprobs is not None
        assert score.logprobs[:2] == (math.log(0.1), -math.inf) and math.isnan(score.logprobs[2])


def test_what_the_engine_prints_disturbs_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "rlaif.engines.process")
    with closing(engine_of("wordy")) as engine:
        for _ in range(3):
            [said] = engine.generate([ask()], Sampling(), [0])
            assert said.responses[0].text == "said"
        engine.generate([ask()], Sampling(), [0])
    for text in ("on the standard output", "from a child", "on the standard error"):
        assert text in caplog.messages


def test_warnings_of_this_package_are_given_again_here(tmp_path: Path) -> None:
    with closing(engine_of("echo")) as engine:
        reply = {"answer": 1, "warnings": ["half the batch"], "usage": [1, 2, 3, 4, 5]}
        with pytest.warns(RuntimeWarning, match="half the batch"):
            assert engine._read(reply) == 1
        assert engine.usage == Usage(1, 2, 3, 4, 5)


@pytest.mark.parametrize("when", ["start", "call"])
@pytest.mark.parametrize(
    ("how", "kind", "told"),
    [
        ("engine", EngineError, "f: model: too small (got [3, 4]); grow it"),
        ("extra", MissingExtraError, "flying needs an extra; pip install 'rlaif[wings]'"),
        ("value", ValueError, "1 chats but 2 seeds"),
        ("unicode", ValueError, "'ascii' codec can't encode"),
        ("other", EngineError, "the engine failed: KeyError: 'lost'"),
    ],
)
def test_an_error_of_the_engine_is_the_same_error_here(
    how: str, kind: type[Exception], told: str, when: str
) -> None:
    with pytest.raises(kind) as caught, closing(engine_of("failing", how=how, when=when)) as engine:
        try:
            engine.generate([ask("fail")], Sampling(), [0])
        finally:  # it goes on
            [fine] = engine.generate([ask()], Sampling(), [0])
            assert fine.responses[0].text == "fine"
    assert type(caught.value) is kind
    assert str(caught.value).startswith(told) and "\n" not in str(caught.value)
    if isinstance(caught.value, RlaifError) and how == "engine":
        assert (caught.value.key, caught.value.mend) == ("model", "grow it")
    assert "worker_engines.py" in str(caught.value.__cause__)


@pytest.mark.parametrize(
    ("how", "told"),
    [("exit", "exit status 7; it last said: the last words; what"), ("kill", "killed by SIGKILL")],
)
@pytest.mark.parametrize("when", ["start", "call"])
def test_a_worker_that_dies_is_an_error_with_its_status(how: str, told: str, when: str) -> None:
    with pytest.raises(EngineError) as caught:  # noqa: SIM117
        with closing(engine_of("failing", how=how, when=when)) as engine:
            engine.generate([ask("fail")], Sampling(), [0])
    assert told in str(caught.value) and "\n" not in str(caught.value)


def test_a_dead_worker_says_so_again_and_can_be_closed() -> None:
    engine = engine_of("failing", how="kill")
    for text in ("fail", "anything"):
        with pytest.raises(EngineError, match="killed by SIGKILL"):
            engine.generate([ask(text)], Sampling(), [0])
    engine.close()


def test_a_worker_killed_while_its_child_holds_the_pipes_hangs_nothing(tmp_path: Path) -> None:
    engine = engine_of("WithChildren", pids=str(tmp_path / "pids"))
    killer = threading.Thread(target=lambda: os.kill(pids_of(tmp_path / "pids")[0], 9))
    killer.start()
    with pytest.raises(EngineError, match="killed by SIGKILL"):
        engine.generate([ask("work")], Sampling(), [0])
    killer.join()
    assert wait_for(lambda: not any(map(is_alive, pids_of(tmp_path / "pids"))))


def test_a_message_larger_than_any_pipe_to_a_dead_worker_hangs_nothing(tmp_path: Path) -> None:
    engine = engine_of("WithChildren", pids=str(tmp_path / "pids"))
    engine.generate([ask()], Sampling(), [0])
    os.kill(pids_of(tmp_path / "pids")[0], signal.SIGKILL)
    with pytest.raises(EngineError, match="killed by SIGKILL"):
        engine.generate([ask("x" * 10_000_000)], Sampling(), [0])


def pids_of(file: Path) -> list[int]:
    assert wait_for(file.exists)
    return [int(pid) for pid in file.read_text().split()]


PARENT = """
import os, signal, sys
child = 0
from rlaif.engines.process import ProcessEngine
from rlaif.engines.protocol import Sampling
from rlaif.records import Message
engine = ProcessEngine("tests.engines.worker_engines:WithChildren", {"pids": sys.argv[1]})
if sys.argv[2] == "fork" and not (child := os.fork()):
    signal.pause()
print(child, flush=True)
engine.generate([(Message("user", sys.argv[2]),)], Sampling(), [0])
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[Any]:
    started = list[subprocess.Popen[str]]()

    def start(text: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", PARENT, str(tmp_path / "pids"), text]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, cwd=ROOT, text=True, stdin=pipe, stdout=pipe))
        return started[-1]

    yield start
    for process in started:
        with process:  # closes its pipes
            process.kill()
            assert process.stdout is not None
            if (child := int(process.stdout.readline() or 0)) > 0:
                os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("text", ["work", "rest", "fork"])
def test_when_this_process_is_killed_the_worker_and_its_children_end(
    parent: Any, tmp_path: Path, text: str, how: signal.Signals
) -> None:
    process = parent(text)
    pids = pids_of(tmp_path / "pids")
    assert all(map(is_alive, pids))
    process.send_signal(how)
    assert wait_for(lambda: not any(map(is_alive, pids)), 15)


def test_when_this_process_just_ends_the_worker_ends_too(parent: Any, tmp_path: Path) -> None:
    process = parent("rest")
    pids = pids_of(tmp_path / "pids")
    assert [process.stdout.readline() for _ in range(2)] == ["0\n", "ready\n"]
    process.stdin.close()
    assert process.wait(30) == 0
    assert wait_for(lambda: not any(map(is_alive, pids)), 15)


@pytest.mark.parametrize("ends_well", [True, False])
def test_closing_ends_the_worker_and_its_children(tmp_path: Path, ends_well: bool) -> None:
    engine = engine_of("WithChildren", pids=str(tmp_path / "pids"), ends_well=ends_well)
    engine.generate([ask()], Sampling(), [0])
    pids = pids_of(tmp_path / "pids")
    engine.close()
    assert (tmp_path / "pids.closed").exists()
    assert wait_for(lambda: not any(map(is_alive, pids)), 5)
    with pytest.raises(EngineError, match="was closed"):
        engine.generate([ask()], Sampling(), [0])
    engine.close()


def test_a_forgotten_engine_leaves_no_process(tmp_path: Path) -> None:
    engine = engine_of("WithChildren", pids=str(tmp_path / "pids"))
    engine.generate([ask()], Sampling(), [0])
    del engine
    gc.collect()
    assert wait_for(lambda: not any(map(is_alive, pids_of(tmp_path / "pids"))))


def test_an_interrupted_call_leaves_no_answer_for_the_next(tmp_path: Path) -> None:
    engine = engine_of("WithChildren", pids=str(tmp_path / "pids"))

    def interrupt() -> None:
        pids_of(tmp_path / "pids")
        signal.raise_signal(signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        engine.generate([ask("work")], Sampling(), [0])
    thread.join()
    with pytest.raises(EngineError, match="was interrupted"):
        engine.generate([ask()], Sampling(), [0])
    assert wait_for(lambda: not any(map(is_alive, pids_of(tmp_path / "pids"))), 5)


def test_a_missing_interpreter_is_named() -> None:
    with pytest.raises(EngineError, match=r"python: cannot start .* \(got '/no/such/python'\)"):
        ProcessEngine("tests.engines.worker_engines:echo", {}, python="/no/such/python")


def test_arguments_must_be_json() -> None:
    with pytest.raises(EngineError, match="not JSON"):
        engine_of("echo", folder={1, 2})


def test_nothing_beside_this_package_is_on_the_path_of_the_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise ImportError('the working directory was imported')")
    monkeypatch.chdir(tmp_path)
    with closing(engine_of("echo")) as engine:
        [said] = engine.generate([(Message("user", ("a", "b")),)], Sampling(), [0])
        assert said.responses[0].text == "user: a+b"


def test_the_parent_needs_no_torch() -> None:
    code = "import sys, rlaif.engines.process; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
