"""`patchstack init`: read an existing fork, decide, compare tonight with what it deploys, and write the files.

The fork is read and never changed. Everything is decided before the first file is written.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from patchstack.adoption.beside import Beside, set_beside
from patchstack.adoption.checks import Check, Standing, bed_check, branch_checks, github_checks, pulls_check
from patchstack.adoption.deploy import DeployBranch, find_deploy
from patchstack.adoption.files import SERIES, Planned, deploy_text, planned_files
from patchstack.adoption.release import Compared, FoundRelease, find_release
from patchstack.adoption.survey import Survey, read_survey
from patchstack.adoption.telling import Adoption
from patchstack.compose.carried import restrict, roots
from patchstack.config import Upstream
from patchstack.errors import PatchstackError, RemoteError, UsageError
from patchstack.git import Repository
from patchstack.github import GitHub, Refused, RepositoryFacts, connect
from patchstack.model import Composition, Sha
from patchstack.regress.suites import BED_GUARDS
from patchstack.store import State, cache_folder, write_whole
from patchstack.upstream.provider import resolve_base
from patchstack.upstream.releases import releases_in_cache
from patchstack.verbs.patch_import import here_or_there
from patchstack.verbs.plan import merge, plan
from patchstack.workplace import Progress, open_workplace, repository_url

OWN_BRANCH = "patchstack"
"""The branch for the patches and the workflows, where the fork's default branch holds SGLang."""


@dataclass(frozen=True)
class Asked:
    """What a person asked `init` for."""

    source: str
    """``owner/name`` on GitHub, or a git URL or folder."""
    folder: Path
    state_folder: Path
    local: bool
    offline: bool
    base: str | None
    deploy_branch: str | None
    main: str | None
    dry_run: bool


def adopt(asked: Asked, progress: Progress) -> Adoption:
    """Read the fork and make ``asked.folder`` the home of its nights, or with ``dry_run`` say what that would be.

    `UsageError` names what is in the way there, and what of the fork cannot be told and has to be said. A fork that
    cannot be planned (`Adoption.failure`) has its checks told, and nothing is written.
    """
    store = Repository.init(State(asked.state_folder.absolute()).store_git)
    seen = look(asked, store, progress)
    text = deploy_text(seen.survey, seen.release.base, main=seen.main, deploy=seen.deploy.name, local=asked.local)
    files = planned_files(asked.folder, text)
    found = Adoption(seen.survey, seen.release, seen.deploy, seen.checks, files, None, written=False)
    in_the_way = [file.path for file in files if file.in_the_way]
    if in_the_way and not asked.dry_run:
        raise UsageError(
            f"{asked.folder}: {', '.join(in_the_way)}: there already, and not what would be written; nothing was: "
            "move it away, or name another --folder (--dry-run shows what would be written)"
        )
    if seen.unlisted is not None:
        return replace(found, failure=seen.unlisted.said, exit_code=RemoteError.exit_code)
    try:
        beside = _beside(asked, store, seen, files, progress)
    except PatchstackError as error:
        return replace(found, failure=str(error), exit_code=error.exit_code)
    if not asked.dry_run:
        for file in files:
            if not file.there:
                write_whole(asked.folder / file.path, file.data)
    return replace(found, beside=beside, written=not asked.dry_run)


def _version(base: str | None) -> str | None:
    """The version of ``sglang==X``; `UsageError` for what is no exact release."""
    if base is None:
        return None
    try:
        pypi = Upstream(pypi=base).pypi
    except ValueError:
        pypi = None
    if pypi is None or not pypi.replace(" ", "").startswith("sglang=="):
        raise UsageError(f"--base {base}: write one exact release: --base sglang==0.5.12.post1")
    return pypi.partition("==")[2].strip()


# --- reading ---


@dataclass(frozen=True)
class Seen:
    """What was read of the fork, and what follows from it."""

    survey: Survey
    deploy: DeployBranch
    release: FoundRelease
    main: str
    checks: tuple[Check, ...]
    unlisted: Check | None
    """Why GitHub does not list the pull requests."""


