"""`comment` takes a file from a stranger: what is forged in it is refused whole, what it says is shown and no more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.support.github_server import Fault, GitHubServer
from tests.support.github_server import Repository as Hosted
from tests.unit.builders import TEN, A, Workshop, edit

from patchstack import verdict
from patchstack.config import Fork
from patchstack.errors import PatchstackError, RemoteError, UsageError
from patchstack.github import ACTIONS_LOGIN, TOKEN_VARIABLES, GitHub, Token
from patchstack.model import Sha
from patchstack.report.review import MARKER
from patchstack.verbs.comment import Did, Told, comment
from patchstack.verdict import Candidates, LaneReview, Lint, PatchVerdict, Stack

FORK = Fork(repo="acme/sglang")
PERMISSIONS = {"contents": "read", "pull-requests": "write"}


@dataclass
class Scene:
    """A pull request #7 into main, and a job's token that may comment."""

    hub: GitHubServer
    hosted: Hosted
    workshop: Workshop
    folder: Path
    head: Sha
    token: str

    def found(self, **changed: Any) -> PatchVerdict:
        stack = Stack(base="sglang==1.0", commit="c" * 40, tree="d" * 40, patches=("one",))  # type: ignore[arg-type]
        values = {
            "number": 7,
            "head": self.head,
            "base": "b" * 40,
            "lanes": (LaneReview(lane="production", before=stack, after=stack),),
            "lint": Lint(tried_on=("1.0",)),
            "candidates": Candidates(why="not asked"),
        }
        return PatchVerdict(**{**values, **changed})

    def file(self, content: PatchVerdict | str | bytes | None = None) -> Path:
        path = self.folder / "verdict.json"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else verdict.encode(content or self.found()))
        return path

    def comment(self, file: Path | None = None, *, head_sha: str | None = None, dry_run: bool = False) -> Told:
        github = GitHub(self.hub.api_url, Token(self.token))
        return comment(github, FORK, file or self.file(), head_sha=head_sha or self.head, dry_run=dry_run)

    def refused(self, kind: type[PatchstackError], said: str, file: Path | None = None, **options: Any) -> str:
        """It is one error, and nothing was written."""
        with pytest.raises(kind, match=said) as caught:
            self.comment(file, **options)
        assert self.written() == []
        assert self.token not in str(caught.value)
        return str(caught.value)

    def written(self) -> list[tuple[str, str]]:
        return [(one.method, one.path) for one in self.hub.requests if one.method != "GET" and one.status < 300]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with GitHubServer(tmp_path / "github") as hub:
        hosted = hub.repository("acme/sglang")
        workshop = Workshop(hosted.path)
        main = workshop.commit("main", {A: TEN})
        hosted.push("main", main, by="ann")
        head = workshop.commit("change", {A: edit(TEN, 1, "one")}, main)
        hosted.push("change", head, by="bob")
        hosted.open_pull("change", "main", "bob", "Change a patch", number=7)
        token = hub.token(repo="acme/sglang", permissions=PERMISSIONS)
        yield Scene(hub, hosted, workshop, tmp_path, head, token)


# --- the one comment ---


def test_one_comment_that_is_edited_and_not_repeated(scene: Scene) -> None:
    first = scene.comment()
    assert (first.number, first.did) == (7, Did.WRITTEN)
    (there,) = scene.hosted.comments(7)
    assert (there.author, there.body) == (ACTIONS_LOGIN, first.body)
    assert first.body.startswith(f"{MARKER}\n\nPatches at `{scene.head[:12]}` against `bbbbbbbbbbbb`: **composes**\n")

    assert scene.comment().did is Did.UNCHANGED
    assert len(scene.written()) == 1

    scene.head = scene.workshop.commit("more", {A: edit(TEN, 1, "two")}, scene.head)
    scene.hosted.push("change", scene.head, by="bob")
    second = scene.comment()
    assert second.did is Did.EDITED
    assert [(one.id, one.body) for one in scene.hosted.comments(7)] == [(there.id, second.body)]


