"""The page in a browser, as a reader uses it: filters, search, keys, colours, a phone."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from rlaif.journal import Stage
from rlaif.label.rows import pair_schema
from rlaif.report import write_report
from rlaif.run_folder import RunFolder
from tests.report.chromium import PHONE, Tab, chromium
from tests.report.made_run import CONSTITUTION, DRIFTED, log_odds, make_loop, make_run, plain_texts

NASTY = [
    "</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", "\"one\" 'two' & so",
    "a line\u2028another\u2029third", "faces \U0001f600\U0001f9d1\u200d\U0001f680 done",
    "\ufeffbegins with a mark", "]]> --> {{ 1 }}",
    "nul \x00 and bell \x07", "", "   ", "unsure of it",
]  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Forty records of three responses, and one for each nasty text."""
    nasty = [(f"Nasty {i}: {text}", [text, f"fine {i}", f"well {i}"])
             for i, text in enumerate(NASTY)]  # fmt: skip
    # A mark at the very beginning of all texts: a decoder must not swallow it.
    marked = ("\ufeffMarked?", ["Answer m a.", "Answer m b.", "Answer m c."])
    found = make_run(tmp_path_factory.mktemp("run"), [marked, *nasty, *plain_texts(40)])
    write_report(found.root)
    return found


@pytest.fixture
def tab(browser: Browser, run: RunFolder) -> Iterator[Tab]:
    found = Tab(browser, run.root / "report.html")
    yield found
    found.page.context.close()


def rows_of(run: RunFolder, stage: str) -> list[dict[str, object]]:
    stored = Stage(run, stage, pair_schema(False))
    return [row for shard in stored.shards() for row in stored.read(shard).to_pylist()]


def told(count: str) -> int:
    return int(count.split(" of ")[0].replace(",", ""))


def test_it_opens_without_an_error_and_without_a_network(tab: Tab, run: RunFolder) -> None:
    assert tab.said == []
    assert tab.asked == [(run.root / "report.html").resolve().as_uri()]
    assert told(tab.count) == len(rows_of(run, "picked/pairs"))
    assert len(tab.cards()) == 5


def test_a_pair_is_shown_with_both_texts_and_every_principles_probability(
    tab: Tab, run: RunFolder
) -> None:
    tab.choose(status="0")
    row = rows_of(run, "pairs")[0]
    card = tab.cards()[0]
    chosen, rejected = (str(row[k][0]["content"]) for k in ("chosen", "rejected"))  # type: ignore
    for shown in (row["prompt"][0]["content"], chosen, rejected, row["record_id"]):  # type: ignore
        assert str(shown) in card
    assert card.index(chosen) < card.index(rejected)
    assert f"margin {row['score_margin']:.2f}" in card
    assert f"probability {row['chosen_probability']:.3f}" in card
    for principle in CONSTITUTION.principles:
        strip = tab.page.locator(".card").first.locator(".strip", has_text=principle.id)
        shown = strip.locator(".p").all_inner_texts()
        for step, text in zip(shown, (chosen, rejected), strict=True):
            wanted = 1 / (1 + 2.718281828 ** -log_odds(principle.id, text))
            assert float(step) == pytest.approx(wanted, abs=0.008)


def test_filters_leave_what_they_say(tab: Tab, run: RunFolder) -> None:
    kept, picked = rows_of(run, "pairs"), rows_of(run, "picked/pairs")
    tab.choose(status="0")
    assert told(tab.count) == len(kept)
    tab.choose(status="dropped")
    assert told(tab.count) > 0
    assert all("kept" not in card.split("\n")[1] for card in tab.cards())
    reason = tab.page.locator("#by-status option", has_text=DRIFTED).get_attribute("value")
    tab.choose(status=str(reason))
    assert told(tab.count) == len(picked) - len(kept)
    assert all(f"filter: {DRIFTED}" in c and "nearest anchor" in c for c in tab.cards())
    tab.choose(status="0", low="0.9", high="0.99")
    sure = [row for row in kept if 0.9 <= float(str(row["chosen_probability"])) <= 0.99]
    assert told(tab.count) == len(sure) > 0
    tab.page.click("#filters button[type=reset]")
    tab.choose(kind="1")
    assert "Pick" in tab.cards()[0] and "Rejected" not in tab.cards()[0]
    assert tab.said == []


