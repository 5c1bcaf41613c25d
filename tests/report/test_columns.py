"""A row's columns name its own texts and figures, and one that has none names none."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rlaif.report.browse import fit, page_data, read_rounds
from rlaif.report.columns import NONE
from rlaif.report.figures import read_story, read_yaml
from rlaif.report.principles import principle_lines, read_principles
from rlaif.report.responses import STEPS
from tests.report.made_run import CONSTITUTION, log_odds, make_loop, make_run, plain_texts


def test_a_row_names_its_own_texts(tmp_path: Path) -> None:
    run = make_loop(tmp_path, rounds=2)
    story = read_story(run)
    principles = read_principles(read_yaml(run.constitution))
    found = fit(read_rounds(story.rounds, read_yaml(run.recipe), principles), principles, 10**7)
    columns, texts = found.columns, found.columns.texts.all
    assert len(columns) == len(found.whole) > 50
    for row in range(len(columns)):
        if columns.kind[row] == 2:
            assert columns.prompt[row] == columns.left[row] == columns.right[row] == NONE
            assert texts[columns.id[row]] == "prompts.jsonl:9"
            continue
        prompt = texts[columns.prompt[row]]
        number = prompt.removesuffix("?").split()[-1]
        assert prompt == f"Round {columns.round[row]}. Question {number}?"
        said = texts[columns.response_text[columns.left[row]]]
        assert said.startswith(f"Answer {number} ")
        assert (columns.right[row] == NONE) == (columns.kind[row] == 1)
        step = columns.probabilities[0, columns.left[row]] / STEPS
        assert abs(step - 1 / (1 + np.exp(-log_odds("kind", said)))) < 0.003
    told = page_data(found, principles, story)
    assert sum(reason["rows"] for reason in told["reasons"]) == len(columns)


def test_without_figures_a_principle_has_the_labels_own_shares(tmp_path: Path) -> None:
    run = make_run(tmp_path, plain_texts(20))
    story = read_story(run)
    principles = read_principles(read_yaml(run.constitution))
    found = fit(read_rounds(story.rounds, read_yaml(run.recipe), principles), principles, 10**7)
    lines = principle_lines(principles, story, found.whole, {"by_principle": {"kind": 0.75}})
    assert (lines.before, lines.after) == ("rejected", "chosen")
    texts, columns = found.columns.texts.all, found.columns
    kept = np.flatnonzero((columns.kind == 0) & (columns.reason == 0))
    for line, principle in zip(lines.lines, CONSTITUTION.principles, strict=True):
        for share, side in ((line.before, columns.right), (line.after, columns.left)):
            said = [texts[columns.response_text[side[row]]] for row in kept]
            wanted = np.mean([log_odds(principle.id, text) > 0.005 for text in said])
            assert share is not None and abs(share.value - wanted) < 0.03
    assert lines.lines[0].judge == (0.75, None, None) and lines.lines[1].judge is None
