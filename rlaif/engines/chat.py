"""Chats as token ids: special tokens come from the chat template, never from what a message says.

    chat → skeleton (the template rendered over placeholders, not over content) → pieces → ids

The template never sees the content of a segmented message, and content is tokenized with special
tokens switched off. So whatever a response says, it is text inside its place in the prompt.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from jinja2 import TemplateError

from rlaif.errors import EngineError
from rlaif.records import Chat, Message, chat_to_json

_PLACEHOLDER = re.compile(r"q7SEGMENT(\d+)q7")
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_REFUSALS = (TemplateError, ValueError, TypeError)


@dataclass(frozen=True, slots=True)
class _Skeleton:
    """What the template writes around the segments: text, or the index of a segment, in order."""

    pieces: tuple[str | int, ...]
    controls: int
    """How many control tokens the template's own text has."""


@dataclass(frozen=True, slots=True)
class _Layout:
    """A chat as the template takes it, and its skeleton."""

    chat: Chat
    skeleton: _Skeleton


class ChatEncoder:
    """Turns chats into token ids with one tokenizer's own chat template.

    Args:
        tokenizer: a Hugging Face tokenizer.
        name: the model's name, for messages.
        template_arguments: what the template is given besides the messages
            (``enable_thinking`` and the like).

    Raises:
        EngineError: the tokenizer has no chat template.
    """

    def __init__(
        self, tokenizer: Any, name: str, template_arguments: Mapping[str, Any] | None = None
    ) -> None:
        if not tokenizer.chat_template:
            raise EngineError(
                f"the tokenizer of {name} has no chat template",
                mend="give it one (tokenizer.chat_template) or name an instruct model",
            )
        self.tokenizer, self.name = tokenizer, name
        self.template_arguments = dict(template_arguments or {})
        self.controls = _control_ids(tokenizer)
        self._skeletons: dict[tuple[tuple[str, int], ...], _Skeleton] = {}

    def encode(self, chats: Sequence[Chat]) -> list[list[int] | EngineError]:
        """The token ids of each chat; in the place of one that the template refuses, the error.

        A chat without segments whose text brings no control token gets exactly the ids of
        ``tokenizer.apply_chat_template``, which are the ids that training sees.
        """
        layouts: dict[int, _Layout] = {}
        errors: dict[int, EngineError] = {}
        for i, chat in enumerate(chats):
            try:
                layouts[i] = self._lay_out(chat)
            except EngineError as error:
                errors[i] = error
        whole = self._encode_whole(layouts)
        pieced = self._encode_pieces({i: x for i, x in layouts.items() if i not in whole})
        encoded = errors | whole | pieced
        return [encoded[i] for i in range(len(chats))]

    def _lay_out(self, chat: Chat) -> _Layout:
        try:
            return _Layout(chat, self._skeleton(chat))
        except EngineError:
            folded = _fold_system(chat)
            if folded == chat:
                raise
            return _Layout(folded, self._skeleton(folded))

    def _skeleton(self, chat: Chat) -> _Skeleton:
        shape = tuple((m.role, len(_segments(m))) for m in chat)
        if shape not in self._skeletons:
            self._skeletons[shape] = self._render_skeleton(shape)
        return self._skeletons[shape]

    def _render_skeleton(self, shape: tuple[tuple[str, int], ...]) -> _Skeleton:
        total, blank = 0, []
        for role, count in shape:
            marks = (f"q7SEGMENT{i}q7" for i in range(total, total + count))
            blank.append(Message(role, "".join(marks)))
            total += count
        split = _PLACEHOLDER.split(self._render(tuple(blank)))
        pieces = [int(p) if i % 2 else p for i, p in enumerate(split) if p]
        if sorted(p for p in pieces if isinstance(p, int)) != list(range(total)):
            raise EngineError(
                f"the chat template of {self.name} leaves out or repeats a message",
                value=[role for role, _ in shape],
                mend="use roles that the template writes once each",
            )
        written = self._tokenize(p for p in pieces if isinstance(p, str))
        controls = sum(self._count_controls(written[p]) for p in pieces if isinstance(p, str))
        return _Skeleton(tuple(pieces), controls)

    def _render(self, chat: Chat) -> str:
        going_on = bool(chat) and chat[-1].role == "assistant"
        try:
            text = self.tokenizer.apply_chat_template(
                chat_to_json(chat),
                tokenize=False,
                add_generation_prompt=not going_on,
                continue_final_message=going_on,
                **self.template_arguments,
            )
        except _REFUSALS as error:
            raise EngineError(
                f"the chat template of {self.name} refuses a chat: {error}",
                value=[m.role for m in chat],
            ) from error
        return _encodable(text)

    def _encode_whole(self, layouts: Mapping[int, _Layout]) -> dict[int, list[int]]:
        """As the library does it; leaves out the chats for which that would not be safe."""
        texts: dict[int, str] = {}
        for i, layout in layouts.items():
            if all(isinstance(m.content, str) for m in layout.chat):
                # A content that upsets the template is kept from its eyes: it goes piece by piece.
                with suppress(EngineError):
                    texts[i] = self._render(layout.chat)
        encoded = self._tokenize(texts.values())
        return {
            i: encoded[text]
            for i, text in texts.items()
            if self._count_controls(encoded[text]) == layouts[i].skeleton.controls
        }

    def _encode_pieces(self, layouts: Mapping[int, _Layout]) -> dict[int, list[int]]:
        """Template text with its special tokens, segments without; each different text once."""
        segments = {
            i: [_encodable(s) for m in layout.chat for s in _segments(m)]
            for i, layout in layouts.items()
        }
        written = self._tokenize(
            p for x in layouts.values() for p in x.skeleton.pieces if isinstance(p, str)
        )
        said = self._tokenize_content(s for row in segments.values() for s in row)
        return {
            i: [
                token
                for p in layout.skeleton.pieces
                for token in (written[p] if isinstance(p, str) else said[segments[i][p]])
            ]
            for i, layout in layouts.items()
        }

    def _tokenize(self, texts: Iterable[str], *, content: bool = False) -> dict[str, list[int]]:
        unique = list(dict.fromkeys(texts))
        if not unique:
            return {}
        rows = self.tokenizer(
            unique, add_special_tokens=False, split_special_tokens=content, verbose=False
        )["input_ids"]
        return dict(zip(unique, rows, strict=True))

    def _tokenize_content(self, texts: Iterable[str]) -> dict[str, list[int]]:
        """Ids without a single control token.

        Switching special tokens off is not enough where the template's tokens are not marked as
        special, or where the vocabulary of the tokenizer's model has them too: such a text is
        cut through them until none is left.
        """
        encoded = self._tokenize(texts, content=True)
        for text, ids in encoded.items():
            if found := self.controls.intersection(ids):
                parts = self._cut(text, found)
                rows = self._tokenize_content(parts) if len(parts) > 1 else {text: []}
                encoded[text] = [i for part in parts for i in rows[part]]
        return encoded

    def _cut(self, text: str, tokens: Set[int]) -> list[str]:
        """Cut a text behind the first letter of these tokens; in the middle where it has none."""
        names = [self.tokenizer.convert_ids_to_tokens(i) for i in sorted(tokens)]
        places = [f"(?<={re.escape(n[0])})(?={re.escape(n[1:])})" for n in names if len(n) > 1]
        parts = re.split("|".join(places), text) if places else [text]
        middle = len(text) // 2
        return parts if len(parts) > 1 else [p for p in (text[:middle], text[middle:]) if p]

    def _count_controls(self, ids: Sequence[int]) -> int:
        return sum(i in self.controls for i in ids)


