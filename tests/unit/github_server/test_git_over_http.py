"""Git against the fake GitHub: who may fetch and push what."""

from __future__ import annotations

import os
import select
import subprocess
from pathlib import Path

from tests.support.github_server import GitHubServer
from tests.unit.github_server.place import ALICE, FORK, Place


def work_tree(place: Place, token: str) -> Path:
    done = place.git("clone", "--quiet", place.url(token), "work")
    assert done.returncode == 0, done.stderr
    return place.folder / "work"


def test_git_clones_pushes_and_fetches_pull_requests(place: Place) -> None:
    ann = place.hub.token("ann")
    work = work_tree(place, ann)
    # More than git sends at once (http.postBuffer), so that it comes in chunks.
    (work / "large").write_bytes(os.urandom(2_000_000))
    for argv in (["add", "large"], ["commit", "--quiet", "-m", "large"], ["push", "--quiet", "origin", "HEAD:large"]):
        done = place.git("-C", "work", *argv)
        assert done.returncode == 0, done.stderr
    head = place.fork.branches["large"]
    number = place.fork.open_pull("large", "main", "ann")

    fetched = place.git("-C", "work", "fetch", "--quiet", "origin", f"refs/pull/{number}/head:refs/pulls/it")

    assert (fetched.returncode, place.git("-C", "work", "rev-parse", "refs/pulls/it").stdout.strip()) == (0, head)
    assert [(row.after, row.by, row.kind) for row in place.fork.activity[-1:]] == [(head, "ann", "branch_creation")]
    assert ("POST", f"/{FORK}.git/git-receive-pack", "ann", 200) in {
        (one.method, one.path, one.login, one.status) for one in place.hub.requests
    }


def test_a_commit_that_no_branch_names_is_handed_over_by_its_sha_across_forks(place: Place) -> None:
    alice = place.hub.repository(ALICE, fork_of=FORK)
    left = place.commit("left", place.root)
    alice.push("fix", left, by="alice")
    alice.push("fix", place.commit("instead", place.root), by="alice")
    work_tree(place, place.hub.token("ann"))

    assert place.git("-C", "work", "fetch", "--quiet", "origin", left).returncode == 0


def pushed(place: Place, token: str, refspec: str = "HEAD:pushed") -> tuple[bool, str]:
    done = place.git("-C", "work", "push", place.url(token), refspec)
    return done.returncode == 0, done.stderr


def test_a_push_needs_write_access_and_its_permission(place: Place) -> None:
    work_tree(place, place.hub.token("ann"))
    writes = {"contents": "write"}
    reads = place.hub.token(repo=FORK, permissions={"contents": "read", "pull-requests": "write"})
    revoked = place.hub.token("ann")
    place.hub.revoke(revoked)

    for token in (reads, place.hub.token("eve"), place.hub.token(repo=ALICE, permissions=writes), revoked):
        done, said = pushed(place, token)
        assert not done
        assert "denied" in said or "Authentication failed" in said or "could not read" in said, said
    assert "pushed" not in place.fork.branches
    assert pushed(place, place.hub.token(repo=FORK, permissions=writes))[0]
    assert place.fork.activity[-1].by == "github-actions[bot]"


def test_nobody_pushes_to_refs_of_pull_requests(place: Place) -> None:
    place.branch("fix")
    number = place.fork.open_pull("fix", "main", "ann")
    work_tree(place, place.hub.token("ann"))

    done, said = pushed(place, place.hub.token("ann"), f"+HEAD:refs/pull/{number}/head")

    assert not done
    assert "hidden ref" in said


def test_a_private_repository_is_fetched_with_a_permission_only(tmp_path: Path) -> None:
    with GitHubServer(tmp_path / "github") as hub:
        hub.repository(FORK, private=True)
        hub.user("ann", write=[FORK])
        place = Place(hub, hub.repository(FORK), tmp_path, "")
        place.fork.push("main", place.commit("root"), by="ann")
        reads, blind = (
            hub.token(repo=FORK, permissions=given) for given in ({"contents": "read"}, {"issues": "write"})
        )

        found = [
            place.git("ls-remote", place.url(token)).returncode == 0
            for token in (reads, hub.token("ann"), blind, hub.token("eve"), None)
        ]

    assert found == [True, True, False, False, False]


def test_a_push_that_goes_on_ends_with_the_server(tmp_path: Path) -> None:
    hook_says, never = tmp_path / "hook-says", tmp_path / "never"
    os.mkfifo(hook_says)
    os.mkfifo(never)
    heard = os.open(hook_says, os.O_RDONLY | os.O_NONBLOCK)
    with GitHubServer(tmp_path / "github") as hub:
        place = Place(hub, hub.repository(FORK), tmp_path, "")
        place.fork.push("main", place.commit("root"), by="acme")
        token = hub.token("acme")
        work_tree(place, token)
        hook = place.fork.path / "hooks" / "pre-receive"
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(f"#!/bin/sh\nexec 3> '{hook_says}'\necho begun >&3\nread line < '{never}'\n")
        hook.chmod(0o755)
        argv = ["git", "-C", str(tmp_path / "work"), "push", place.url(token), "HEAD:pushed"]
        client = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        assert select.select([heard], [], [], 60)[0]
        assert os.read(heard, 100) == b"begun\n"

    assert client.communicate(timeout=60)[1] != ""
    assert client.returncode != 0
    # The end of the file: the hook, the last that had it open, is gone.
    assert select.select([heard], [], [], 60)[0]
    assert os.read(heard, 100) == b""
    os.close(heard)
