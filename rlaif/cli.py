"""The command line: `rlaif COMMAND`. Each command parses, and only then imports what is heavy."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from rlaif.errors import GateError, RlaifError
from rlaif.loop.child import InterruptedLoopError

app = typer.Typer(
    help="Align a language model to a written constitution, without human labels.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
constitution_app = typer.Typer(help="Work on constitution files.", no_args_is_help=True)
app.add_typer(constitution_app, name="constitution")
anchor_app = typer.Typer(help="Work on the human gold set.", no_args_is_help=True)
app.add_typer(anchor_app, name="anchor")
density_app = typer.Typer(help="Work on what says little.", no_args_is_help=True)
app.add_typer(density_app, name="density")

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


OptionalRecipe = Annotated[
    Path | None, typer.Argument(metavar="[RECIPE]", help="the recipe's YAML file")
]
HumanTexts = Annotated[
    str | None,
    typer.Option(help="human texts: a file, folder or hub data set; the recipe's by default"),
]
Compared = Annotated[
    str | None, typer.Option(help="prompt, response or both; the recipe's by default")
]
Embeds = Annotated[
    str | None, typer.Option(metavar="MODEL", help="an embedding model; the recipe's by default")
]


@app.command("filter")
def filter_(
    recipe: OptionalRecipe = None,
    data: Annotated[
        str | None, typer.Option(help="filter this file, folder or hub data set, in TRL's columns")
    ] = None,
    anchors: HumanTexts = None,
    compare: Compared = None,
    embedding: Embeds = None,
    out: Annotated[
        Path | None, typer.Option(help="with --data: where the result goes; by default filtered/")
    ] = None,
) -> None:
    """Hold training rows against human anchors: a labelled run's, or any preference data's.

    A labelled run is filtered as its RECIPE says. All options go with --data; there they go before
    the recipe, if one is named.
    """
    from rlaif import filter_commands

    if data is None:
        filter_commands.refuse_without_data(
            {"anchors": anchors, "compare": compare, "embedding": embedding, "out": out}
        )
        _say(filter_commands.filter_recipe(filter_commands.needed(recipe)))
        return
    out = out or Path("filtered")
    found = filter_commands.filter_any(recipe, data, anchors, compare, embedding, out)
    _say(f"{found}\nin {out}")


@anchor_app.command("fit")
def fit_anchors(
    recipe: OptionalRecipe = None,
    anchors: HumanTexts = None,
    compare: Compared = None,
    embedding: Embeds = None,
) -> None:
    """Propose a band of similarity from the anchors, and say whether they are enough for one."""
    from rlaif import filter_commands

    _say(filter_commands.propose_band(recipe, anchors, compare, embedding))


@density_app.command("fit")
def fit_density(
    informative: Annotated[Path, typer.Option(help="sentences that say something, one a row")],
    empty: Annotated[Path, typer.Option(help="sentences that would not be missed, one a row")],
    out: Annotated[Path, typer.Option(help="the classifier, as JSON")] = Path("density.json"),
    embedding: Embeds = None,
) -> None:
    """Learn which sentences say little, for the `density` part of a recipe's filters."""
    from rlaif import filter_commands

    _say(filter_commands.fit_density_files(informative, empty, out, embedding))


@app.command()
def topics(
    recipe: RecipeFile,
    fill: Annotated[
        bool,
        typer.Option("--fill", help="ask for new prompts where the anchors are, and yours not"),
    ] = False,
) -> None:
    """Map what the recipe's prompts are about; name the over- and under-filled regions."""
    from rich.console import Console

    from rlaif.prompts.topics_report import print_topics
    from rlaif.recipe import Recipe
    from rlaif.topics import topics as map_topics

    found = map_topics(Recipe.load(recipe), fill=fill)
    print_topics(found.before, Console())
    if found.filled is not None and found.after is not None:
        _say(
            f"{len(found.filled.new)} new prompts of {found.filled.calls} asked for "
            f"({found.filled.stopped}): topic entropy {found.before.evenness} → "
            f"{found.after.evenness}"
        )
    if found.truncated:
        _say(f"of {found.truncated} prompts the embedding model read only the beginning")
    _say(f"in {found.folder}")


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


@app.command()
def loop(
    recipe: RecipeFile,
    restart_from: Annotated[
        str | None,
        typer.Option(
            metavar="ROUND/STAGE",
            help="do this stage and all behind it again; what would come out the same is kept",
        ),
    ] = None,
) -> None:
    """Run rounds, each with the last one's student; started again, it goes on where it was."""
    from rlaif.loop.estimate_report import print_beside
    from rlaif.loop.hub import publish
    from rlaif.loop.places import LoopFolder
    from rlaif.loop.rounds import run_loop
    from rlaif.loop.rounds_report import print_rounds
    from rlaif.recipe import Recipe

    state = run_loop(recipe, restart_from=restart_from, say=_say)
    print_rounds(state)
    loaded = Recipe.load(recipe)
    folder = LoopFolder(Path(loaded.run).absolute())
    print_beside(folder.root)
    publish(folder, loaded, state, _say)


