"""The verbs of a patch's author: `validate`, `lint`, `patch edit`, `patch export`, `patch table`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from packaging.version import Version

from patchstack import config as configuration
from patchstack import verdict
from patchstack.config import Config, Upstream
from patchstack.errors import EXIT_CODES, ConfigError, RemoteError, StaleFiles
from patchstack.git import Repository
from patchstack.model import Base, KillMark
from patchstack.patches.edit import Edited, edit
from patchstack.patches.export import export
from patchstack.patches.header import Patch
from patchstack.patches.known import read_known_releases, releases_to_try
from patchstack.patches.lint import LintReport
from patchstack.patches.lint import lint as lint_patches
from patchstack.patches.prose import on_gpu, sections
from patchstack.patches.series import read_series
from patchstack.regress.declared import CPU, Declared, Guarding, read_declared
from patchstack.regress.kills import read_kills
from patchstack.regress.metrics import FILE, OF_SCENARIOS, read_metrics
from patchstack.regress.quarantine import read_quarantine
from patchstack.regress.scenarios import is_scenario
from patchstack.regress.suites import guard_files
from patchstack.report.table import PatchRow, patch_table
from patchstack.store import now_utc, write_whole
from patchstack.upstream.provider import resolve_base
from patchstack.workplace import Workplace

README = "README.md"


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


def declared_in(root: Path, config: Config, patches: Iterable[Patch]) -> tuple[Declared, ...]:
    """Every test below ``root``'s guards; ``patches`` is the whole series. Raises `ConfigError`."""
    guarding = [Guarding(patch.slug, patch.owner, patch.guards) for patch in patches]
    return read_declared(root, config.tests.lanes, guarding)


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
    return [*found.report.checked, f"{names} and {README} are fresh"]


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
    return Inspection(report, stale_files(work.root), bases, known)


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


# --- generated files ---


def table_of_patches(root: Path) -> str:
    """The README's table: one row a patch, in series order."""
    rows = [
        PatchRow(
            slug=patch.slug,
            symptom=_first_sentence(patch),
            need=", ".join(f"{need.value} on {release}" for release, need in patch.bases),
            upstream_status=patch.upstream_status,
            optional=patch.optional,
            on_gpu=on_gpu(patch),
        )
        for patch in read_series(root / "patches")
    ]
    return patch_table(rows)


def _first_sentence(patch: Patch) -> str:
    """Of its symptom: what a reader of the table looks for."""
    symptom = next((part.text for part in sections(patch) if part.heading == "Symptom"), patch.title)
    sentence, stop, _ = " ".join(symptom.split()).partition(". ")
    return sentence + "." if stop else sentence


def table_of_exit_codes() -> str:
    lines = ["| code | meaning |", "|---|---|", *(f"| {code} | {said} |" for code, said in sorted(EXIT_CODES.items()))]
    return "\n".join(lines) + "\n"


def generated(root: Path) -> dict[Path, str]:
    """Every committed file that is generated, wholly or between markers, as it should be."""
    readme = root / README
    text = readme.read_text() if readme.is_file() else ""
    for name, content in (("patches", table_of_patches(root)), ("exit-codes", table_of_exit_codes())):
        text = _between_markers(text, name, content)
    return {
        readme: text,
        configuration.SCHEMA_PATH: configuration.schema_text(),
        verdict.SCHEMA_PATH: verdict.schema_text(),
    }


def stale_files(root: Path) -> list[str]:
    return [path.name for path, text in generated(root).items() if not path.is_file() or path.read_text() != text]


def write_generated(root: Path) -> list[str]:
    """Write the stale ones again; their names."""
    stale = stale_files(root)
    for path, text in generated(root).items():
        if path.name in stale:
            write_whole(path, text)
    return stale


def _between_markers(text: str, name: str, content: str) -> str:
    begin, end = f"<!-- {name}: generated by `make schema` -->\n", f"<!-- end of {name} -->"
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ConfigError([f"{README}:1: : the markers of {name} are missing: add {begin.strip()} and {end}"])
    return f"{before}{begin}{content}{closed}{after}"
