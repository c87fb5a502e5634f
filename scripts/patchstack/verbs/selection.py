"""Which suites a test runs, and on which trees: the composed one, and each patch's ground."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from patchstack.errors import UsageError
from patchstack.git import Repository
from patchstack.model import Composition, Kind, Mutant, Reason, Scenario, Sha, Topic
from patchstack.patches.header import Patch
from patchstack.patches.series import read_series
from patchstack.patches.site import stands_on
from patchstack.patches.topics import releases_to_compare
from patchstack.regress.declared import CPU, Declared, scenarios_of
from patchstack.regress.expected import Due
from patchstack.regress.ground import Ground
from patchstack.regress.kills import on_ground, on_mutant, read_kills
from patchstack.regress.prove import Claim, mutant_id
from patchstack.regress.suites import BED_SUITE, Suite, files_of, find_suites
from patchstack.verbs.author import read_releases
from patchstack.verbs.declared import declared_in
from patchstack.workplace import Workplace


@dataclass(frozen=True)
class MutantTrial:
    """The files with the guards that kill one mutant."""

    slug: str
    mutant: Mutant
    tree: Sha
    suite: Suite

    @property
    def name(self) -> str:
        return mutant_id(self.slug, self.mutant)


@dataclass(frozen=True)
class Selection:
    """Which suites run, and where."""

    suites: tuple[Suite, ...]
    label: str
    """The composed tree's."""
    grounds: Mapping[str, Ground]
    """By suite: where its guards must fail. The bed's own controls look at the plain base."""
    not_run: tuple[Scenario, ...]
    """What another lane than this one would run, whatever was selected."""
    on_grounds: tuple[Suite, ...]
    """What runs on each suite's ground, by ground: none of the guards that kill mutants."""
    on_mutants: tuple[MutantTrial, ...]
    claims: Mapping[str, Claim]
    """By patch."""
    declared: tuple[Declared, ...] = ()
    """Every test below the repository's guards, of whatever lane."""


def select(work: Workplace, composition: Composition, only: Sequence[str]) -> Selection:
    """The suites of every patch that belongs on this base, or of those that ``only`` names; the bed's own always.

    A patch that was left out on request keeps its guards: they must fail, and the report must show it.
    """
    patches = read_series(work.patches_folder)
    included = {topic.name for topic in composition.included}
    requested = _left_out_on_request(composition)
    here = [patch.slug for patch in patches if patch.slug in {*included, *requested}]
    chosen = named(only, [patch.slug for patch in patches], here) if only else here
    if not chosen:
        raise UsageError("nothing to test: this composition has no patch")
    suites = find_suites(work.root, [(patch.slug, patch.guards) for patch in patches if patch.slug in chosen])
    grounds = {
        BED_SUITE: Ground(composition.base.tree),
        **grounds_of(work.store(), composition),
        **_grounds_of_left_out(work, composition, patches, requested),
    }
    label = f"without {', '.join(requested)}" if requested else "composed"
    mutants = {topic.name: topic.mutants for topic in composition.included}
    return selection_of(work.root, suites, label, grounds, mutants, declared_in(work.root, work.config, patches))


def selection_of(
    root: Path,
    suites: Sequence[Suite],
    label: str,
    grounds: Mapping[str, Ground],
    mutants: Mapping[str, Sequence[Mutant]],
    declared: Sequence[Declared] = (),
    *,
    slug: str = "",
) -> Selection:
    """Each of ``suites`` with its ground and with the mutants that its guards name.

    ``slug``: of the scenarios of other lanes only those that guard this patch are skipped by rule.
    """
    kills = {suite.slug: read_kills(root, files_of(root, suite)) for suite in suites}
    labels = list(dict.fromkeys(grounds[suite.slug].label for suite in suites))
    by_ground = sorted(suites, key=lambda suite: labels.index(grounds[suite.slug].label))
    return Selection(
        suites=tuple(suites),
        label=label,
        grounds=grounds,
        not_run=scenarios_of([test for test in declared if not slug or slug in test.guards], CPU),
        on_grounds=tuple(left for suite in by_ground if (left := on_ground(suite, kills[suite.slug]))),
        on_mutants=tuple(
            MutantTrial(suite.slug, mutant, mutant.tree, files)
            for suite in suites
            for mutant in mutants.get(suite.slug, ())
            if mutant.tree is not None and (files := on_mutant(suite, kills[suite.slug], mutant.name))
        ),
        claims={
            suite.slug: Claim(grounds[suite.slug].label, tuple(mutants.get(suite.slug, ())))
            for suite in suites
            if suite.slug != BED_SUITE
        },
        declared=tuple(declared),
    )


def within(selection: Selection, root: Path, files: Collection[str]) -> Selection:
    """What of ``selection`` is in ``files``: the suites with these alone, everywhere that they run."""

    def mine(suite: Suite) -> Suite | None:
        left = tuple(file for file in files_of(root, suite) if file in files)
        return replace(suite, paths=left) if left else None

    return replace(
        selection,
        suites=tuple(left for suite in selection.suites if (left := mine(suite))),
        on_grounds=tuple(left for suite in selection.on_grounds if (left := mine(suite))),
        on_mutants=tuple(replace(trial, suite=left) for trial in selection.on_mutants if (left := mine(trial.suite))),
    )


