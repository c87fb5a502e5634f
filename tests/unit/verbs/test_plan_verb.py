"""The verb `plan` with a real GitHub of this machine: what it asks, what it makes of it, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.support.github_server import Fault, GitHubServer
from tests.support.github_server import Repository as Hosted
from tests.unit.builders import TEN, A, B, C, Content, Workshop, edit, tell
from tests.unit.verbs.fork_bench import release, workplace

from patchstack.errors import RemoteError, UsageError
from patchstack.git import Repository
from patchstack.model import Asked, Candidates, Composition, MergePlan, Sha, Status, Verdict
from patchstack.release.promote import Source, decide
from patchstack.release.promote import promote as push_promotion
from patchstack.store import Run, now_utc
from patchstack.verbs.author import base_of
from patchstack.verbs.plan import merge, plan, stack_of
from patchstack.verbs.remote import list_remote, open_remote
from patchstack.workplace import Workplace

FORK, UPSTREAM = "acme/sglang", "sgl-project/sglang"
OWN = "{repo: acme/sglang, into: [base/production, stack/production]}"
TEAM = "{repo: sgl-project/sglang, into: [main], heads: [acme]}"
CONFIG = """\
schema: 1
fork: {repo: acme/sglang}
lanes:
  production:
    upstream: {pypi: sglang==0.5.12.post1}
    branch: deploy
pulls:
  sources: [SOURCES]
  skip: [SKIP]
channels:
  nightly: {needs: [cpu]}
"""


@dataclass
class Desk:
    """A workplace, and the fork that it is for on a GitHub; ``ann`` may write there, ``bob`` proposes."""

    hub: GitHubServer
    folder: Path
    sources: str = f"{OWN}, {TEAM}"
    skip: str = ""
    fork: Hosted = field(init=False)
    upstream: Hosted = field(init=False)
    base: Sha = field(init=False)

    def __post_init__(self) -> None:
        release(sources={A: TEN, B: TEN})
        for path, text in {
            "patches/series": "",
            "tests/regression/bed/test_bed.py": "def test_it() -> None: ...\n",
        }.items():
            (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / path).write_text(text)
        self.hub.user("ann", write=[FORK])
        self.fork, self.upstream = self.hub.repository(FORK), self.hub.repository(UPSTREAM)
        work = self.work()
        self.base = base_of(work, work.store(), "production").commit
        self.take(self.fork, work.store().folder, self.base)
        self.fork.push("base/production", self.base, by="ann")
        self.workshop = Workshop(self.fork.path)

    def work(self, *, local: bool = False, remote: str | None = None) -> Workplace:
        (self.folder / "deploy.yaml").write_text(CONFIG.replace("SOURCES", self.sources).replace("SKIP", self.skip))
        return workplace(self.folder, remote=remote, local=local)

    def plan(self, work: Workplace | None = None) -> tuple[MergePlan, Run]:
        place = work or self.work()
        run = place.state.new_run()
        return plan(place, run), run

    def take(self, hosted: Hosted, source: Path, sha: Sha) -> None:
        """Have a commit of another repository in a hosted one, as if somebody had pushed it before."""
        Repository(source).set_refs({f"refs/test/{sha}": sha})
        Repository(hosted.path).fetch(str(source), [f"+{sha}:refs/test/{sha}"])

    def propose(self, branch: str, files: dict[str, Content], *onto: Sha, into: str = "base/production") -> int:
        head = self.workshop.commit(branch, files, *(onto or (self.base,)))
        self.fork.push(branch, head, by="bob")
        return self.fork.open_pull(branch, into=into, author="bob", title=f"title of {branch}")

    def head(self, number: int) -> Sha:
        return Sha(self.fork.pull(number).head)

    def propose_upstream(self, files: dict[str, Content], number: int, owner: str = "acme") -> None:
        """A pull request against upstream's own `main`, from a repository of ``owner``."""
        workshop = Workshop(self.upstream.path)
        if "main" not in self.upstream.branches:
            self.upstream.push("main", workshop.commit("upstream", {A: TEN, B: TEN, "test/t.py": "t\n"}), by="carol")
        name = f"{owner}/sglang-of-upstream"
        theirs = self.hub.repositories.get(name) or self.hub.repository(name, fork_of=UPSTREAM)
        main = Sha(self.upstream.branches["main"])
        theirs.push(f"fix-{number}", workshop.commit(f"upstream {number}", files, main), by="bob")
        self.upstream.open_pull(
            f"fix-{number}", into="main", author="bob", head_repo=name, number=number, title=f"upstream {number}"
        )

    def promote(self, run: Run) -> Composition:
        """Compose ``run`` and move `deploy` of the fork to it, as a night that passed would."""
        work = self.work()
        made = merge(work, run)
        decision = decide(
            night=run.id,
            at=now_utc(),
            composition=made,
            stack=Source(*stack_of(work, made)),
            verdicts=(Verdict("nightly", Status.PASS, ()),),
            remote=open_remote(work),
        )
        push_promotion(work.store(), work.remote, decision)
        return made

    def listings(self, since: int) -> list[str]:
        """Which repositories were asked for their refs over HTTP, by `ls-remote` or at the beginning of a fetch."""
        paths = [request.path for request in self.hub.requests[since:]]
        return [path.removesuffix("/info/refs") for path in paths if path.endswith("/info/refs")]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    with GitHubServer(tmp_path / "hub") as hub:
        hub.user("ann", write=[FORK])
        hub.repository(FORK)
        permissions = {"contents": "write", "pull-requests": "read"}
        for name, value in hub.environment(
            hub.token("github-actions[bot]", repo=FORK, permissions=permissions)
        ).items():
            monkeypatch.setenv(name, value)
        yield Desk(hub, tmp_path / "place")


