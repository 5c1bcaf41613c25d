"""A file of labelled comparisons → Comparison, whatever it calls its columns.

The form of a row follows from its columns:

- `input`, `output_1`, `output_2`, `label` (1 or 2): LLMBar;
- `prompt`, `text_correct` and `text_incorrect`, or `corrects` and `incorrects`, the options between
  triple square brackets: Anthropic's HHH comparisons;
- `chosen`, `rejected`, with or without `prompt`: TRL's preference columns, as text or as messages,
  and RewardBench, whose `subset` is kept;
- `prompt`, `responses` (two), `better` (0, 1, or null for a tie), and optionally the id or the
  text of a `principle`: this package's own, which alone can hold ties.

A constitution's YAML file stands for its own examples. A row that cannot be read is kept aside with
its place and the reason; a file without a usable row ends the run.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from rlaif.constitution import Constitution, Principle
from rlaif.errors import DataError
from rlaif.evaluate.comparisons import Comparison, examples
from rlaif.prompts.load import read_chat
from rlaif.prompts.rows import BadRow, read_file_rows
from rlaif.records import Chat, Drop, Message, fingerprint

Values = Mapping[str, Any]
_YAML = (".yaml", ".yml")
_OPTION = re.compile(r"\[\[\[(.*?)\]\]\]", re.DOTALL)
_TURN = re.compile(r"(?:^|\n\n)(Human|Assistant):", re.DOTALL)
_ROLES = {"Human": "user", "Assistant": "assistant"}


def load_comparisons(
    path: str | Path, constitution: Constitution
) -> tuple[list[Comparison], list[Drop]]:
    """The comparisons that a file holds, and a drop for every row that is none.

    Args:
        path: .json, .jsonl or .parquet, a folder of the last two, or a constitution's .yaml.
        constitution: whose principles a row may name.

    Raises:
        DataError: the file cannot be read, or holds no usable row.
        ConstitutionError: a .yaml that is no constitution.
    """
    path = Path(path)
    if path.suffix.lower() in _YAML:
        return _own_examples(path), []
    made, drops = list[Comparison](), list[Drop]()
    for number, (place, row) in enumerate(read_file_rows(path)):
        try:
            made.append(_comparison(row, number, path, constitution))
        except BadRow as bad:
            drops.append(Drop(place, "comparisons", bad.reason, bad.detail))
    if not made:
        raise _nothing_usable(path, drops)
    return made, drops


def _own_examples(path: Path) -> list[Comparison]:
    found = examples(Constitution.load(path))
    if not found:
        raise DataError(
            "its principles have no examples", file=path, key="principles", mend="write some"
        )
    return found


def _nothing_usable(path: Path, drops: Sequence[Drop]) -> DataError:
    if not drops:
        return DataError("holds no rows", file=path, mend="give it labelled comparisons")
    (reason, count), first = Counter(d.reason for d in drops).most_common(1)[0], drops[0]
    detail = f", first {first.id} ({first.detail})" if first.detail else ""
    return DataError(
        f"no usable comparison; {reason} in {count} of {len(drops)} rows{detail}", file=path,
        mend="give columns that rlaif/evaluate/comparison_files.py tells of",
    )  # fmt: skip


def _comparison(
    row: Values | BadRow, number: int, path: Path, constitution: Constitution
) -> Comparison:
    if isinstance(row, BadRow):
        raise row
    form = next((f for keys, f in _FORMS.items() if set(keys) <= row.keys()), None)
    if form is None:
        raise BadRow("unknown columns", f"the row has: {', '.join(row):.200}")
    prompt, responses, better, named = form(row)
    for text in responses:
        if not text.strip():
            raise BadRow("empty response")
    if responses[0] == responses[1]:
        raise BadRow("identical responses")
    subset = row.get("subset") or path.stem
    principle = None if named is None else _principle(named, constitution)
    made = Comparison(prompt, responses, better, principle, str(subset))
    # Forms that name the better one first would let a judge that always says A look perfect.
    return made.swapped if form in _BETTER_FIRST and number % 2 else made


_Parts = tuple[Chat, tuple[str, str], int | None, str | None]


def _own(row: Values) -> _Parts:
    responses, better = row["responses"], row["better"]
    if not isinstance(responses, list) or len(responses) != 2:
        raise BadRow("not two responses", f"{responses!r:.80}")
    if better not in (0, 1, None) or isinstance(better, bool):
        raise BadRow("`better` is not 0, 1 or null", f"{better!r:.80}")
    one, two = (_text(r, "responses") for r in responses)
    return read_chat(row["prompt"]), (one, two), better, row.get("principle")


def _llmbar(row: Values) -> _Parts:
    label = row["label"]
    if label not in (1, 2) or isinstance(label, bool):
        raise BadRow("`label` is not 1 or 2", f"{label!r:.80}")
    responses = _text(row["output_1"], "output_1"), _text(row["output_2"], "output_2")
    return read_chat(row["input"]), responses, label - 1, None


def _hhh(row: Values) -> _Parts:
    prompt = _text(row["prompt"], "prompt")
    options = [option.strip() for option in _OPTION.findall(prompt)]
    right = _option(row, "text_correct", "corrects", options)
    wrong = _option(row, "text_incorrect", "incorrects", options)
    context = prompt.partition("[[[")[0] if options else prompt
    return _dialogue(context), (right, wrong), 0, None


def _option(row: Values, text_key: str, key: str, options: Sequence[str]) -> str:
    """An option's text: told as such, or by its letter or number in the prompt."""
    value = row.get(text_key) or row.get(key)
    if isinstance(value, list) and value:
        value = value[0]
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(options):
        return options[value]
    text = _text(value, text_key)
    if (found := _OPTION.search(text)) is not None:
        return found.group(1).strip()
    letter = text.strip(" ()[].:")
    if (
        options
        and len(letter) == 1
        and (place := ord(letter.upper()) - ord("A")) in range(len(options))
    ):
        return options[place]
    return text.strip()