def _control_ids(tokenizer: Any) -> frozenset[int]:
    """Special tokens, and added tokens with a letter or digit that the chat template itself writes.

    The unknown token is none of them: content may well have it.
    """
    template = str(tokenizer.chat_template)
    controls = set(tokenizer.all_special_ids)
    for token, added in tokenizer.added_tokens_decoder.items():
        if added.special or (re.search(r"\w", added.content) and added.content in template):
            controls.add(token)
    return frozenset(controls - {tokenizer.unk_token_id})


def _segments(message: Message) -> tuple[str, ...]:
    return (message.content,) if isinstance(message.content, str) else message.content


def _fold_system(chat: Chat) -> Chat:
    """System messages at the head of the first user message, for templates that take none."""
    system = [m for m in chat if m.role == "system"]
    others = [m for m in chat if m.role != "system"]
    for i, message in enumerate(others):
        if message.role == "user":
            parts = [p for m in system for p in (*_segments(m), "\n\n")] + [*_segments(message)]
            plain = all(isinstance(m.content, str) for m in (*system, message))
            others[i] = replace(message, content="".join(parts) if plain else tuple(parts))
            return tuple(others)
    return chat


def _encodable(text: str) -> str:
    """Without lone surrogates, which no tokenizer takes."""
    return _LONE_SURROGATE.sub("\ufffd", text)
