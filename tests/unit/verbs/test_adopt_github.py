"""`init` with a GitHub of this machine: what each token is told, and what is composed of its pull requests."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.support.github_server import Fault, GitHubServer

from patchstack import config as configuration
from patchstack.adoption.checks import Check
from patchstack.adoption.telling import Adoption
from patchstack.cli import main_group
from patchstack.errors import RemoteError, UsageError
from patchstack.verbs.adopt import Asked, adopt

from .fork_bench import NEW, RELEASE, TEN, A, B, ForkBench, Quiet, edit

REPO = "acme/sglang"
READS = {"contents": "read", "pull-requests": "read", "issues": "read"}


class Desk:
    """The fork on a GitHub: pull requests into main, into deploy, and one that is stacked on another."""

    def __init__(self, hub: GitHubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.hub, self.monkeypatch = hub, monkeypatch
        self.fork = hub.repository(REPO)
        hub.user("ann", write=[REPO], admin=[REPO])
        hub.user("bob")
        self.bench = ForkBench(tmp_path, path=self.fork.path)
        self.fork.notice("ann")
        tag = f"v{RELEASE}"
        self.bench.commit("fix/a", "a: one", {A: edit(TEN, 1, "ONE")}, onto=tag)
        self.bench.commit("fix/b", "b: five", {B: edit(TEN, 5, "FIVE")}, onto="main")
        self.bench.commit("fix/on-b", "b: ten", {B: edit(edit(TEN, 5, "FIVE"), 10, "TEN")}, onto="fix/b")
        self.bench.commit("deploy", "hot", {NEW: "HOT\n"}, onto=tag)
        self.bench.commit("fix/c", "c", {NEW: "C\n"}, onto="deploy")
        self.fork.notice("ann")
        for head, into in (("fix/a", "main"), ("fix/b", "main"), ("fix/on-b", "fix/b"), ("fix/c", "deploy")):
            self.fork.open_pull(head=head, into=into, author="bob", title=f"About {head}")

    def token(self, login: str = "ann", permissions: dict[str, str] | None = None) -> str:
        given = self.hub.token(login, repo=REPO if permissions else None, permissions=permissions)
        for name, value in self.hub.environment(given).items():
            self.monkeypatch.setenv(name, value)
        return given

    def init(self, *, dry_run: bool = True, source: str = REPO) -> Adoption:
        work = self.bench.work
        return adopt(
            Asked(source, work, work / ".patchstack", False, True, None, None, None, dry_run),
            Quiet(),
        )


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    with GitHubServer(tmp_path) as hub:
        yield Desk(hub, tmp_path, monkeypatch)


def told(checks: tuple[Check, ...]) -> dict[str, str]:
    return {check.name: f"{check.standing}: {check.said}" for check in checks}


def test_a_fork_is_read_and_nothing_of_it_is_changed(desk: Desk) -> None:
    desk.token()
    for number in (1, 3):
        desk.fork.label(number, "deploy", by="ann")
    before = desk.bench.refs()
    found = desk.init(dry_run=False)
    assert {request.method for request in desk.hub.requests} <= {"GET", "POST"}
    assert {request.path for request in desk.hub.requests if request.method == "POST"} <= {
        f"/{REPO}.git/git-upload-pack"
    }
    assert desk.bench.refs() == before
    made = configuration.load(desk.bench.work / "deploy.yaml")
    (source,) = made.pulls.sources
    assert isinstance(source, configuration.GitHubSource)
    assert (source.repo, source.into) == (REPO, ("base/production", "stack/production", "main"))
    assert found.beside is not None
    assert [(pull.name, pull.deployed, pull.tonight) for pull in found.beside.pulls] == [
        ("#1", 0, "in"),
        ("#2", 0, "waiting: needs admission"),
        ("#3", 0, "in"),
        ("#4", 1, "excluded: into a deploy branch"),
    ]
    assert [(lost.title, lost.held_by) for lost in found.beside.lost] == [("hot", ("#4",))]


def test_each_check_is_a_line_with_its_fix(desk: Desk) -> None:
    desk.token()
    said = told(desk.init().checks)
    assert list(said) == [
        *("pull requests", "branches", "main", "test bed", "token", "contents"),
        *("label deploy", "label blocked", "branch deploy", "issues", "runners"),
    ]
    assert said["pull requests"] == "ok: the token may read them: 4 open"
    assert said["token"] == "ok: it is ann's"
    assert said["contents"].startswith("not known: ann may push; what a token of this kind may")
    assert (
        said["label deploy"]
        == "missing: it admits a pull request; create it: gh label create deploy --repo acme/sglang"
    )
    assert said["label blocked"].startswith("missing: ")
    assert said["branch deploy"].startswith("ok: no rule protects it")
    assert said["runners"].startswith("ok: none of your own")
    desk.fork.add_label("Deploy")
    desk.fork.add_label("blocked")
    desk.fork.protected.add("deploy")
    desk.fork.runners.append((1, "rack-7", ("self-hosted", "1-gpu")))
    said = told(desk.init().checks)
    assert (said["label deploy"], said["label blocked"]) == ("ok: admits a pull request", "ok: keeps one out")
    assert said["branch deploy"].startswith("not known: a rule protects it")
    assert said["runners"] == "ok: rack-7 (online: self-hosted, 1-gpu)"


def test_a_token_that_may_not_write_is_told_so(desk: Desk) -> None:
    desk.token("bob")
    assert told(desk.init().checks)["contents"] == (
        "missing: bob may not push to acme/sglang: have bob given the role `write`"
    )


def test_a_workflows_token_may_not_list_runners(desk: Desk) -> None:
    desk.token("github-actions[bot]", READS)
    said = told(desk.init().checks)
    assert said["token"] == "ok: it is github-actions[bot]'s"
    assert said["runners"].startswith("not known: the token may not list them (403")


def test_without_the_right_to_read_pull_requests_there_is_no_plan_and_nothing_is_written(desk: Desk) -> None:
    desk.token("github-actions[bot]", {"contents": "read", "issues": "read"})
    found = desk.init(dry_run=False)
    assert told(found.checks)["pull requests"] == (
        "missing: the token may not read them (403): give it `pull-requests: read` of acme/sglang"
    )
    assert (found.exit_code, found.written, found.beside, desk.bench.work.exists()) == (8, False, None, True)
    assert desk.bench.tree() == {}


@pytest.mark.parametrize(
    "fault",
    [
        Fault(path=f"/repos/{REPO}", status=502, times=99),
        Fault(path=f"/repos/{REPO}/pulls", status=502, times=99),
        Fault(path=f"/repos/{REPO}/labels", status=502, times=99),
        Fault(path=f"/repos/{REPO}/branches", cut=True, times=99),
    ],
    ids=["repository", "pulls", "labels", "branches"],
)
def test_a_github_that_fails_is_an_error_and_no_empty_answer(desk: Desk, fault: Fault) -> None:
    desk.token()
    desk.hub.fail(fault)
    with pytest.raises(RemoteError):
        desk.init(dry_run=False)
    assert desk.bench.tree() == {}


def test_a_repository_that_is_not_there_and_a_name_that_is_none(desk: Desk) -> None:
    desk.token()
    with pytest.raises(RemoteError, match="it is not there, or the token may not see it"):
        desk.init(source="acme/nothing")
    for wrong in ("acme", "https://github.com/acme/sglang", "../x", "acme/sg lang", "-x/y"):
        with pytest.raises(UsageError, match="write owner/name"):
            desk.init(source=wrong)
    desk.monkeypatch.delenv("PATCHSTACK_TOKEN")
    with pytest.raises(UsageError, match="GitHub is asked with a token"):
        desk.init()


def test_the_command_line_says_it_and_ends_with_the_code(desk: Desk) -> None:
    """Titles are strangers' words: nothing of them steers the terminal. No token is in what is said."""
    secret = desk.token()
    desk.fork.all_issues[1].title = "evil \x1b[2J title"
    argv = ["--offline", "init", "--from", REPO, "--folder", str(desk.bench.work), "--dry-run"]
    done = CliRunner().invoke(main_group, argv)
    assert done.exit_code == 0, done.output
    assert "\x1b[2J" not in done.stdout
    assert r"#1 evil \x1b[2J title: tonight: waiting: needs admission" in done.stdout
    assert "deploy.yaml: would be written" in done.stdout
    shown = CliRunner().invoke(main_group, [*argv, "--json"])
    assert json.loads(shown.stdout)["survey"]["repo"] == REPO
    desk.token("github-actions[bot]", {"contents": "read"})
    refused = CliRunner().invoke(main_group, argv)
    assert refused.exit_code == 8, refused.output
    assert "missing: pull requests" in refused.stdout
    assert secret not in done.output + shown.output + refused.output
