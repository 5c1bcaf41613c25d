"""`rlaif constitution test`: a constitution's examples, put to the sandbox's teacher."""

from __future__ import annotations

from pathlib import Path

import pytest

import rlaif.sandbox
from rlaif.cli import main
from rlaif.constitution import Constitution, Example, Principle
from rlaif.errors import ConstitutionError, RecipeError
from rlaif.recipe import Judge, Model
from rlaif.try_examples import judge_with, try_examples

SANDBOX = Path(rlaif.sandbox.__file__).parent
TEACHER = SANDBOX / "models" / "teacher"

BREAD = "How do I bake bread?"
PLAIN = "To bake bread, take a warm oven and taste it often."
WARM = f"Hello there. {PLAIN}"


def save(folder: Path, *, mistaken: bool) -> Path:
    """Two principles at odds over a greeting; a mistaken author calls the worse one better."""
    better, worse = (PLAIN, WARM) if mistaken else (WARM, PLAIN)
    greet = Example(prompt=BREAD, better=better, worse=worse)
    never = Example(prompt=BREAD, better=PLAIN, worse=WARM)
    rules = (
        Principle(id="greeting", text="The answer should greet the user.", examples=(greet,)),
        Principle(id="cold", text="The answer should never greet the user.", examples=(never,)),
    )
    file = folder / "constitution.yaml"
    Constitution(name="test", principles=rules).save(file)
    return file


class Command:
    """`rlaif constitution test …` in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys
        monkeypatch.setenv("COLUMNS", "160")

    def __call__(self, *arguments: object) -> tuple[int, str]:
        """The exit status, and what was printed."""
        argv = ["rlaif", "constitution", "test", *map(str, arguments)]
        self._monkeypatch.setattr("sys.argv", argv)
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0), self._capsys.readouterr().out


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(monkeypatch, capsys)


def test_the_teacher_passes_and_opposite_principles_are_named(run: Command, tmp_path: Path) -> None:
    status, said = run(save(tmp_path, mistaken=False), "--teacher", TEACHER)
    assert status == 0
    tested, pulls = said.split("Principles that pull against each other")
    assert tested.count("1/1") == 2
    assert {tuple(line.split()[1:4:2]) for line in pulls.splitlines() if "1/1" in line} == {
        ("greeting", "cold"), ("cold", "greeting"),
    }  # fmt: skip


def test_an_example_that_the_teacher_reads_the_other_way_fails(
    run: Command, tmp_path: Path
) -> None:
    file = save(tmp_path, mistaken=True)
    status, said = run(file, "--teacher", TEACHER)
    assert status == 1
    [line] = [line for line in said.splitlines() if "TOO FEW" in line]
    for part in ("greeting", "0/1", BREAD):
        assert part in line
    assert run(file, "--teacher", TEACHER, "--threshold", 0)[0] == 0


def test_the_teacher_may_be_a_recipe_s(tmp_path: Path) -> None:
    teacher, settings = judge_with(None, SANDBOX / "recipe.yaml", None)
    assert Path(teacher.model) == TEACHER
    assert settings.mode == "pointwise"
    tested, _ = try_examples(Constitution.load(save(tmp_path, mistaken=False)), teacher, settings)
    assert [(t.right, t.total) for t in tested] == [(1, 1), (1, 1)]


def test_a_mode_that_is_asked_for_goes_before_the_recipe_s(tmp_path: Path) -> None:
    _, settings = judge_with(None, SANDBOX / "recipe.yaml", "pairwise")
    assert (settings.mode, settings.clip) == ("pairwise", 0.2)


def test_a_teacher_alone_is_asked_pointwise(tmp_path: Path) -> None:
    assert judge_with("model", None, None)[1].mode == "pointwise"


@pytest.mark.parametrize(
    ("teacher", "recipe", "mode", "said"),
    [
        (None, None, "pointwise", "--teacher or --recipe (got 'neither')"),
        ("model", Path("r.yaml"), "pointwise", "--teacher or --recipe (got 'both')"),
        ("model", None, "poinwise", "--mode: no such mode (got 'poinwise'); use one of pointwise"),
        (None, SANDBOX / "recipe.yaml", "x", "--mode: no such mode (got 'x'); use one of"),
    ],
)
def test_options_that_cannot_be_used_are_told(
    teacher: str | None, recipe: Path | None, mode: str, said: str
) -> None:
    with pytest.raises(RecipeError) as told:
        judge_with(teacher, recipe, mode)
    assert said in str(told.value)


def test_a_constitution_without_examples_is_told_before_a_model_is_loaded() -> None:
    bare = Constitution(name="bare", principles=(Principle(id="kind", text="Be kind."),))
    with pytest.raises(ConstitutionError, match="bare has no examples"):
        try_examples(bare, Model(model="no-such-model"), Judge())
