"""Engines for the tests of process.py, made by name in a worker process."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

from rlaif.engines.protocol import Generation, Label, LabelScore, Sampling
from rlaif.engines.scripted import ScriptedEngine
from rlaif.errors import EngineError, MissingExtraError
from rlaif.records import Chat, Response


def echo(folder: str = "") -> ScriptedEngine:
    """Answers with what it was given; a message's segments are joined by "+"."""

    def say(chat: Chat) -> list[str]:
        told = [m.content if isinstance(m.content, str) else "+".join(m.content) for m in chat]
        return [f"{chat[-1].role}: {text}" for text in told]

    return ScriptedEngine(say, score=lambda chat, labels: [0.5] * len(labels))


def wordy() -> ScriptedEngine:
    """Prints on both of its outputs, from Python, below it and from a child, while it answers."""

    def say(chat: Chat) -> str:
        print("on the standard output")
        os.write(1, b"\x00\x00\x00\x00\x00\x00\x00\x02{}\n")
        subprocess.run(["/bin/sh", "-c", "echo from a child; cat"], check=True)
        print("on the standard error", file=sys.stderr)
        warnings.warn("half the batch", RuntimeWarning, stacklevel=1)
        return "said"

    return ScriptedEngine(say)


def odd_numbers() -> ScriptedEngine:
    """Scores and finishes that JSON alone would not keep."""
    return ScriptedEngine(
        lambda chat: (
            None
            if chat[-1].text == "no"
            else Generation((Response("\ud800 漢\x00", 7, "length"), Response("", 0, "stop")))
        ),
        score=lambda *_: LabelScore((math.log(0.1), -math.inf, math.nan)),
    )


def failing(how: str, when: str = "call") -> ScriptedEngine:
    """Fails when it is made, or when it is asked."""

    def fail() -> None:
        match how:
            case "engine":
                raise EngineError("too small", key="model", value=[3, 4], mend="grow it", file="f")
            case "extra":
                raise MissingExtraError("flying", "wings")
            case "value":
                raise ValueError("1 chats but 2 seeds")
            case "unicode":
                "é".encode("ascii")
            case "other":
                raise KeyError("lost")
            case "exit":
                print("the last words", file=sys.stderr, flush=True)
                os._exit(7)
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)

    if when == "start":
        fail()

    def say(chat: Chat) -> str:
        if chat[-1].text == "fail":
            fail()
        return "fine"

    return ScriptedEngine(say)


class WithChildren(ScriptedEngine):
    """Starts a child, tells its process id and its own in a file, and works for a long time."""

    def __init__(self, pids: str, ends_well: bool = True) -> None:
        super().__init__()
        self.pids, self.ends_well = Path(pids), ends_well

    def generate(self, chats: list[Chat], sampling: Sampling, seeds: list[int]) -> list[Generation]:
        # The child holds copies of all the pipes, as the child of a fork does.
        child = os.fork()
        if not child:
            time.sleep(600)
            os._exit(0)
        made = self.pids.with_suffix(".new")
        made.write_text(f"{os.getpid()} {child}")
        made.rename(self.pids)
        if chats[-1][-1].text == "work":
            time.sleep(600)
        return [Generation((), "slept")] * len(chats)

    def score_labels(self, chats: list[Chat], labels: list[Label]) -> list[LabelScore]:
        raise NotImplementedError

    def close(self) -> None:
        self.pids.with_suffix(".closed").write_text("")
        if not self.ends_well:
            time.sleep(600)
