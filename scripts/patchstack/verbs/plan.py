"""`patchstack plan` and `patchstack merge`: from deploy.yaml to one octopus commit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from patchstack import __version__
from patchstack.compose import lookup
from patchstack.compose.compose import compose, verify
from patchstack.compose.dedup import dedup
from patchstack.compose.memo import Memo
from patchstack.compose.octopus import write_stack
from patchstack.compose.onto import require_whole
from patchstack.compose.plan import fingerprint
from patchstack.compose.plan import plan as decide_plan
from patchstack.compose.topics import pull_topics
from patchstack.errors import PatchstackError, UsageError
from patchstack.git import Repository
from patchstack.git import version as git_version
from patchstack.github import TOKEN_VARIABLES, connect, token_of_environment
from patchstack.model import Base, Candidates, Composition, Kind, MergePlan, Sha
from patchstack.patches.header import Patch
from patchstack.patches.series import read_series
from patchstack.patches.topics import build_topics, releases_to_compare
from patchstack.pulls.discover import Discovered, discover
from patchstack.pulls.refs import read_pulls
from patchstack.store import Run
from patchstack.verbs.author import base_of, read_releases, validate
from patchstack.verbs.barred import barred_heads, listed_once, without_barred
from patchstack.verbs.hotfix import candidates_of_hotfix
from patchstack.verbs.inputs import read_inputs, skips
from patchstack.verbs.remote import list_remote, open_remote
from patchstack.workplace import Workplace, repository_url


def plan(
    work: Workplace,
    run: Run,
    *,
    without: Sequence[str] = (),
    listed: Mapping[str, Sha] | None = None,
    only: Sequence[str] = (),
) -> MergePlan:
    """Base, candidates, dedup and plan, each written into ``run``.

    ``listed`` is what the remote said already (`list_remote`); without it the remote is asked here. ``only``: a
    hotfix, which adds these pull requests (`pull_names`) to what is deployed.
    """
    require_token(work)
    validate(work.config_path)
    git = git_version()
    store = work.store()
    base = base_of(work, store, work.lane_name)
    run.write(base)
    patches = read_series(work.patches_folder)
    memo = Memo.read(work.state.memo / f"plan-{work.lane_name}.json", store, git)
    candidates, hotfix = _candidates(work, store, base, patches, without, listed, memo), None
    if only:
        candidates, hotfix = candidates_of_hotfix(work, store, candidates, only, skips(work), listed)
    run.write(candidates)
    deduped = dedup(store, candidates, skips(work, hotfix), memo)
    memo.write()
    run.write(deduped)
    named = fingerprint(
        candidates,
        lane=work.lane_name,
        git_version=git,
        patchstack_version=__version__,
        patches={patch.slug: patch.digest for patch in patches},
        skips=skips(work, hotfix),
        protected=work.config.pulls.protected,
        inputs=read_inputs(work, patches) | ({"onto": f"{hotfix.onto} {hotfix.composition}"} if hotfix else {}),
    )
    made = replace(decide_plan(deduped, lane=work.lane_name, base=base, fingerprint=named), hotfix=hotfix)
    run.write(made)
    return made


def planned(work: Workplace, run: Run, *, without: Sequence[str] = ()) -> MergePlan:
    """The plan of ``run``, made now if it has none."""
    if not run.has(MergePlan):
        return plan(work, run, without=without)
    if without:
        raise UsageError(f"run {run.id} is planned already: --without belongs to a new run")
    return _read_plan(work, run)


def merge(work: Workplace, run: Run, *, again: bool = False) -> Composition:
    """Compose the run's candidates; where a carrier falls, dedup and plan of ``run`` are written again.

    ``again``: compose a second time, step by step and with nothing remembered, and compare.
    """
    store, candidates, before = work.store(), run.read(Candidates), _read_plan(work, run)
    _require_objects(store, run, candidates)
    memo = Memo.read(work.state.memo / f"merge-{work.lane_name}.json", store, git_version())
    made = compose(
        store,
        candidates,
        lane=work.lane_name,
        skips=skips(work, before.hotfix),
        fingerprint=before.fingerprint,
        protected=work.config.pulls.protected,
        memo=memo,
        progress=work.progress,
    )
    memo.write()
    if again:
        passed_over = skips(work, before.hotfix)
        verify(store, candidates, made.composition, skips=passed_over, protected=work.config.pulls.protected)
    composition = replace(made.composition, hotfix=before.hotfix)
    if before.hotfix is not None:
        require_whole(candidates, composition, before.hotfix)
    for value in (made.deduped, replace(made.plan, hotfix=before.hotfix), composition):
        run.write(value)
    return composition


def composed(work: Workplace, run: Run, *, without: Sequence[str] = ()) -> Composition:
    """The composition of ``run``, made now if it has none."""
    if run.has(Composition) and not without:
        return read_composition(work, run)
    planned(work, run, without=without)
    return merge(work, run)


def stack_of(work: Workplace, composition: Composition) -> tuple[Sha, Sha]:
    """Commit and tree of the base with its required patches alone: what ``stack/LANE`` publishes."""
    store = work.store()
    required = [topic for topic in composition.included if topic.kind is Kind.PATCH and topic.required]
    commit, joined = write_stack(store, composition.base, required)
    if len(joined) != len(required):
        # They merged with each other in the composition, in the same order: anything else is a bug.
        raise PatchstackError(f"the required patches of {composition.commit} do not compose alone")
    return commit, store.tree_of(commit)


def require_token(work: Workplace) -> None:
    """`UsageError` when GitHub is to be asked and the environment holds no token for it."""
    if work.asks_github and token_of_environment() is None:
        asked = ", ".join(dict.fromkeys(source.repo for source in work.github_sources))
        raise UsageError(
            f"deploy.yaml lists pull requests of {asked} on GitHub, which is asked with a token, and none of "
            f"{', '.join(TOKEN_VARIABLES)} is set: set one; or use --local, and the candidates are the remote's "
            "refs/pull/*/head"
        )


def read_composition(work: Workplace, run: Run) -> Composition:
    """The composition of ``run``; `UsageError` if it is another lane's, or not what the store holds."""
    made = run.read(Composition)
    _require_lane(work, run, made.lane)
    store = work.store()
    parents = (made.base.commit, *(topic.commit for topic in made.included))
    if not store.has(f"{made.commit}^{{commit}}") or not store.has(f"{made.base.commit}^{{commit}}"):
        raise UsageError(f"the composition of run {run.id} is not in {store.folder}: plan again on this machine")
    held = (store.tree_of(made.commit), store.parents(made.commit), store.tree_of(made.base.commit))
    if held != (made.tree, parents, made.base.tree):
        raise UsageError(f"run {run.id}: composition.json says something else than commit {made.commit}: merge again")
    for mutant in (mutant for topic in made.included for mutant in topic.mutants):
        if mutant.commit is not None and not store.has(f"{mutant.commit}^{{commit}}"):
            raise UsageError(
                f"mutant {mutant.name} of run {run.id} is not in {store.folder}: plan again on this machine"
            )
    return made