def look(asked: Asked, store: Repository, progress: Progress) -> Seen:
    """Read the fork into ``store`` and find out what a night must know of it."""
    version = _version(asked.base)
    survey, listed, github, facts = _read(asked, store, progress)
    deploy = find_deploy(store, survey, asked.deploy_branch)
    default_tip = survey.branches[survey.default_branch]
    tip = deploy.tip or default_tip
    release = find_release(
        store,
        survey,
        tip,
        asked=version,
        at_hand=releases_in_cache(cache_folder()),
        compare=lambda one: _compare(store, one, tip, asked.offline, progress),
    )
    holds_patches = store.read_blob(f"{default_tip}:{SERIES}") is not None
    main = asked.main or (survey.default_branch if holds_patches else OWN_BRANCH)
    checks = [*listed, *branch_checks(survey, main, holds_patches=holds_patches)]
    checks.append(bed_check(asked.folder, release.base.version))
    if github is not None and facts is not None:
        checks += github_checks(github, facts, deploy)
    unlisted = next((check for check in listed if check.standing is not Standing.OK), None)
    return Seen(survey, deploy, release, main, tuple(checks), unlisted)


def _read(
    asked: Asked, store: Repository, progress: Progress
) -> tuple[Survey, tuple[Check, ...], GitHub | None, RepositoryFacts | None]:
    if asked.local:
        url = here_or_there(asked.source)
        survey = read_survey(store, url, repo=_name_of(url), default_branch=None, pulls=None, progress=progress)
        return survey, (), None, None
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]*/[A-Za-z0-9._-]+", asked.source):
        raise UsageError(f"--from {asked.source}: write owner/name; for a git URL or a folder put --local before init")
    github = connect()
    facts = github.facts(asked.source)
    check = None
    try:
        pulls = github.open_pulls(facts.name)
        check = pulls_check(None, facts.name, len(pulls))
    except Refused as refused:
        if refused.status not in (403, 404):
            raise
        pulls, check = (), pulls_check(refused, facts.name)
    survey = read_survey(
        store,
        repository_url(facts.name),
        repo=facts.name,
        default_branch=facts.default_branch,
        pulls=pulls,
        progress=progress,
    )
    return survey, (check,), github, facts


def _name_of(url: str) -> str:
    """``owner/name`` of a URL or a folder: its last two parts."""
    parts = [part for part in re.split(r"[/:]", url.rstrip("/").removesuffix(".git")) if part]
    name = "/".join(parts[-2:])
    return name if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]*/[A-Za-z0-9._-]+", name) else f"local/{parts[-1]}"


def _compare(store: Repository, version: str, tip: Sha, offline: bool, progress: Progress) -> Compared:
    base = resolve_base(Upstream(pypi=f"sglang=={version}"), store, cache_folder(), offline=offline, progress=progress)
    carried = roots(store, base.tree)
    ours, theirs = restrict(store, base.tree, carried), restrict(store, tip, carried)
    return Compared(base, len(store.changes(ours, theirs)), len(store.list_tree(ours)))


# --- tonight ---


def _beside(
    asked: Asked,
    store: Repository,
    seen: Seen,
    files: tuple[Planned, ...],
    progress: Progress,
) -> Beside:
    """Compose tonight by the ordinary stages, in a run that nobody keeps, and set it beside ``deploy``."""
    composition = _tonight(asked, files, progress)
    carried, deploy = roots(store, seen.release.base.tree), seen.deploy.tip
    tonight = restrict(store, composition.tree, carried)
    trees = restrict(store, deploy, carried) if deploy else tonight, tonight
    below = tuple(f"{root}/" for root in carried)
    return set_beside(
        store,
        seen.survey,
        composition,
        begin=seen.release.begin,
        deploy=deploy,
        trees=trees,
        carried=lambda path: path in carried or path.startswith(below),
    )


def _tonight(asked: Asked, files: tuple[Planned, ...], progress: Progress) -> Composition:
    with tempfile.TemporaryDirectory(prefix="patchstack-init-") as elsewhere:
        home = Path(elsewhere)
        (home / "deploy.yaml").write_bytes(files[0].data)
        _lay_patches(asked.folder, home, files)
        work = open_workplace(
            config_path=home / "deploy.yaml",
            state_folder=asked.state_folder,
            lane=None,
            remote=None,
            local=asked.local,
            offline=asked.offline,
            progress=progress,
        )
        if (asked.folder / BED_GUARDS).is_dir():
            work = replace(work, root=asked.folder.resolve())
        else:
            # A plan names the guards by their digests. Here nothing is tested, and nobody keeps the plan.
            (home / BED_GUARDS).mkdir(parents=True)
            (home / BED_GUARDS / "test_bed.py").write_text("def test_nothing() -> None: ...\n")
        with work.locked(), work.open_run(dry_run=True) as run:
            plan(work, run)
            return merge(work, run)


def _lay_patches(folder: Path, home: Path, files: tuple[Planned, ...]) -> None:
    if (folder / SERIES).is_file():
        shutil.copytree(folder / "patches", home / "patches")
        return
    series = next(file for file in files if file.path == SERIES)
    write_whole(home / SERIES, series.data)
