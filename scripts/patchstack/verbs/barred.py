"""What rollbacks and red nights barred, kept out of a plan: heads of pull requests with whatever has their commits,
and patches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from patchstack.compose import lookup
from patchstack.git import Repository
from patchstack.model import Action, Bar, Barring, Composition, Kind, LeftOut, Outcome, Pull, Reason, Sha
from patchstack.pulls.discover import Discovered
from patchstack.release.hold import barrer
from patchstack.release.ledger import Entry, History
from patchstack.verbs.remote import list_remote, open_remote
from patchstack.workplace import Workplace


@dataclass(frozen=True)
class BarredBy:
    """Who barred a head, and so why it is left out."""

    who: str
    """``rollback 20261121T040000Z (it crashes)``, or ``night 20261121T020000Z``."""
    reason: Reason

    def why(self, name: str) -> str:
        """One sentence for its author."""
        said = f"{self.who} found this head guilty" if self.reason is Reason.GUILTY else f"{self.who} barred this head"
        return f"{said}: have a mended one admitted, or `patchstack release-hold '{name}'`"


def listed_once(work: Workplace, listed: Mapping[str, Sha] | None) -> Mapping[str, Sha] | None:
    """What the remote says, asked unless ``listed`` has it; None where no night has made the embedded one yet.

    Raises `RemoteError` when it cannot be asked: what is barred is not known then.
    """
    if listed is not None:
        return listed
    asks_nobody = not work.local and not work.config.pulls.sources
    if asks_nobody and work.embedded and not (Path(work.remote) / "HEAD").is_file():
        return None
    return list_remote(work)


def barred_heads(work: Workplace, listed: Mapping[str, Sha] | None) -> dict[tuple[str, Sha], BarredBy]:
    """Which rollback or night barred a head that may not come back, by the name of its topic and the head.

    ``listed`` is what the remote said; None: there is none yet, so that nobody has barred anything.
    """
    if listed is None:
        return {}
    bars = open_remote(work, listed).history.bars
    return {(bar.name, Sha(bar.value)): _by(entry) for entry, bar in bars if bar.kind is Barring.HEAD}


def _by(entry: Entry) -> BarredBy:
    found_guilty = entry.line.action is Action.NIGHT
    return BarredBy(barrer(entry), Reason.GUILTY if found_guilty else Reason.BARRED)


def without_barred(store: Repository, found: Discovered, barred: Mapping[tuple[str, Sha], BarredBy]) -> Discovered:
    """``found`` less the pull requests that are at a barred head; the commits of barred heads bar others.

    A pull request that has moved on is judged by its new head alone. Of a barred head that nobody lists any more only
    itself is known to be its own, and not what it was stacked on.
    """
    staying = tuple(pull for pull in found.pulls if (pull.name, pull.head) not in barred)
    out = [pull for pull in found.pulls if (pull.name, pull.head) in barred]
    listed = {(pull.name, pull.head) for pull in out}
    gone = [(name, head) for name, head in barred if "#" in name and (name, head) not in listed]
    past = [pull for pull in (_as_it_was(store, *one, found.pulls) for one in gone) if pull is not None]
    barring = [*out, *_barring(store, past, staying)]
    return replace(
        found,
        pulls=staying,
        refused=(*found.refused, *(_left_out(pull, barred[pull.name, pull.head]) for pull in out)),
        blocked=(*found.blocked, *(replace(pull, barred_by=barred[pull.name, pull.head].who) for pull in barring)),
    )


def _left_out(pull: Pull, by: BarredBy) -> LeftOut:
    return LeftOut(
        name=pull.name,
        kind=Kind.PULL,
        title=pull.title,
        author=pull.author,
        head=pull.head,
        outcome=Outcome.EXCLUDED,
        reason=by.reason,
        detail=by.why(pull.name),
        url=pull.url,
        newer_head=pull.newer_head,
    )


def _as_it_was(store: Repository, name: str, head: Sha, pulls: Sequence[Pull]) -> Pull | None:
    """A barred head that is not the pull request's any more; None where the store has it not: then nobody has it."""
    if not store.has(f"{head}^{{commit}}"):
        return None
    now = next((pull for pull in pulls if pull.name == name), None)
    number = name.rpartition("#")[2]
    if not (number.isascii() and number.isdigit()):
        return None
    parents = store.parents(head)
    begin = store.merge_base(head, now.merge_base) if now else parents[0] if parents else None
    if begin is None:
        return None
    return Pull(int(number), name, head, "", "", "", begin, shared=False)


def _barring(store: Repository, past: Sequence[Pull], pulls: Sequence[Pull]) -> list[Pull]:
    """Those of ``past`` whose commits somebody else of ``pulls`` has: bars stay for ever, and few of them matter."""
    if not past:
        return []
    walks = lookup.walks(store, [(pull.merge_base, pull.head) for pull in (*past, *pulls)])
    holders: dict[Sha, set[str]] = {}
    for pull in pulls:
        for commit in walks[pull.merge_base, pull.head].commits:
            holders.setdefault(commit, set()).add(pull.name)
    return [
        pull
        for pull in past
        if any(holders.get(commit, set()) - {pull.name} for commit in walks[pull.merge_base, pull.head].commits)
    ]


def bars_in_force(history: History) -> tuple[tuple[str, Bar], ...]:
    """Each bar with the id of its rollback, or night, newest first."""
    return tuple((entry.line.night, bar) for entry, bar in history.bars)


def new_bars(composition: Composition, history: History) -> tuple[Bar, ...]:
    """The heads that this night has found guilty, and that nobody had barred before."""
    known = {(bar.name, bar.value) for _, bar in history.bars}
    return tuple(
        Bar(Barring.HEAD, out.name, out.head)
        for out in composition.left_out
        if out.reason is Reason.GUILTY and out.head is not None and (out.name, out.head) not in known
    )