@pytest.mark.parametrize("relation", ["wins", "loses", "breaks", "unsure"])
def test_the_filter_by_principle_asks_what_the_judge_said(
    tab: Tab, run: RunFolder, relation: str
) -> None:
    assert tab.page.locator("#by-relation").is_disabled()
    principle = CONSTITUTION.principles[2]
    tab.choose(principle="2", relation=relation, status="0")

    def steps(text: str) -> int | None:
        if text.startswith("unsure"):
            return None
        return round(250 / (1 + 2.718281828459045 ** -log_odds(principle.id, text)))

    fits = {
        "wins": lambda a, b: a is not None and b is not None and a > b,
        "loses": lambda a, b: a is not None and b is not None and a < b,
        "breaks": lambda a, b: a is not None and a < 125,
        "unsure": lambda a, b: a is None or b is None,
    }[relation]
    wanted = 0
    for row in rows_of(run, "pairs"):
        chosen, rejected = (row[k][0]["content"] for k in ("chosen", "rejected"))  # type: ignore
        wanted += fits(steps(chosen), steps(rejected))
    assert told(tab.count) == wanted > 0


def test_the_order_is_what_was_asked_for(tab: Tab, run: RunFolder) -> None:
    def margins() -> list[float]:
        return [float(re.findall(r"margin (-?[\d.]+)", card)[0]) for card in tab.cards()]

    tab.choose(status="0", order="margin-up")
    found = sorted(float(str(row["score_margin"])) for row in rows_of(run, "pairs"))
    assert margins() == pytest.approx(found[:5], abs=0.006)
    tab.choose(order="margin-down")
    assert margins() == pytest.approx(found[::-1][:5], abs=0.006)


def test_a_search_finds_what_contains_the_words_in_any_case(tab: Tab, run: RunFolder) -> None:
    tab.look_for("ANSWER 17 B")
    hits = tab.cards()
    assert hits and all("Answer 17 b." in card for card in hits)
    wanted = sum(
        "Answer 17 b." in (row["chosen"][0]["content"], row["rejected"][0]["content"])  # type: ignore
        for row in rows_of(run, "picked/pairs")
    )
    assert told(tab.count) == wanted
    assert tab.page.locator("mark").first.inner_text() == "Answer 17 b"
    row = rows_of(run, "pairs")[0]
    tab.look_for(str(row["record_id"]))
    assert tab.cards() and all(str(row["record_id"]) in card for card in tab.cards())
    tab.look_for("b.Answer")  # the end of one text and the beginning of the next
    assert "0 of" in tab.count and "nothing fits" in tab.count and tab.cards() == []
    tab.look_for("")
    assert told(tab.count) == len(rows_of(run, "picked/pairs"))
    assert tab.said == []


def test_a_letter_that_grows_in_lower_case_moves_nothing(browser: Browser, tmp_path: Path) -> None:
    texts = [(f"Is {i}?", ["İİİstanbul is large", f"fine {i}.", f"well {i}."]) for i in range(9)]
    run = make_run(tmp_path, texts, pair_margin=0.0)
    tab = Tab(browser, write_report(run.root))
    everything = told(tab.count)
    tab.look_for("TANBUL is")
    assert 0 < told(tab.count) < everything
    assert all("İİİstanbul" in card for card in tab.cards())
    tab.look_for("fine 7.")
    assert told(tab.count) == 2 and all("fine 7." in card for card in tab.cards())
    tab.page.context.close()


def test_a_text_of_the_run_can_be_anything(tab: Tab, run: RunFolder) -> None:
    tab.choose(kind="-1")
    seen = ""
    for _ in range(8):  # without a search, and then with one, which marks what it found
        seen += "".join(tab.cards())
        tab.page.click("#on")
        tab.page.wait_for_timeout(50)
        assert tab.page.locator(".card img, .card script").count() == 0
    assert "<img src=x onerror=alert(1)>" in seen
    tab.look_for("<img src=x onerror=alert(1)>")
    assert told(tab.count) > 0 and tab.page.locator(".card img").count() == 0
    for i, text in enumerate(NASTY):
        tab.look_for(f"Nasty {i}:")
        words = tab.page.locator(".card .words").evaluate_all("all => all.map(w => w.textContent)")
        assert f"Nasty {i}: {text}" in words
    tab.look_for("half of a pair: \ufffd")
    assert told(tab.count) > 0
    assert tab.said == [] and len(tab.asked) == 1
    assert tab.page.locator(".card img, .card script").count() == 0


