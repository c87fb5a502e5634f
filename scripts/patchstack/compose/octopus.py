"""Commits that join topics. Equal topics give an equal id: names, heads and dates are the inputs' own."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path

from patchstack.compose import lookup
from patchstack.git import EMAIL, NAME, GitFailed, Repository, Signature
from patchstack.model import Base, Sha, Topic

LATEST_S = 4_102_444_800
"""2100-01-01: a head can claim any date, and git refuses to write some."""


def date_of(store: Repository, commit: str) -> str:
    """The committer's date of ``commit`` as git takes it, in UTC."""
    return _date(store.show(commit, "%ct"))


def _date(seconds: str) -> str:
    known = seconds if seconds.isascii() and seconds.isdigit() else "0"
    return f"@{min(int(known), LATEST_S)} +0000"


def write_step(store: Repository, tree: Sha, tip: Sha, topic: Topic) -> Sha:
    """What `git merge` would write for one topic; only its place in history counts, and nobody sees it."""
    return store.commit(tree, [tip, topic.commit], f"{topic.name}\n")


def write_steps(store: Repository, tree: Sha, tip: Sha, topics: Sequence[Topic]) -> Sha:
    """A step for each topic, the last of them with ``tree``; the others have it too, for nobody looks at theirs.

    Merge bases are searched along these, and several are merged in the order in which they were found: so the
    history must be that of step after step, and not one commit with many parents. All of it is one process.
    """
    who = f"{NAME} <{EMAIL}> 0 +0000"
    with tempfile.TemporaryDirectory(prefix="patchstack-steps-") as folder:
        files: list[str] = []
        made: list[str] = []
        for number, topic in enumerate(topics):
            body = f"tree {tree}\nparent {tip}\nparent {topic.commit}\nauthor {who}\ncommitter {who}\n\n{topic.name}\n"
            data = body.encode()
            tip = Sha(hashlib.sha1(b"commit %d\0%s" % (len(data), data), usedforsecurity=False).hexdigest())
            path = Path(folder) / str(number)
            path.write_bytes(data)
            files.append(str(path))
            made.append(tip)
        argv = ("hash-object", "-t", "commit", "-w", "--no-filters", "--stdin-paths")
        answer = store.attempt_ok(*argv, stdin="".join(f"{file}\n" for file in files).encode())
    if answer.text.split() != made:
        raise GitFailed(argv, answer)
    return tip


def write_octopus(store: Repository, base: Base, topics: Sequence[Topic], tree: Sha) -> Sha:
    """The commit with the base and every topic as parents, dated as the latest of them."""
    parents = [base.commit, *(topic.commit for topic in topics)]
    dates = (_date(commit.seconds) for commit in lookup.commits(store, parents).values())
    date = max(dates, key=lambda date: int(date[1:].split()[0]))
    lines = [f"{base.name} with {_count(len(topics), 'topic')}", "", f"{base.commit} {base.name}"]
    lines += [f"{topic.head} {topic.name}" for topic in topics]
    return store.commit(tree, parents, "\n".join(lines) + "\n", Signature(date=date))


def write_stack(store: Repository, base: Base, patches: Sequence[Topic]) -> tuple[Sha, tuple[Topic, ...]]:
    """The octopus of the base and ``patches``, less any that conflicts with an earlier one; and what is in it."""
    tip, tree, joined = base.commit, base.tree, list[Topic]()
    for patch in patches:
        merged = store.merge_tree(tip, patch.commit)
        if merged.clean:
            tree = merged.tree
            tip = write_step(store, tree, tip, patch)
            joined.append(patch)
    return write_octopus(store, base, joined, tree), tuple(joined)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
