"""An OpenAI-compatible server on loopback that answers by rule, and misbehaves as it is told.

    with MisbehavingServer(lambda asked: Status(429) if asked.tries == 1 else None) as server: …

What it answers follows from the request alone: texts repeat the prompt and the seed, and label
probabilities are `PROBABILITIES`. Every request is written down.
"""

from __future__ import annotations

import json
import math
import re
import socket
import threading
import time
import urllib.parse
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PROBABILITIES = {"yes": 0.6, " yes": 0.1, "no": 0.2, "Hello": 0.05, "the": 0.02, "a": 0.01}


@dataclass(frozen=True)
class Asked:
    """One request: how many prompts came before it, how often this one came, and what it says."""

    number: int
    tries: int
    path: str
    body: Mapping[str, Any]

    @property
    def text(self) -> str:
        messages = self.body.get("messages")
        return messages[-1]["content"] if messages else str(self.body.get("prompt"))


@dataclass(frozen=True)
class Status:
    """An error of HTTP."""

    code: int
    message: str = "on purpose"
    headers: Mapping[str, str] = field(default_factory=dict)
    error_code: str | None = None


@dataclass(frozen=True)
class Raw:
    """These bytes as a whole response of status 200."""

    data: bytes
    kind: str = "application/json"


@dataclass(frozen=True)
class Cut:
    """The connection is cut: before the answer, or in its middle."""

    after: int = 0


@dataclass(frozen=True)
class Drip:
    """A byte now and then, for ever."""

    pause: float = 0.02


@dataclass(frozen=True)
class Late:
    """The right answer after so many seconds."""

    seconds: float


@dataclass(frozen=True)
class Changed:
    """The right answer, changed."""

    change: Callable[[dict[str, Any]], Any]


Fault = Status | Raw | Cut | Drip | Late | Changed | None


