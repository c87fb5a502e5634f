"""The records of the fake GitHub as the JSON of GitHub's REST API.

Held against GitHub's own description of its answers by ``tests/e2e/test_github_server.py``.
"""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING, Any

from tests.support.github_server.records import Activity, Comment, Event, Issue, Label, Review, Token
from tests.support.github_server.repository import GHOST, Repository

if TYPE_CHECKING:
    from tests.support.github_server.hub import Hub

Json = dict[str, Any]
_REPOSITORY_URLS = {
    "archive_url": "/{archive_format}{/ref}",
    "assignees_url": "/assignees{/user}",
    "blobs_url": "/git/blobs{/sha}",
    "branches_url": "/branches{/branch}",
    "collaborators_url": "/collaborators{/collaborator}",
    "comments_url": "/comments{/number}",
    "commits_url": "/commits{/sha}",
    "compare_url": "/compare/{base}...{head}",
    "contents_url": "/contents/{+path}",
    "contributors_url": "/contributors",
    "deployments_url": "/deployments",
    "downloads_url": "/downloads",
    "events_url": "/events",
    "forks_url": "/forks",
    "git_commits_url": "/git/commits{/sha}",
    "git_refs_url": "/git/refs{/sha}",
    "git_tags_url": "/git/tags{/sha}",
    "hooks_url": "/hooks",
    "issue_comment_url": "/issues/comments{/number}",
    "issue_events_url": "/issues/events{/number}",
    "issues_url": "/issues{/number}",
    "keys_url": "/keys{/key_id}",
    "labels_url": "/labels{/name}",
    "languages_url": "/languages",
    "merges_url": "/merges",
    "milestones_url": "/milestones{/number}",
    "notifications_url": "/notifications{?since,all,participating}",
    "pulls_url": "/pulls{/number}",
    "releases_url": "/releases{/id}",
    "stargazers_url": "/stargazers",
    "statuses_url": "/statuses/{sha}",
    "subscribers_url": "/subscribers",
    "subscription_url": "/subscription",
    "tags_url": "/tags",
    "teams_url": "/teams",
    "trees_url": "/git/trees{/sha}",
}
_USER_URLS = {
    "events_url": "/events{/privacy}",
    "followers_url": "/followers",
    "following_url": "/following{/other_user}",
    "gists_url": "/gists{/gist_id}",
    "organizations_url": "/orgs",
    "received_events_url": "/received_events",
    "repos_url": "/repos",
    "starred_url": "/starred{/owner}{/repo}",
    "subscriptions_url": "/subscriptions",
}


