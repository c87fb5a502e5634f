"""Promotion: one commit on the deploy branch, the published lines, and the dated tag, in one atomic push.

`decide` computes everything, down to the ids of the commits that it would write; `promote` writes them and
pushes. The deploy branch's commit has the previous tip as first parent (on the first night the genesis
commit), the octopus as second, and the octopus's tree. Published lines (`base/LANE`, `stack/LANE`) begin
with the commit itself and go on with commits whose parents are the previous tip and the new commit. So
everything that is published only fast-forwards, whatever was there before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from patchstack.errors import GateFailed, Incomplete, MachineError, PatchstackError, RemoteError
from patchstack.git import EMAIL, EMPTY_TREE, NAME, Repository, Signature
from patchstack.model import Action, Bar, Composition, LedgerImage, LedgerLine, Promotion, Sha, Status, Verdict
from patchstack.release.ledger import format_message, make_line, parse_trailer, trailer_of
from patchstack.release.remote import RemoteState, Tip, published_refs, read_remote

NIGHTLY = "nightly"
"""The channel whose moving ref is the deploy branch itself."""


@dataclass(frozen=True)
class Draft:
    """A commit that is decided and not written yet; its id follows from its content."""

    tree: Sha
    parents: tuple[Sha, ...]
    message: str
    seconds: int
    """Author and committer date, since the epoch, in UTC."""

    @property
    def sha(self) -> Sha:
        """The id that git gives this commit (https://git-scm.com/docs/git-hash-object)."""
        who = f"{NAME} <{EMAIL}> {self.seconds} +0000"
        lines = [f"tree {self.tree}", *(f"parent {parent}" for parent in self.parents)]
        body = "\n".join([*lines, f"author {who}", f"committer {who}", "", self.message]).encode()
        return Sha(hashlib.sha1(b"commit %d\0%b" % (len(body), body), usedforsecurity=False).hexdigest())

    def write(self, store: Repository) -> Sha:
        written = store.commit(self.tree, self.parents, self.message, Signature(date=f"@{self.seconds} +0000"))
        if written != self.sha:
            raise PatchstackError(f"git wrote commit {written} where {self.sha} was decided; nothing was pushed")
        return written


GENESIS = Draft(EMPTY_TREE, (), "patchstack: genesis\n\nThe first parent of the first night.\n", 0)
"""The same commit in every fork: what the first night stands on where there is no deploy branch."""


@dataclass(frozen=True)
class Source:
    """What a published line is to hold: the base's commit, or the stack's, with its tree."""

    commit: Sha
    tree: Sha


@dataclass(frozen=True)
class Decision:
    """What a promotion will do, all of it; nothing has been written."""

    promotion: Promotion
    expected: tuple[tuple[str, Sha | None], ...]
    """The branches as they were read: the promotion holds only for these."""
    drafts: tuple[Draft, ...]
    """The commits to write, each after its parents."""
    notes: tuple[str, ...] = ()
    """What a reader must know and what stops nothing: a tag that something else holds."""


def decide(
    *,
    night: str,
    at: datetime,
    composition: Composition,
    stack: Source,
    verdicts: Sequence[Verdict],
    remote: RemoteState,
    image: LedgerImage | None = None,
    upstream: str = "",
    lost: Sequence[tuple[str, str]] = (),
    bars: Sequence[Bar] = (),
) -> Decision:
    """Decide the promotion of ``composition`` onto what ``remote`` holds; pure.

    ``night`` is the run's id, ``at`` its moment in UTC, ``stack`` the base with its required patches alone,
    ``image`` what was built of the composition and tested, if anything was, ``upstream`` what deploy.yaml says of
    the base, ``lost`` name and reason of what the last promoted night had and this one has not, ``bars`` the heads
    that it has found guilty.
    Raises `GateFailed` or `Incomplete` unless the channel ``nightly`` passed.
    """
    if composition.lane != remote.lane:
        raise PatchstackError(f"a composition of lane {composition.lane} cannot go to lane {remote.lane}")
    channels = _passed(verdicts)
    line = make_line(
        night, at, composition, channels, image, stack=stack.commit, upstream=upstream, lost=lost, bars=bars
    )
    return land(line, remote, base=Source(composition.base.commit, composition.base.tree), stack=stack)


def land(
    line: LedgerLine, remote: RemoteState, *, base: Source | None, stack: Source | None, notes: Sequence[str] = ()
) -> Decision:
    """Decide the commit on deploy that ``line`` is of, and all that follows from it; pure.

    ``base`` or ``stack`` is None where nobody knows what that line was made of then: it stays as it is. ``notes`` stand
    before those of the decision.
    """
    seconds = int(datetime.fromisoformat(line.at).timestamp())
    drafts = deploy_drafts(line, remote)
    deploy = drafts[-1]
    deploy_ref, base_ref, stack_ref = published_refs(remote.lane, remote.branch)
    pushed = [(deploy_ref, deploy.sha)]
    for ref, published, source in ((base_ref, remote.base, base), (stack_ref, remote.stack, stack)):
        moved = next_of_line(ref, published, source, seconds) if source else None
        if isinstance(moved, Draft):
            drafts.append(moved)
        if moved is not None:
            pushed.append((ref, moved.sha if isinstance(moved, Draft) else moved))
    holder = dict(remote.tags).get(line.tag)
    said = list(notes)
    if holder is None:
        pushed.append((f"refs/tags/{line.tag}", deploy.sha))
    elif holder not in {past.commit for past in remote.history.entries if past.line.tag == line.tag}:
        said.append(f"tag {line.tag} exists and holds {holder[:12]}, which is no night of this tree: it was not moved")
    return decision_of(line, remote, drafts, pushed, said)


def deploy_drafts(line: LedgerLine, remote: RemoteState) -> list[Draft]:
    """The commit that puts ``line`` onto deploy; before it the genesis commit, where there is no such branch."""
    if parse_trailer(trailer_of(line), "new") != line:
        raise PatchstackError(f"the ledger line of {line.night} would not read: something in it has no name that can")
    tip = remote.deploy
    seconds = int(datetime.fromisoformat(line.at).timestamp())
    deploy = Draft(line.tree, (tip.commit if tip else GENESIS.sha, line.composition), format_message(line), seconds)
    return [deploy] if tip else [GENESIS, deploy]


def decision_of(
    line: LedgerLine,
    remote: RemoteState,
    drafts: Sequence[Draft],
    pushed: Sequence[tuple[str, Sha]],
    notes: Sequence[str] = (),
) -> Decision:
    """The decision to push ``pushed``, the deploy branch first."""
    promotion = Promotion(
        lane=remote.lane,
        branch=remote.branch,
        previous=remote.deploy.commit if remote.deploy else None,
        commit=pushed[0][1],
        line=line,
        pushed=tuple(pushed),
    )
    return Decision(promotion, remote.refs, tuple(drafts), tuple(notes))


def _passed(verdicts: Sequence[Verdict]) -> tuple[str, ...]:
    """The channels that move, `nightly` among them or an error that says why not."""
    nightly = [verdict for verdict in verdicts if verdict.channel == NIGHTLY]
    if not nightly:
        raise Incomplete(f"no verdict for channel {NIGHTLY}: run the tests first; nothing was moved")
    for verdict in nightly:
        if verdict.status is not Status.PASS:
            why = "; ".join(verdict.reasons) or "no reason given"
            kind = GateFailed if verdict.status is Status.FAIL else Incomplete
            raise kind(f"channel {NIGHTLY} is {verdict.status.value}, nothing was moved: {why}")
    return tuple(verdict.channel for verdict in verdicts if verdict.status is Status.PASS)


def next_of_line(ref: str, published: Tip | None, source: Source, seconds: int) -> Draft | Sha | None:
    """What ``ref`` moves to: the commit itself, a commit on its tip, or None when it holds the source already."""
    if published is None:
        return source.commit
    if published.tree == source.tree and source.commit in (published.commit, *published.parents[1:]):
        return None
    name = ref.removeprefix("refs/heads/")
    message = f"{name}: {source.commit[:12]}\n\nA new state of a published line; its content is the second parent.\n"
    return Draft(source.tree, (published.commit, source.commit), message, seconds)


def promote(
    store: Repository, url: str, decision: Decision, *, tell: Callable[[str], object] = lambda _: None
) -> Promotion:
    """Write the decided commits and push everything in one plain atomic push.

    Raises `RemoteError`, with nothing moved, when a branch is no longer where it was read or the remote
    refuses. The look before the push also finds a branch that was set back, which a fast-forward would not.
    A push that ends with an error is followed by a look as well: it may have arrived, which ``tell`` is told.
    """
    listed = store.ls_remote(url, *(ref for ref, _ in decision.expected))
    moved = [(ref, was, listed.get(ref)) for ref, was in decision.expected if listed.get(ref) != was]
    if moved:
        said = "; ".join(f"{ref} was {_short(was)} and is {_short(now)}" for ref, was, now in moved)
        raise RemoteError(f"another writer moved the remote since it was read, nothing was moved: {said}; run again")
    for draft in decision.drafts:
        draft.write(store)
    try:
        store.push(url, dict(decision.promotion.pushed))
    except RemoteError as error:
        tell(_arrived_all_the_same(store, url, decision, error))
    return decision.promotion


def _arrived_all_the_same(store: Repository, url: str, decision: Decision, error: RemoteError) -> str:
    """What to say of a push that failed on our side and arrived on the other; `RemoteError` where it did not."""
    promotion = decision.promotion
    try:
        now = read_remote(store, url, lane=promotion.lane, branch=promotion.branch)
    except (RemoteError, MachineError) as blind:
        raise RemoteError(
            f"{error}; whether it arrived is not known, for then {blind}: {_again(promotion.line)} when the remote "
            f"answers; if {promotion.branch} holds {promotion.commit[:12]} by then, that is found out"
        ) from error
    if any(entry.commit == promotion.commit for entry in now.history.entries):
        return f"the push ended with an error and arrived all the same: {error}"
    before = dict(decision.expected)
    moved = [ref.removeprefix("refs/heads/") for ref, commit in now.refs if commit != before.get(ref)]
    if promotion.branch in moved:
        raise RemoteError(f"{error}; another writer has moved {promotion.branch}: run again") from error
    if moved:
        raise RemoteError(
            f"{error}; {promotion.branch} is where it was, and what did move ({', '.join(moved)}) is put right by the "
            "next night"
        ) from error
    said = str(error)
    nothing = "" if "nothing was moved" in said else "; nothing was moved: run again"
    lock = (
        "; a git that was killed on the remote left that file: whoever runs it removes it" if ".lock'" in said else ""
    )
    raise RemoteError(f"{said}{nothing}{lock}") from error


def _again(line: LedgerLine) -> str:
    """What does no harm said twice: a rollback without its night would go back one more."""
    return f"say it again with `--to {line.to}`" if line.action is Action.ROLLBACK else "run the same again"


def _short(sha: Sha | None) -> str:
    return sha[:12] if sha else "absent"
