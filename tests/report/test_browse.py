from __future__ import annotations

from pathlib import Path

from rlaif.journal import Stage
from rlaif.label.rows import SFT_SCHEMA, pair_schema
from rlaif.records import Verdict
from rlaif.report.browse import read_rounds
from rlaif.report.figures import read_story, read_yaml
from rlaif.report.principles import read_principles
from rlaif.tables import VERDICTS, verdicts_to_table
from tests.report.made_run import CONSTITUTION, JUDGE, make_run, plain_texts, records


def test_where_nothing_was_picked_an_earlier_judges_verdicts_are_left_aside_too(
    tmp_path: Path,
) -> None:
    texts = plain_texts(2)
    run = make_run(tmp_path, texts)
    for name, schema in (("pairs", pair_schema(False)), ("sft", SFT_SCHEMA)):
        stage = Stage(run, f"picked/{name}", schema)
        stage.write(0, {"judge": JUDGE}, schema.empty_table())
    for principle in CONSTITUTION.principles:
        key = principle.fingerprint
        rows = [(r.id, Verdict(key, i, None, 9.0, 1.0)) for r in records(texts) for i in range(3)]
        earlier = Stage(run, f"verdicts/pointwise/earlier-{key}", VERDICTS)
        earlier.write(0, {"judge": "an earlier judge"}, verdicts_to_table(rows))
    principles = read_principles(read_yaml(run.constitution))
    read = read_rounds(read_story(run).rounds, read_yaml(run.recipe), principles)
    assert read.judge == JUDGE
    assert read.verdicts == 2 * 3 * len(CONSTITUTION.principles) == read.histogram.sum()
