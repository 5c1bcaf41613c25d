"""What a model is asked, as text files: between the records and an engine, for every question.

A template is a Jinja file. It is rendered once, with placeholders; what the placeholders stand for
never passes through Jinja. A question is one user message whose content alternates between the
template's own text and the data, segment by segment, and engines tokenize each segment by itself.
So whatever a response says (chat-template tokens, "{{ … }}", a false section) stays in its place.

Quoting: a line of data that looks like a line of the template (ignoring case, blanks and what is
invisible) gets "> " in front, so that a response cannot open a section in the eyes of the model
either. All other text is passed on byte for byte.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

from jinja2 import StrictUndefined, TemplateSyntaxError, meta, nodes
from jinja2.sandbox import SandboxedEnvironment

from rlaif.errors import RecipeError
from rlaif.records import Chat, Message, fingerprint

VARIABLES: Mapping[str, frozenset[str]] = {
    "pointwise": frozenset({"prompt", "response", "principle"}),
    "pairwise": frozenset({"prompt", "response_a", "response_b", "principle"}),
    "rating": frozenset({"prompt", "response", "principle"}),
    "reasoning": frozenset(),
    "critique": frozenset({"prompt", "response", "principle"}),
    "revise": frozenset({"prompt", "response", "principle", "critique"}),
    "argue": frozenset({"prompt", "response", "principle", "side"}),
    "rebut": frozenset({"debate", "side"}),
    "debate": frozenset({"prompt", "response", "principle", "debate"}),
    "new_prompt": frozenset({"examples"}),
}
"""Every template and the variables it must use, each as it is and without a filter."""

_PLACEHOLDER = re.compile("\x00(.*?)\x00", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Template:
    """A template that has been read and checked.

    Attributes:
        name: a key of `VARIABLES`.
        text: the file, without the newline at its end.
        parts: the template's own text at even places, variable names at odd places.
        lines: the template's own whole lines, in the form in which data lines are compared.
    """

    name: str
    text: str
    parts: tuple[str, ...]
    lines: frozenset[str]

    @property
    def fingerprint(self) -> str:
        """16 hex digits that change with the text and with nothing else."""
        return fingerprint(self.text)

    def message(self, then: Template | None = None, /, **values: str) -> Message:
        """The question as one user message: own text and data, alternating, in the file's order.

        Args:
            then: a template without variables that follows after a blank line.
            values: the data, one text a variable.

        Raises:
            KeyError: a variable of the template has no value.
        """
        own = self.lines | then.lines if then else self.lines
        segments = [
            part if place % 2 == 0 else _quoted(values[part], own)
            for place, part in enumerate(self.parts)
        ]
        if then is not None:
            segments[-1] += "\n\n" + then.text
        return Message("user", tuple(segments))

    def asking(self, question: str) -> Template:
        """The template with a question of its own before the last line, which says how to answer.

        A template that ends with data gets the question behind it, after a blank line.
        """
        end = self.parts[-1].rstrip()
        before, newline, last = end.rpartition("\n")
        asked = f"{before}\n{question}\n{last}" if newline else f"{end}\n\n{question}"
        return replace(
            self,
            text=f"{self.text}\n{question}",
            parts=(*self.parts[:-1], asked),
            lines=self.lines | set(filter(None, map(_comparable, question.splitlines()))),
        )


def load_template(name: str, folder: Path | None = None) -> Template:
    """The template of that name: the file in `folder` if there is one, else the package's.

    Raises:
        RecipeError: the folder, or a template in it, cannot be used.
    """
    if folder is not None:
        _check_folder(folder)
        if (path := folder / f"{name}.txt").is_file():
            return _parse(name, _read(path), path)
    resource = files("rlaif") / "templates" / f"{name}.txt"
    return _parse(name, resource.read_text("utf-8"), Path(str(resource)))


def prompt_text(prompt: Chat) -> str:
    """A prompt as a judge reads it: a lone user message as it is, else "role: text" lines."""
    if len(prompt) == 1 and prompt[0].role == "user":
        return prompt[0].text
    return "\n".join(f"{message.role}: {message.text}" for message in prompt)


def _quoted(data: str, own: frozenset[str]) -> str:
    lines = data.splitlines(keepends=True)
    return "".join("> " + line if _comparable(line) in own else line for line in lines)


def _check_folder(folder: Path) -> None:
    """Refuse a folder that is not there, and a file in it that would silently be ignored."""
    if not folder.is_dir():
        raise RecipeError(
            "is not a folder", key="judge.templates", value=str(folder), mend="correct the path"
        )
    for path in sorted(folder.glob("*.txt")):
        if path.stem not in VARIABLES:
            known = ", ".join(f"{name}.txt" for name in VARIABLES)
            raise RecipeError("no template has this name", file=path, mend=f"use one of {known}")


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(
            f"cannot be read ({error})", file=path, mend="save it as UTF-8 text"
        ) from error


def _parse(name: str, source: str, path: Path) -> Template:
    """Check the variables, render with placeholders, and split there."""
    needed = VARIABLES[name]
    environment = SandboxedEnvironment(undefined=StrictUndefined)
    environment.globals.clear()
    try:
        tree = environment.parse(source)
        _check_names(tree, needed, path)
        rendered = environment.from_string(source).render({n: f"\x00{n}\x00" for n in needed})
    except TemplateSyntaxError as error:
        raise RecipeError(
            f"is not a Jinja template ({error.message})",
            file=path, line=error.lineno, mend="correct the braces",
        ) from error  # fmt: skip
    except RecipeError:
        raise
    except Exception as error:  # whatever a template computes, the fault is the file's
        raise RecipeError(
            f"cannot be rendered ({error})", file=path, mend="use its variables as they are"
        ) from error
    parts = tuple(_PLACEHOLDER.split(rendered))
    _check_used(set(parts[1::2]), needed, path)
    own = (line for line in rendered.splitlines() if "\x00" not in line)
    lines = frozenset(filter(None, map(_comparable, own)))
    return Template(name, source.removesuffix("\n"), parts, lines)


def _check_names(tree: nodes.Template, needed: frozenset[str], path: Path) -> None:
    unknown = meta.find_undeclared_variables(tree) - needed
    for node in tree.find_all(nodes.Name):
        if node.name in unknown:
            raise RecipeError(
                "no such variable", file=path, line=node.lineno, key=node.name, mend=_use(needed)
            )


def _check_used(used: set[str], needed: frozenset[str], path: Path) -> None:
    if used != needed:
        odd = sorted(needed - used) or sorted(used - needed)
        raise RecipeError(
            "must appear as it is, without a filter", file=path, key=odd[0], mend=_use(needed)
        )


def _use(needed: frozenset[str]) -> str:
    names = ", ".join(f"{{{{ {name} }}}}" for name in sorted(needed))
    return f"use {names}" if needed else "this template takes no variables"


def _comparable(line: str) -> str:
    """The line as a reader sees it: without what is invisible, full-width letters as plain ones."""
    line = " ".join(line.split())
    if not (line.isascii() and line.isprintable()):
        plain = unicodedata.normalize("NFKC", line)
        line = " ".join("".join(c for c in plain if unicodedata.category(c)[0] != "C").split())
    return line.casefold()
