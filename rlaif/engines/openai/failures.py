"""What went wrong between us and a server, in words that a user can act on, and without the key."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import openai

from rlaif.errors import EngineError

_AGAIN = "mend that and start again: every finished shard is kept"
_LONGEST = 200
_OWN = re.compile(
    r"context.?length|context.?window|maximum context|too long|too many tokens|max_model_len|"
    r"content.?(filter|policy|management)|moderation|flagged",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request has no answer.

    Attributes:
        reason: in a few words, without the key.
        status: of HTTP; None where there was no whole response.
    """

    reason: str
    status: int | None = None

    @property
    def own(self) -> bool:
        """It is this request's own fault: too long, or caught by a content filter."""
        return self.status in (400, 413, 422, 403) and bool(_OWN.search(self.reason))


Answer = Mapping[str, Any] | Refusal


@dataclass(frozen=True, slots=True, repr=False)
class Failures:
    """Words for the failures of one server.

    Attributes:
        address: of the server.
        model: the name that it should serve.
        key_name: of the environment variable with the key.
        key: the key; it is cut out of whatever is said.
    """

    address: str
    model: str
    key_name: str
    key: str

    def clean(self, text: str) -> str:
        """What a server said, on one line, shortened and without the key."""
        if self.key:
            text = text.replace(self.key, "***")
        text = " ".join(text.split())
        return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"

    def refusal(self, error: openai.APIError) -> Refusal:
        """What the client raised when it had tried enough."""
        if isinstance(error, openai.APIStatusError):
            told = f"{error.status_code}: {_told(error.body) or error.response.text}"
            return Refusal(f"the server says {self.clean(told)}", error.status_code)
        if isinstance(error, openai.APITimeoutError):
            return Refusal(f"the server gave no whole answer in {_seconds(error)} s")
        cause = str(error.__cause__ or error)
        return Refusal(f"no answer from the server: {self.clean(cause)}")

    def for_all(self, refusal: Refusal) -> EngineError:
        """The error where a refusal concerns all requests."""
        key = f"the key in {self.key_name}" if self.key else f"no key, for {self.key_name} is unset"
        mends = {
            None: f"see that it runs and can be reached; {_AGAIN}",
            401: f"it was sent {key}; {_AGAIN}",
            402: f"top up the account; {_AGAIN}",
            403: f"it was sent {key}; {_AGAIN}",
            404: f"check model and base_url, which ends in /v1 as a rule; {_AGAIN}",
            429: "lower concurrency or raise max_retries and start again: "
            "every finished shard is kept",
        }
        return EngineError(
            f"{self.address}: {refusal.reason}", mend=mends.get(refusal.status, _AGAIN)
        )

    def not_served(self, served: list[str]) -> EngineError:
        """The error where the server has other models than this."""
        return EngineError(
            f"{self.address} does not serve this model", key="model", value=self.model,
            mend=f"name one that it serves: {', '.join(sorted(served)[:8])}",
        )  # fmt: skip


def _seconds(error: openai.APITimeoutError) -> str:
    return f"{error.request.extensions['timeout']['read']:g}"


def _told(body: object) -> str:
    """What an error's body says, in the forms that servers have for it."""
    if isinstance(body, Mapping):
        inner = body.get("error", body.get("detail", body.get("message")))
        inner = inner.get("message") if isinstance(inner, Mapping) else inner
        return inner if isinstance(inner, str) else json.dumps(body)
    return body if isinstance(body, str) else ""
