"""The whole work of bench_work.py by distilabel on a vLLM server: bench_ways.py starts it.

    .venv-distilabel/bin/python scripts/bench_distilabel.py MODEL

Starts the server, then takes a line of JSON a job on stdin and answers with a line each, as
bench_way.py does; the server ends with it. Imports nothing of this package, whose pins are others.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distilabel.models import OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts, Step, StepInput
from distilabel.steps.tasks import TextGeneration

Job = dict[str, Any]
HERE = Path(__file__).resolve().parent
_VLLM_PYTHON = HERE.parent / ".venv-vllm" / "bin" / "python"
_TEMPLATE = HERE.parent / "rlaif" / "templates" / "pointwise.txt"
_START_SECONDS = 300
_SAMPLE_BATCH = 64
_JUDGE_BATCH = 1024
"""Requests under way at once. Of 128, 256 and 1024 questions the most were fastest."""


def main() -> None:
    with serve(Path(sys.argv[1])) as url:
        for line in sys.stdin:
            print("@@" + json.dumps(whole(url, json.loads(line))), flush=True)


def whole(url: str, job: Job) -> Job:
    """Sample, judge and write the pairs: `job` names the file of the work and the file of pairs.

    The seconds begin when all steps are loaded, as a model's loading is left out elsewhere.
    """
    work = json.loads(Path(job["work"]).read_text())
    prompts = work["prompts"][: job["prompts"]]
    with tempfile.TemporaryDirectory() as cache:
        pipeline = _pipeline(url, prompts, work, Path(cache))
        made = pipeline.run(use_cache=False)
        rows = made["default"]["train"].to_list()
        pairs = _pairs(prompts, rows)
        with Path(job["file"]).open("w") as file:
            file.writelines(json.dumps(pair) + "\n" for pair in pairs)
        seconds = time.time() - rows[0]["started"]
    unanswered = sum(row["answer"] is None for row in rows)
    if unanswered or len(pairs) < len(prompts):
        raise SystemExit(f"{unanswered} questions unanswered, {len(pairs)} pairs")
    return {"seconds": seconds}


def _pipeline(url: str, prompts: list[str], work: Job, cache: Path) -> Pipeline:
    with Pipeline(name="whole", cache_dir=cache) as pipeline:
        load = Load(
            data=[{"number": i, "prompt": text} for i, text in enumerate(prompts)],
            batch_size=_SAMPLE_BATCH,
        )
        sample = TextGeneration(
            name="sample",
            llm=_llm(url, max_new_tokens=work["response_tokens"], temperature=1.0),
            template="{{ prompt }}",
            columns="prompt",
            num_generations=work["responses"],
            group_generations=True,
            input_batch_size=_SAMPLE_BATCH,
            output_mappings={"generation": "responses"},
            **_PLAIN,
        )
        expand = Ask(
            name="ask",
            principles=work["principles"],
            input_batch_size=_SAMPLE_BATCH,
            use_cache=False,
        )
        judge = TextGeneration(
            name="judge",
            llm=_llm(url, max_new_tokens=1, temperature=0.0),
            template=_TEMPLATE.read_text().rstrip("\n"),
            columns=["prompt", "response", "principle"],
            input_batch_size=_JUDGE_BATCH,
            output_mappings={"generation": "answer"},
            **_PLAIN,
        )
        load >> sample >> expand >> judge
    return pipeline


_PLAIN: Job = {"use_cache": False, "add_raw_output": False, "add_raw_input": False}
"""What is not needed is not kept, which is the faster for it."""


def _llm(url: str, **generation: Any) -> OpenAILLM:
    return OpenAILLM(
        model="model",
        base_url=url,
        api_key="none",
        timeout=600,
        generation_kwargs=generation,
    )


class Load(LoadDataFromDicts):  # type: ignore[misc]
    """The prompts, with the time when they were first asked for: all steps are then loaded."""

    @property
    def outputs(self) -> list[str]:
        """What a row holds."""
        return ["number", "prompt", "started"]

    def process(self, offset: int = 0) -> Iterator[tuple[list[Job], bool]]:
        """Batches of rows, and whether each is the last."""
        started = time.time()
        for rows, last in super().process(offset):
            yield [row | {"started": started} for row in rows], last


class Ask(Step):  # type: ignore[misc]
    """A row a question: each response under each principle."""

    principles: list[str]

    @property
    def inputs(self) -> list[str]:
        """What it reads of a row."""
        return ["number", "prompt", "started", "responses"]

    @property
    def outputs(self) -> list[str]:
        """What it adds."""
        return ["response", "which", "principle"]

    def process(self, inputs: StepInput) -> Iterator[list[Job]]:
        """The questions about a batch of rows."""
        yield [
            {"number": row["number"], "prompt": row["prompt"], "started": row["started"],
             "response": response, "which": i, "principle": principle}
            for row in inputs
            for i, response in enumerate(row["responses"])
            for principle in self.principles
        ]  # fmt: skip


def _pairs(prompts: list[str], rows: list[Job]) -> list[dict[str, str]]:
    """The response with the most yes against the one with the fewest, of every prompt."""
    said: dict[int, dict[int, str]] = defaultdict(dict)
    yes: dict[int, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    for row in rows:
        said[row["number"]][row["which"]] = row["response"]
        yes[row["number"]][row["which"]] += (row["answer"] or "").strip().lower() == "yes"
    pairs = []
    for number, counts in yes.items():
        best, worst = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
        pair = {"chosen": said[number][best], "rejected": said[number][worst]}
        pairs.append({"prompt": prompts[number], **pair})
    return pairs


@contextmanager
def serve(model: Path) -> Iterator[str]:
    """vLLM's server of a model folder on loopback; its URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    python = os.environ.get("RLAIF_VLLM_PYTHON", str(_VLLM_PYTHON))
    command = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    command += ["--served-model-name", "model", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--dtype", "bfloat16", "--block-size", "32", "--disable-uvicorn-access-log"]
    server = subprocess.Popen(
        command,
        env=os.environ | {"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_NO_USAGE_STATS": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        _wait(server, f"http://127.0.0.1:{port}/health")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        os.killpg(server.pid, signal.SIGKILL)  # the server and its engine
        server.wait()


def _wait(server: subprocess.Popen[bytes], url: str) -> None:
    until = time.monotonic() + _START_SECONDS
    while server.poll() is None and time.monotonic() < until:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    raise SystemExit("vLLM's server did not start; BENCH_LOUD=1 shows what it says")


if __name__ == "__main__":
    main()
