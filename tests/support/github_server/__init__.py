"""A small GitHub for tests: its REST API and git over HTTP, computed from real bare repositories.

    with GitHubServer(tmp_path) as hub:
        fork = hub.repository("acme/sglang")
        hub.user("ann", write=["acme/sglang"])
        fork.push("fix", sha, by="bob")  # a commit that is in fork.path, a bare repository
        number = fork.open_pull("fix", into="main", author="bob")
        fork.label(number, "deploy", by="ann")
        token = hub.token("github-actions[bot]", repo="acme/sglang", permissions={"pull-requests": "read"})
        hub.fail(Fault(path="/repos/acme/sglang/pulls", page=2))
        run_something(env=hub.environment(token))
        assert hub.requests[-1].status == 502

Nothing sleeps: a clock moves by a minute whenever something happens. It listens on loopback only, and when its
block ends all its sockets, threads and git processes have ended.
"""

from tests.support.github_server.faults import Fault
from tests.support.github_server.records import Comment, Issue
from tests.support.github_server.repository import Repository
from tests.support.github_server.server import GitHubServer, Request

__all__ = ["Comment", "Fault", "GitHubServer", "Issue", "Repository", "Request"]
