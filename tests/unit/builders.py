"""Histories in a few lines: a fork on this disk with a base, patches, published branches and pull requests.

fork = Fork(tmp_path, {"python/sglang/a.py": TEN})
fork.pull(1, fork.commit("fix a", {"python/sglang/a.py": edit(TEN, 3, "three")}, fork.base.commit))
assert fork.night() == Night(included=["#1"], left_out=[], files={...})
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from patchstack.compose.compose import Composed, compose
from patchstack.compose.octopus import write_stack
from patchstack.compose.plan import fingerprint
from patchstack.compose.topics import pull_topics
from patchstack.git import EMPTY_TREE, ZERO, Repository, Signature
from patchstack.model import Base, Candidates, Kind, LeftOut, Pull, Sha, Topic
from patchstack.pulls.refs import read_pulls

RELEASE = "0.5.12.post1"
TEN = "".join(f"line {number}\n" for number in range(1, 11))
A, B, C = (f"python/sglang/{name}.py" for name in "abc")


@dataclass(frozen=True)
class Link:
    """A symbolic link."""

    target: str


@dataclass(frozen=True)
class Program:
    """An executable file."""

    text: str


@dataclass(frozen=True)
class Submodule:
    commit: Sha


Content = str | bytes | Link | Program | Submodule | None
"""What a path holds; None: it is removed, with all below it."""


def edit(text: str, number: int, line: str) -> str:
    """``text`` with line ``number`` (from 1) replaced."""
    lines = text.splitlines()
    lines[number - 1] = line
    return "\n".join(lines) + "\n"


class Workshop:
    """Writes commits into one bare repository, each a minute after the one before."""

    def __init__(self, folder: Path) -> None:
        self.repository = Repository.init(folder)
        self.url = str(folder)
        self.minute = 0

    def commit(
        self, subject: str, files: Mapping[str, Content], *parents: Sha, author: str = "Ann", when: int | None = None
    ) -> Sha:
        """The first parent's files with ``files`` on top (with several parents: no merge is tried)."""
        tree = self.repository.tree_of(parents[0]) if parents else EMPTY_TREE
        return self.commit_tree(subject, self.tree(files, tree), *parents, author=author, when=when)

    def commit_tree(self, subject: str, tree: Sha, *parents: Sha, author: str = "Ann", when: int | None = None) -> Sha:
        self.minute += 1
        seconds = 1_700_000_000 + 60 * self.minute if when is None else when
        signature = Signature(author, f"{author.split()[0].lower()}@example.com", f"@{seconds} +0100")
        return self.repository.commit(tree, parents, f"{subject}\n", signature)

    def tree(self, files: Mapping[str, Content], onto: Sha = EMPTY_TREE) -> Sha:
        removed = [path for path, content in files.items() if content is None]
        below = [entry.path for path in removed for entry in self.repository.list_tree(onto, path)]
        entries = [("0", ZERO, path) for path in below]
        for path, content in files.items():
            if content is not None:
                entries.append((*self._entry(content), path))
        return self.repository.edit_tree(onto, entries)

    def _entry(self, content: str | bytes | Link | Program | Submodule) -> tuple[str, Sha]:
        match content:
            case Link(target):
                return "120000", self.repository.write_blob(target.encode())
            case Program(text):
                return "100755", self.repository.write_blob(text.encode())
            case Submodule(commit):
                return "160000", commit
            case bytes():
                return "100644", self.repository.write_blob(content)
            case str():
                return "100644", self.repository.write_blob(content.encode())

    def branch(self, name: str, commit: Sha) -> Sha:
        self.repository.set_refs({f"refs/heads/{name}": commit})
        return commit

    def pull(self, number: int, head: Sha) -> Sha:
        self.repository.set_refs({f"refs/pull/{number}/head": head})
        return head


@dataclass
class Night:
    """A whole night as a reader would tell it."""

    included: list[str]
    left_out: list[str]
    files: dict[str, str]
    """Every file of the composed tree; links as ``-> target``, programs with ``#!`` in front."""


