from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.engines import vllm_server as server

# How long an example takes says more about the machine than about the code.
settings.register_profile("engines", deadline=None)
settings.load_profile("engines")


@pytest.fixture(scope="session")
def vllm_python() -> Path:
    """The interpreter that has vLLM; the test is skipped where the machine cannot run it."""
    if reason := server.why_not():
        pytest.skip(reason)
    if not server.PYTHON.exists():
        pytest.fail(f"no {server.PYTHON}: run scripts/install-vllm")
    return server.PYTHON


@pytest.fixture(scope="session")
def servable_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random model, in float32, that every engine can run."""
    return server.servable_model_folder(tmp_path_factory.mktemp("servable") / "tiny")


@pytest.fixture(scope="session")
def vllm_server(
    vllm_python: Path, servable_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[server.VllmServer]:
    """vLLM's own server, on loopback, of `servable_folder`."""
    log = tmp_path_factory.mktemp("server") / "server.log"
    with server.serve(servable_folder, log) as running:
        yield running


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tests of an engine that this machine cannot run are skipped, but not silently."""
    if not (reason := server.why_not()):
        return
    skipped = [r for r in terminalreporter.stats.get("skipped", []) if reason in str(r.longrepr)]
    if skipped:
        terminalreporter.section("NOT TESTED")
        terminalreporter.line(f"{len(skipped)} tests with a real vLLM: {reason}")
