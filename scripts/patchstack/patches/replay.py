"""A change carried from one tree to another, three-way, without a work tree."""

from __future__ import annotations

from patchstack.git import Merged, Repository


def replay(store: Repository, before: str, after: str, onto: str) -> Merged:
    """What ``before`` -> ``after`` makes of ``onto`` (commits or trees).

    `merge-tree` takes commits and finds their merge base (`--merge-base` came with git 2.40), so three
    synthetic ones are made whose merge base is ``before``.
    """
    root = store.commit(store.tree_of(before), (), "before\n")
    ours = store.commit(store.tree_of(onto), (root,), "onto\n")
    theirs = store.commit(store.tree_of(after), (root,), "after\n")
    return store.merge_tree(ours, theirs)
