"""The command line: what a user sees first."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import rlaif
from rlaif.cli import main


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rlaif.cli", *arguments], capture_output=True, text=True
    )


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("quickstart",),
        ("label",),
        ("constitution", "check"),
        ("constitution", "test"),
        ("constitution", "diff"),
    ],
)
def test_help_imports_nothing_heavy(arguments: tuple[str, ...]) -> None:
    code = (
        "import sys\n"
        "from rlaif.cli import app\n"
        f"try: app([*{arguments!r}, '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'trl', 'datasets', 'pyarrow'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        "import sys, rlaif; assert not {'torch', 'pyarrow', 'pydantic', 'typer'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_what_the_package_exports() -> None:
    assert sorted(rlaif.__all__) == [
        "Constitution",
        "Method",
        "Principle",
        "Recipe",
        "Record",
        "RlaifError",
        "Sampling",
        "ScriptedEngine",
        "judge",
        "load_engine",
        "load_prompts",
        "pick_pairs",
        "pick_sft",
        "sample",
        "win_rate",
    ]
    for name in rlaif.__all__:
        assert getattr(rlaif, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        rlaif.nothing  # noqa: B018


def test_a_good_constitution_is_named_and_a_bad_one_is_one_line(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text("name: mine\nprinciples:\n  - id: kind\n    text: Be kind.\n")
    bad.write_text("name: mine\nprinciples:\n  - id: kind\n    text: Be kind.\n    wieght: 2\n")
    done = run("constitution", "check", str(good), str(bad))
    assert done.returncode == 1
    assert "mine, 1 principles" in done.stdout
    assert done.stderr.count("\n") == 1
    for part in (f"{bad}:5", "wieght", "weight"):
        assert part in done.stderr


def test_an_error_is_one_line_and_no_traceback(tmp_path: Path) -> None:
    done = run("label", str(tmp_path / "nothing.yaml"))
    assert done.returncode == 2
    assert done.stderr.startswith("rlaif: ") and done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "caller", "again"),
    [
        (["quickstart", "--out", "run"], "rlaif.loop.running", "it goes on here"),
        (["loop", "recipe.yaml"], "rlaif.loop.running", "it goes on here"),
        (["estimate", "recipe.yaml"], "rlaif.loop.probe", "it measures anew"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_signal_ends_a_command_in_one_line_and_with_its_own_status(
    arguments: list[str], caller: str, again: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def ended(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)

    monkeypatch.setattr(importlib.import_module(caller), "run_child", ended)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "constitution.yaml").write_text(
        "name: mine\nprinciples:\n  - id: kind\n    text: Be kind.\n"
    )
    (tmp_path / "recipe.yaml").write_text(
        "run: run\nconstitution: constitution.yaml\nstudent: {model: s}\nteacher: {model: t}\n"
        "prompts: {path: constitution.yaml}\ntrain: {dpo: {}}\n"
    )
    monkeypatch.setattr("sys.argv", ["rlaif", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 128 + signal.SIGTERM
    assert capsys.readouterr().err == f"rlaif: SIGTERM: started again, {again}\n"