def told(made: MergePlan) -> tuple[list[str], list[str]]:
    return [step.name for step in made.steps], [tell(item) for item in made.left_out]


def test_a_plan_from_two_repositories(desk: Desk) -> None:
    one = desk.propose("one", {A: edit(TEN, 1, "one")})
    waiting = desk.propose("waiting", {A: edit(TEN, 5, "two")})
    blocked = desk.propose("blocked", {B: edit(TEN, 1, "three")})
    carrier = desk.propose("carrier", {B: edit(edit(TEN, 1, "three"), 9, "four")}, desk.head(blocked))
    for number in (one, carrier):
        desk.fork.label(number, "deploy", by="ann")
    desk.fork.label(blocked, "blocked", by="ann")
    desk.propose_upstream({C: "new\n"}, 7000)
    desk.propose_upstream({C: "stranger\n"}, 7001, owner="mallory")
    desk.upstream.review(7000, by="ann")

    made, run = desk.plan()

    assert told(made) == (
        [f"#{one}", f"{UPSTREAM}#7000"],
        [
            f"#{waiting} waiting: needs admission",
            f"#{blocked} excluded: blocked",
            f"#{carrier} excluded: carries commits of a blocked one with #{blocked}",
        ],
    )
    asked = run.read(Candidates).asked
    assert [(item.repo, item.open_pulls, item.others) for item in asked] == [(FORK, 4, 0), (UPSTREAM, 2, 1)]
    assert sum(item.calls for item in asked) == sum(
        "/api/" not in r.path and ".git/" not in r.path for r in desk.hub.requests
    )
    composition = merge(desk.work(), run)
    assert [topic.name for topic in composition.included] == [f"#{one}", f"{UPSTREAM}#7000"]


