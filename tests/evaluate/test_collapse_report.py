from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib import image
from matplotlib.figure import Figure
from rich.console import Console

from rlaif.evaluate.collapse import MEASURES, Watch, watch
from rlaif.evaluate.collapse_report import TITLES, picture, print_collapse, save
from tests.evaluate.test_collapse import CELLS, HUMAN, made

SETTINGS = Watch(permutations=60, draws=1)
ROWS = watch(
    [made("first", 300, seed=1), made("few", 20), made("last", 300, sharpness=4)],
    HUMAN, SETTINGS, CELLS,
)  # fmt: skip


def shown(**arms: object) -> str:
    console = Console(file=io.StringIO(), width=120)
    print_collapse(arms, console)  # type: ignore[arg-type]
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def line(table: str, title: str) -> list[str]:
    [found] = [row for row in table.splitlines() if title in row and "│" in row]
    return [cell.strip() for cell in found.split("│")[2:-1]]


def test_a_table_has_every_figure_a_dash_where_there_is_none_and_says_why() -> None:
    found = shown(plain=ROWS)
    assert set(TITLES) == set(MEASURES)
    assert line(found, "texts")[:4] == ["600", "300", "20", "300"]
    for title in TITLES.values():
        cells = line(found, title)
        assert len(cells) == 4 and "–" not in cells[1] and "–" not in cells[3]
    assert line(found, "Vendi score")[2] == "–" and line(found, "tokens a text")[2] == "20.0"
    assert "Vendi score, rare regions reached: 20 texts, fewer than 300" in found
    assert "measured at 300 texts and 6000 tokens" in found


def test_a_drift_beyond_chance_is_marked() -> None:
    drift = line(shown(plain=ROWS), "drift")
    assert drift[0] == "–" and not drift[1].endswith("!") and drift[3].endswith("!")


def test_what_is_saved_is_every_figure_of_every_arm_and_a_picture(tmp_path: Path) -> None:
    save({"one": ROWS, "two": ROWS[:2]}, tmp_path / "new")
    data = json.loads((tmp_path / "new" / "collapse.json").read_text())
    assert [len(rows) for rows in data.values()] == [4, 2]
    assert data["one"][3]["vendi"]["value"] == ROWS[3].vendi.value
    pixels = image.imread(tmp_path / "new" / "collapse.png")
    assert pixels.shape[0] > 700
    for colour in ((0x4C, 0x72, 0xB0), (0xC4, 0x4E, 0x52), (0x59, 0x59, 0x59)):  # arms, anchors
        near = np.abs(pixels[..., :3] * 255 - np.array(colour)).max(-1) < 6
        assert near.sum() > 100, colour


def test_the_anchors_level_is_dashed_and_a_missing_round_breaks_the_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    picture({"": ROWS}, tmp_path / "a.png")
    [axes] = [a for a in drawn[0].axes if a.get_title() == "Vendi score"]
    line, dashed = axes.lines
    assert list(dashed.get_ydata()) == [ROWS[0].vendi.value] * 2
    assert dashed.get_linestyle() == "--"
    values = list(line.get_ydata())
    assert values[::2] == [ROWS[1].vendi.value, ROWS[3].vendi.value] and np.isnan(values[1])
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["first", "few", "last"]


def test_no_arms_and_no_rounds_are_drawn_without_a_fault(tmp_path: Path) -> None:
    save({}, tmp_path)
    save({"": watch([], HUMAN, SETTINGS, CELLS)}, tmp_path)
    assert "anchors" in shown(**{"": watch([], HUMAN, SETTINGS, CELLS)})
