"""Make the sandbox's prompt sets, and the gate's comparisons: `scripts/make_sandbox_prompts.py`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from rlaif.constitution import Constitution
from rlaif.sandbox import prompts
from rlaif.sandbox.comparisons import write_gate
from rlaif.sandbox.quickstart import write_anchors

DATA = Path(__file__).parent.parent / "rlaif" / "sandbox" / "data"

LABELLED: tuple[prompts.Kind, ...] = (
    *("fact", "fact", "fact", "sum", "sum", "sum"),
    *("advice", "advice", "advice", "danger", "unknown", "private"),
)
"""The kinds of prompts to label, in turn. What is right about a fact, a sum or a task has to be
learned many times over; to refuse, to admit or to keep a secret is one and the same each time."""

MEASURED = 2
"""The draw that is measured. The quickstart's recipe was chosen by two others, with the seeds 0 and
1. They hold most of its dangers and unknowns, of which there are few, and a third of its facts and
sums, but hardly a task and no private detail."""


def main(out: Annotated[Path, typer.Option(help="the folder of the files")] = DATA) -> None:
    """Write label.jsonl, evaluate.jsonl, gate.jsonl and anchors.jsonl."""
    for name, lines in {
        "label": prompts.prompts(1024, "label", kinds=LABELLED),
        "evaluate": prompts.prompts(300, "evaluate", MEASURED),
    }.items():
        text = "".join(json.dumps({"prompt": prompt}) + "\n" for prompt in lines)
        (out / f"{name}.jsonl").write_text(text, encoding="utf-8")
    concierge = Constitution.load(DATA.parent / "constitutions" / "concierge.yaml")
    write_gate(out / "gate.jsonl", concierge)
    write_anchors(out / "anchors.jsonl", concierge)


if __name__ == "__main__":
    typer.run(main)