def test_what_starts_a_night_and_what_does_not(desk: Desk) -> None:
    one = desk.propose("one", {A: edit(TEN, 1, "one")})
    desk.fork.label(one, "deploy", by="ann")
    first = desk.plan()[0].fingerprint

    two = desk.propose("two", {A: edit(TEN, 9, "two")})
    desk.propose_upstream({C: "stranger\n"}, 7001, owner="mallory")
    assert desk.plan()[0].fingerprint == first

    desk.fork.push("two", desk.workshop.commit("more", {B: edit(TEN, 1, "more")}, desk.head(two)), by="bob")
    desk.fork.push("one", desk.workshop.commit("newer", {B: edit(TEN, 5, "newer")}, desk.head(one)), by="bob")
    unadmitted, _ = desk.plan()
    assert unadmitted.fingerprint == first
    assert unadmitted.steps[0].newer_head == desk.head(one)

    desk.fork.label(two, "deploy", by="ann")
    second = desk.plan()[0].fingerprint
    desk.fork.review(one, by="ann")
    third = desk.plan()[0].fingerprint
    desk.fork.label(two, "blocked", by="ann")
    assert len({each.digest for each in (first, second, third, desk.plan()[0].fingerprint)}) == 4


def test_a_pull_request_of_the_last_night_that_was_closed_is_gone(desk: Desk) -> None:
    one, two = desk.propose("one", {A: edit(TEN, 1, "one")}), desk.propose("two", {B: edit(TEN, 1, "two")})
    for number in (one, two):
        desk.fork.label(number, "deploy", by="ann")
    _, run = desk.plan()
    assert [topic.name for topic in desk.promote(run).included] == [f"#{one}", f"#{two}"]

    desk.fork.close(one)

    assert told(desk.plan()[0]) == ([f"#{two}"], [f"#{one} gone: closed"])


def test_an_unchanged_plan_asks_the_fork_for_its_refs_once_and_github_for_a_page_a_repository(desk: Desk) -> None:
    one = desk.propose("one", {A: edit(TEN, 1, "one")})
    desk.fork.label(one, "deploy", by="ann")
    _, run = desk.plan()
    desk.promote(run)
    desk.plan()
    begin = len(desk.hub.requests)

    made, run = desk.plan()

    assert desk.listings(begin) == [f"/{FORK}.git"]
    api = [request.path for request in desk.hub.requests[begin:] if ".git/" not in request.path]
    assert api == [
        f"/repos/{FORK}/pulls",
        f"/repos/{FORK}/collaborators/ann/permission",
        f"/repos/{UPSTREAM}/pulls",
    ]
    assert [step.name for step in made.steps] == [f"#{one}"]
    assert run.read(Candidates).asked == (Asked(FORK, 1, 0, 2), Asked(UPSTREAM, 0, 0, 1))


def test_a_night_hands_on_what_it_has_listed(desk: Desk) -> None:
    work = desk.work()
    listed = list_remote(work)
    desk.plan()
    begin = len(desk.hub.requests)

    assert open_remote(work, listed).deploy is None
    plan(work, work.state.new_run(), listed=listed)

    assert desk.listings(begin) == []


def test_a_skip_is_for_the_repository_that_it_names(desk: Desk) -> None:
    seven = desk.propose("seven", {A: edit(TEN, 1, "one")})
    desk.propose_upstream({C: "new\n"}, seven)
    desk.fork.label(seven, "deploy", by="ann")
    desk.upstream.review(seven, by="ann")
    skipped = "skipped: skipped by deploy.yaml"
    both = [f"#{seven}", f"{UPSTREAM}#{seven}"]
    for repo, left in (("", both), (f"repo: {FORK}, ", both[:1]), (f"repo: {UPSTREAM}, ", both[1:])):
        desk.skip = f"{{pr: {seven}, {repo}because: not yet}}"
        assert told(desk.plan()[0]) == (
            [name for name in both if name not in left],
            [f"{name} {skipped}" for name in left],
        )