def test_the_keyboard_is_enough(tab: Tab, run: RunFolder) -> None:
    page = tab.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the rows"
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert page.evaluate(outline) != "none"
    page.keyboard.press("j")
    assert tab.focused() == "Row 1" and page.evaluate(outline) != "none"
    for _ in range(5):
        page.keyboard.press("j")
    tab.until("document.activeElement.ariaLabel === 'Row 6'")
    assert page.inner_text("#screen").startswith("2 /")
    page.keyboard.press("k")
    tab.until("document.activeElement.ariaLabel === 'Row 5'")
    page.keyboard.press("ArrowRight")
    tab.until("document.getElementById('screen').textContent.startsWith('2 /')")
    page.keyboard.press("ArrowLeft")
    tab.until("document.getElementById('screen').textContent.startsWith('1 /')")
    page.keyboard.press("/")
    assert tab.focused() == "words"
    page.keyboard.type("jk/")  # in a field they are letters
    assert page.input_value("#words") == "jk/" and tab.focused() == "words"
    page.keyboard.press("Escape")
    assert tab.focused() != "words"


def test_the_screens_end_where_the_rows_do(tab: Tab) -> None:
    tab.look_for("Answer 1")
    assert tab.page.locator("#back").is_disabled() and told(tab.count) > 10
    while tab.page.locator("#on").is_enabled():
        before = tab.page.inner_text("#screen")
        tab.page.click("#on")
        tab.until(f"document.getElementById('screen').textContent !== '{before}'")
    shown, screens = tab.page.inner_text("#screen").split(" / ")
    assert shown == screens
    assert len(tab.cards()) == (told(tab.count) - 1) % 5 + 1


def test_every_control_has_a_name_and_the_count_is_announced(tab: Tab) -> None:
    nameless = tab.page.evaluate(
        "[...document.querySelectorAll('button, select, input, a')].filter(c => !(c.ariaLabel"
        " || c.textContent.trim() && c.tagName !== 'SELECT' || c.labels?.length)).length"
    )
    assert nameless == 0
    assert tab.page.get_attribute("#count", "aria-live") == "polite"
    assert tab.page.evaluate("[...document.querySelectorAll('svg')].every(s => s.ariaLabel)")


def test_colours_follow_the_system_and_can_be_turned(browser: Browser, run: RunFolder) -> None:
    page = run.root / "report.html"
    light, dark = Tab(browser, page), Tab(browser, page, scheme="dark")
    bright, night = light.colour(), dark.colour()
    assert bright != night
    light.page.click("#theme")
    assert light.colour() == night and light.page.inner_text("#theme") == "Light"
    dark.page.click("#theme")
    assert dark.colour() == bright
    for tab in (light, dark):
        tab.page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(
    browser: Browser, run: RunFolder, scheme: str
) -> None:
    tab = Tab(browser, run.root / "report.html", scheme=scheme)
    for name in ("--ink", "--muted", "--after", "--before"):
        for ground in ("--ground", "--raised", "--soft"):
            contrast = tab.page.evaluate(_CONTRAST, [name, ground])
            assert contrast >= 4.5, (name, ground, contrast)
    tab.page.context.close()


_CONTRAST = """([one, other]) => {
  const style = getComputedStyle(document.documentElement);
  const light = (name) => {
    const hex = style.getPropertyValue(name).trim().slice(1);
    const [r, g, b] = [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16) / 255)
      .map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const [low, high] = [light(one), light(other)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
}"""


def test_a_phone_is_wide_enough(browser: Browser, run: RunFolder, tmp_path: Path) -> None:
    long = [(f"{'y' * 300} {i}", ["x" * 900, "short", "z" * 20]) for i in range(8)]
    other = make_run(tmp_path / "long", long)
    loop = make_loop(tmp_path / "loop")
    for folder in (run, other, loop):
        tab = Tab(browser, write_report(folder.root), PHONE)
        for details in tab.page.locator("summary").all():
            details.click()
        assert tab.overflow() == 0
        assert tab.page.locator("#on").is_visible()
        cut = "[...document.querySelectorAll('.words')].some(w => w.scrollWidth > w.clientWidth)"
        assert not tab.page.evaluate(cut)
        tab.page.context.close()


