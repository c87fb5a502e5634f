"""What is measured on: a release in a store, and synthetic topics that are cut from it.

Topic *n* changes one line of a file that no other topic touches and adds a module of its own, as a patch with
its hook does. Every tenth changes the line of the topic before it instead, to something else: a conflict.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from patchstack.git import Repository
from patchstack.model import Base, Pull, Sha

HEADS = "refs/pull"
LINE = 10
"""The line that a topic changes; its file has at least twice as many."""
EVERY = 10


@dataclass(frozen=True)
class Ground:
    """A repository with a base, ``base/LANE`` and open pull requests; what is measured never writes into it."""

    seed: Repository
    base: Base
    lane: str
    pulls: tuple[Pull, ...]

    @property
    def pairs(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Who is in conflict with whom: every tenth with the one before it."""
        numbers = (pull.number for pull in self.pulls if pull.number % EVERY == 0)
        return tuple((f"#{number}", (f"#{number - 1}",)) for number in numbers)

    def with_another_first(self) -> Ground:
        """The same, but the first pull request has another head."""
        first, *others = self.pulls
        parent = self.seed.parents(first.head)[0]
        number = self.seed.write_blob(b"NUMBER = 0\n")
        path = next(change.path for change in self.seed.changes(parent, first.head) if change.status == "A")
        tree = self.seed.edit_tree(self.seed.tree_of(first.head), [("100644", number, path)])
        head = self.seed.commit(tree, [parent], "topic 1, as it was\n")
        return replace(self, pulls=(replace(first, head=head), *others))

    def fresh_store(self, folder: Path) -> Repository:
        """A new bare repository that borrows the seed's objects, and so has none of what an earlier run wrote."""
        store = Repository.init(folder)
        borrow(self.seed, folder)
        return store


def borrow(seed: Repository, git_folder: Path) -> None:
    """Let the repository at ``git_folder`` read the seed's objects without a copy."""
    alternates = git_folder / "objects" / "info" / "alternates"
    alternates.parent.mkdir(parents=True, exist_ok=True)
    alternates.write_text(f"{seed.folder / 'objects'}\n")


def break_ground(seed: Repository, base: Base, lane: str, topics: int) -> Ground:
    """Write ``topics`` pull requests on ``base`` into ``seed``, where the base already is."""
    targets = _targets(seed, base, topics)
    with tempfile.TemporaryFile() as stream:
        for part in _commits(targets, base.commit):
            stream.write(part)
        stream.write(b"done\n")
        stream.flush()
        stream.seek(0)
        seed.fast_import(stream)
    seed.set_refs({f"refs/heads/base/{lane}": base.commit})
    refs = seed.refs(HEADS)
    pulls = tuple(_pull(number, refs[f"{HEADS}/{number}/head"], base, lane) for number in range(1, topics + 1))
    return Ground(seed, base, lane, pulls)


def _targets(seed: Repository, base: Base, topics: int) -> list[tuple[str, Sequence[bytes]]]:
    """A path and its lines for each topic, spread over the whole tree."""
    paths = [
        entry.path for entry in seed.list_tree(base.tree) if entry.path.endswith(".py") and entry.mode[:3] == "100"
    ]
    stride = max(1, len(paths) // (2 * topics))
    found: list[tuple[str, Sequence[bytes]]] = []
    for path in [*paths[::stride], *paths]:
        lines = (seed.read_blob(f"{base.commit}:{path}") or b"").splitlines(keepends=True)
        if len(lines) >= 2 * LINE and path not in {known for known, _ in found}:
            found.append((path, lines))
        if len(found) == topics:
            return found
    raise ValueError(f"{base.name} has {len(found)} files of {2 * LINE} lines: too few for {topics} topics")


def _commits(targets: Sequence[tuple[str, Sequence[bytes]]], base: Sha) -> Iterator[bytes]:
    """The topics as a stream for `git fast-import`, in their raw date format."""
    for number in range(1, len(targets) + 1):
        path, lines = targets[number - 2 if number % EVERY == 0 else number - 1]
        changed = [*lines]
        changed[LINE - 1] = b"# topic %d\n" % number
        folder = path.rpartition("/")[0]
        message = b"topic %d\n" % number
        yield b"commit %s/%d/head\n" % (HEADS.encode(), number)
        yield b"committer Bench <bench@example.com> %d +0000\n" % (1_700_000_000 + number)
        yield b"data %d\n%s" % (len(message), message)
        yield b"from %s\n" % base.encode()
        yield _file(path, b"".join(changed))
        yield _file(f"{folder}/bench_topic_{number}.py", b"NUMBER = %d\n" % number)
        yield b"\n"


def _file(path: str, data: bytes) -> bytes:
    return b"M 100644 inline %s\ndata %d\n%s\n" % (path.encode(), len(data), data)


def _pull(number: int, head: Sha, base: Base, lane: str) -> Pull:
    return Pull(
        number=number,
        name=f"#{number}",
        head=head,
        title=f"topic {number}",
        author="Bench",
        target=f"base/{lane}",
        merge_base=base.commit,
        shared=False,
    )