def _dialogue(text: str) -> Chat:
    """ "Human: … Assistant: …" as messages; any other text is one user message."""
    marks = [*_TURN.finditer(text)]
    if not marks or text[: marks[0].start()].strip():
        return (Message("user", _text(text.strip(), "prompt")),)
    ends = [m.start() for m in marks[1:]] + [len(text)]
    turns = [
        Message(_ROLES[mark[1]], text[mark.end() : end].strip())
        for mark, end in zip(marks, ends, strict=True)
    ]
    while turns and (not turns[-1].text or turns[-1].role != "user"):
        turns.pop()  # an open "Assistant:" is where the responses go
    if not turns or any(a.role == b.role for a, b in pairwise(turns)):
        raise BadRow("not a dialogue that ends with the user", text[:80])
    return tuple(turns)


def _preference(row: Values) -> _Parts:
    chosen, rejected = row["chosen"], row["rejected"]
    if isinstance(chosen, str) and isinstance(rejected, str):
        if (prompt := row.get("prompt")) is None:
            return _implicit(chosen, rejected)
        if (
            isinstance(prompt, str)
            and prompt
            and all(side.startswith(prompt) for side in (chosen, rejected))
        ):  # the prompt is in both sides too, and is no part of an answer
            chosen, rejected = (side[len(prompt) :].lstrip() for side in (chosen, rejected))
        return read_chat(prompt), (chosen, rejected), 0, None
    if not isinstance(chosen, list) or not isinstance(rejected, list):
        raise BadRow("chosen and rejected are neither texts nor messages")
    return _messages(chosen, rejected, row.get("prompt"))


def _messages(chosen: list[Any], rejected: list[Any], prompt: object) -> _Parts:
    for side in (chosen, rejected):
        if not side or not isinstance(side[-1], Mapping) or side[-1].get("role") != "assistant":
            raise BadRow("the last message is not the assistant's")
    texts = _text(chosen[-1].get("content"), "chosen"), _text(rejected[-1].get("content"), "…")
    before = chosen[:-1], rejected[:-1]
    if before[0] != before[1]:
        raise BadRow("chosen and rejected differ before the last message")
    # TRL's implicit prompt stands at the head of both sides, also where `prompt` repeats it.
    return read_chat(before[0] or prompt), texts, 0, None


def _implicit(chosen: str, rejected: str) -> _Parts:
    """HH-RLHF: two whole dialogues with the same beginning, told apart by the last answer."""
    mark = "\n\nAssistant:"
    (context, _, one), (other, _, two) = chosen.rpartition(mark), rejected.rpartition(mark)
    if not context or context != other:
        raise BadRow("no prompt", "chosen and rejected do not begin with the same dialogue")
    return _dialogue(context + mark), (one.strip(), two.strip()), 0, None


def _principle(named: object, constitution: Constitution) -> Principle:
    known = {p.id: p for p in constitution.principles}
    if isinstance(named, str) and named in known:
        return known[named]
    text = _text(named, "principle")
    same = next((p for p in constitution.principles if p.text == text), None)
    return same or Principle(id=f"text-{fingerprint(text)}", text=text)


def _text(value: object, key: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise BadRow(f"`{key}` is not text", f"{value!r:.80}")
    return value


_FORMS: Mapping[tuple[str, ...], Callable[[Values], _Parts]] = {
    ("prompt", "responses", "better"): _own,
    ("input", "output_1", "output_2", "label"): _llmbar,
    ("prompt", "text_correct", "text_incorrect"): _hhh,
    ("prompt", "corrects", "incorrects"): _hhh,
    ("chosen", "rejected"): _preference,
}
_BETTER_FIRST = (_hhh, _preference)


def comparison_row(comparison: Comparison) -> dict[str, Any]:
    """A comparison as a row of this package's own form, for a .jsonl file."""
    principle = None if comparison.principle is None else comparison.principle.text
    return {
        "prompt": [{"role": m.role, "content": m.text} for m in comparison.prompt],
        "responses": list(comparison.responses),
        "better": comparison.better,
        "principle": principle,
        "subset": comparison.subset,
    }