class MisbehavingServer:
    """The server; it runs within a ``with`` block.

    Args:
        plan: what is wrong with the answer to a request; None is nothing.
        key: the key it wants; None wants none.
        kind: what it calls itself.
        many: it gives more than one answer to a request.
        most_top_logprobs: it refuses more; 0 gives none at all.
        constraint: how it can be made to choose words: "choice", "json_schema" or "".
    """

    model = "m"

    def __init__(
        self,
        plan: Callable[[Asked], Fault] | None = None,
        *,
        key: str | None = None,
        kind: str = "somebody",
        many: bool = True,
        most_top_logprobs: int = 20,
        constraint: str = "",
        limit: str = "max_tokens",
        port: int = 0,
    ) -> None:
        self.plan, self.key, self.kind, self.many = plan, key, kind, many
        self.most_top_logprobs, self.constraint, self.limit = most_top_logprobs, constraint, limit
        self.asked: list[Asked] = []
        self.headers: list[Mapping[str, str]] = []
        self.most_in_flight = self._in_flight = 0
        self.billed_prompt = self.billed_output = 0
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.batch_plan: Callable[[MisbehavingServer, dict[str, Any]], None] = complete
        self.lose_next_batch = False
        self._tries: Counter[str] = Counter()
        self._lock = threading.Lock()
        self.stopping = threading.Event()
        self.connections: list[socket.socket] = []
        handler = type("Handler", (_Handler,), {"site": self})
        self._http = _Http(("127.0.0.1", port), handler)
        self.port = self._http.server_address[1]
        self.base_url = f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> MisbehavingServer:
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self._http.shutdown()
        self._http.server_close()
        for connection in self.connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def note(self, path: str, body: Mapping[str, Any]) -> Asked:
        """Write a request down."""
        with self._lock:
            key = json.dumps(body, sort_keys=True)
            self._tries[key] += 1
            asked = Asked(len(self.asked), self._tries[key], path, body)
            self.asked.append(asked)
            self._in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self._in_flight)
            return asked

    def done(self) -> None:
        """A request has left."""
        with self._lock:
            self._in_flight -= 1

    def texts(self) -> Counter[str]:
        """How often each prompt was asked."""
        return Counter(asked.text for asked in self.asked)

    def answer(self, path: str, body: Mapping[str, Any]) -> dict[str, Any] | Status:
        """The right answer, or a right refusal."""
        if body["model"] != self.model:
            return Status(404, f"The model `{body['model']}` does not exist.")
        if {"max_tokens", "max_completion_tokens"} & body.keys() != {self.limit}:
            return Status(400, f"Unsupported parameter. Use '{self.limit}' instead.")
        wanted = body.get("top_logprobs") or (body.get("logprobs") if "prompt" in body else 0) or 0
        if wanted > self.most_top_logprobs > 0:
            return Status(400, f"top_logprobs must be at most {self.most_top_logprobs}")
        asked = Asked(0, 0, path, body)
        choices = [self._choice(asked, k) for k in range(body.get("n", 1) if self.many else 1)]
        prompt = len(asked.text.encode())
        output = sum(len(_said(c).split()) for c in choices)
        with self._lock:
            self.billed_prompt += prompt
            self.billed_output += output
        usage = {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": 0}
        return {"id": "x", "object": "x", "choices": choices, "usage": usage}

    def _choice(self, asked: Asked, k: int) -> dict[str, Any]:
        body = asked.body
        text = f" {asked.text} by {body.get('seed')} at {k} "
        if self.constraint == "choice" and "structured_outputs" in body:
            words = body["structured_outputs"]["choice"]
            text = words[0] if k % 4 else words[1]
        if self.constraint == "json_schema" and "response_format" in body:
            schema = body["response_format"]["json_schema"]["schema"]
            words = schema["properties"]["answer"]["enum"]
            text = json.dumps({"answer": words[0] if k % 4 else words[1]})
        if "stop" in body:
            text = min((text.split(s)[0] for s in body["stop"]), key=len)
        choice: dict[str, Any] = {"index": k, "finish_reason": "stop"}
        if "messages" in body:
            return choice | {"message": {"content": text}, "logprobs": self._chat_logprobs(body)}
        return choice | {"text": text, "logprobs": self._completion_logprobs(body)}

    def _chat_logprobs(self, body: Mapping[str, Any]) -> Any:
        if not body.get("logprobs") or not self.most_top_logprobs:
            return None
        tokens = [
            {"token": t, "logprob": math.log(p), "bytes": list(t.encode())}
            for t, p in list(PROBABILITIES.items())[: body["top_logprobs"]]
        ]
        return {"content": [tokens[0] | {"top_logprobs": tokens}]}

    def _completion_logprobs(self, body: Mapping[str, Any]) -> Any:
        if body.get("logprobs") is None or not self.most_top_logprobs:
            return None
        top = {t: math.log(p) for t, p in list(PROBABILITIES.items())[: body["logprobs"]]}
        return {"tokens": ["yes"], "token_logprobs": [top["yes"]], "top_logprobs": [top]}


def complete(server: MisbehavingServer, batch: dict[str, Any]) -> None:
    """Answer a batch as it should be, last line first."""
    lines = [json.loads(x) for x in server.files[batch["input_file_id"]].splitlines()]
    end(server, batch, "completed", [output_line(server, line) for line in reversed(lines)])


def end(
    server: MisbehavingServer,
    batch: dict[str, Any],
    status: str,
    output: list[Any],
    errors: list[Any] | None = None,
) -> None:
    """End a batch with these lines in its output file and its error file."""
    for name, rows in (("output_file_id", output), ("error_file_id", errors)):
        if rows:
            id_ = f"file-{len(server.files)}"
            server.files[id_] = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
            batch[name] = id_
    batch["status"] = status


def output_line(server: MisbehavingServer, line: Mapping[str, Any]) -> dict[str, Any]:
    """One line of an output file."""
    answer = server.answer(line["url"].removeprefix("/v1"), line["body"])
    if isinstance(answer, Status):
        response = {"status_code": answer.code, "body": {"error": {"message": answer.message}}}
    else:
        response = {"status_code": 200, "body": answer}
    return {"custom_id": line["custom_id"], "response": response, "error": None}


def _said(choice: Mapping[str, Any]) -> str:
    return choice["text"] if "text" in choice else choice["message"]["content"]


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256  # no connection is refused by chance


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: MisbehavingServer

    def log_message(self, *_: object) -> None:
        pass

    def setup(self) -> None:
        super().setup()
        self.site.connections.append(self.connection)

    def handle(self) -> None:
        with suppress(OSError):  # the client has gone
            super().handle()

    def do_GET(self) -> None:
        if not self._allowed():
            return
        path = urllib.parse.urlsplit(self.path).path.removeprefix("/v1")
        if path == "/models":
            self._send_json({"data": [{"id": self.site.model, "owned_by": self.site.kind}]})
        elif path == "/batches":
            listed = list(reversed(self.site.batches.values()))
            self._send_json({"data": listed, "has_more": False})
        elif match := re.fullmatch(r"/batches/(.+)", path):
            self._send_batch(match[1])
        elif match := re.fullmatch(r"/files/(.+)/content", path):
            self._send(200, self.site.files[match[1]], "application/octet-stream")
        else:
            self._send_status(Status(404, f"no {path}"))

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.site.headers.append({k.lower(): v for k, v in self.headers.items()})
        if not self._allowed():
            return
        path = self.path.removeprefix("/v1")
        if path == "/files":
            self._take_file(data)
        elif path == "/batches":
            self._take_batch(json.loads(data))
        elif path in ("/chat/completions", "/completions"):
            asked = self.site.note(path, json.loads(data))
            try:
                self._reply(asked)
            finally:
                self.site.done()
        else:
            self._send_status(Status(404, f"no {path}"))

    def _allowed(self) -> bool:
        key = self.site.key
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if key is None or given == key:
            return True
        self._send_status(Status(401, f"Incorrect API key provided: {given}."))
        return False

    def _reply(self, asked: Asked) -> None:
        fault = self.site.plan(asked) if self.site.plan else None
        if isinstance(fault, Late):
            self.site.stopping.wait(fault.seconds)
        if isinstance(fault, Status):
            return self._send_status(fault)
        if isinstance(fault, Raw):
            return self._send(200, fault.data, fault.kind)
        if isinstance(fault, Drip):
            return self._drip(fault)
        answer = self.site.answer(asked.path, asked.body)
        if isinstance(answer, Status):
            return self._send_status(answer)
        if isinstance(fault, Changed):
            answer = fault.change(answer)
        if isinstance(fault, Cut):
            return self._cut(json.dumps(answer).encode(), fault)
        return self._send_json(answer)

    def _take_file(self, data: bytes) -> None:
        header = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        parts = BytesParser().parsebytes(header + data).get_payload()
        [file] = [p for p in parts if p.get_filename()]  # type: ignore[union-attr]
        id_ = f"file-{len(self.site.files)}"
        self.site.files[id_] = file.get_payload(decode=True)  # type: ignore
        self._send_json({"id": id_, "object": "file"})

    def _take_batch(self, body: dict[str, Any]) -> None:
        id_ = f"batch-{len(self.site.batches)}"
        batch = {"id": id_, "object": "batch", "status": "in_progress", "polls": 0, **body}
        self.site.batches[id_] = batch
        if self.site.lose_next_batch:
            self.site.lose_next_batch = False
            return self._cut(b"", Cut())
        return self._send_json(batch)

    def _send_batch(self, id_: str) -> None:
        batch = self.site.batches.get(id_)
        if batch is None:
            return self._send_status(Status(404, "no such batch"))
        batch["polls"] += 1
        if batch["status"] == "in_progress" and batch["polls"] >= 3:
            self.site.batch_plan(self.site, batch)
        return self._send_json(batch)

    def _send_status(self, status: Status) -> None:
        error = {"message": status.message, "code": status.error_code}
        self._send(status.code, json.dumps({"error": error}).encode(), headers=status.headers)

    def _send_json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode())

    def _send(
        self,
        code: int,
        data: bytes,
        kind: str = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def _cut(self, data: bytes, cut: Cut) -> None:
        if cut.after:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: cut.after])
        self.close_connection = True

    def _drip(self, drip: Drip) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "1000000")
        self.end_headers()
        while not self.site.stopping.is_set():
            self.wfile.write(b" ")
            self.wfile.flush()
            time.sleep(drip.pause)
