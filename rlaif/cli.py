"""The command line: `rlaif COMMAND`. Each command parses, and only then imports what is heavy."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from rlaif.errors import RlaifError

app = typer.Typer(
    help="Align a language model to a written constitution, without human labels.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
constitution_app = typer.Typer(help="Work on constitution files.", no_args_is_help=True)
app.add_typer(constitution_app, name="constitution")

RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="the recipe's YAML file")]


@app.command()
def quickstart(
    constitution: Annotated[
        Path | None, typer.Option(help="a constitution in the sandbox's words")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="every random seed follows from it")] = 0,
    out: Annotated[Path, typer.Option(help="the run folder")] = Path("runs/quickstart"),
) -> None:
    """Run the main job on the embedded sandbox: label, SFT, DPO, reward model, evaluate."""
    from rlaif.sandbox.quickstart import quickstart as run_quickstart

    run_quickstart(out, constitution=constitution, seed=seed)


@app.command()
def label(recipe: RecipeFile) -> None:
    """Sample responses, judge them against the constitution, pick SFT rows and pairs."""
    from rlaif import pipeline
    from rlaif.progress import progress_bars
    from rlaif.recipe import Recipe

    loaded = Recipe.load(recipe)
    with progress_bars() as progress:
        counts = pipeline.label(loaded, progress)
    _say(
        f"{counts.prompts} prompts, {counts.responses} responses, {counts.verdicts} verdicts "
        f"({counts.abstentions} abstentions) → {counts.picks} picks, {counts.pairs} pairs"
    )
    for stage, reasons in counts.dropped.items():
        for reason, count in reasons.items():
            _say(f"  kept aside from {stage}: {count} × {reason}")
    _say(f"in {Path(loaded.run) / 'data'}")


@app.command()
def evaluate(
    recipe: RecipeFile,
    stage: Annotated[
        str | None, typer.Option(help="the trained model: sft or dpo; the last one by default")
    ] = None,
) -> None:
    """Compare the trained student with the one it came from, by the teacher, in both orders."""
    from rlaif import pipeline
    from rlaif.progress import progress_bars
    from rlaif.recipe import Recipe

    with progress_bars() as progress:
        result = pipeline.evaluate(Recipe.load(recipe), stage, progress)
    _say(
        f"win rate {result.win_rate:.3f} (95 % interval {result.low:.3f} to {result.high:.3f}), "
        f"at equal length {result.length_controlled:.3f}"
    )
    _say(
        f"{result.comparisons} comparisons, {result.undecided} undecided; verdicts that flip with "
        f"the order: {result.flip_rate:.3f}; mean tokens {result.mean_tokens_base:.1f} → "
        f"{result.mean_tokens_trained:.1f}"
    )


@constitution_app.command()
def check(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="constitution files")],
) -> None:
    """Read constitution files; say what is wrong, with file, line, key, value and the mend."""
    from rlaif.constitution import Constitution

    wrong = 0
    for file in files:
        try:
            found = Constitution.load(file)
        except RlaifError as error:
            wrong += 1
            print(error, file=sys.stderr)
        else:
            _say(f"{file}: {found.name}, {len(found.principles)} principles")
    raise typer.Exit(1 if wrong else 0)


def _say(text: str) -> None:
    typer.echo(text)


def main() -> None:
    """The entry point: an error that a user can cause is one line, and exit status 2."""
    try:
        app()
    except RlaifError as error:
        print(f"rlaif: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