def test_without_a_token_nothing_is_asked_and_nothing_made(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PATCHSTACK_TOKEN")
    desk.skip = ""
    work = desk.work()
    run, begin = work.state.new_run(), len(desk.hub.requests)

    with pytest.raises(UsageError) as refused:
        plan(work, run)

    assert str(refused.value) == (
        f"deploy.yaml lists pull requests of {FORK}, {UPSTREAM} on GitHub, which is asked with a token, and none of "
        "PATCHSTACK_TOKEN, GITHUB_TOKEN, GH_TOKEN is set: set one; or use --local, and the candidates are the remote's "
        "refs/pull/*/head"
    )
    assert list(run.folder.iterdir()) == []
    assert len(desk.hub.requests) == begin


def test_a_page_that_fails_stops_the_plan_with_nothing_planned(desk: Desk) -> None:
    desk.hub.fail(Fault(path=f"/repos/{UPSTREAM}/pulls", status=502, times=10**6))
    work = desk.work()
    run = work.state.new_run()

    with pytest.raises(RemoteError, match=f"502 about the open pull requests of {UPSTREAM}"):
        plan(work, run)

    assert (run.has(Candidates), run.has(MergePlan)) == (False, False)


def test_a_fork_that_cannot_be_read_names_what_may_have_been_meant(desk: Desk) -> None:
    desk.hub.fail(Fault(path=f"/{FORK}.git/info/refs", status=503, times=10**6))
    with pytest.raises(RemoteError) as refused:
        desk.plan()
    assert str(refused.value).startswith(f"{desk.hub.server_url}/{FORK}.git cannot be read: ")
    assert str(refused.value).endswith(f"; was {desk.folder / '.patchstack' / 'remote.git'} meant? use --local")


def test_locally_nobody_is_asked(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PATCHSTACK_TOKEN")
    begin = len(desk.hub.requests)
    made, run = desk.plan(desk.work(local=True))
    assert told(made) == ([], [])
    assert run.read(Candidates).asked == ()
    assert (desk.folder / ".patchstack" / "remote.git" / "HEAD").is_file()
    assert len(desk.hub.requests) == begin


def test_locally_with_another_remote_its_refs_are_the_candidates(desk: Desk) -> None:
    one = desk.propose("one", {A: edit(TEN, 1, "one")})
    begin = len(desk.hub.requests)
    made, _ = desk.plan(desk.work(local=True, remote=str(desk.fork.path)))
    assert told(made) == ([f"#{one}"], [])
    assert len(desk.hub.requests) == begin


@pytest.mark.parametrize(
    ("sources", "local", "remote", "expected"),
    [
        (OWN, False, None, "https://git.example.com/acme/sglang.git"),
        (TEAM, False, None, "https://git.example.com/acme/sglang.git"),
        (OWN, True, None, "embedded"),
        ("", False, None, "embedded"),
        ("{refs: refs/pull/*/head}", False, None, "embedded"),
        (OWN, False, "https://elsewhere/x.git", "https://elsewhere/x.git"),
        (OWN, True, "https://elsewhere/x.git", "https://elsewhere/x.git"),
    ],
)
def test_which_remote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sources: str, local: bool, remote: str | None, expected: str
) -> None:
    monkeypatch.setenv("GITHUB_SERVER_URL", "https://git.example.com/")
    for fork in ("{repo: acme/sglang}", "{repo: acme/sglang, remote: 'https://named/y.git'}"):
        text = CONFIG.replace("SOURCES", sources).replace("SKIP", "").replace("{repo: acme/sglang}", fork, 1)
        (tmp_path / "deploy.yaml").write_text(text)
        work = workplace(tmp_path, remote=remote, local=local, state="state")
        named = "named" in fork and remote is None
        url = "https://named/y.git" if named else expected
        assert (work.remote, work.embedded) == (
            (str(tmp_path / "state" / "remote.git"), True) if url == "embedded" else (url, False)
        )
        assert work.on_github == (url == "https://git.example.com/acme/sglang.git")
        assert work.asks_github == ("repo" in sources and not local)
