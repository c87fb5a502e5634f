"""One repository on the fake GitHub: what its people do, and what follows from the bare repository below it.

The bare repository is the truth about branches. Whoever changes it, by a verb of this class, by a push over HTTP
or by git in its folder, `notice` draws the conclusions: the activity, the new heads of pull requests, those closed
because a branch went away, those merged because their base now contains them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.github_server import bare
from tests.support.github_server.records import Activity, Comment, Event, Issue, Label, Pull, Review

if TYPE_CHECKING:
    from tests.support.github_server.hub import Hub

GHOST = "ghost"


class Repository:
    def __init__(
        self, hub: Hub, name: str, path: Path, *, parent: Repository | None, private: bool, default_branch: str
    ) -> None:
        self.hub = hub
        self.id = hub.new_id()
        self.name = name
        self.path = path
        self.parent = parent
        self.private = private
        self.default_branch = default_branch
        self.created_at = hub.clock.tick()
        self.all_issues: dict[int, Issue] = {}
        """Pull requests among them, by number."""
        self.labels: dict[str, Label] = {}
        self.activity: list[Activity] = []
        self.runners: list[tuple[int, str, tuple[str, ...]]] = []
        self.protected: set[str] = set()
        """Branches that may not be forced or deleted; only shown, not held."""
        bare.make(path, default_branch, parent.path if parent else None)
        self._known = bare.refs(path, bare.HEADS)

    @property
    def owner(self) -> str:
        return self.name.split("/")[0]

    @property
    def branches(self) -> dict[str, str]:
        """Name to SHA, as the bare repository has them now."""
        return {name.removeprefix(bare.HEADS): sha for name, sha in bare.refs(self.path, bare.HEADS).items()}

    # --- branches ---

    def push(self, branch: str, sha: str, by: str) -> None:
        self.push_many({branch: sha}, by)

    def push_many(self, branches: Mapping[str, str | None], by: str) -> None:
        """Set each branch (None: delete it), as one push."""
        with self.hub.lock:
            bare.set_refs(self.path, {f"{bare.HEADS}{branch}": sha for branch, sha in branches.items()})
            self.hub.user(by)
            self.notice(by)

    def delete_branch(self, branch: str, by: str) -> None:
        self.push_many({branch: None}, by)

    def notice(self, by: str | None, kind: str | None = None) -> None:
        """Draw the conclusions from what changed in the bare repository; ``by``: whose push it was."""
        now = bare.refs(self.path, bare.HEADS)
        if now == self._known:
            return
        at = self.hub.clock.tick()
        before, self._known = self._known, now
        for ref in sorted(before.keys() | now.keys()):
            old, new = before.get(ref, bare.ZERO), now.get(ref, bare.ZERO)
            if old != new:
                what = kind or self._kind(old, new)
                self.activity.append(Activity(self.hub.new_id(), old, new, ref, at, what, by))
                self._follow(ref.removeprefix(bare.HEADS), old, new, by or GHOST, at, what)

    def _kind(self, old: str, new: str) -> str:
        if bare.ZERO in (old, new):
            return "branch_creation" if old == bare.ZERO else "branch_deletion"
        return "push" if bare.contains(self.path, new, old) else "force_push"

    def _follow(self, branch: str, old: str, new: str, by: str, at: str, kind: str) -> None:
        """What a change of one branch does to the pull requests from it and into it."""
        for repository in self.hub.repositories.values():
            for issue in repository.open_pulls():
                pull = issue.pull
                assert pull is not None
                if pull.head_repo == self.name and pull.head_ref == branch:
                    repository._move_head(issue, new, by, at, kind)
        into = [issue for issue in self.open_pulls() if issue.pull and issue.pull.base_ref == branch]
        if new == bare.ZERO:
            for issue in into:
                self._close(issue, by, at)
        elif into:
            merged = bare.reached_by(self.path, new, [f"refs/pull/{issue.number}/head" for issue in into])
            for issue in into:
                if f"refs/pull/{issue.number}/head" in merged:
                    self._merged(issue, by, at, new)

    def _move_head(self, issue: Issue, new: str, by: str, at: str, kind: str) -> None:
        assert issue.pull is not None
        if new == bare.ZERO:
            self._record(issue, "head_ref_deleted", by, at)
            self._close(issue, by, at)
            return
        issue.pull.head = new
        issue.updated_at = at
        bare.keep(self.path, f"refs/pull/{issue.number}/head", new)
        if kind == "force_push":
            self._record(issue, "head_ref_force_pushed", by, at)

    def forget_heads_of(self, gone: Repository) -> None:
        for issue in self.all_issues.values():
            if issue.pull is not None and issue.pull.head_repo == gone.name:
                issue.pull.head_repo = None

    # --- pull requests ---

    def open_pulls(self) -> list[Issue]:
        return [issue for issue in self.all_issues.values() if issue.pull is not None and issue.state == "open"]

    def pull(self, number: int) -> Pull:
        pull = self.all_issues[number].pull
        if pull is None:
            raise ValueError(f"#{number} is an issue, no pull request")
        return pull

    def open_pull(
        self,
        head: str,
        into: str,
        author: str,
        title: str = "",
        *,
        head_repo: str | None = None,
        draft: bool = False,
        number: int | None = None,
        body: str | None = None,
    ) -> int:
        """Propose branch ``head`` (of ``head_repo``: another repository) for branch ``into``; returns its number."""
        with self.hub.lock:
            source = self.hub.repositories[head_repo or self.name]
            sha, base = source._tip(head), self._tip(into)
            if sha is None or base is None:
                missing = f"{source.name} has no branch {head}" if sha is None else f"{self.name} has no branch {into}"
                raise ValueError(missing)
            issue = self._new(title or f"About {head}", body, author, number)
            issue.pull = Pull(sha, head, source.name, source.owner, base, into, draft)
            bare.keep(self.path, f"refs/pull/{issue.number}/head", sha)
            return issue.number

    def set_draft(self, number: int, draft: bool, by: str) -> None:
        with self.hub.lock:
            self.pull(number).draft = draft
            self._happened(number, "convert_to_draft" if draft else "ready_for_review", by)

    def retarget(self, number: int, into: str, by: str, *, automatic: bool = False) -> None:
        """Another base branch; ``automatic``: because the one that it had was merged and deleted."""
        with self.hub.lock:
            pull = self.pull(number)
            pull.base_ref, pull.base = into, self.branches[into]
            self._happened(number, "automatic_base_change_succeeded" if automatic else "base_ref_changed", by)

    def review(self, number: int, by: str, state: str = "APPROVED", commit: str | None = None, body: str = "") -> int:
        """Review its head, or ``commit``; ``DISMISSED`` turns the person's last one into that.

        https://docs.github.com/en/rest/pulls/reviews
        """
        with self.hub.lock:
            self.hub.user(by)
            pull = self.pull(number)
            if state == "DISMISSED":
                standing = [one for one in pull.reviews if one.author == by and one.state != "COMMENTED"]
                standing[-1].state = state
                self._happened(number, "review_dismissed", by)
                return standing[-1].id
            if state not in {"APPROVED", "CHANGES_REQUESTED", "COMMENTED"}:
                raise ValueError(f"no such state of a review: {state}")
            self.hub.settle(self)
            issue = self.all_issues[number]
            issue.updated_at = self.hub.clock.tick()
            found = Review(self.hub.new_id(), by, state, commit or pull.head, issue.updated_at, body)
            pull.reviews.append(found)
            return found.id

    def merge(self, number: int, by: str = GHOST) -> str:
        """The button: a merge commit on the base branch, whose SHA is returned."""
        with self.hub.lock:
            self.hub.settle(self)
            issue, pull = self.all_issues[number], self.pull(number)
            ref = f"{bare.HEADS}{pull.base_ref}"
            subject = f"Merge pull request #{number} from {pull.head_owner}/{pull.head_ref}\n\n{issue.title}"
            commit = bare.merge(self.path, self._known[ref], pull.head, subject, self.hub.clock.seconds)
            if commit is None:
                raise ValueError(f"#{number} conflicts with {pull.base_ref}")
            bare.set_refs(self.path, {ref: commit})
            self.hub.user(by)
            self.notice(by, "pr_merge")
            return commit

    def sizes(self, number: int) -> dict[str, int]:
        """Its commits, files and lines, counted by git from where it left its base."""
        pull = self.pull(number)
        base = self._known.get(f"{bare.HEADS}{pull.base_ref}", pull.base)
        return bare.sizes(self.path, base, pull.head)

    # --- issues ---

    def open_issue(self, title: str, body: str | None, author: str) -> int:
        with self.hub.lock:
            return self._new(title, body, author, None).number

    def edit(self, number: int, by: str, *, title: str | None = None, body: str | None = None) -> None:
        with self.hub.lock:
            issue = self.all_issues[number]
            if title is not None and title != issue.title:
                issue.title = title
                self._happened(number, "renamed", by)
            if body is not None and body != issue.body:
                issue.body = body
                issue.updated_at = self.hub.clock.tick()

    def close(self, number: int, by: str = GHOST) -> None:
        with self.hub.lock:
            if self.all_issues[number].state == "open":
                self.hub.settle(self)
                self._close(self.all_issues[number], by, self.hub.clock.tick())

    def reopen(self, number: int, by: str = GHOST) -> None:
        with self.hub.lock:
            issue = self.all_issues[number]
            if issue.pull is not None and issue.pull.merged_at is not None:
                raise ValueError(f"#{number} is merged")
            if issue.state == "open":
                return
            if issue.pull is not None and issue.pull.head_repo is not None:
                tip = self.hub.repositories[issue.pull.head_repo]._tip(issue.pull.head_ref)
                if tip is None:
                    raise ValueError(f"the branch of #{number} is gone")
                issue.pull.head = tip
                bare.keep(self.path, f"refs/pull/{number}/head", tip)
            issue.state, issue.closed_at = "open", None
            self._happened(number, "reopened", by)

    def add_label(self, name: str, *, color: str = "ededed", description: str | None = None) -> Label:
        """A label that can be put on things; putting it on makes it, too."""
        return self.labels.setdefault(name, Label(self.hub.new_id(), name, color, description))

    def label(self, number: int, name: str, by: str) -> None:
        with self.hub.lock:
            issue = self.all_issues[number]
            self.add_label(name)
            if name not in issue.labels:
                issue.labels.append(name)
                self._happened(number, "labeled", by, name)

    def unlabel(self, number: int, name: str, by: str) -> None:
        with self.hub.lock:
            self.all_issues[number].labels.remove(name)
            self._happened(number, "unlabeled", by, name)

    def comment(self, number: int, body: str, by: str) -> Comment:
        with self.hub.lock:
            self.hub.user(by)
            issue = self.all_issues[number]
            at = issue.updated_at = self.hub.clock.tick()
            found = Comment(self.hub.new_id(), by, body, at, at)
            issue.comments.append(found)
            return found

    @property
    def issues(self) -> tuple[Issue, ...]:
        """The issues, oldest first; no pull requests."""
        with self.hub.lock:
            return tuple(issue for issue in self.all_issues.values() if issue.pull is None)

    @property
    def pulls(self) -> tuple[Issue, ...]:
        with self.hub.lock:
            self.hub.settle(self)
            return tuple(issue for issue in self.all_issues.values() if issue.pull is not None)

    def comments(self, number: int) -> tuple[Comment, ...]:
        """What was written below an issue or a pull request, oldest first."""
        with self.hub.lock:
            return tuple(self.all_issues[number].comments)

    def comment_by_id(self, wanted: int) -> tuple[Issue, Comment] | None:
        found = ((issue, one) for issue in self.all_issues.values() for one in issue.comments if one.id == wanted)
        return next(found, None)

    # --- inside ---

    def _tip(self, branch: str) -> str | None:
        ref = f"{bare.HEADS}{branch}"
        if ref not in self._known:
            self.notice(None)
        return self._known.get(ref)

    def _new(self, title: str, body: str | None, author: str, number: int | None) -> Issue:
        self.hub.user(author)
        number = number or max(self.all_issues, default=0) + 1
        if number in self.all_issues:
            raise ValueError(f"#{number} is taken")
        at = self.hub.clock.tick()
        self.all_issues[number] = Issue(self.hub.new_id(), number, title, body, author, at, at)
        return self.all_issues[number]

    def _happened(self, number: int, kind: str, by: str, label: str | None = None) -> None:
        self.hub.user(by)
        at = self.hub.clock.tick()
        self.all_issues[number].updated_at = at
        self._record(self.all_issues[number], kind, by, at, label)

    def _record(
        self, issue: Issue, kind: str, by: str, at: str, label: str | None = None, commit: str | None = None
    ) -> None:
        self.hub.user(by)
        issue.events.append(Event(self.hub.new_id(), kind, by, at, label, commit))

    def _close(self, issue: Issue, by: str, at: str) -> None:
        issue.state, issue.closed_at, issue.updated_at = "closed", at, at
        self._record(issue, "closed", by, at)

    def _merged(self, issue: Issue, by: str, at: str, commit: str) -> None:
        assert issue.pull is not None
        issue.pull.merged_at, issue.pull.merged_by, issue.pull.merge_commit = at, by, commit
        self._record(issue, "merged", by, at, commit=commit)
        self._close(issue, by, at)
