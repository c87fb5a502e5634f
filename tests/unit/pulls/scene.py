"""A fork on a GitHub, its people and its pull requests in a few lines, and what a night makes of them.

scene.propose(41, "fix", scene.commit("fix a", {A: edit(TEN, 3, "three")}))
scene.label(41)
assert scene.discover() == Told(pulls=["#41 fix a -> base/production"])
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.github_server import GitHubServer
from tests.support.github_server import Repository as Hosted
from tests.unit.builders import RELEASE, TEN, A, Content, Workshop, tell

from patchstack.config import GitHubSource
from patchstack.git import Repository, Signature
from patchstack.github import GitHub, Token
from patchstack.model import Base, Sha
from patchstack.pulls.discover import Discovered, discover

FORK, UPSTREAM = "acme/sglang", "sgl-project/sglang"
OWN = GitHubSource(repo=FORK, into=("base/production", "stack/production"))
TEAM = GitHubSource(repo=UPSTREAM, into=("main",), heads=("acme",))
WAITS = "waiting: needs admission"
PERMISSIONS = {"contents": "read", "pull-requests": "read"}


@dataclass
class Told:
    """A discovery as a reader would tell it."""

    pulls: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    blocked: list[str] = field(default_factory=list)


class Scene:
    """``ann`` and ``max`` may write to the fork, ``bob`` proposes, anybody else is a stranger."""

    def __init__(self, hub: GitHubServer, folder: Path) -> None:
        self.hub = hub
        self.folder = folder
        self.fork = hub.repository(FORK)
        self.workshop = Workshop(self.fork.path)
        self.store = Repository.init(folder / "store.git")
        hub.user("ann", write=[FORK])
        hub.user("max", write=[FORK])
        tree = self.workshop.tree({A: TEN})
        root = self.workshop.repository.commit(tree, [], f"SGLang {RELEASE}\n", Signature(date="@1 +0000"))
        self.push("base/production", root)
        self.store.fetch(str(self.fork.path), [f"+{root}:refs/test/base"])
        self.base = Base(f"sglang=={RELEASE}", RELEASE, root, tree)
        self.token = hub.token("github-actions[bot]", repo=FORK, permissions=PERMISSIONS)
        self.github = self.connect()
        self.found: Discovered | None = None
        self.remote = self.fork.path
        """Where the fork is read from; its pull requests and branches are told of by the hub all the same."""
        self.listed: Mapping[str, Sha] | None = None
        """What an earlier question to the remote found."""
        self.elsewhere: dict[str, Path] = {}
        """The same of other repositories, where it is another place."""

    def connect(self) -> GitHub:
        return GitHub(self.hub.api_url, Token(self.token))

    # --- what people do ---

    def commit(self, subject: str, files: Mapping[str, Content] | None = None, *parents: Sha) -> Sha:
        """On the base, if nothing else is said; without ``files`` a file of that name."""
        name = "".join(letter if letter.isalnum() else "_" for letter in subject)
        changes = files if files is not None else {f"python/sglang/{name}.py": f"{subject}\n"}
        return self.workshop.commit(subject, changes, *(parents or (self.base.commit,)))

    def push(self, branch: str, sha: Sha, by: str = "bob", repo: str = FORK) -> Sha:
        hosted = self.hub.repository(repo)
        if repo != FORK:
            Repository(hosted.path).fetch(str(self.fork.path), [f"+{self._named(sha)}:refs/test/{sha}"])
        hosted.push(branch, sha, by)
        return sha

    def propose(
        self,
        number: int,
        branch: str,
        sha: Sha | None = None,
        *,
        into: str = "base/production",
        repo: str = FORK,
        head_repo: str = FORK,
        author: str = "bob",
        title: str = "",
        draft: bool = False,
    ) -> Sha:
        """Push a branch and open a pull request from it; without ``sha`` it is one new commit on the base."""
        head = sha or self.commit(f"for {number}")
        if self.hub.repository(head_repo).branches.get(branch) != head:
            self.push(branch, head, author, head_repo)
        self.hub.repository(repo).open_pull(
            branch, into, author, title or f"title of {number}", head_repo=head_repo, draft=draft, number=number
        )
        return head

    def label(self, number: int, by: str = "ann", label: str = "deploy", repo: str = FORK) -> None:
        self.hub.repository(repo).label(number, label, by)

    def approve(self, number: int, by: str = "ann", repo: str = FORK, commit: Sha | None = None) -> None:
        self.hub.repository(repo).review(number, by, commit=commit)

    def fork_of(self, owner: str) -> str:
        self.hub.repository(f"{owner}/sglang", fork_of=FORK)
        return f"{owner}/sglang"

    def upstream(self) -> Hosted:
        """The upstream repository, with a `main` that shares no history with the fork's base."""
        upstream = self.hub.repository(UPSTREAM)
        if "main" not in upstream.branches:
            history = self.workshop.commit("upstream history", {A: TEN, "test/t.py": "t\n"})
            self.push("main", self.workshop.commit("upstream main", {"README": "x\n"}, history), repo=UPSTREAM)
        return upstream

    def upstream_commit(self, subject: str, files: Mapping[str, Content]) -> Sha:
        return self.workshop.commit(subject, files, Sha(self.upstream().branches["main"]))

    # --- a night ---

    def discover(
        self,
        *sources: GitHubSource,
        previous: Mapping[str, Sha] | None = None,
        lane: str = "production",
        github: GitHub | None = None,
    ) -> Told:
        self.found = discover(
            self.store,
            github or self.github,
            fork=FORK,
            remote_url=str(self.remote),
            sources=sources or (OWN,),
            base=self.base,
            lane=lane,
            deploy_branches={"deploy": "production", "deploy-edge": "edge"},
            main="main",
            admit_label="deploy",
            blocked_label="blocked",
            previous=previous or {},
            memo_path=self.memo,
            listed=self.listed,
            url_of=lambda repo: str(self.elsewhere.get(repo) or self.hub.repository(repo).path),
        )
        return self.told(self.found)

    @property
    def memo(self) -> Path:
        return self.folder / "state" / "memo" / "admissions.json"

    def told(self, found: Discovered) -> Told:
        pulls = [
            f"{pull.name} {self.subject(pull.head)} -> {pull.target}"
            + (f" (now {self.subject(pull.newer_head)})" if pull.newer_head else "")
            for pull in found.pulls
        ]
        return Told(pulls, [tell(item) for item in found.refused], [pull.name for pull in found.blocked])

    def subject(self, sha: Sha) -> str:
        return self.workshop.repository.show(sha, "%s")

    def detail(self, name: str) -> str:
        """Why one is left out."""
        assert self.found is not None
        return next(item.detail for item in self.found.refused if item.name == name)

    def asked(self) -> dict[str, int]:
        """The requests since the last call, counted by their path; a page is written behind it."""
        counted: dict[str, int] = {}
        for request in self.hub.requests[self._seen :]:
            page = request.query.get("page")
            what = f"{request.path} {page}" if page else request.path
            counted[what] = counted.get(what, 0) + 1
        self._seen = len(self.hub.requests)
        return counted

    _seen = 0

    def _named(self, sha: Sha) -> str:
        ref = f"refs/test/{sha}"
        self.workshop.repository.set_refs({ref: sha})
        return ref