@dataclass
class Fork(Workshop):
    """A fork's remote, and the store of a machine that composes nights from it."""

    folder: Path
    base_files: Mapping[str, Content]
    publish_base: bool = True
    lane: str = "production"
    patches: list[Topic] = field(default_factory=list)
    patches_left_out: list[LeftOut] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(self.folder / "remote.git")
        self.store = Repository.init(self.folder / "store.git")
        self.base = self.new_base(self.base_files)

    def new_base(self, files: Mapping[str, Content], release: str = RELEASE, upstream: Sha | None = None) -> Base:
        """A release as the night's base: a root commit, and one more commit on the line base/LANE.

        With ``upstream``, the base of a `git:` lane: that commit is its parent.
        """
        parents = [upstream] if upstream else []
        commit = self.repository.commit(self.tree(files), parents, f"SGLang {release}\n", Signature(date="@1 +0000"))
        self._receive(commit)
        self.base = Base(f"sglang=={release}", release, commit, self.repository.tree_of(commit))
        if self.publish_base:
            self.publish(f"base/{self.lane}", commit)
        return self.base

    def publish(self, branch: str, commit: Sha) -> Sha:
        """One more commit on a published line; the first one is ``commit`` itself."""
        tip = self.repository.resolve(f"refs/heads/{branch}")
        tree = self.repository.tree_of(commit)
        new = commit if tip is None else self.commit_tree(f"{branch} moves on", tree, tip, commit)
        return self.branch(branch, new)

    def patch(
        self,
        slug: str,
        files: Mapping[str, Content],
        *,
        on: Topic | None = None,
        required: bool = True,
        instead_of: str = "",
    ) -> Topic:
        """A patch of the series, as the patches stage would hand it over."""
        parent = on.commit if on else self.base.commit
        commit = self.commit(f"title of {slug}", files, parent, author="Pat")
        self._receive(commit)
        topic = Topic(
            name=slug,
            kind=Kind.PATCH,
            title=f"title of {slug}",
            author="Pat",
            head=commit,
            commit=commit,
            own_from=parent,
            own_to=commit,
            patch_id=self.store.patch_id(parent, commit),
            paths=tuple(change.path for change in self.store.changes(parent, commit)),
            required=required,
            requires=(on.name,) if on else (),
        )
        self.patches = [patch for patch in self.patches if patch.name != instead_of] + [topic]
        return topic

    def publish_stack(self) -> Sha:
        """Publish the base with its required patches as stack/LANE, and return the tip."""
        required = [patch for patch in self.patches if patch.required]
        return self.publish(f"stack/{self.lane}", write_stack(self.repository, self.base, required)[0])

    def deploy(self, octopus: Sha, branch: str = "deploy") -> Sha:
        """Promote ``octopus`` as the release stage does, and return the new tip of ``deploy``."""
        if not self.repository.has(octopus):
            self._send(octopus)
        tip = self.repository.resolve(f"refs/heads/{branch}") or self.commit("genesis", {}, when=0)
        self.minute += 1
        when = Signature(date=f"@{1_700_000_000 + 60 * self.minute} +0000")
        night = self.repository.commit(self.repository.tree_of(octopus), (tip, octopus), "a night\n", when)
        return self.branch(branch, night)

    # --- the stages ---

    def read(self) -> tuple[tuple[Pull, ...], tuple[LeftOut, ...]]:
        deploys = {"deploy": "production", "deploy-edge": "edge"}
        return read_pulls(self.store, self.url, base=self.base, lane=self.lane, deploy_branches=deploys)

    def candidates(self) -> Candidates:
        pulls, refused = self.read()
        topics, left_out = pull_topics(self.store, self.base, self.patches, pulls, lane=self.lane)
        return Candidates(self.base, (*self.patches, *topics), (*self.patches_left_out, *refused, *left_out))

    def compose(self, skips: Mapping[str, str] | None = None, candidates: Candidates | None = None) -> Composed:
        found = candidates or self.candidates()
        return compose(
            self.store,
            found,
            lane=self.lane,
            skips=skips or {},
            fingerprint=fingerprint(
                found,
                lane=self.lane,
                git_version=(2, 39, 5),
                patchstack_version="0",
                patches={patch.name: patch.commit for patch in self.patches},
                skips=skips or {},
                protected=(),
                inputs={},
            ),
        )

    def night(self, skips: Mapping[str, str] | None = None) -> Night:
        composition = self.compose(skips).composition
        return Night(
            [self.tell(topic) for topic in composition.included],
            [tell(item) for item in composition.left_out],
            self.files(composition.tree),
        )

    def tell(self, topic: Topic) -> str:
        notes = [topic.target] if topic.target else []
        if topic.replayed:
            on = [self.base.version, *topic.requires]
            notes.append(f"replayed on {' + '.join(on)}")
        notes += [f"without {path}" for path in topic.not_carried]
        return f"{topic.name} ({', '.join(notes)})" if notes else topic.name

    def files_of(self, commit: Sha) -> dict[str, str]:
        """The text of every file of a commit of the remote."""
        entries = self.repository.list_tree(commit)
        return {entry.path: (self.repository.read_blob(entry.sha) or b"").decode() for entry in entries}

    def files(self, revision: str) -> dict[str, str]:
        found = {}
        for entry in self.store.list_tree(revision):
            text = (self.store.read_blob(entry.sha) or b"").decode(errors="backslashreplace")
            found[entry.path] = {"120000": f"-> {text}", "100755": f"#!{text}"}.get(entry.mode, text)
        return found

    def _receive(self, commit: Sha) -> None:
        """Have a commit of the remote in the store, as the stages before would have made it there."""
        self.repository.set_refs({f"refs/test/{commit}": commit})
        self.store.fetch(self.url, [f"+{commit}:refs/test/{commit}"])

    def _send(self, commit: Sha) -> None:
        self.store.set_refs({f"refs/test/{commit}": commit})
        self.repository.fetch(str(self.store.folder), [f"+{commit}:refs/test/{commit}"])


class Clone(Repository):
    """A person's clone, with a work tree, in the sealed environment of the tool."""

    def __init__(self, url: str, folder: Path, checked_out: str) -> None:
        folder.mkdir()
        super().__init__(folder / ".git")
        self.run("init", "--quiet", str(folder))
        self.fetch(url, ["+refs/*:refs/theirs/*"])
        self.type("checkout", "--quiet", "-b", "mine", f"refs/theirs/heads/{checked_out}")

    def type(self, *argv: str) -> bool:
        """Run a command of git in the work tree; whether it ended with 0."""
        return (
            self.attempt("-C", str(self.folder.parent), "--work-tree", str(self.folder.parent), *argv).returncode == 0
        )


def tell(item: LeftOut) -> str:
    """One line: ``#3 excluded: conflict with #1 in python/sglang/a.py``."""
    twins = f" with {', '.join(item.twins)}" if item.twins else ""
    files = f" in {', '.join(item.files)}" if item.files else ""
    return f"{item.name} {item.outcome}: {item.reason}{twins}{files}"


def names(topics: Sequence[Topic]) -> list[str]:
    return [topic.name for topic in topics]
