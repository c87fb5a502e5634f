"""YAML with the lines at which things stand, so that a problem can be shown where it is.

Problems are written as ``file:line: path: problem: fix`` everywhere. Only plain YAML is taken: no aliases
(a few lines of them can stand for gigabytes, or for themselves) and no keys other than words and numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic_core import ErrorDetails

from patchstack.errors import ConfigError

_PLAIN_KEYS = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "merge")}


class YamlProblem(ValueError):
    """Text that is no plain YAML of the kind that it must be; ``line`` counts from 1."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(problem)
        self.line = line


def problem_of(detail: ErrorDetails, fixes: Mapping[str, str], otherwise: str) -> str:
    """``problem: fix`` of an error of pydantic; ``otherwise`` is the fix where ``fixes`` and its text have none."""
    message = detail["msg"].removeprefix("Value error, ")
    fix = fixes.get(detail["type"])
    if fix is None and detail["type"] == "string_pattern_mismatch":
        fix = f"write it to match {detail['ctx']['pattern']}"
        message = f"{detail['input']!r} is not of the right form"
    return f"{message}: {fix}" if fix else message if ";" in message else f"{message}: {otherwise}"


def text_of(path: Path) -> str | None:
    """What the file says; None where there is none. `ConfigError` where it cannot be read, or is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}:1: : it cannot be read ({error}): mend it, or save it as UTF-8"]) from error


class _PlainLoader(yaml.SafeLoader):
    """The safe loader without aliases; a value that does not read as its type is named with its line."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="aliases are not taken; write the value out", problem_mark=mark)
        return super().compose_node(parent, index)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            # Such as 2020-13-45, which looks like a date and is none.
            kind = node.tag.rpartition(":")[2]
            shown = str(node.value)[:40]
            raise yaml.MarkedYAMLError(problem=f"{shown!r} is no {kind}", problem_mark=node.start_mark) from error


def compose_mapping(text: str) -> yaml.MappingNode:
    """The node tree of ``text``; `YamlProblem` when it is not plain YAML or not a mapping."""
    root = _compose(text)
    if not isinstance(root, yaml.MappingNode):
        raise YamlProblem(1 if root is None else root.start_mark.line + 1, "it must be a mapping")
    return root


def compose_list(text: str) -> yaml.SequenceNode:
    """The node tree of ``text``; `YamlProblem` when it is not plain YAML or not a list."""
    root = _compose(text)
    if not isinstance(root, yaml.SequenceNode):
        raise YamlProblem(1 if root is None else root.start_mark.line + 1, "it must be a list")
    return root


def _compose(text: str) -> yaml.Node | None:
    try:
        root: yaml.Node | None = yaml.compose(text, Loader=_PlainLoader)
        if root is None:
            return None
        wrong = next((key for _, key, _ in _pairs(root, ()) if key.tag not in _PLAIN_KEYS), None)
    except yaml.MarkedYAMLError as error:
        raise _problem(error) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise YamlProblem(line, f"not YAML: {error.reason} at character {error.position}") from error
    except RecursionError as error:
        raise YamlProblem(1, "not YAML that anybody reads: it is nested too deeply") from error
    if wrong is not None:
        raise YamlProblem(wrong.start_mark.line + 1, "a key must be a plain word")
    return root


def construct(root: yaml.Node) -> Any:
    """Plain values of a node tree (safe constructors only)."""
    loader = _PlainLoader("")
    try:
        return loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        raise _problem(error) from error
    except RecursionError as error:
        raise YamlProblem(1, "not YAML that anybody reads: it is nested too deeply") from error
    finally:
        loader.dispose()


def repeated_keys(root: yaml.Node) -> list[tuple[int, str]]:
    """Line and dotted path of every key that stands a second time in its mapping."""
    seen: set[tuple[int, str]] = set()
    found = []
    for mapping, key, path in _pairs(root, ()):
        this = (id(mapping), str(key.value))
        if this in seen:
            found.append((key.start_mark.line + 1, ".".join(path)))
        seen.add(this)
    return found


def line_of(root: yaml.Node, location: tuple[int | str, ...]) -> int:
    """The line of what stands at ``location``, or of the nearest thing around it that is there."""
    node, line = root, root.start_mark.line + 1
    for part in location:
        if isinstance(node, yaml.MappingNode):
            pair = next(((key, value) for key, value in node.value if key.value == str(part)), None)
            if pair is None:
                return line
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            return line
    return line


def _pairs(node: yaml.Node, where: tuple[str, ...]) -> Iterator[tuple[yaml.Node, yaml.Node, tuple[str, ...]]]:
    """Each key with the mapping that it stands in and its path, in the order of the text."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            path = (*where, str(key.value))
            yield node, key, path
            yield from _pairs(value, path)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from _pairs(value, (*where, str(index)))


def _problem(error: yaml.MarkedYAMLError) -> YamlProblem:
    line = error.problem_mark.line + 1 if error.problem_mark else 1
    return YamlProblem(line, f"not YAML: {error.problem}")