@app.command()
def estimate(
    recipe: RecipeFile,
    prompts: Annotated[int, typer.Option(min=2, help="that the probe asks; more tell more")] = 32,
) -> None:
    """What a loop's stages, and a label, will take and cost: by a short measured probe."""
    from rich.console import Console

    from rlaif.loop.estimate import estimate as foresee
    from rlaif.loop.estimate_report import print_estimate

    print_estimate(foresee(recipe, prompts, say=_say), Console())


@app.command()
def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="a run folder")],
    out: Annotated[Path | None, typer.Option(help="the page; by default RUN/report.html")] = None,
) -> None:
    """One page about a run, in a file of its own; also of a run that is still going."""
    from rlaif.report import write_report

    _say(str(write_report(run, out)))


@app.command()
def scorecard(
    recipe: RecipeFile,
    data: Annotated[Path, typer.Option(help="labelled comparisons, or a constitution's YAML")],
    mode: Annotated[
        list[str] | None,
        typer.Option(help="pointwise, pairwise or rating, with +reasoning or not; the recipe's"),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="take so many, evenly")] = None,
    prompt_price: Annotated[float, typer.Option(help="of a million prompt tokens")] = 0.0,
    generated_price: Annotated[float, typer.Option(help="of a million generated tokens")] = 0.0,
    out: Annotated[Path | None, typer.Option(help="a folder; by default RUN/scorecard")] = None,
) -> None:
    """How good the recipe's teacher is as a judge, on comparisons whose better side is known."""
    from rich.console import Console

    from rlaif.evaluate.scorecard import Prices
    from rlaif.evaluate.scorecard_report import print_scorecards, save
    from rlaif.recipe import Recipe
    from rlaif.run_folder import RunFolder
    from rlaif.scorecards import scorecards

    loaded = Recipe.load(recipe)
    prices = Prices(prompt_price, generated_price) if prompt_price or generated_price else None
    folder = out or Path(loaded.run) / "scorecard"
    RunFolder(folder).create()  # before labels are paid for that could not be kept
    cards, drops = scorecards(loaded, data, mode or [], limit, prices)
    print_scorecards(cards, Console())
    for reason, count in drops.items():
        _say(f"kept aside: {count} × {reason}")
    save(cards, folder)
    _say(f"{folder / 'scorecard.json'} and scorecard.png")


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


ConstitutionFile = Annotated[Path, typer.Argument(help="a constitution's YAML file")]


@constitution_app.command("test")
def try_constitution(
    file: ConstitutionFile,
    teacher: Annotated[
        str | None, typer.Option(metavar="MODEL", help="a folder, or a name on the hub")
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="a recipe, for its teacher and its way of asking")
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option(help="pointwise, pairwise or rating; the recipe's, without one pointwise"),
    ] = None,
    threshold: Annotated[
        float, typer.Option(min=0, max=1, help="least share right of each principle's examples")
    ] = 0.8,
    clear: Annotated[
        float, typer.Option(min=0, help="nats by which a better response clearly loses")
    ] = 2.0,
) -> None:
    """Put each principle's examples to a teacher; exit status 1 if it gets too few of one right."""
    from rich.console import Console

    from rlaif.constitution import Constitution
    from rlaif.evaluate.constitution_test import print_test
    from rlaif.try_examples import judge_with, try_examples

    judge = judge_with(teacher, recipe, mode)
    tested, pulls = try_examples(Constitution.load(file), *judge, clear)
    print_test(tested, pulls, threshold, Console())
    raise typer.Exit(0 if all(t.passes(threshold) for t in tested) else 1)


@constitution_app.command()
def diff(
    old: ConstitutionFile,
    new: ConstitutionFile,
    run: Annotated[Path, typer.Option(metavar="RUN", help="the folder of a labelled run")],
    examples: Annotated[int, typer.Option(min=0, help="show so many changed labels")] = 5,
) -> None:
    """What an edit does to a run's labels, before anything is trained; judges only what changed."""
    from rich.console import Console

    from rlaif.constitution import Constitution
    from rlaif.evaluate.constitution_diff import edits
    from rlaif.evaluate.constitution_diff_report import print_diff
    from rlaif.progress import progress_bars
    from rlaif.run_diff import diff_run

    before, after = Constitution.load(old), Constitution.load(new)
    with progress_bars() as progress:
        found, judged = diff_run(run, before, after, examples, progress)
    print_diff(found, edits(before, after), judged, Console())


def _say(text: str) -> None:
    typer.echo(text)


def main() -> None:
    """The entry point: an error that a user can cause is one line, and exit status 2.

    A signal is a line too, and the status that a shell gives it.
    """
    try:
        app()
    except InterruptedLoopError as interrupted:
        print(f"rlaif: {interrupted}: started again, {interrupted.again}", file=sys.stderr)
        sys.exit(128 + interrupted.signal)
    except RlaifError as error:
        if isinstance(error, GateError):
            _show_scorecard(error)
        print(f"rlaif: {error}", file=sys.stderr)
        sys.exit(2)


def _show_scorecard(error: GateError) -> None:
    from rich.console import Console

    from rlaif.evaluate.scorecard import Scorecard
    from rlaif.evaluate.scorecard_report import print_scorecards

    if isinstance(error.scorecard, Scorecard):
        print_scorecards([error.scorecard], Console(stderr=True))


if __name__ == "__main__":
    main()
