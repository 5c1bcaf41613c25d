"""The page put together: what was read, drawn by the templates of rlaif/report/page/.

    figures, counts, principles, browse, cost, provenance → [page] → save.py

A Content-Security-Policy in the page allows its own script and style, by their hashes, and nothing
else: no text of a run can run, and nothing is fetched.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from rlaif.errors import JournalError
from rlaif.report import charts
from rlaif.report.browse import Browse, Read, fit, page_data, read_rounds
from rlaif.report.cost import read_cost
from rlaif.report.counts import passed
from rlaif.report.figures import Plain, Story, read_story, read_yaml, scorecard
from rlaif.report.formats import DASH, FILTERS, ratio
from rlaif.report.headline import headline
from rlaif.report.label_plots import SIDE, label_plots
from rlaif.report.principles import Principle, principle_lines, read_principles
from rlaif.report.provenance import read_provenance
from rlaif.report.shards import read_json
from rlaif.run_folder import RunFolder

_HERE = Path(__file__).parent / "page"
_SCRIPTS = ("unpack.js", "texts.js", "filters.js", "cards.js", "browser.js", "start.js")
_STYLES = ("page.css", "charts.css", "browser.css")
_TAGS = 2000  # bytes that the tags and notes of another packing may take more


def build_page(root: Path, limit: int) -> str:
    """The whole page as text.

    Raises:
        JournalError: there is no run in this folder.
        DataError: not one row fits into `limit` bytes.
    """
    run = RunFolder(root)
    if not (run.recipe.exists() or (root / "manifests").is_dir() or (root / "loop.json").exists()):
        raise JournalError(
            "is not a run folder", file=root, mend="name one, such as runs/quickstart"
        )
    story, recipe = read_story(run), read_yaml(run.recipe)
    constitution = _constitution(run, story)
    principles = read_principles(constitution)
    read = read_rounds(story.rounds, recipe, principles)
    values = _told(run, story, recipe, constitution, read)
    room, page = limit, ""
    while not page or len(page.encode()) > limit:
        found = fit(read, principles, room)
        page = render(values | _shown(found, principles, story, values["card"]))
        # What else is on the page is now known, but for the tags around what will be packed anew.
        room = min(room, limit - (len(page.encode()) - found.size)) - _TAGS
    return page


def _told(
    run: RunFolder, story: Story, recipe: Plain, constitution: Plain, read: Read
) -> dict[str, Any]:
    """What the page says of the run, whatever rows it has room for."""
    newest = story.rounds[-1].run if story.rounds else run
    card = next((c for r in reversed(story.rounds) if (c := scorecard(r.run))), scorecard(run))
    flow, cost = passed(story.rounds, recipe), read_cost(run)
    name = run.root.resolve().name
    return {
        "name": name,
        "title": str(constitution.get("name") or name),
        "description": str(constitution.get("description") or ""),
        "written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "story": story,
        "headline": headline(story, card, cost, flow, recipe, read),
        "card": card,
        "gated": recipe.get("gate") is not None,
        "calibrated": read.calibrated,
        "flow": flow,
        "read": read,
        "progress": charts.progress(story),
        "collapse": charts.collapse(story),
        "filter": read_json(newest.root / "filter" / "pairs.json"),
        "cost": cost,
        "provenance": read_provenance(run, recipe, story, read.judge),
    }


def _shown(
    found: Browse, principles: Sequence[Principle], story: Story, card: Plain
) -> dict[str, Any]:
    """What follows from the rows, and the rows themselves."""
    return {
        "principles": principle_lines(principles, story, found.whole, card),
        "plots": label_plots(found, card),
        "browse": found,
        "data": page_data(found, principles, story),
    }


def _constitution(run: RunFolder, story: Story) -> Plain:
    """The run's constitution; of a loop's round where the loop keeps none."""
    folders = [run, *(r.run for r in reversed(story.rounds))]
    return next((c for f in folders if (c := read_yaml(f.constitution))), {})


def render(values: dict[str, Any]) -> str:
    """The templates filled in. Everything is escaped but the page's own script and style."""
    env = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    env.filters |= FILTERS
    script = _joined(_SCRIPTS)
    script = f'(() => {{\n"use strict";\n{script}\n}})();\n'
    style = _joined(_STYLES)
    given = {
        "script": Markup(script), "style": Markup(style),
        "script_hash": _hash(script), "style_hash": _hash(style),
        "dash": DASH, "ratio": ratio, "path": charts.path, "side": SIDE,
        "chart_width": charts.WIDTH, "chart_height": charts.HEIGHT,
    }  # fmt: skip
    return env.get_template("page.html").render(values | given)


def _joined(names: tuple[str, ...]) -> str:
    return "\n".join((_HERE / name).read_text("utf-8") for name in names)


def _hash(text: str) -> str:
    return "sha256-" + b64encode(sha256(text.encode()).digest()).decode()