def dues_of(selection: Selection, root: Path, composed: Sha) -> tuple[Due, ...]:
    """What must answer: every guard on the ``composed`` tree, and the bed's own controls on the base."""

    def tests(suites: Iterable[Suite]) -> tuple[tuple[str, str], ...]:
        files = [(suite.slug, file) for suite in suites for file in files_of(root, suite)]
        return tuple((slug, test.test) for slug, file in files for test in selection.declared if test.file == file)

    base = selection.grounds.get(BED_SUITE)
    guards = Due(selection.label, True, composed, tests(suite for suite in selection.suites if suite.slug != BED_SUITE))
    if base is None:
        return (guards,)
    bed = tests(suite for suite in selection.suites if suite.slug == BED_SUITE)
    return guards, Due(base.label, False, base.tree, bed)


def dues_elsewhere(selection: Selection, root: Path, composed: Sha, mine: Collection[str]) -> tuple[Due, ...]:
    """What other machines must answer, on every tree: what of ``selection`` is not in the files ``mine``."""

    def files(suite: Suite) -> tuple[tuple[str, str], ...]:
        return tuple((suite.slug, file) for file in files_of(root, suite) if file not in mine)

    grounds = [
        Due(ground.label, False, ground.tree, files(suite))
        for suite in selection.on_grounds
        if suite.slug != BED_SUITE and (ground := selection.grounds[suite.slug])
    ]
    mutants = [
        Due(f"mutant {trial.name}", False, trial.tree, files(trial.suite), trial.name) for trial in selection.on_mutants
    ]
    tests = [
        replace(due, tests=tuple((slug, test) for slug, test in due.tests if test.partition("::")[0] not in mine))
        for due in dues_of(selection, root, composed)
    ]
    return *tests, *grounds, *mutants


def grounds_of(store: Repository, composition: Composition) -> dict[str, Ground]:
    """The ground of every patch of the composition: what its topic stands on, as it was merged."""
    patches = [topic for topic in composition.included if topic.kind is Kind.PATCH]
    return {topic.name: _ground_of(store, composition, topic, patches) for topic in patches}


def _ground_of(store: Repository, composition: Composition, topic: Topic, patches: Sequence[Topic]) -> Ground:
    (below,) = store.parents(topic.commit)
    commits = set(store.commits(below, f"^{composition.base.commit}"))
    return Ground(store.tree_of(below), tuple(other.name for other in patches if other.commit in commits))


def _grounds_of_left_out(
    work: Workplace, composition: Composition, patches: tuple[Patch, ...], slugs: Sequence[str]
) -> dict[str, Ground]:
    """What these would stand on if they, and all that they require, had not been left out."""
    if not slugs:
        return {}
    store, base = work.store(), composition.base
    releases = read_releases(work, store, releases_to_compare(patches, base.version))
    found = {}
    for patch in patches:
        if patch.slug in slugs:
            commit, names = stands_on(store, base, patches, patch, releases=releases)
            found[patch.slug] = Ground(store.tree_of(commit), names)
    return found


def _left_out_on_request(composition: Composition) -> list[str]:
    """The patches that --without named, and by name those that require one of them; in series order."""
    found: list[str] = []
    for out in composition.left_out:
        named = out.reason is Reason.ON_REQUEST
        if named or (out.reason is Reason.REQUIRED_LEFT_OUT and not set(found).isdisjoint(out.twins)):
            found.append(out.name)
    return found


def named(only: Sequence[str], series: Sequence[str], here: Sequence[str]) -> list[str]:
    """Those of ``here`` that ``only`` names, by slug or by group.

    `UsageError` for a name that means no patch of the series, or none of this composition.
    """
    unknown = [name for name in only if not _members(name, series)]
    if unknown:
        groups = f"; groups: {', '.join(found)}" if (found := groups_of(series)) else ""
        raise UsageError(
            f"no patch or group is called {', '.join(map(repr, unknown))}; the series has: {', '.join(series)}{groups}"
        )
    absent = [name for name in only if not _members(name, here)]
    if absent:
        held = ", ".join(here) or "no patch"
        raise UsageError(f"nothing to test for {', '.join(absent)}: not in this composition, which has: {held}")
    wanted = {slug for name in only for slug in _members(name, here)}
    return [slug for slug in here if slug in wanted]


def _members(name: str, slugs: Sequence[str]) -> list[str]:
    """The patch of that name, and those whose slug goes on after it with a dash: `pd` means `pd-...`."""
    return [slug for slug in slugs if slug == name or (name and slug.startswith(f"{name}-"))]


def groups_of(slugs: Sequence[str]) -> list[str]:
    """Every name that means several of ``slugs``, sorted."""
    words = [slug.split("-") for slug in slugs]
    beginnings = {"-".join(parts[:length]) for parts in words for length in range(1, len(parts))}
    return sorted(name for name in beginnings if len(_members(name, slugs)) > 1)
