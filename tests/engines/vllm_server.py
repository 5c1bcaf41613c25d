"""vLLM's real server on loopback, with a tiny random model; the fixtures are in conftest.py."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.tiny_models import tiny_llama_config, tiny_model_folder

_HERE = Path(__file__).resolve().parents[2] / ".venv-vllm" / "bin" / "python"
PYTHON = Path(os.environ.get("RLAIF_VLLM_PYTHON", _HERE))
"""The interpreter that has vLLM."""
_START_SECONDS = 300


@dataclass(frozen=True)
class VllmServer:
    """A running server.

    Attributes:
        base_url: what an OpenAI client is given, with its ``/v1``.
        model: the name it serves.
        tokenizer: the folder of the model it serves, with the tokenizer.
        log: what it has said.
    """

    base_url: str
    model: str
    tokenizer: Path
    log: Path


def why_not() -> str | None:
    """Why this machine cannot run vLLM; None where it can."""
    cpus = Path("/proc/cpuinfo")
    if not cpus.is_file() or "avx512f" not in cpus.read_text().split():
        return "vLLM needs Linux on a processor with AVX-512"
    return None


def servable_model_folder(folder: Path) -> Path:
    """A tiny random model that vLLM's attention takes on a CPU: its heads are 32 wide."""
    config = tiny_llama_config(
        hidden_size=64, num_attention_heads=2, num_key_value_heads=1, head_dim=32
    )
    return tiny_model_folder(folder, config)


@contextmanager
def serve(folder: Path, log: Path) -> Iterator[VllmServer]:
    """The server of a model folder, in float32; it ends with the block."""
    port, name = _free_port(), "tiny"
    command = [str(PYTHON), "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder)]
    command += ["--served-model-name", name, "--host", "127.0.0.1", "--port", str(port)]
    command += ["--dtype", "float32", "--block-size", "32", "--enforce-eager"]
    command += ["--enable-prompt-tokens-details"]
    settings = {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            env=os.environ | settings,
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            _wait(process, f"http://127.0.0.1:{port}/health", log)
            yield VllmServer(f"http://127.0.0.1:{port}/v1", name, folder, log)
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # the server and its engine
            process.wait()


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    until = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < until:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    raise RuntimeError(f"vLLM's server did not start:\n{log.read_text()[-4000:]}")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
