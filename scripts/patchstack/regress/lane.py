"""The `cpu` lane: the guards on the composed tree, and each patch's where they must fail: its ground, its mutants."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from patchstack.deadline import REASON, Deadline
from patchstack.errors import MachineError, PatchstackError
from patchstack.model import GuardOutcome, GuardReport, GuardResult, Scenario, TreeRun
from patchstack.process import Stop, Stopped
from patchstack.regress import stacks, unprivileged
from patchstack.regress.attempts import run_with_attempts
from patchstack.regress.crew import has_own_network, run_parts
from patchstack.regress.durations import read_durations, write_durations
from patchstack.regress.enclose import Means
from patchstack.regress.execute import run_suite
from patchstack.regress.kept import keep
from patchstack.regress.parts import Part, decide_parts
from patchstack.regress.prove import Claim, prove
from patchstack.regress.record import unanswered
from patchstack.regress.steps import Keeping, Step, Subject
from patchstack.regress.suites import BED_SUITE, Suite, files_of

PART_LIMIT_S = 1800.0
"""The child that runs a patch's guards, or one file of them, is ended after this; each test has its own limit."""

LONGEST_NAME = 120
"""Of a folder of logs, in characters."""

MOST_RESULTS, MOST_CHARACTERS = 2_000, 512 << 10
"""Of a part, and of its names and reasons: a candidate writes them, and the night's report has to fit into a pack."""


def run_lane(
    lane: str,
    steps: Sequence[Step],
    claims: Mapping[str, Claim],
    keeping: Keeping,
    *,
    root: Path,
    logs: Path,
    workers: int,
    progress: Callable[[str], None],
    restore: Callable[[Subject], bool],
    lay: Callable[[Subject], None] = lambda _: None,
    drop: Callable[[Subject], None] = lambda _: None,
    not_run: tuple[Scenario, ...] = (),
    deadline: Deadline | None = None,
    retries: int = 0,
) -> GuardReport:
    """Run what is not kept, keep what is an answer, and judge the patches of ``claims``, by slug.

    The report is in the order of ``steps``, whoever ended first. ``restore`` compares a subject's tree with
    git's and writes it again if it differs, and says whether it did: what guards say while they write into the
    tree under test is no answer, and the next ones get it clean.

    ``lay`` writes the tree of a mutant when its turn has come, in a worker's thread, and ``drop`` removes it.
    What has no answer at the ``deadline`` is missing, and says so. What did not end by an assertion runs again,
    ``retries`` times at most: see `attempts`.
    """
    if unprivileged.means() is Means.IDENTITY:
        why = unprivileged.namespace_fault()
        progress(f"this machine gives root no namespaces ({why}): guards run as user {unprivileged.LONE_ID}")
    known = read_durations(keeping.folder)
    trees = [step.subject.tree for step in steps if step.kept is None]
    if workers > 1 and trees and not has_own_network(root, trees[0]):
        progress("this machine allows no network namespace: the guards run one after the other")
        workers = 1
    parts = decide_parts(steps, workers, known, lambda suite: files_of(root, suite))
    found: dict[Part, tuple[GuardResult, ...]] = {}

    def run(part: Part, stop: Stop) -> tuple[GuardResult, ...]:
        if part.step.subject.mutant:
            lay(part.step.subject)
        return _run_part(part, stop, root, logs, retries)

    def settle(part: Part, results: tuple[GuardResult, ...]) -> None:
        nonlocal known
        found[part] = results
        subject = part.step.subject
        whole = all(result.reason != REASON for result in results)
        if subject.mutant:
            known = known.after_mutant(subject.mutant, results) if whole else known
            drop(subject)
        elif whole:
            known = known.after(results, files=files_of(root, part.suite), composed=subject.composed)
        siblings = [other for other in parts if other.step == part.step]
        if all(other in found for other in siblings):
            keep(keeping.folder, part.step.key, keeping.today, _results_of(part.step, found))
            write_durations(keeping.folder, known)

    run_parts(parts, workers, run, restore=restore, settle=settle, progress=progress, deadline=deadline)
    lost = [f"{part.name} on {part.step.subject.label}" for part in parts if part not in found]
    if lost:
        raise PatchstackError(f"guards were begun and nobody heard how they ended: {', '.join(lost)}")
    runs = _tree_runs(steps, found)
    return GuardReport(lane, keeping.bed_key, runs, prove(claims, runs), not_run)