def _read_plan(work: Workplace, run: Run) -> MergePlan:
    made = run.read(MergePlan)
    _require_lane(work, run, made.lane)
    return made


def _require_lane(work: Workplace, run: Run, lane: str) -> None:
    if lane != work.lane_name:
        raise UsageError(f"run {run.id} is of lane {lane}, not of {work.lane_name}: use --lane {lane}")


def _require_objects(store: Repository, run: Run, candidates: Candidates) -> None:
    lacking = lookup.lacking(store, [candidates.base.commit, *(topic.commit for topic in candidates.topics)])
    if lacking:
        raise UsageError(f"{lacking[0]} of run {run.id} is not in {store.folder}: plan again on this machine")


def _candidates(
    work: Workplace,
    store: Repository,
    base: Base,
    patches: tuple[Patch, ...],
    without: Sequence[str],
    listed: Mapping[str, Sha] | None,
    memo: Memo,
) -> Candidates:
    needed = releases_to_compare(patches, base.version)
    listed = listed_once(work, listed)
    barred = barred_heads(work, listed)
    topics, left_out = build_topics(
        store,
        base,
        patches,
        optional_on=work.lane.optional,
        without=without,
        barred={(name, head): (by.reason, by.why(name)) for (name, head), by in barred.items()},
        releases=read_releases(work, store, needed),
        progress=work.progress,
    )
    found = without_barred(store, discovered(work, store, base, listed), barred)
    pull_candidates, unfit = pull_topics(
        store,
        base,
        topics,
        found.pulls,
        lane=work.lane_name,
        protected=work.config.pulls.protected,
        memo=memo,
        progress=work.progress,
    )
    everyone_else = (*left_out, *found.refused, *unfit)
    return Candidates(base, (*topics, *pull_candidates), everyone_else, found.asked, found.blocked)


def discovered(work: Workplace, store: Repository, base: Base, listed: Mapping[str, Sha] | None = None) -> Discovered:
    """Tonight's pull requests: from GitHub, or from the remote's own refs; none where deploy.yaml names no source."""
    if not work.local and not work.config.pulls.sources:
        return Discovered((), (), (), ())
    if listed is None:
        listed = list_remote(work)
    deploy_branches = {lane.branch: name for name, lane in work.config.lanes.items()}
    if work.asks_github:
        return discover(
            store,
            connect(),
            fork=work.config.fork.repo,
            remote_url=work.remote,
            sources=work.github_sources,
            base=base,
            lane=work.lane_name,
            deploy_branches=deploy_branches,
            main=work.config.fork.main,
            admit_label=work.config.pulls.admit.label,
            blocked_label=work.config.pulls.admit.blocked,
            previous=_promoted_pulls(work, listed),
            memo_path=work.state.root / "memo" / "admission.json",
            url_of=repository_url,
            listed=listed,
            progress=work.progress,
        )
    pulls, refused = read_pulls(
        store,
        work.remote,
        base=base,
        lane=work.lane_name,
        deploy_branches=deploy_branches,
        main=work.config.fork.main,
        listed=listed,
        progress=work.progress,
    )
    return Discovered(pulls, (), refused, ())


def _promoted_pulls(work: Workplace, listed: Mapping[str, Sha]) -> dict[str, Sha]:
    """The pull requests of the last promoted night, by name."""
    last = open_remote(work, listed).history.last
    # A patch's name is a slug: it holds no #.
    return {name: head for name, head in last.line.included if "#" in name} if last else {}
