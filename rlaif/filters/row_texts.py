"""What a training row says, whatever columns of TRL's it has: its prompt, and its answer.

    rows → row_texts → anchor.py, drift.py, duplicates.py, …

The columns are those that TRL documents, as text or as messages: `prompt` with `completion`;
`prompt` with `chosen` and `rejected`, or these two alone with the prompt inside; `messages`;
`text`; `prompt` alone. Of a preference, the chosen answer is what a filter looks at.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from rlaif.prompts.rows import BadRow

Compare = Literal["prompt", "response", "both"]
"""What of a row is compared with the anchors."""


class RowTexts(NamedTuple):
    """A row's prompt (messages one under the other) and answer; "" where it has none."""

    prompt: str
    response: str

    def compared(self, what: Compare) -> str:
        """The text that a filter embeds."""
        if what == "prompt":
            return self.prompt
        if what == "response":
            return self.response
        return "\n".join(part for part in self if part)


def row_texts(row: Mapping[str, Any]) -> RowTexts:
    """The texts of a row.

    Raises:
        BadRow: it has none of the columns, or one that is neither text nor messages.
    """
    for answer in ("completion", "chosen"):
        if answer in row:
            return _answered(row.get("prompt"), row[answer], answer)
    if "messages" in row:
        return _answered(None, row["messages"], "messages")
    if "text" in row:
        return RowTexts("", _text(row["text"], "text"))
    if "prompt" in row:
        return RowTexts(_text(row["prompt"], "prompt"), "")
    raise BadRow("no column of a training row", f"the row has: {', '.join(row):.200}")


def with_completion(row: Mapping[str, Any], text: str) -> dict[str, Any]:
    """The row with another text as its completion, in the form that it had."""
    old = row["completion"]
    new = text if isinstance(old, str) else [*old[:-1], {**old[-1], "content": text}]
    return {**row, "completion": new}


def _answered(prompt: object, answer: object, column: str) -> RowTexts:
    if not isinstance(answer, list):
        said, asked = _text(answer, column), "" if prompt is None else _text(prompt, "prompt")
        # The prompt may stand in the answer too, and is no part of it.
        return RowTexts(asked, said[len(asked) :].lstrip() if said.startswith(asked) else said)
    if not answer:
        raise BadRow(f"`{column}` is empty")
    before = answer[:-1] or (prompt if prompt is not None else [])
    return RowTexts(_text(before, "prompt"), _text(answer[-1:], column))


def _text(value: object, column: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(m, Mapping) for m in value):
        contents = [message.get("content") for message in value]
        if all(isinstance(content, str) for content in contents):
            return "\n".join(str(content) for content in contents)
    raise BadRow(f"`{column}` is neither text nor messages", f"{value!r:.80}")
