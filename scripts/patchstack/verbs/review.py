"""`patchstack review`: what a patch pull request makes of the stack, as a value that is written down.

Two sides are read: main's, from git objects, and the work tree's. Both are composed on the real bases, in the
state's store; nothing is pushed, and no code of SGLang or of a guard runs.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from patchstack import config as configuration
from patchstack import verdict
from patchstack.errors import ConfigError, LaneUnavailable, PatchstackError, UsageError
from patchstack.git import Repository
from patchstack.patches import changes
from patchstack.patches.header import Patch
from patchstack.patches.known import releases_to_try
from patchstack.patches.series import read_series
from patchstack.regress.suites import guard_files
from patchstack.report import rangediff
from patchstack.verbs.author import Inspection, inspect, validate
from patchstack.verbs.checkout import Checkout, links_below, open_checkout
from patchstack.verbs.prospects import compare_candidates
from patchstack.verbs.stacks import LaneStack, compose_stack
from patchstack.verdict import Change, PatchChange, PatchVerdict
from patchstack.workplace import Workplace

Open = Callable[[Path, str], Workplace]
"""The workplace of a `deploy.yaml` and one of its lanes."""


@dataclass(frozen=True)
class Side:
    """main, or the work tree."""

    work: Workplace | None
    """None: it cannot be read, and ``problems`` say why."""
    patches: tuple[Patch, ...] = ()
    problems: tuple[str, ...] = ()

    def lanes(self, only: str | None) -> list[str]:
        return [name for name in (self.work.config.lanes if self.work else ()) if only in (None, name)]


def review(open_side: Open, config_path: Path, *, against: str, number: int | None, lane: str | None) -> PatchVerdict:
    """The verdict on the work tree around ``config_path``.

    ``lane``: only that one. Raises `UsageError`, and `LaneUnavailable` for a lane that neither side has; what
    else keeps the review from saying all (a package index that does not answer) is in the verdict, with its code.
    """
    checkout = open_checkout(config_path.absolute().parent.resolve(), against)
    found: dict[str, Any] = {}
    with TemporaryDirectory(prefix="patchstack-review-") as folder:
        try:
            for part in _parts(open_side, checkout, config_path, Path(folder), lane):
                found |= part
        except (UsageError, LaneUnavailable):
            raise
        except PatchstackError as error:
            found["stopped"] = verdict.Stopped(code=error.exit_code, said=verdict.lines(str(error)))
    return PatchVerdict(number=number, head=checkout.head, base=checkout.base, **found)


def _parts(
    open_side: Open, checkout: Checkout, config_path: Path, folder: Path, lane: str | None
) -> Iterator[dict[str, Any]]:
    """The parts of the verdict by name; a later one of a name is the more complete."""
    after = _work_tree(open_side, config_path)
    before = _main(open_side, checkout, config_path, folder, after)
    yield {"before_problems": _texts(before.problems), "lint": verdict.Lint(problems=_texts(after.problems))}
    names = list(dict.fromkeys([*after.lanes(lane), *before.lanes(lane)]))
    if lane is not None and not names and (after.work or before.work):
        raise LaneUnavailable(f"neither main nor this work tree has a lane {lane!r} in {config_path.name}")
    if after.work is None:
        return
    if checkout.behind:
        after.work.progress("what main has gained since this branch left it counts as gone: merge main first")
    root, store = after.work.root, after.work.store()
    found = changes.compare(before.patches, after.patches)
    yield {"patches": tuple(_patch_change(root, changed, {}, {}, store) for changed in found)}
    try:
        with after.work.progress.stage("lint"):
            inspected = inspect(after.work, on_ranges=False)
        yield {"lint": _lint(inspected, found, {})}
        with after.work.progress.stage("this stack"):
            new = _stacks(after, lane, store)
    except ConfigError as error:
        yield {"lint": verdict.Lint(problems=_texts(error.problems))}
        return
    try:
        with after.work.progress.stage("main's stack"):
            old = _stacks(before, lane, store)
    except ConfigError as error:
        old = {}
        yield {"before_problems": _texts(error.problems)}
    yield {"lint": _lint(inspected, found, new), "lanes": tuple(_lane(name, old, new) for name in names)}
    yield {"patches": tuple(_patch_change(root, changed, old, new, store) for changed in found)}
    with after.work.progress.stage("candidates"):
        yield {"candidates": compare_candidates(store, old, new)}


# --- the two sides ---


def _work_tree(open_side: Open, config_path: Path) -> Side:
    # What a link leads to is nobody's patch, and would be quoted in a message about it.
    links = links_below(config_path, config_path.parent / "patches")
    if links:
        problems = (f"{link}:1: (file): it is a link: put the file itself there" for link in links)
        return Side(None, problems=tuple(problems))
    return _read_side(open_side, config_path)


def _main(open_side: Open, checkout: Checkout, config_path: Path, folder: Path, after: Side) -> Side:
    checkout.lay_out((config_path.name, "patches"), folder)
    before = _read_side(open_side, folder / config_path.name)
    work = before.work
    if work and after.work:
        work = replace(work, progress=after.work.progress)
    if work and after.work and work.config.fork.remote == after.work.config.fork.remote:
        # A relative path of a remote is meant from where the work tree is.
        work = replace(work, remote=after.work.remote, embedded=after.work.embedded)
    problems = tuple(problem.replace(f"{folder}/", "") for problem in before.problems)
    return replace(before, work=work, problems=problems)


def _read_side(open_side: Open, config_path: Path) -> Side:
    try:
        lane = next(iter(configuration.load(config_path).lanes))
        work = open_side(config_path, lane)
        validate(config_path)
        return Side(work, read_series(work.patches_folder))
    except ConfigError as error:
        return Side(None, problems=tuple(error.problems))


def _stacks(side: Side, only: str | None, store: Repository) -> dict[str, LaneStack]:
    if side.work is None:
        return {}
    return {name: compose_stack(replace(side.work, lane_name=name), store, side.patches) for name in side.lanes(only)}


def _lane(name: str, old: Mapping[str, LaneStack], new: Mapping[str, LaneStack]) -> verdict.LaneReview:
    before, after = (side[name].shown if name in side else None for side in (old, new))
    return verdict.LaneReview(lane=name, before=before, after=after)


# --- patch by patch ---


def _patch_change(
    root: Path,
    changed: changes.Changed,
    old: Mapping[str, LaneStack],
    new: Mapping[str, LaneStack],
    store: Repository,
) -> PatchChange:
    patch = changed.after or changed.before
    assert patch is not None, changed.slug
    lane, text = _range_diff(changed, old, new, store)
    touched = changed.after is not None and bool(changed.files)
    return PatchChange(
        slug=changed.slug,
        title=verdict.line(patch.title),
        change=_kind(changed),
        moved=changed.moved,
        became=_became(changed),
        files=verdict.names(changed.files if changed.before and changed.after else ()),
        range_diff=verdict.lines(text),
        on_lane=lane,
        guards=tuple(_guard(root, path) for path in patch.guards) if touched else (),
    )


def _kind(changed: changes.Changed) -> Change:
    if changed.before is None:
        return Change.NEW
    if changed.after is None:
        return Change.GONE
    return Change.CHANGED if changed.files else Change.UNCHANGED


def _became(changed: changes.Changed) -> Literal["", "optional", "required"]:
    if changed.before is None or changed.after is None or changed.before.optional == changed.after.optional:
        return ""
    return "optional" if changed.after.optional else "required"


def _range_diff(
    changed: changes.Changed, old: Mapping[str, LaneStack], new: Mapping[str, LaneStack], store: Repository
) -> tuple[str, str]:
    """The first lane on which the patch's commit has changed, and how; a lane that lacks either form says nothing."""
    if not (changed.before and changed.after and changed.files):
        return "", ""
    for lane in (lane for lane in new if lane in old):
        then, now = (
            next((topic for topic in side[lane].topics if topic.name == changed.slug), None) for side in (old, new)
        )
        if then is not None and now is not None:
            found = rangediff.compare_patch(store, then, now)
            if found.change == rangediff.CHANGED:
                return lane, found.text
    return "", ""


