"""The verbs of a patch's author: `validate`, `lint`, `patch edit`, `patch export`, `patch table`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from packaging.version import Version

from patchstack import config as configuration
from patchstack import verdict
from patchstack.config import Config, Upstream
from patchstack.errors import ConfigError, RemoteError, StaleFiles
from patchstack.git import Repository
from patchstack.model import Base, KillMark
from patchstack.patches.edit import Edited, edit
from patchstack.patches.export import export
from patchstack.patches.header import Patch
from patchstack.patches.known import read_known_releases, releases_to_try
from patchstack.patches.lint import LintReport
from patchstack.patches.lint import lint as lint_patches
from patchstack.patches.series import read_series
from patchstack.regress.declared import CPU
from patchstack.regress.kills import read_kills
from patchstack.regress.metrics import FILE, OF_SCENARIOS, read_metrics
from patchstack.regress.quarantine import read_quarantine
from patchstack.regress.scenarios import is_scenario
from patchstack.regress.suites import guard_files
from patchstack.store import now_utc
from patchstack.upstream.provider import resolve_base
from patchstack.verbs.declared import declared_in
from patchstack.verbs.generated import GPU_PAGE, README, stale_files
from patchstack.workplace import Workplace


@dataclass(frozen=True)
class Validated:
    lanes: tuple[str, ...]
    patches: tuple[str, ...]


def validate(config_path: Path) -> Validated:
    """Check deploy.yaml, every front matter, what guards say of themselves, the metrics and the quarantine.

    `ConfigError` with all problems.
    """
    problems: list[str] = []
    config: Config | None = None
    patches: tuple[Patch, ...] | None = None
    try:
        config = configuration.load(config_path)
    except ConfigError as error:
        problems += error.problems
    try:
        patches = read_series(config_path.parent / "patches")
    except ConfigError as error:
        problems += error.problems
    lanes = {name: lane.optional for name, lane in config.lanes.items()} if config else {}
    slugs = {patch.slug: patch.optional for patch in patches or ()}
    if patches is not None:
        problems += [
            f"{config_path}:{configuration.line_in(config_path, 'lanes', name, 'optional')}: "
            f"lanes.{name}.optional: {slug!r} is no optional patch of the series: "
            f"{'take it out, it is required' if slug in slugs else 'mend the name'}"
            for name, optional in lanes.items()
            for slug in optional
            if not slugs.get(slug)
        ]
    if config is not None and patches is not None:
        root, tests, measuring, elsewhere = config_path.absolute().parent, None, None, None
        try:
            declared = declared_in(root, config, patches)
            tests = {test.test for test in declared}
            measuring = {test.test for test in declared if test.lane == CPU}
            elsewhere = tests - measuring
        except ConfigError as error:
            problems += error.problems
        for file, by in ((FILE, measuring), (OF_SCENARIOS, elsewhere)):
            try:
                read_metrics(root, by, file=file)
            except ConfigError as error:
                problems += error.problems
        try:
            read_quarantine(root, now_utc().date(), tests)
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    return Validated(tuple(lanes), tuple(slugs))


@dataclass(frozen=True)
class Inspection:
    """What lint finds, before any of it is an error."""

    report: LintReport
    stale: list[str]
    """Generated files that are not as `generate` writes them."""
    bases: dict[str, Base]
    """Every release on which patches were tried, by version."""
    known: tuple[str, ...]
    """Those of `patches/releases`."""


def lint(work: Workplace) -> list[str]:
    """Check every patch on every lane's base and on every release that its diffs are for; what was checked.

    Also that the generated files are fresh.
    """
    found = inspect(work)
    found.report.require_clean()
    if found.stale:
        raise StaleFiles(f"{', '.join(found.stale)}: not what `make schema` writes; run it and commit the result")
    names = ", ".join(path.name for path in (configuration.SCHEMA_PATH, verdict.SCHEMA_PATH))
    return [*found.report.checked, f"{names}, {README} and {GPU_PAGE} are fresh"]


def inspect(work: Workplace, *, on_ranges: bool = True) -> Inspection:
    """All of `lint` but its judgement; raises only for what nobody can read.

    ``on_ranges``: on every release of the diffs' ranges, and not only on the lanes' and those they were cut on.
    """
    validate(work.config_path)
    patches = read_series(work.patches_folder)
    known = read_known_releases(work.patches_folder, patches)
    store = work.store()
    bases: dict[str, Base] = {}
    for name in work.config.lanes:
        base = base_of(work, store, name)
        bases[base.version] = base
    wanted = {variant.cut_on for patch in patches for variant in patch.variants}
    if on_ranges:
        wanted |= set(releases_to_try(patches, known))
    bases |= read_releases(work, store, wanted - bases.keys())
    kills, unreadable = _kills_of(work.root, patches)
    found = lint_patches(patches, bases, store, root=work.root, kills=kills, progress=work.progress)
    report = replace(found, problems=(*unreadable, *found.problems))
    return Inspection(report, stale_files(work.root, work.config), bases, known)


def _kills_of(root: Path, patches: Iterable[Patch]) -> tuple[dict[str, list[KillMark]], list[str]]:
    """The mutants that each patch's guards name, and every mark that cannot be read; those name none.

    Guards that are not there name none either, and lint says of those itself.
    """
    found: dict[str, list[KillMark]] = {}
    problems: list[str] = []
    for patch in patches:
        paths = [path for path in patch.guards if (root / path).exists() and not is_scenario(path)]
        try:
            found[patch.slug] = [mark for file in read_kills(root, guard_files(root, paths)) for mark in file.kills]
        except ConfigError as error:
            problems += error.problems
    return found, problems


def base_of(work: Workplace, store: Repository, lane: str) -> Base:
    """The base of a lane of deploy.yaml, in ``store``; a problem of it is named by its line there."""
    return resolve_base(
        work.config.lanes[lane].upstream,
        store,
        work.cache,
        offline=work.offline,
        where=f"lanes.{lane}.upstream",
        progress=work.progress,
    )


def read_releases(work: Workplace, store: Repository, versions: Iterable[str]) -> dict[str, Base]:
    """Releases by version, oldest first, other than the lanes' own: diffs are tried on them and compared with them.

    What is not in the cache is fetched. Without the network `RemoteError` names all that are missing.
    """
    found: dict[str, Base] = {}
    missing = []
    for version in sorted(versions, key=Version):
        release = Upstream(pypi=f"sglang=={version}")
        try:
            found[version] = resolve_base(release, store, work.cache, offline=work.offline, progress=work.progress)
        except RemoteError:
            if not work.offline:
                raise
            missing.append(version)
    if missing:
        raise RemoteError(
            f"{len(missing)} releases of sglang are not in the cache {work.cache} and the network is not to be used: "
            f"{', '.join(missing)}; run it once with the network"
        )
    return found


def edit_patch(work: Workplace, slug: str, folder: Path, *, dry_run: bool = False) -> Edited:
    """Make the work tree of a patch; ``dry_run``: only say what would be in it."""
    store, base, patches, others = _authoring(work)
    return edit(store, base, patches, slug, folder, releases=others, dry_run=dry_run, progress=work.progress)


def what_to_do(made: Edited, slug: str, folder: Path) -> str:
    """What is in the work tree and what to do in it, for the author."""
    below = f"on top of {', '.join(made.below)}" if made.below else "on the plain base"
    lines = [
        f"{made.folder}: branch {made.branch}, {below}",
        *made.note.splitlines(),
        f"change it, commit, then: patchstack patch export {slug} --from {folder}",
    ]
    return "\n".join(lines)


def export_patch(work: Workplace, slug: str, folder: Path | None, *, dry_run: bool) -> list[str]:
    """Write the patch's diff in canonical form; the files that were stale, relative to the repository."""
    store, base, patches, others = _authoring(work)
    written = export(store, base, patches, slug, folder, releases=others, dry_run=dry_run)
    return [str(path.resolve().relative_to(work.root)) for path in written]


def _authoring(work: Workplace) -> tuple[Repository, Base, tuple[Patch, ...], dict[str, Base]]:
    patches = read_series(work.patches_folder)
    store = work.store()
    upstream = work.lane.upstream
    base = resolve_base(upstream, store, work.cache, offline=work.offline, progress=work.progress)
    cut_on = {variant.cut_on for patch in patches for variant in patch.variants}
    return store, base, patches, read_releases(work, store, cut_on - {base.version})
