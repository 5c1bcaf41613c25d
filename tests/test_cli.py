"""The command line: what a user sees first."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import rlaif


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
