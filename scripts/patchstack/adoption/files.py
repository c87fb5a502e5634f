"""The files that make a folder the home of a fork's nights: `deploy.yaml`, the workflows and an empty series."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from patchstack.adoption.survey import Survey
from patchstack.model import Base

LANE = "production"
DEPLOY_YAML = "deploy.yaml"
SERIES = "patches/series"

TEMPLATES = Path(__file__).with_name("templates")
"""This project's own `.github`: a link in the repository, its files in a wheel."""

_NOT_FOR_OTHERS = ("CODEOWNERS",)
"""It names this project's teams."""


@dataclass(frozen=True)
class Planned:
    """A file that is to be written, and what is in its place now."""

    path: str
    """Relative to the folder."""
    data: bytes
    there: bool
    """Something is there already."""
    same: bool
    """And it is this very file, or one that is kept as it is."""

    @property
    def in_the_way(self) -> bool:
        return self.there and not self.same


def planned_files(folder: Path, deploy_yaml: str) -> tuple[Planned, ...]:
    """What adoption writes into ``folder``, `deploy.yaml` first."""
    files: dict[str, bytes] = {DEPLOY_YAML: deploy_yaml.encode()}
    for path in sorted(TEMPLATES.rglob("*")):
        if path.is_file() and path.name not in _NOT_FOR_OTHERS:
            files[f".github/{path.relative_to(TEMPLATES).as_posix()}"] = path.read_bytes()
    files[SERIES] = b"# The order of the stack: one slug a line.\n"
    return tuple(_planned(folder, path, data) for path, data in files.items())


def _planned(folder: Path, path: str, data: bytes) -> Planned:
    target = folder / path
    # A series is added to, never replaced: whatever patches it lists are part of the stack.
    same = target.is_file() and (path == SERIES or target.read_bytes() == data)
    return Planned(path, data, target.exists() or target.is_symlink(), same)


def deploy_text(survey: Survey, base: Base, *, main: str, deploy: str, local: bool) -> str:
    """The fork's `deploy.yaml`: one lane on its release, its deploy branch kept, its pull requests as the source."""
    remote = f", remote: {_text(survey.url)}" if local else ""
    into = [f"base/{LANE}", f"stack/{LANE}", *_composed_branches(survey, main, deploy)]
    source = "{refs: refs/pull/*/head}" if local else f"{{repo: {_text(survey.repo)}, into: [{_list(into)}]}}"
    return f"""\
# yaml-language-server: $schema=scripts/patchstack/deploy.schema.json
schema: 1
fork: {{repo: {_text(survey.repo)}, main: {_text(main)}{remote}}}
lanes:
  {LANE}:
    upstream: {{pypi: {base.name}, tree: {base.tree}}}
    branch: {_text(deploy)}
pulls:
  sources:
    - {source}
  admit: {{label: deploy, blocked: blocked}}
channels:
  nightly: {{needs: [cpu]}}
schedule_utc: "02:00"
max_lost: 2
max_age_days: 7
"""


def _composed_branches(survey: Survey, main: str, deploy: str) -> list[str]:
    """Branches that open pull requests are into; those into another's branch are stacked on it."""
    heads = {pull.branch for pull in survey.pulls}
    return sorted({pull.into for pull in survey.pulls if pull.into} - {main, deploy} - heads)


def _list(values: list[str]) -> str:
    return ", ".join(map(_text, values))


def _text(value: str) -> str:
    """As YAML reads it back: a branch may be called `on`, which alone would be a truth value."""
    plain = re.fullmatch(r"[A-Za-z][A-Za-z0-9._/-]*", value) and yaml.safe_load(value) == value
    return value if plain else json.dumps(value)


def count_pulls(survey: Survey) -> Mapping[str, int]:
    """How many open pull requests are into which branch."""
    found: dict[str, int] = {}
    for pull in survey.pulls:
        found[pull.into] = found.get(pull.into, 0) + 1
    return dict(sorted(found.items(), key=lambda item: -item[1]))