def _run_part(part: Part, stop: Stop, root: Path, logs: Path, retries: int) -> tuple[GuardResult, ...]:
    subject = part.step.subject
    folder = logs / _folder_name(subject)
    must_pass = subject.composed or part.suite.slug == BED_SUITE

    def attempt(paths: tuple[str, ...], number: int) -> tuple[GuardResult, ...]:
        name = part.name if number == 1 else f"{part.name}-again-{number}"
        kept_in = folder / stacks.NAME / name
        suite = replace(part.suite, paths=paths)
        try:
            results = run_suite(
                suite,
                subject.tree,
                root,
                folder / f"{name}.log",
                PART_LIMIT_S,
                stop,
                place=subject.place,
                mutant=subject.mutant_name,
                keep=stacks.Keep(kept_in, kept_in.relative_to(logs.parent).as_posix()),
            )
            results = within_bounds(part.suite, results)
            return _by_its_own_doing(paths, results) if must_pass and not stop.because else results
        except Stopped:
            raise
        except MachineError as error:  # it could not begin
            if number > retries:
                raise
            return tuple(replace(said, by_machine=True) for said in unanswered(suite, str(error)))

    files = files_of(root, part.suite)
    return run_with_attempts(attempt, part.suite.paths, retries, must_pass=must_pass, files=files)


def _by_its_own_doing(paths: tuple[str, ...], results: tuple[GuardResult, ...]) -> tuple[GuardResult, ...]:
    """``results``, with a crash where the process ended before any guard of ``paths`` was known, and nobody ended it.

    What is imported with the guards is the tree under test: who breaks that is found like whoever breaks a guard.
    """
    return tuple(
        replace(said, outcome=GuardOutcome.CRASH)
        if said.test in paths and "::" not in said.test and said.outcome is GuardOutcome.MISSING and not said.by_machine
        else said
        for said in results
    )


def within_bounds(suite: Suite, results: tuple[GuardResult, ...]) -> tuple[GuardResult, ...]:
    """``results`` of ``suite``; a crash of all of it where they are more than any guards say."""
    characters = sum(  # as JSON has them: a character can take six there
        len(ascii((said.test, said.reason, said.kills))) + 100 * len(said.samples) for said in results
    )
    if len(results) <= MOST_RESULTS and characters <= MOST_CHARACTERS:
        return results
    reason = "its record says more than any guards do: somebody else than the plugin has written there"
    return tuple(GuardResult(path, suite.slug, False, GuardOutcome.CRASH, 0.0, reason) for path in suite.paths)


def _results_of(step: Step, found: Mapping[Part, tuple[GuardResult, ...]]) -> tuple[GuardResult, ...]:
    """What the parts of ``step`` said, in their order."""
    mine = sorted((part for part in found if part.step == step), key=lambda part: part.place)
    return tuple(result for part in mine for result in found[part])


def _tree_runs(steps: Sequence[Step], found: Mapping[Part, tuple[GuardResult, ...]]) -> tuple[TreeRun, ...]:
    """One run a tree, in the order of ``steps``."""
    runs = []
    for subject in dict.fromkeys(step.subject for step in steps):
        mine = [step for step in steps if step.subject == subject]
        results = [step.kept if step.kept is not None else _results_of(step, found) for step in mine]
        kept = all(step.kept is not None for step in mine)
        flat = tuple(result for said in results for result in said)
        runs.append(TreeRun(subject.label, subject.composed, subject.sha, flat, kept, subject.mutant))
    return tuple(runs)


def _folder_name(subject: Subject) -> str:
    """``composed``, ``base+zmq-locked-sends``; a long one is cut, and told from others by its tree."""
    name = subject.label.replace("/", "-").replace(" + ", "+").replace(", ", ",").replace(" ", "-")
    return name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}-{subject.sha[:7]}"