def test_a_reasons_button_shows_its_rows(tab: Tab, run: RunFolder) -> None:
    tab.choose(principle="1", relation="wins")
    tab.page.click(f"button[aria-label$='{DRIFTED}']")
    tab.until("document.getElementById('by-kind').value === '-1'")
    tab.settle()
    assert tab.page.input_value("#by-principle") == "-1"
    gone = Stage(run, "sft", pair_schema(False)).shards()
    dropped = sum(
        Stage(run, name, pair_schema(False)).manifest(shard).dropped.get(DRIFTED, 0)
        for name in ("sft", "pairs")
        for shard in gone
    )
    assert told(tab.count) == dropped > 0


def test_rounds_can_be_told_apart(browser: Browser, tmp_path: Path) -> None:
    run = make_loop(tmp_path)
    tab = Tab(browser, write_report(run.root))
    tab.choose(round="1")
    assert all("Round 1." in card and "round 1" in card for card in tab.cards())
    picked = Stage(RunFolder(tmp_path / "rounds" / "01"), "picked/pairs", pair_schema(False))
    assert told(tab.count) == sum(picked.read(i).num_rows for i in picked.shards())
    assert tab.said == []
    tab.page.context.close()


def test_a_pairwise_judge_has_one_probability_a_pair(browser: Browser, tmp_path: Path) -> None:
    run = make_run(tmp_path, plain_texts(12), mode="pairwise")
    tab = Tab(browser, write_report(run.root))
    tab.choose(status="0", principle="0", relation="loses")
    row_count = told(tab.count)
    wanted = 0
    for row in rows_of(run, "pairs"):
        chosen, rejected = (row[k][0]["content"] for k in ("chosen", "rejected"))  # type: ignore
        first, second = sorted((chosen, rejected))  # it was asked in the order of the responses
        odds = log_odds("kind", first, second)
        wanted += (odds if first == chosen else -odds) < 0
    assert row_count == wanted > 0
    strip = tab.page.locator(".card").first.locator(".strip").first
    (shown,) = strip.locator(".p").all_inner_texts()
    assert float(shown) < 0.5
    tab.page.context.close()


@pytest.mark.parametrize("judge", ["pointwise", "pairwise", "abstains"])
def test_responses_without_scores_are_not_called_the_highest_and_the_lowest(
    browser: Browser, tmp_path: Path, judge: str
) -> None:
    mode = "pairwise" if judge == "pairwise" else "pointwise"
    run = make_run(tmp_path, plain_texts(4), mode=mode, pair_margin=99.0)
    if judge == "abstains":
        shutil.rmtree(run.manifests("verdicts"))
    tab = Tab(browser, write_report(run.root))
    names = tab.page.locator(".card").first.locator(".said h4").all_inner_texts()
    known = ["Prompt", "Highest score", "Lowest score"]
    assert names == (known if judge == "pointwise" else ["Prompt", "First", "Last"])
    assert tab.said == []
    tab.page.context.close()


def test_what_no_pick_was_made_of_is_called_none(browser: Browser, tmp_path: Path) -> None:
    equal = ("Equal?", ["The same.", "The same.", "The same."])
    run = make_run(tmp_path, [equal, *plain_texts(2)], dropped=lambda _: False)
    tab = Tab(browser, write_report(run.root))
    tab.choose(kind="1", status="dropped")
    (card,) = tab.cards()
    assert "Equal?" in card and "HIGHEST SCORE" in card.upper() and "PICK\n" not in card.upper()
    tab.choose(status="0")
    assert all("PICK\n" in card.upper() for card in tab.cards())
    tab.page.context.close()


def test_a_page_without_rows_is_whole_too(browser: Browser, tmp_path: Path) -> None:
    run = RunFolder(tmp_path).create()
    run.write_text(run.recipe, "seed: 0\n")
    tab = Tab(browser, write_report(run.root))
    assert tab.said == [] and "No rows yet" in tab.page.inner_text("#rows")
    before = tab.colour()
    tab.page.click("#theme")
    assert tab.colour() != before
    tab.page.context.close()


def test_without_a_script_the_figures_are_there(browser: Browser, run: RunFolder) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((run.root / "report.html").resolve().as_uri())
    assert "preference pairs" in page.inner_text("#dropped")
    assert page.locator("noscript").count() == 1
    assert page.locator("#labels svg rect.after").first.is_visible()
    context.close()


def test_without_a_browser_these_tests_are_skipped_and_say_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(pytest.skip.Exception, match=r"NO CHROMIUM.*scripts/install-browser"):
        chromium().__enter__()