class Shapes:
    """For the answer to one request: what it has shown of a repository it shows again."""

    def __init__(self, hub: Hub, server_url: str, api_url: str) -> None:
        self.hub = hub
        self.server_url = server_url
        self.api_url = api_url
        self._repositories: dict[str, Json] = {}

    # --- people and repositories ---

    def user(self, login: str) -> Json:
        found = self.hub.user(login)
        url = f"{self.api_url}/users/{login}"
        return {
            "login": login,
            "id": found.id,
            "node_id": _node("User", found.id),
            "avatar_url": f"{self.server_url}/avatars/{found.id}",
            "gravatar_id": "",
            "url": url,
            "html_url": f"{self.server_url}/{login}",
            **{key: f"{url}{rest}" for key, rest in _USER_URLS.items()},
            "type": found.kind,
            "user_view_type": "public",
            "site_admin": False,
        }

    def author(self, login: str | None) -> Json | None:
        """Who did something; None for an account that is gone, and where git was not told who pushed."""
        return None if login is None or login in self.hub.gone else self.user(login)

    def person(self, login: str) -> Json:
        """A user as asked for alone."""
        about = dict.fromkeys(("name", "company", "location", "email", "hireable", "bio", "twitter_username"))
        counts = dict.fromkeys(("public_repos", "public_gists", "followers", "following"), 0)
        at = "2020-01-01T00:00:00Z"
        return {**self.user(login), **about, "blog": "", **counts, "created_at": at, "updated_at": at}

    def repository_url(self, repository: Repository) -> str:
        return f"{self.api_url}/repos/{repository.name}"

    def repository(self, repository: Repository) -> Json:
        """A repository as others mention it."""
        if repository.name not in self._repositories:
            self._repositories[repository.name] = self._repository(repository)
        return self._repositories[repository.name]

    def _repository(self, repository: Repository) -> Json:
        url = self.repository_url(repository)
        html = f"{self.server_url}/{repository.name}"
        issues = sum(issue.state == "open" for issue in repository.all_issues.values())
        forks = sum(other.parent is repository for other in self.hub.repositories.values())
        pushed_at = repository.activity[-1].at if repository.activity else repository.created_at
        return {
            "id": repository.id,
            "node_id": _node("Repository", repository.id),
            "name": repository.name.split("/")[1],
            "full_name": repository.name,
            "private": repository.private,
            "visibility": "private" if repository.private else "public",
            "owner": self.user(repository.owner),
            "html_url": html,
            "description": None,
            "fork": repository.parent is not None,
            "url": url,
            **{key: f"{url}{rest}" for key, rest in _REPOSITORY_URLS.items()},
            "created_at": repository.created_at,
            "updated_at": pushed_at,
            "pushed_at": pushed_at,
            "git_url": html.replace("http://", "git://") + ".git",
            "ssh_url": f"git@127.0.0.1:{repository.name}.git",
            "clone_url": f"{html}.git",
            "svn_url": html,
            "mirror_url": None,
            "homepage": None,
            "language": None,
            "license": None,
            "size": 0,
            **dict.fromkeys(("stargazers_count", "watchers_count", "watchers"), 0),
            **dict.fromkeys(("forks_count", "forks"), forks),
            **dict.fromkeys(("open_issues_count", "open_issues"), issues),
            **dict.fromkeys(("has_issues", "has_projects", "has_wiki", "has_downloads", "allow_forking"), True),
            **dict.fromkeys(("has_pages", "has_discussions", "archived", "disabled", "is_template"), False),
            "web_commit_signoff_required": False,
            "topics": [],
            "default_branch": repository.default_branch,
        }

    def whole_repository(self, repository: Repository, login: str) -> Json:
        """A repository as asked for alone, with what ``login`` may do in it."""
        may = self.hub.user(login).permission(repository.name)
        found = dict(self.repository(repository))
        found["permissions"] = {
            "admin": may == "admin",
            "maintain": may == "admin",
            "push": may in ("admin", "write"),
            "triage": may in ("admin", "write"),
            "pull": True,
        }
        found |= {"network_count": found["forks_count"], "subscribers_count": 0, "allow_merge_commit": True}
        if repository.parent is not None:
            found["parent"] = found["source"] = self.repository(repository.parent)
        return found

    def branch(self, repository: Repository, name: str, sha: str) -> Json:
        commit = {"sha": sha, "url": f"{self.repository_url(repository)}/commits/{sha}"}
        return {"name": name, "commit": commit, "protected": name in repository.protected}

    def label(self, repository: Repository, label: Label) -> Json:
        return {
            "id": label.id,
            "node_id": _node("Label", label.id),
            "url": f"{self.repository_url(repository)}/labels/{label.name}",
            "name": label.name,
            "description": label.description,
            "color": label.color,
            "default": False,
        }

    def runner(self, number: int, name: str, labels: tuple[str, ...]) -> Json:
        return {
            "id": number,
            "name": name,
            "os": "linux",
            "status": "online",
            "busy": False,
            "ephemeral": False,
            "labels": [{"id": at + 1, "name": label, "type": "custom"} for at, label in enumerate(labels)],
        }

    def activity(self, row: Activity) -> Json:
        return {
            "id": row.id,
            "node_id": _node("Push", row.id),
            "before": row.before,
            "after": row.after,
            "ref": row.ref,
            "timestamp": row.at,
            "activity_type": row.kind,
            "actor": self.author(row.by),
        }

    def collaborator(self, repository: Repository, login: str) -> Json:
        may = self.hub.user(login).permission(repository.name)
        if may == "read" and repository.private:
            may = "none"
        rights = {
            "admin": may == "admin",
            "maintain": may == "admin",
            "push": may in ("admin", "write"),
            "triage": may in ("admin", "write"),
            "pull": may != "none",
        }
        user = {**self.user(login), "role_name": may, "permissions": rights}
        return {"permission": may, "role_name": may, "user": user}

    def rate(self, limit: int, used: int) -> Json:
        row = {"limit": limit, "used": used, "remaining": max(0, limit - used), "reset": self.hub.clock.seconds + 3600}
        return {"resources": dict.fromkeys(("core", "search"), row), "rate": row}

    # --- issues and pull requests ---

    def issue(self, repository: Repository, issue: Issue) -> Json:
        url = f"{self.repository_url(repository)}/issues/{issue.number}"
        html = self._html(repository, issue)
        shape: Json = {
            "url": url,
            "repository_url": self.repository_url(repository),
            "labels_url": f"{url}/labels{{/name}}",
            "comments_url": f"{url}/comments",
            "events_url": f"{url}/events",
            "html_url": html,
            "id": issue.id,
            "node_id": _node("Issue", issue.id),
            "number": issue.number,
            "title": issue.title,
            "user": self.author(issue.author),
            "labels": [self.label(repository, repository.labels[name]) for name in issue.labels],
            "state": issue.state,
            "state_reason": None if issue.state == "open" else "completed",
            "locked": False,
            "assignee": None,
            "assignees": [],
            "milestone": None,
            "comments": len(issue.comments),
            "created_at": issue.created_at,
            "updated_at": issue.updated_at,
            "closed_at": issue.closed_at,
            "author_association": self._association(repository, issue.author),
            "active_lock_reason": None,
            "body": issue.body,
            "closed_by": self._closed_by(issue),
            "timeline_url": f"{url}/timeline",
        }
        if issue.pull is not None:
            shape["draft"] = issue.pull.draft
            shape["pull_request"] = {
                "url": f"{self.repository_url(repository)}/pulls/{issue.number}",
                "html_url": html,
                "diff_url": f"{html}.diff",
                "patch_url": f"{html}.patch",
                "merged_at": issue.pull.merged_at,
            }
        return shape

    def comment(self, repository: Repository, issue: Issue, comment: Comment) -> Json:
        root = self.repository_url(repository)
        return {
            "url": f"{root}/issues/comments/{comment.id}",
            "html_url": f"{self._html(repository, issue)}#issuecomment-{comment.id}",
            "issue_url": f"{root}/issues/{issue.number}",
            "id": comment.id,
            "node_id": _node("IssueComment", comment.id),
            "user": self.author(comment.author),
            "created_at": comment.created_at,
            "updated_at": comment.updated_at,
            "author_association": self._association(repository, comment.author),
            "body": comment.body,
            "performed_via_github_app": None,
        }

    def event(self, repository: Repository, event: Event) -> Json:
        root = self.repository_url(repository)
        shape: Json = {
            "id": event.id,
            "node_id": _node("Event", event.id),
            "url": f"{root}/issues/events/{event.id}",
            "actor": self.author(event.by),
            "event": event.kind,
            "commit_id": event.commit,
            "commit_url": f"{root}/commits/{event.commit}" if event.commit else None,
            "created_at": event.at,
            "performed_via_github_app": None,
        }
        if event.label is not None:
            shape["label"] = {"name": event.label, "color": repository.labels[event.label].color}
        return shape

    def review(self, repository: Repository, issue: Issue, review: Review) -> Json:
        pull_url = f"{self.repository_url(repository)}/pulls/{issue.number}"
        html = f"{self._html(repository, issue)}#pullrequestreview-{review.id}"
        return {
            "id": review.id,
            "node_id": _node("PullRequestReview", review.id),
            "user": self.author(review.author),
            "body": review.body,
            "state": review.state,
            "html_url": html,
            "pull_request_url": pull_url,
            "author_association": self._association(repository, review.author),
            "_links": {"html": {"href": html}, "pull_request": {"href": pull_url}},
            "submitted_at": review.at,
            "commit_id": review.commit,
        }

    def pull(self, repository: Repository, issue: Issue) -> Json:
        """A pull request as a listing shows it."""
        pull = issue.pull
        assert pull is not None
        root = self.repository_url(repository)
        url, issue_url, html = (
            f"{root}/pulls/{issue.number}",
            f"{root}/issues/{issue.number}",
            self._html(repository, issue),
        )
        links = {
            "self": url,
            "html": html,
            "issue": issue_url,
            "comments": f"{issue_url}/comments",
            "review_comments": f"{url}/comments",
            "review_comment": f"{root}/pulls/comments{{/number}}",
            "commits": f"{url}/commits",
            "statuses": f"{root}/statuses/{pull.head}",
        }
        return {
            "url": url,
            "id": issue.id,
            "node_id": _node("PullRequest", issue.id),
            "html_url": html,
            "diff_url": f"{html}.diff",
            "patch_url": f"{html}.patch",
            "issue_url": issue_url,
            "commits_url": links["commits"],
            "review_comments_url": links["review_comments"],
            "review_comment_url": links["review_comment"],
            "comments_url": links["comments"],
            "statuses_url": links["statuses"],
            "number": issue.number,
            "state": issue.state,
            "locked": False,
            "active_lock_reason": None,
            "title": issue.title,
            "user": self.author(issue.author),
            "body": issue.body,
            "labels": [self.label(repository, repository.labels[name]) for name in issue.labels],
            "milestone": None,
            "created_at": issue.created_at,
            "updated_at": issue.updated_at,
            "closed_at": issue.closed_at,
            "merged_at": pull.merged_at,
            "merge_commit_sha": pull.merge_commit,
            "assignee": None,
            "assignees": [],
            "requested_reviewers": [],
            "requested_teams": [],
            "draft": pull.draft,
            "head": self._side(pull.head_owner, pull.head_ref, pull.head, pull.head_repo),
            "base": self._side(repository.owner, pull.base_ref, pull.base, repository.name),
            "_links": {name: {"href": href} for name, href in links.items()},
            "author_association": self._association(repository, issue.author),
            "auto_merge": None,
        }

    def whole_pull(self, repository: Repository, issue: Issue, sizes: Json) -> Json:
        """A pull request as asked for alone; ``sizes``: its counts of commits, files and lines."""
        pull = issue.pull
        assert pull is not None
        return {
            **self.pull(repository, issue),
            "user": self.user(GHOST if issue.author in self.hub.gone else issue.author),
            "merged": pull.merged_at is not None,
            "mergeable": None,
            "rebaseable": None,
            "mergeable_state": "unknown",
            "merged_by": self.user(pull.merged_by) if pull.merged_by else None,
            "comments": len(issue.comments),
            "review_comments": 0,
            "maintainer_can_modify": False,
            **sizes,
        }

    # --- inside ---

    def _side(self, owner: str, ref: str, sha: str, repository: str | None) -> Json:
        return {
            "label": None if owner in self.hub.gone else f"{owner}:{ref}",
            "ref": ref,
            "sha": sha,
            "user": self.author(owner),
            "repo": self.repository(self.hub.repositories[repository]) if repository else None,
        }

    def _html(self, repository: Repository, issue: Issue) -> str:
        kind = "issues" if issue.pull is None else "pull"
        return f"{self.server_url}/{repository.name}/{kind}/{issue.number}"

    def _association(self, repository: Repository, login: str) -> str:
        if login == repository.owner:
            return "OWNER"
        return "NONE" if self.hub.user(login).permission(repository.name) == "read" else "COLLABORATOR"

    def _closed_by(self, issue: Issue) -> Json | None:
        closed = [event.by for event in issue.events if event.kind == "closed"]
        return self.user(closed[-1]) if closed and issue.state == "closed" else None


def token_limit(token: Token) -> int:
    """Requests an hour: https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api."""
    return 1000 if token.is_bot else 5000


def _node(kind: str, number: int) -> str:
    return b64encode(f"{kind}{number}".encode()).decode()