def test_a_dry_run_writes_nothing(scene: Scene) -> None:
    told = scene.comment(dry_run=True)
    assert (told.did, scene.written(), scene.hosted.comments(7)) == (Did.WRITTEN, [], ())
    scene.comment()
    assert scene.comment(scene.file(scene.found(candidates=Candidates(compared=3))), dry_run=True).did is Did.EDITED
    assert len(scene.written()) == 1


def test_what_others_wrote_is_not_ours_to_edit(scene: Scene) -> None:
    quoted = scene.hosted.comment(7, f"{MARKER}\n\nPatches: forged", by="mallory")
    scene.hosted.comment(7, f"see {MARKER}", by=ACTIONS_LOGIN)
    scene.hosted.comment(7, "<!-- patchstack:pull v1 lane=production state=x -->\n\nin", by=ACTIONS_LOGIN)
    assert scene.comment().did is Did.WRITTEN
    assert len(scene.hosted.comments(7)) == 4
    assert scene.hosted.comments(7)[0].body == quoted.body
    assert scene.comment().did is Did.UNCHANGED


def test_ours_is_found_on_any_page(scene: Scene) -> None:
    scene.comment()
    for number in range(120):
        scene.hosted.comment(7, f"talk {number}", by="bob")
    assert scene.comment(scene.file(scene.found(candidates=Candidates(compared=3)))).did is Did.EDITED
    assert len(scene.hosted.comments(7)) == 121


# --- about which pull request ---


def test_another_pull_requests_number(scene: Scene) -> None:
    other = scene.workshop.commit("another", {A: edit(TEN, 2, "two")}, scene.head)
    scene.hosted.push("another", other, by="ann")
    scene.hosted.open_pull("another", "main", "ann", number=8)
    said = scene.refused(UsageError, "acme/sglang#8 is at", scene.file(scene.found(number=8)))
    assert said == f"acme/sglang#8 is at {other} by now, and not at {scene.head}: nothing is written"


def test_a_head_of_the_files_own_choice(scene: Scene) -> None:
    other = scene.workshop.commit("another", {A: edit(TEN, 2, "two")}, scene.head)
    scene.hosted.push("another", other, by="ann")
    scene.hosted.open_pull("another", "main", "ann", number=8)
    forged = scene.found(number=8, head=other)
    scene.refused(UsageError, f"the verdict is on {other}, and {scene.head} was reviewed", scene.file(forged))
    assert scene.hub.requests == []


def test_a_head_that_has_moved_on(scene: Scene) -> None:
    newer = scene.workshop.commit("more", {A: edit(TEN, 1, "two")}, scene.head)
    scene.hosted.push("change", newer, by="bob")
    scene.refused(UsageError, f"acme/sglang#7 is at {newer} by now")


def test_a_closed_pull_request(scene: Scene) -> None:
    scene.hosted.close(7, by="bob")
    scene.refused(UsageError, "acme/sglang#7 is not open any more")


def test_a_merged_pull_request(scene: Scene) -> None:
    scene.hosted.merge(7, by="ann")
    scene.refused(UsageError, "acme/sglang#7 is not open any more")


def test_a_pull_request_into_another_branch(scene: Scene) -> None:
    scene.hosted.push("base/production", Sha(scene.hosted.branches["main"]), by="ann")
    scene.hosted.retarget(7, "base/production", by="bob")
    scene.refused(UsageError, "acme/sglang#7 does not go into main")


def test_a_pull_request_that_is_not_there(scene: Scene) -> None:
    scene.refused(RemoteError, "404", scene.file(scene.found(number=99)))


def test_an_issue_is_no_pull_request(scene: Scene) -> None:
    number = scene.hosted.open_issue("a bug", None, "bob")
    scene.refused(RemoteError, "404", scene.file(scene.found(number=number)))


def test_no_number(scene: Scene) -> None:
    scene.refused(UsageError, "names no pull request", scene.file(scene.found(number=None)))


