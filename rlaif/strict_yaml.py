"""YAML text ⇄ plain data, with the place of every value: where constitutions and recipes start.

file → `read` → Document → strict_model.validate → Constitution or Recipe → `dump` → file

What `yaml.safe_load` reads is read the same way, with three differences: a key given twice is
refused instead of the last one winning; a date is refused instead of becoming no text; and
``1e-5`` is a number, as in YAML 1.2, where PyYAML by itself makes it text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rlaif.errors import RlaifError

Keys = tuple[str | int, ...]
"""The way to a value from the top of a document: ``("principles", 2, "weight")``."""

_MOST_BYTES = 1 << 20
_MOST_VALUES = 100_000
_TAG = "tag:yaml.org,2002:"
_SCALARS = {_TAG + name for name in ("str", "int", "float", "bool", "null")}
_FLOAT = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+\Z")


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, for which ``1e-5`` is a number."""


class _Dumper(yaml.SafeDumper):
    """The reverse of `_Loader`: quotes the text "1e-5", and writes long text as a block."""


for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver(_TAG + "float", _FLOAT, list("-+.0123456789"))


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    if re.search("[\x85\u2028\u2029]", text):  # PyYAML writes these as line breaks and loses them
        style = '"'
    return dumper.represent_scalar(_TAG + "str", text, style=style)


_Dumper.add_representer(str, _represent_text)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value stands: its line, counted from 1, and a scalar's text as it was written."""

    line: int
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """A YAML file as plain data, with the place of each value."""

    file: Path
    data: dict[str, Any]
    places: Mapping[Keys, Place]

    def line(self, keys: Keys) -> int:
        """The line of the value, or of the nearest mapping or list around it."""
        while keys not in self.places:
            keys = keys[:-1]
        return self.places[keys].line


def dotted(keys: Keys) -> str:
    """Keys as a person writes them: ``principles[2].weight``."""
    parts = [f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys]
    return "".join(parts).removeprefix(".")


def read(path: str | Path, error: type[RlaifError]) -> Document:
    """The mapping that a YAML file holds.

    Raises:
        RlaifError: of the class `error`: no such file, not UTF-8, not YAML, a key given twice or
            not text, something else than a mapping at the top, or too large to be meant.
    """
    path = Path(path)
    text = _text(path, error)
    try:
        return _document(path, text, error)
    except yaml.reader.ReaderError as e:
        line = text.count("\n", 0, e.position) + 1
        character = chr(e.character) if isinstance(e.character, int) else e.character
        mend = "remove the character, or write it as an escape in double quotes"
        raise error(e.reason, file=path, line=line, value=character, mend=mend) from None
    except yaml.MarkedYAMLError as e:
        mark = e.problem_mark or e.context_mark
        what = f"not readable as YAML: {', '.join(filter(None, (e.context, e.problem)))}"
        mend = "check indentation, quotes and colons here and just above"
        raise error(what, file=path, line=mark.line + 1 if mark else None, mend=mend) from None
    except RecursionError:
        raise error("nested too deeply", file=path, mend="flatten it") from None


def dump(data: Mapping[str, Any]) -> str:
    """Plain data as YAML text, keys in their order; `read` gives the same data back."""
    text: str = yaml.dump(dict(data), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=98)
    return text


def _text(path: Path, error: type[RlaifError]) -> str:
    """The file's text, if it is UTF-8 and of a size that a person would write."""
    try:
        with path.open("rb") as file:
            raw = file.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        raise error("no such file", file=path, mend="check the path") from None
    except IsADirectoryError:
        raise error("a folder, not a file", file=path, mend="name the YAML file in it") from None
    except OSError as e:
        raise error(f"cannot be read: {e.strerror}", file=path, mend="check the path") from None
    if len(raw) > _MOST_BYTES:
        raise error(f"larger than {_MOST_BYTES:,} bytes", file=path, mend="is it the right file?")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as e:
        line = raw.count(b"\n", 0, e.start) + 1
        bad = raw[e.start : e.end]
        mend = "save the file as UTF-8"
        raise error("not UTF-8", file=path, line=line, value=bad, mend=mend) from None


def _document(path: Path, text: str, error: type[RlaifError]) -> Document:
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            raise error("the file is empty", file=path, mend="write `key: value` lines")
        places: dict[Keys, Place] = {}
        data = _Builder(loader, path, error, places).build(node, ())
    finally:
        loader.dispose()
    if not isinstance(data, dict):
        mend = "write `key: value` lines at the top level"
        raise error("not a mapping of keys to values", file=path, line=1, value=data, mend=mend)
    return Document(path, data, places)


@dataclass(frozen=True, slots=True)
class _Builder:
    """Turns YAML nodes into plain data and notes the place of each."""

    loader: yaml.SafeLoader
    path: Path
    error: type[RlaifError]
    places: dict[Keys, Place]

    def build(self, node: yaml.Node, keys: Keys, line: int | None = None) -> Any:
        line = line or node.start_mark.line + 1
        self.places[keys] = Place(line, node.value if isinstance(node, yaml.ScalarNode) else None)
        # Aliases are expanded here, so this is also what stops a few lines of them from
        # growing into gigabytes.
        if len(self.places) > _MOST_VALUES:
            raise self.fault(f"more than {_MOST_VALUES:,} values", keys, "write fewer")
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return self.mapping(node, keys)
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            return [self.build(item, (*keys, i)) for i, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node, keys)
        raise self.fault(f"tagged as {node.tag}", keys, "remove the tag")

    def scalar(self, node: yaml.ScalarNode, keys: Keys) -> Any:
        kind = node.tag.removeprefix(_TAG)
        mend = f'write it in quotes: "{node.value}"'
        if node.tag not in _SCALARS:
            raise self.fault(f"YAML reads this as {kind}, which is not used here", keys, mend)
        try:
            return self.loader.construct_object(node)
        except (ValueError, KeyError):  # "0x_", or "!!bool maybe"
            raise self.fault(f"YAML reads this as {kind}, and fails", keys, mend) from None

    def mapping(self, node: yaml.MappingNode, keys: Keys) -> dict[str, Any]:
        built: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = key_node.value
            if not (isinstance(key_node, yaml.ScalarNode) and key_node.tag == _TAG + "str"):
                what, mend = "a key must be text", f'write it in quotes: "{key}"'
                if key == "<<":
                    what, mend = "keys cannot be merged in", "write them out"
                raise self.error(what, file=self.path, line=line, value=key, mend=mend)
            where = (*keys, key)
            if key in built:
                what = f"given twice, first in line {self.places[where].line}"
                raise self.error(
                    what, file=self.path, line=line, key=dotted(where), mend="remove one of them"
                )
            built[key] = self.build(value_node, where, line)
        return built

    def fault(self, what: str, keys: Keys, mend: str) -> RlaifError:
        line = self.places[keys].line
        return self.error(what, file=self.path, line=line, key=dotted(keys) or None, mend=mend)