def _guard(root: Path, path: str) -> verdict.Guard:
    there = (root / path).exists()
    files = guard_files(root, [path]) if there else ()
    return verdict.Guard(path=verdict.name(path), there=there, tests=sum(_tests(root / file) for file in files))


def _tests(file: Path) -> int:
    """How many tests are in a file, by its text alone; in one that is no Python none, and lint says so."""
    with suppress(SyntaxError, ValueError):
        kinds = ast.FunctionDef | ast.AsyncFunctionDef
        nodes = ast.walk(ast.parse(file.read_bytes()))
        return sum(isinstance(node, kinds) and node.name.startswith("test_") for node in nodes)
    return 0


# --- lint ---


def _lint(found: Inspection, changed: Sequence[changes.Changed], stacks: Mapping[str, LaneStack]) -> verdict.Lint:
    """What lint says, less what the lanes' stacks have said already."""
    told = {"\n".join(refusal.said) for stack in stacks.values() for refusal in stack.shown.refusals}
    refused = [text for text in found.report.refusals if "\n".join(verdict.lines(text)) not in told]
    touched = [item.after for item in changed if item.after and item.files]
    further = [version for version in releases_to_try(touched, found.known) if version not in found.bases]
    return verdict.Lint(
        problems=_texts(found.report.problems),
        refused=_texts(refused),
        stale=(
            *(verdict.StaleFile(file=verdict.name(str(path)), patch=path.parent.name) for path in found.report.stale),
            *(verdict.StaleFile(file=verdict.name(file)) for file in found.stale),
        ),
        tried_on=tuple(found.bases),
        left_to_lint=tuple(further),
    )


def _texts(problems: Sequence[str]) -> tuple[str, ...]:
    return verdict.lines("\n".join(problems))
