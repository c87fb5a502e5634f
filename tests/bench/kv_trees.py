"""The two trees that the KV measurements run on: the plain base, and the base with the lane's patches."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from patchstack.compose.octopus import write_stack
from patchstack.errors import CompositionError
from patchstack.model import Sha
from patchstack.patches.series import read_series
from patchstack.patches.topics import build_topics, releases_to_compare
from patchstack.regress.execute import Tree
from patchstack.report.terminal import Progress
from patchstack.upstream.provider import resolve_base
from patchstack.verbs.author import read_releases
from patchstack.verbs.trees import lay_tree, open_bed
from patchstack.workplace import open_workplace


@dataclass(frozen=True)
class KvTrees:
    """Both on disk, as `patchstack test` lays them."""

    plain: Tree
    composed: Tree
    composed_sha: Sha
    patches: tuple[str, ...]
    """What the composed tree has more."""
    root: Path
    """Of the repository."""


def lay_kv_trees(config: Path, lane: str, state: Path, progress: Progress) -> KvTrees:
    """The bed and the trees come from the cache, or are made there; no pull request is in either tree."""
    work = open_workplace(
        config_path=config,
        state_folder=state,
        lane=lane,
        remote=None,
        local=True,
        offline=False,
        progress=progress,
    )
    store = work.store()
    base = resolve_base(work.lane.upstream, store, work.cache, progress=progress)
    patches = read_series(work.patches_folder)
    releases = read_releases(work, store, releases_to_compare(patches, base.version))
    topics, _ = build_topics(store, base, patches, optional_on=work.lane.optional, releases=releases)
    commit, joined = write_stack(store, base, topics)
    if len(joined) != len(topics):
        missing = sorted({topic.name for topic in topics} - {topic.name for topic in joined})
        raise CompositionError(f"conflicts with the patches before it: {', '.join(missing)}")
    bed, tree = open_bed(work, base), store.tree_of(commit)
    return KvTrees(
        plain=lay_tree(work, base.tree, bed),
        composed=lay_tree(work, tree, bed),
        composed_sha=tree,
        patches=tuple(topic.name for topic in joined),
        root=work.root,
    )
