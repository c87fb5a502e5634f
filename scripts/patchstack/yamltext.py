"""YAML with the lines at which things stand, so that a problem can be shown where it is.

Problems are written as ``file:line: path: problem: fix`` everywhere.
"""

from __future__ import annotations

from typing import Any

import yaml


class YamlProblem(ValueError):
    """Text that is no YAML mapping; ``line`` counts from 1."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(problem)
        self.line = line


def compose_mapping(text: str) -> yaml.MappingNode:
    """The node tree of ``text``; `YamlProblem` when it is not YAML or not a mapping."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise YamlProblem(line, f"not YAML: {error.problem}") from error
    except yaml.reader.ReaderError as error:
        raise YamlProblem(1, f"not YAML: {error.reason} at character {error.position}") from error
    if not isinstance(root, yaml.MappingNode):
        raise YamlProblem(1 if root is None else root.start_mark.line + 1, "it must be a mapping")
    return root


def construct(root: yaml.Node) -> Any:
    """Plain values of a node tree (safe constructors only)."""
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise YamlProblem(line, f"not YAML: {error.problem}") from error
    finally:
        loader.dispose()


def repeated_keys(root: yaml.MappingNode) -> list[tuple[int, str]]:
    """Line and name of every key that stands a second time at the top level."""
    seen: set[str] = set()
    found = []
    for key, _ in root.value:
        if key.value in seen:
            found.append((key.start_mark.line + 1, str(key.value)))
        seen.add(key.value)
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
