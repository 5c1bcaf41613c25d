"""A provider's batch endpoint: for stages that can wait, at about half the price.

    requests → a file of lines → /batches → wait → output and error files → an answer a request

What is submitted stands on disk under the fingerprint of its requests before it is paid for. A run
that died goes on waiting for the same batch, and one that died between submitting and writing the
batch's id down finds it again by that fingerprint, which the batch carries as its metadata.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import openai

from rlaif.engines.kept import Kept
from rlaif.engines.openai.batch_file import Answers, parts, read
from rlaif.engines.openai.client import Client
from rlaif.engines.openai.failures import Answer, Refusal
from rlaif.engines.openai.http import Request, tokens_used
from rlaif.errors import EngineError

_ENDED = ("completed", "expired", "failed", "cancelled")
_FILE_SECONDS = 3600.0
_MISSING = Refusal("missing from the batch's output")
_ANEW = "start again: what is missing is submitted anew"
_LISTED = 1000


class Batches:
    """Requests answered through a server's batch endpoint.

    Args:
        client: of the server.
        kept: where batches are written down; on disk.
        poll: seconds between two looks at a batch.
    """

    def __init__(self, client: Client, kept: Kept, poll: float) -> None:
        self._client, self._kept, self._poll = client, kept, poll

    async def ask(self, requests: Sequence[Request]) -> list[Answer]:
        """An answer to each request, in order.

        Raises:
            EngineError: the server cannot be reached, refuses the batch or all its requests, or
                somebody cancelled it.
        """
        batches = [Batch(self._client, self._kept, part, requests) for part in parts(requests)]
        try:
            for batch in batches:  # all are under way before the first is waited for
                await batch.submit()
            found: Answers = {}
            for batch in batches:
                found |= await batch.answers(self._poll)
        except openai.APIError as error:
            raise self._client.error(error) from None
        return [found[str(i)] for i in range(len(requests))]


class Batch:
    """Some lines, and the batches that were submitted for them: one, or more where one expired.

    Args:
        client: of the server.
        kept: where it is written down.
        lines: by custom_id, as bytes.
        requests: all of them; a custom_id is an index.
    """

    def __init__(
        self, client: Client, kept: Kept, lines: Mapping[str, bytes], requests: Sequence[Request]
    ) -> None:
        self._client, self._kept, self._lines, self._requests = client, kept, lines, requests
        whole = hashlib.sha256(str(client.address).encode() + b"\n")
        for line in lines.values():
            whole.update(line)
        self._mark = whole.hexdigest()[:32]
        self._name = f"batch-{self._mark}"
        held = kept.read(self._name) or {"submitted": []}
        self._submitted: list[dict[str, Any]] = held["submitted"]

    async def submit(self) -> None:
        """Submit all lines, unless that was done before."""
        if not self._submitted:
            await self._submit(list(self._lines))

    async def answers(self, poll: float) -> Answers:
        """Wait, and read what came."""
        found: Answers = {}
        for turn in range(len(self._lines) + len(self._submitted) + 1):
            missing = [i for i in self._lines if i not in found]
            if not missing:
                break
            if turn == len(self._submitted):
                await self._submit(missing)
            entry = self._submitted[turn]
            if entry.get("void"):
                continue
            batch = await self._wait(turn, missing, poll)
            came = await self._read(batch)
            found |= {i: answer for i, answer in came.items() if i in missing}
            self._settle(turn, missing, found)
            self._refuse_dead_end(turn, batch, came)
            if batch.status == "completed":
                found |= {i: _MISSING for i in missing if i not in found and i not in came}
                break
        return {i: found.get(i, _MISSING) for i in self._lines}

    async def _submit(self, missing: Sequence[str]) -> None:
        turn = len(self._submitted)
        self._client.spending.reserve_batch(self._bill(turn), self._most(missing))
        self._submitted.append({"id": None})
        self._write()
        await self._create(turn, missing)

    async def _create(self, turn: int, missing: Sequence[str]) -> None:
        data = b"".join(self._lines[i] for i in missing)
        slow = self._client.openai.with_options(timeout=_FILE_SECONDS)
        file = await slow.files.create(file=("batch.jsonl", data), purpose="batch")
        # Not retried by the client: a batch that was made without our being told is looked for.
        once = self._client.openai.with_options(max_retries=0)
        path: Any = f"/v1{self._requests[int(missing[0])].path}"
        metadata = {"rlaif": self._mark, "turn": str(turn)}
        try:
            made = await once.batches.create(
                input_file_id=file.id, endpoint=path, completion_window="24h", metadata=metadata
            )
        except (openai.APIConnectionError, openai.InternalServerError):
            found = await self._find(turn)
            if found is None:
                raise
            made = found
        self._submitted[turn]["id"] = made.id
        self._write()

    async def _find(self, turn: int) -> Any:
        """The batch of that turn among those that the server has."""
        wanted = {"rlaif": self._mark, "turn": str(turn)}
        seen = 0
        async for batch in self._client.openai.batches.list(limit=100):
            if isinstance(batch.metadata, dict) and wanted.items() <= batch.metadata.items():
                return batch
            seen += 1
            if seen == _LISTED:
                break
        return None

    async def _wait(self, turn: int, missing: Sequence[str], poll: float) -> Any:
        entry = self._submitted[turn]
        if entry["id"] is None:  # the process died while it was submitting
            found = await self._find(turn)
            if found is None:
                await self._create(turn, missing)
            else:
                entry["id"] = found.id
                self._write()
        while True:
            try:
                batch = await self._client.openai.batches.retrieve(entry["id"])
            except openai.NotFoundError:
                raise self._stop(
                    f"the server does not know batch {entry['id']}",
                    f"remove {self._kept.file(self._name)} to submit it anew, and to pay again",
                ) from None
            if batch.status in _ENDED:
                return batch
            await asyncio.sleep(poll)

    async def _read(self, batch: Any) -> Answers:
        """All lines of the output file and the error file; of doubles the first."""
        found: Answers = {}
        for id_ in (batch.output_file_id, batch.error_file_id):
            if id_:
                slow = self._client.openai.with_options(timeout=_FILE_SECONDS)
                content = await slow.files.content(id_)
                for custom_id, answer in read(content.text, self._client.failures):
                    found.setdefault(custom_id, answer)
        return found

    def _refuse_dead_end(self, turn: int, batch: Any, came: Answers) -> None:
        """Stop where going on would give reasons that are not the rows' own, or never end.

        Raises:
            EngineError: where that is so; the next start submits what is missing.
        """
        refused = [a for a in came.values() if isinstance(a, Refusal) and not a.own]
        if batch.status == "completed" and 1 < len(refused) == len(came):
            raise self._void(turn, f"every request was refused: {refused[0].reason}")
        if batch.status == "failed":
            told = [str(e.message) for e in (batch.errors.data or [])] if batch.errors else []
            reason = self._client.failures.clean("; ".join(told))
            raise self._void(turn, f"the batch failed: {reason}")
        idle = batch.status == "cancelled" or (batch.status == "expired" and not came)
        if idle and not self._submitted[turn].get("stopped"):
            self._submitted[turn]["stopped"] = True
            self._write()
            raise self._stop(f"batch {batch.id} was {batch.status}", _ANEW)

    def _void(self, turn: int, what: str) -> EngineError:
        self._submitted[turn]["void"] = True
        self._write()
        return self._stop(what, f"mend that and {_ANEW}")

    def _stop(self, what: str, mend: str) -> EngineError:
        return EngineError(f"{self._client.address}: {what}", mend=mend)

    def _settle(self, turn: int, missing: Sequence[str], found: Answers) -> None:
        """Count what the batch has cost: no line without an answer is billed."""
        cost, prices = Decimal(0), self._client.spending.prices
        for i in missing:
            answer = found.get(i)
            if isinstance(answer, Mapping):
                used = tokens_used(answer)
                most = self._requests[int(i)].most(self._client.spending, batch=True)
                cost += most if used is None else prices.cost(*used, batch=True)
        self._client.spending.settle_batch(self._bill(turn), cost)

    def _most(self, missing: Sequence[str]) -> Decimal:
        each = (self._requests[int(i)].most(self._client.spending, batch=True) for i in missing)
        return sum(each, Decimal(0))

    def _bill(self, turn: int) -> str:
        return f"{self._mark}-{turn}"

    def _write(self) -> None:
        self._kept.write(self._name, {"submitted": self._submitted})
