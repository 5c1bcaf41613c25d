"""What a chat is on its way to a server: token ids, or messages as text.

With a tokenizer the engine writes the chat template itself and sends token ids to /completions, so
that nothing a message says can be a control token. Without one it sends messages to
/chat/completions, the server writes the template, and text that looks like a control token is
broken.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlaif.engines.openai.text import break_control_tokens, encodable
from rlaif.engines.prefix import trie_floor
from rlaif.engines.protocol import Usage
from rlaif.errors import EngineError
from rlaif.records import Chat

_TEMPLATE = 256  # tokens that a server's chat template may add, and
_A_MESSAGE = 32  # those around each message
_CONTINUE = {"add_generation_prompt": False, "continue_final_message": True}
_CONTINUES = ("vllm", "sglang")


@dataclass(frozen=True, slots=True)
class Prompt:
    """A chat in the form of one endpoint.

    Attributes:
        path: of the endpoint.
        body: the part of the request that is the prompt.
        order: prompts that share a beginning are neighbours in this order.
        tokens: how many it has; None where the server alone can tell.
    """

    path: str
    body: Mapping[str, Any]
    order: list[Any]
    tokens: int | None = None

    def most_tokens(self, body: Mapping[str, Any]) -> int:
        """The most tokens that a whole request with this prompt is billed for as input."""
        if self.tokens is not None:
            return self.tokens
        # A token is a byte at least, whatever the tokenizer.
        text = json.dumps(body, ensure_ascii=False, default=str).encode(errors="replace")
        return len(text) + _TEMPLATE + _A_MESSAGE * len(self.body["messages"])


class TokenPrompts:
    """Chats as token ids.

    Args:
        tokenizer: a folder, or a name on the hub.
        revision: of it, on the hub.
        template_arguments: given to the chat template besides the messages.

    Raises:
        EngineError: no such tokenizer, or one without a chat template.
    """

    kind = "token ids"

    def __init__(
        self,
        tokenizer: str,
        revision: str | None = None,
        template_arguments: Mapping[str, Any] | None = None,
    ) -> None:
        from rlaif.engines import checkpoint
        from rlaif.engines.chat import ChatEncoder

        self.tokenizer = checkpoint.load_tokenizer(tokenizer, revision, False)
        self._encoder = ChatEncoder(self.tokenizer, tokenizer, template_arguments)

    def prepare(
        self, chats: Sequence[Chat], usage: Usage, holds: int | None, new_tokens: int, server: str
    ) -> tuple[dict[int, Prompt], dict[int, str]]:
        """The prompts that can be asked, and the reasons of those that cannot.

        Args:
            chats: one a row.
            usage: the requests and the floor are counted there.
            holds: the most tokens of a sequence; None if the server does not say.
            new_tokens: how long the answer may become.
            server: what kind it is; any does.
        """
        prompts: dict[int, Prompt] = {}
        reasons: dict[int, str] = {}
        for i, ids in enumerate(self._encoder.encode(chats)):
            if isinstance(ids, EngineError):
                reasons[i] = str(ids)
            elif holds is not None and len(ids) + new_tokens > holds:
                reasons[i] = (
                    f"the prompt has {len(ids)} tokens and the answer may have {new_tokens}, "
                    f"the server's context holds {holds}"
                )
            else:
                prompts[i] = Prompt("/completions", {"prompt": ids}, ids, len(ids))
        usage.requests += len(chats)
        usage.floor_tokens += trie_floor([prompt.order for prompt in prompts.values()])
        return prompts, reasons

    def fingerprint(self) -> str:
        """A hash of all that makes ids of a chat."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        vocabulary = backend.to_str() if backend else json.dumps(self.tokenizer.get_vocab())
        text = f"{vocabulary}\n{self.tokenizer.chat_template}"
        return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


class MessagePrompts:
    """Chats as messages.

    Args:
        continues: the server continues a chat that ends with an assistant message, and needs not
            be told to; None goes by what kind of server it is.
    """

    kind = "messages"
    tokenizer = None

    def __init__(self, continues: bool | None = None) -> None:
        self._continues = continues
        self._warned = False

    def prepare(
        self, chats: Sequence[Chat], usage: Usage, holds: int | None, new_tokens: int, server: str
    ) -> tuple[dict[int, Prompt], dict[int, str]]:
        """As `TokenPrompts.prepare`; what is too long, the server finds out."""
        prompts: dict[int, Prompt] = {}
        reasons: dict[int, str] = {}
        usage.requests += len(chats)
        for i, chat in enumerate(chats):
            more = self._continuing(server) if chat[-1].role == "assistant" else {}
            if more is None:
                reasons[i] = "the server is not known to continue an assistant's message"
            else:
                messages = [{"role": m.role, "content": self._text(m.text)} for m in chat]
                order = [m["content"] for m in messages]
                prompts[i] = Prompt("/chat/completions", {"messages": messages, **more}, order)
        return prompts, reasons

    def fingerprint(self) -> str:
        """None is needed: the tokenizer is the server's."""
        return ""

    def _continuing(self, server: str) -> Mapping[str, Any] | None:
        if self._continues is not None:
            return {} if self._continues else None
        return _CONTINUE if server in _CONTINUES else None

    def _text(self, text: str) -> str:
        broken = break_control_tokens(encodable(text))
        if broken != encodable(text) and not self._warned:
            self._warned = True
            warnings.warn(
                "text that looks like a control token is sent with a space in it, since a server "
                "that is sent messages may read it as one; with `tokenizer` nothing is changed",
                RuntimeWarning,
                stacklevel=2,
            )
        return broken


Prompts = TokenPrompts | MessagePrompts
