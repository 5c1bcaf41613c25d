"""The files of a batch endpoint: a line a request on the way there, one an answer on the way back.

A line is known by its custom_id alone: answers come back in any order.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from rlaif.engines.openai.failures import Answer, Failures, Refusal
from rlaif.engines.openai.http import Request, is_completion

_MOST_LINES = 50_000  # what providers take in one file
_MOST_BYTES = 100_000_000

Answers = dict[str, Answer]
"""By custom_id."""


def parts(requests: Sequence[Request]) -> list[dict[str, bytes]]:
    """The lines of all requests by custom_id, an index, in files of a size that is taken."""
    files: list[dict[str, bytes]] = []
    size = 0
    for i, request in enumerate(requests):
        line = _line(i, request)
        size += len(line)
        if not files or size > _MOST_BYTES or len(files[-1]) == _MOST_LINES:
            files.append({})
            size = len(line)
        files[-1][str(i)] = line
    return files


def read(text: str, failures: Failures) -> Iterator[tuple[str, Answer]]:
    """The answers in a file; a line that is of no request, or that had no time, is left out."""
    for line in text.split("\n"):
        try:
            found = _read_line(line, failures)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue
        if found is not None:
            yield found


def _line(index: int, request: Request) -> bytes:
    line = {
        "custom_id": str(index),
        "method": "POST",
        "url": f"/v1{request.path}",
        "body": request.body,
    }
    return json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _read_line(line: str, failures: Failures) -> tuple[str, Answer] | None:
    row = json.loads(line)
    custom_id, error = str(row["custom_id"]), row.get("error")
    if error:
        if error.get("code") == "batch_expired":
            return None
        told = f"the batch says {error.get('code')}: {error.get('message')}"
        return custom_id, Refusal(failures.clean(told), 500)
    body, status = row["response"]["body"], int(row["response"]["status_code"])
    if status == 200 and is_completion(body):
        return custom_id, body
    if status == 200:
        return custom_id, Refusal("the answer is no completion", 500)
    told = body.get("error", body)
    told = told.get("message", told) if isinstance(told, dict) else told
    return custom_id, Refusal(failures.clean(f"the server says {status}: {told}"), status)