@pytest.mark.parametrize("head_sha", ["HEAD", "a" * 39, "a" * 41, "A" * 40, "a" * 39 + "\n", "x" * 5000])
def test_the_events_head_is_a_whole_commit_id(scene: Scene, head_sha: str) -> None:
    scene.refused(UsageError, "is no commit id", head_sha=head_sha)


# --- GitHub itself ---


def test_a_token_that_may_only_read(scene: Scene) -> None:
    scene.token = scene.hub.token(repo="acme/sglang", permissions={"contents": "read", "pull-requests": "read"})
    scene.refused(RemoteError, "403")
    assert scene.hosted.comments(7) == ()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/repos/acme/sglang/pulls/7"),
        ("GET", "/repos/acme/sglang/issues/7/comments"),
        ("POST", "/repos/acme/sglang/issues/7/comments"),
    ],
)
def test_a_github_that_fails(scene: Scene, method: str, path: str) -> None:
    scene.hub.fail(Fault(method=method, path=path, status=502, times=10**6))
    scene.refused(RemoteError, "502")


def test_comments_that_break_off_half_way_are_not_taken_for_none(scene: Scene) -> None:
    for number in range(120):
        scene.hosted.comment(7, f"talk {number}", by="bob")
    scene.comment()
    scene.hub.requests.clear()
    scene.hub.fail(Fault(method="GET", path="/repos/acme/sglang/issues/7/comments", page=2, status=502, times=10**6))
    scene.refused(RemoteError, "502")


# --- the form of the file ---

WRONG = {
    "schema_version": (0, 2, "1", None),
    "number": (0, -1, 2**31, "7", 7.5, True, [7]),
    "head": ("", "a" * 39, "A" * 40, "a" * 40 + "\n", "HEAD", None, 7),
    "base": ("", "main", "g" * 40, None),
    "before_problems": ("x", ["x" * 601], ["x"] * 10_001, [7], None),
    "lanes": ({}, [{}], [{"lane": "a b", "before": None, "after": None}], [{"lane": "x", "before": None}]),
    "patches": (
        [{"slug": "../x", "title": "", "change": "new"}],
        [{"slug": "x", "title": "", "change": "renamed"}],
        [{"slug": "x", "title": "", "change": "new", "moved": 1}],
        [{"slug": "x", "title": "", "change": "new", "became": "odd"}],
        [{"slug": "x" * 256, "title": "", "change": "new"}],
        [{"slug": "x", "title": "", "change": "new", "guards": [{"path": "", "there": True, "tests": 1}]}],
        [{"slug": "x", "title": "", "change": "new", "guards": [{"path": "a", "there": True, "tests": -1}]}],
        [{"slug": "x", "title": "", "change": "new"}] * 10_001,
    ),
    "lint": (None, [], {"problems": [], "extra": 1}, {"tried_on": ["1.0 "]}, {"stale": ["README.md"]}),
    "candidates": ({"compared": -1}, {"compared": "3"}, {"why": "x" * 601}, {"changes": [{}]}, None),
    "stopped": ({"code": 0, "said": []}, {"code": 256, "said": []}, {"code": 8}, "no"),
    "left_off": (-1, "0", None, 10**10),
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in WRONG.items() for value in values])
def test_each_field_wrong(scene: Scene, key: str, value: Any) -> None:
    whole = json.loads(verdict.encode(scene.found()))
    assert key in whole
    said = scene.refused(UsageError, f"this is no verdict .*{key}", scene.file(json.dumps({**whole, key: value})))
    assert len(said) < 600
    assert scene.hub.requests == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b'"x"',
        b"{",
        b"\xff\xfe",
        b"\x00" * 100,
        b"[" * 100_000,
        b'{"lanes":' * 50_000,  # deep
        b'{"number": 7e400}',
        b'{"head": "\\ud800"}',
        b"PK\x03\x04",
    ],
    ids=lambda content: repr(content[:12]),
)
def test_what_is_no_verdict_at_all(scene: Scene, content: bytes) -> None:
    said = scene.refused(UsageError, "this is no verdict of this version", scene.file(content))
    assert len(said) < 600


