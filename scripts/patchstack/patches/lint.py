"""`lint`: everything that must hold of the stack and can be said without composing it.

`read_series` has checked the front matter before. Here: the prose, the files that it names, that every diff
applies strictly on every given release of its range, and that an export would change nothing.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from patchstack.errors import CompositionError, ConfigError, StaleFiles
from patchstack.git import Repository
from patchstack.model import Base, KillMark, LeftOut, Topic
from patchstack.patches.header import HEADER_NAME, MUTANTS, Patch, line_of_key
from patchstack.patches.mail import format_mail
from patchstack.patches.mutants import mutants_of, name_of
from patchstack.patches.prose import prose_problems
from patchstack.patches.site import topic_of
from patchstack.patches.todo import todo_problems
from patchstack.patches.variants import Variant


@dataclass(frozen=True)
class LintReport:
    problems: tuple[str, ...]
    """``file:line: path: problem: fix``."""
    refusals: tuple[str, ...]
    """Patches that do not apply on a given release, each in the words of `CompositionError`."""
    stale: tuple[Path, ...]
    """Diff files that an export would change."""
    checked: tuple[str, ...]
    """What was done: the diff and the release on which it was tried."""

    def require_clean(self) -> None:
        """Raise for the gravest kind of finding, with all of that kind in the message."""
        if self.problems:
            raise ConfigError(list(self.problems))
        if self.refusals:
            raise CompositionError("\n".join(self.refusals))
        if self.stale:
            commands = "\n".join(f"  {path}: patchstack patch export {path.parent.name}" for path in self.stale)
            raise StaleFiles(f"not as an export would write it; run these and commit what they change:\n{commands}")


def lint(
    patches: tuple[Patch, ...],
    bases: Mapping[str, Base],
    store: Repository,
    *,
    root: Path,
    kills: Mapping[str, Sequence[KillMark]] | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> LintReport:
    """Check the stack; ``bases`` gives the releases at hand by version, ``root`` is where guards' paths begin.

    ``kills`` gives by slug the mutants that its guards name; of a patch that it lacks nothing is said of them.
    """
    problems = [problem for patch in patches for problem in (*prose_problems(patch), *_file_problems(patch, root))]
    problems += [problem for patch in patches for problem in todo_problems(patch, root)]
    problems += [problem for patch in patches for problem in _variant_problems(patch, bases)]
    if kills is not None:
        problems += [
            problem for patch in patches if patch.slug in kills for problem in _kill_problems(patch, kills[patch.slug])
        ]
    refusals: list[str] = []
    stale: list[Path] = []
    checked: list[str] = []
    for base in bases.values():
        for patch in patches:
            variant = patch.variant_for(base.version)
            if variant is None or (patch.need_on(base.version) is None and variant.cut_on != base.version):
                continue
            if variant.cut_on not in bases:
                continue  # `_variant_problems` has said so
            progress(f"{patch.slug} on {base.version}")
            try:
                made = topic_of(store, base, patches, patch, releases=bases)
            except CompositionError as error:
                refusals.append(str(error))
                continue
            if isinstance(made, LeftOut):
                problems.append(f"{patch.header_path}:{line_of_key(patch, 'bases')}: bases: {made.detail}")
                continue
            checked.append(f"{variant.path} applies on {base.version}")
            problems += _result_problems(store, patch, variant, made)
            if variant.cut_on == base.version:
                problems += _mutant_problems(store, patch, variant, made)
            if variant.cut_on == base.version and format_mail(store, made.commit) != variant.path.read_bytes():
                stale.append(variant.path)
    return LintReport(tuple(dict.fromkeys(problems)), tuple(dict.fromkeys(refusals)), tuple(stale), tuple(checked))


def _file_problems(patch: Patch, root: Path) -> Iterator[str]:
    """Guards and mutants that are named and not there, or there and not named; files that mean nothing."""
    for guard in patch.guards:
        problem = _guard_problem(root / guard)
        if problem:
            yield f"{patch.header_path}:{line_of_key(patch, 'guards')}: guards: {guard}: {problem}"
    there = {path.name for path in (patch.folder / MUTANTS).glob("*")}
    line = line_of_key(patch, "mutants")
    for name in sorted(set(patch.mutants) - there):
        yield f"{patch.header_path}:{line}: mutants: {name} is not in {MUTANTS}/: add it, or take its name away"
    for name in sorted(there - set(patch.mutants)):
        yield f"{patch.header_path}:{line}: mutants: {MUTANTS}/{name} is not listed: list it, or remove the file"
    known = {HEADER_NAME, MUTANTS, *(variant.path.name for variant in patch.variants)}
    for path in sorted(patch.folder.iterdir()):
        if path.name not in known:
            yield f"{path}:1: (file name): it is no part of a patch: remove it"


def _guard_problem(target: Path) -> str:
    if not target.exists():
        return "it is not there: write the guard"
    files = [target] if target.is_file() else sorted(target.rglob("test_*.py"))
    for file in files:
        try:
            tree = ast.parse(file.read_bytes())
        except SyntaxError as error:
            return f"{file.name} is no Python (line {error.lineno}): mend it"
        names = (node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
        if any(name.startswith("test_") for name in names):
            return ""
    return "there is no test in it: write a function test_…"


def _variant_problems(patch: Patch, bases: Mapping[str, Base]) -> Iterator[str]:
    if not patch.variants:
        yield f"{patch.header_path}:1: (files): there is no diff: make one with `patchstack patch edit {patch.slug}`"
    for variant in patch.variants:
        if variant.mail.subject != patch.title:
            yield (
                f"{variant.path}:1: Subject: it is {variant.mail.subject!r}, and the title in {HEADER_NAME} is"
                f" {patch.title!r}: give both the same"
            )
        if variant.cut_on not in bases:
            known = f"only {', '.join(bases)}" if bases else "no release is"
            yield f"{variant.path}:1: Cut-On: {variant.cut_on} is not at hand ({known}): add a lane of that release"
    for version in bases:
        if patch.need_on(version) is not None and patch.variants and patch.variant_for(version) is None:
            line = line_of_key(patch, "bases")
            yield f"{patch.header_path}:{line}: bases: it is for {version}, and no diff is: add one, or narrow `bases`"


def _mutant_problems(store: Repository, patch: Patch, variant: Variant, topic: Topic) -> Iterator[str]:
    """What keeps a mutant from being one, on the release on which the patch was cut."""
    there = [file for file in patch.mutants if (patch.folder / MUTANTS / file).exists()]  # else it is said already
    found = {mutant.name: mutant for mutant in mutants_of(store, topic.commit, patch, variant)}
    for file in there:
        for problem in found[name_of(file)].problems:
            yield f"{patch.folder / MUTANTS / file}:{problem}"


def _kill_problems(patch: Patch, kills: Iterable[KillMark]) -> Iterator[str]:
    """Guards that name a mutant which is none of the patch's, and mutants that no guard names."""
    listed = [name_of(file) for file in patch.mutants]
    named = set()
    for mark in kills:
        named.add(mark.mutant)
        if mark.mutant not in listed:
            known = f"the mutants of {patch.slug} are {', '.join(listed)}" if listed else f"{patch.slug} has no mutant"
            yield f'{mark.file}:{mark.line}: kills("{mark.mutant}"): {known}: mend the name, or list it there'
    for name in listed:
        if name not in named:
            line = line_of_key(patch, "mutants")
            yield f'{patch.header_path}:{line}: mutants: no guard kills {name}: mark one with kills("{name}")'


def _result_problems(store: Repository, patch: Patch, variant: Variant, topic: Topic) -> Iterator[str]:
    added = b"".join(
        content for file in variant.files for hunk in file.hunks for sign, content in hunk.lines if sign == "+"
    )
    if not re.search(rb"\b" + patch.switch_name.encode() + rb"\b", added):
        line = line_of_key(patch, "kill-switch")
        yield (
            f"{patch.header_path}:{line}: kill-switch: no line that {variant.path.name} adds names"
            f" {patch.switch_name}: read it in the patch, or mend the name"
        )
    for file in variant.files:
        if file.binary:
            yield f"{variant.path}:1: {file.path}: it is no text: a patch holds sources only, export it without that"
        if file.path.endswith(".py") and not file.is_deleted:
            try:
                ast.parse(store.read_blob(f"{topic.commit}:{file.path}") or b"")
            except (SyntaxError, ValueError) as error:
                yield f"{variant.path}:1: {file.path}: with the patch it is no Python ({error}): mend it"