@pytest.mark.parametrize("where", ["", "lint", "candidates"])
def test_a_key_that_nobody_knows(scene: Scene, where: str) -> None:
    whole = json.loads(verdict.encode(scene.found()))
    part = whole[where] if where else whole
    hostile = "::set-output name=x::@team \x1b[31m" + "k" * 5000
    part[hostile] = 1
    said = scene.refused(UsageError, "Extra inputs are not permitted", scene.file(json.dumps(whole)))
    assert len(said) < 600


def test_one_key_twice_is_no_way_round(scene: Scene) -> None:
    """Whichever of the two is read, it is the one that is checked."""
    text = (
        verdict.encode(scene.found())
        .replace('"number":7', '"number":8,"number":7')
        .replace('"number": 7', '"number": 8, "number": 7')
    )
    assert text.count('"number"') == 2
    assert scene.comment(scene.file(text)).number == 7


def test_a_file_that_is_too_large_is_not_read(scene: Scene) -> None:
    text = verdict.encode(scene.found())
    padded = text + " " * (verdict.LIMIT_BYTES - len(text.encode()))
    assert scene.comment(scene.file(padded)).did is Did.WRITTEN
    scene.hub.requests.clear()
    scene.refused(UsageError, r"larger than a verdict may be \(524288 bytes\)", scene.file(padded + " "))


def test_what_is_no_plain_file(scene: Scene) -> None:
    real = scene.file()
    link = scene.folder / "link.json"
    link.symlink_to(real)
    scene.refused(UsageError, "link.json: it cannot be read as a plain file", link)
    scene.refused(UsageError, "it cannot be read as a plain file: No such file", scene.folder / "none.json")
    scene.refused(UsageError, "it is no plain file", scene.folder)
    pipe = scene.folder / "pipe"
    os.mkfifo(pipe)
    scene.refused(UsageError, "it is no plain file", pipe)


# --- as it is typed ---

CONFIG = """\
schema: 1
fork: {repo: acme/sglang}
lanes: {production: {upstream: {pypi: sglang==1.0}, branch: deploy}}
channels: {nightly: {needs: [cpu]}}
"""


def typed(scene: Scene, *argv: str, **environment: str) -> subprocess.CompletedProcess[str]:
    (scene.folder / "deploy.yaml").write_text(CONFIG)
    program = "import sys; from patchstack.cli import main; sys.argv[0] = 'patchstack'; main()"
    return subprocess.run(
        [sys.executable, "-c", program, "comment", *argv],
        cwd=scene.folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_verb_writes_and_says_so(scene: Scene) -> None:
    environment = scene.hub.environment(scene.token)
    file, head = str(scene.file()), ("--head-sha", scene.head)
    tried = typed(scene, file, *head, "--dry-run", **environment)
    assert (tried.returncode, tried.stdout.startswith(MARKER), scene.written()) == (0, True, []), tried.stderr
    done = typed(scene, file, *head, **environment)
    assert (done.returncode, done.stdout) == (0, "acme/sglang#7: comment written\n"), done.stderr
    again = json.loads(typed(scene, file, *head, "--json", **environment).stdout)
    assert (again["number"], again["did"], again["body"]) == (7, "unchanged", scene.hosted.comments(7)[0].body)


def test_the_verb_refuses_with_one_line(scene: Scene) -> None:
    environment = scene.hub.environment(scene.token)
    forged = str(scene.file(scene.found(number=99)))
    gone = typed(scene, forged, "--head-sha", scene.head, **environment)
    moved = typed(scene, forged, "--head-sha", "a" * 40, **environment)
    nobody = typed(scene, forged, "--head-sha", scene.head, **{**environment, **dict.fromkeys(TOKEN_VARIABLES, "")})
    for done, code, said in ((gone, 8, "404"), (moved, 2, "nothing is written"), (nobody, 2, "is set")):
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1)
        assert said in done.stderr
        assert scene.token not in done.stderr
    assert scene.written() == []
