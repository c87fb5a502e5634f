"""What nights leave behind for later ones: one file a night on the branch ``history/LANE`` of the remote.

A line like ``base/LANE``: each state is a commit on the tip before, pushed as a fast-forward. It holds nothing that a
promotion depends on: where it cannot be read or written, a night says so and goes on, and numbers that it would have
held against a band have too few of them.

Whoever may push to the remote may have written there. So a file is read as what it must be, and named and passed over
where it is anything else.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import attrgetter

from patchstack.errors import PatchstackError, RemoteError, UsageError
from patchstack.git import EMPTY_TREE, ZERO, Repository, Signature, readable
from patchstack.model import GuardOutcome, NightRecord, Sha
from patchstack.release.ledger import is_name, is_one_line
from patchstack.store import CLOCKS_DIFFER_MOST, RUN_STAMP, decode, encode

FOLDER = "nights"
NIGHTS_KEPT = 400
NIGHTS_READ = 100
"""The newest records among them: of a band's nights, some may be of other machines."""
MOST_BYTES = 64 << 10
"""Of one file."""
MOST_ENTRIES = 300
"""Of each list in a record."""
TRIES = 3
"""How often a record is put onto a tip that another night has moved meanwhile."""

_FILE = re.compile(r"(\d{8}T\d{6}Z(?:-\d{1,4})?)\.json")
_SHA = re.compile(r"[0-9a-f]{40}")
_OURS = "refs/patchstack/remote/heads/history/"
_SHOWN = 3


def history_branch(lane: str) -> str:
    return f"history/{lane}"


def history_ref(lane: str) -> str:
    return f"refs/heads/{history_branch(lane)}"


@dataclass(frozen=True)
class Recorded:
    """What the branch holds."""

    nights: tuple[NightRecord, ...]
    """The newest first, at most `NIGHTS_READ`."""
    notes: tuple[str, ...]
    """What is there and is no record."""


@dataclass(frozen=True)
class Placed:
    """One file of the branch's folder."""

    name: str
    sha: Sha
    size: int
    """In bytes; -1 of what is no file."""


# --- reading -------------------------------------------------------------------------------------------


def read_history(store: Repository, url: str, lane: str, now: datetime, listed: Mapping[str, Sha]) -> Recorded:
    """The newest nights that ``url`` has of ``lane``; ``listed`` is what an `ls-remote` of it said.

    No branch is no night. Raises `RemoteError` when the branch is there and is not handed over.
    """
    tip = listed.get(history_ref(lane))
    if tip is None:
        return Recorded((), ())
    _fetch(store, url, lane, tip)
    return records_in(store, tip, lane, now)


def records_in(store: Repository, tip: Sha, lane: str, now: datetime) -> Recorded:
    """The newest nights of the commit ``tip``, which is in ``store``."""
    placed = list_nights(store, tip)
    named = [one for one in placed if _is_of_a_night(one.name, now)]
    wrong = [f"{one.name}: no name of a night" for one in placed if not _is_of_a_night(one.name, now)]
    named = sorted(named, key=_age, reverse=True)[:NIGHTS_KEPT]
    fit = [one for one in named if 0 <= one.size <= MOST_BYTES]
    wrong += [f"{one.name}: not a file of at most {MOST_BYTES} bytes" for one in named if one not in fit]
    nights: list[NightRecord] = []
    for one, data in zip(fit, _blobs(store, [one.sha for one in fit]), strict=True):
        if len(nights) == NIGHTS_READ:
            break
        try:
            nights.append(read_record(one.name, data, lane, now))
        except UsageError as error:
            wrong.append(f"{one.name}: {error}")
    return Recorded(tuple(nights), (_told(lane, wrong),) if wrong else ())


def read_record(name: str, data: bytes, lane: str, now: datetime) -> NightRecord:
    """The record that the file ``name`` holds; `UsageError` says in what it is none of ``lane``."""
    try:
        record = decode(NightRecord, data.decode(), name)
    except UnicodeDecodeError as error:
        raise UsageError("it is not UTF-8") from error
    except UsageError as error:
        raise UsageError("it does not read as a record of this version") from error
    problem = record_problem(record, lane, now)
    if record.night != name.removesuffix(".json"):
        problem = f"it is of night {record.night[:40]!r}"
    if problem:
        raise UsageError(problem)
    return record


def record_problem(record: NightRecord, lane: str, now: datetime) -> str:
    """Why ``record`` cannot be used; empty where it can. What can is safe to show."""
    try:
        at = datetime.fromisoformat(record.at)
        late = at - now > CLOCKS_DIFFER_MOST
    except (ValueError, TypeError):
        return "its moment is none in UTC"
    if late:
        return "it is of a moment that has not come yet"
    if record.lane != lane:
        return f"it is of lane {record.lane[:40]!r}"
    words = [record.night, *(name for name, _ in record.samples), *(name for pair in record.blamed for name in pair)]
    words += [test for test, _ in record.outcomes] + list(record.quarantined_green)
    words += [
        name for lane in record.lanes for name in (lane.lane, *(each for each, _ in (*lane.samples, *lane.outcomes)))
    ]
    lines = [record.node, *(lane.hardware for lane in record.lanes)]
    lists: list[Sequence[object]] = [record.samples, record.outcomes, record.quarantined_green, record.blamed]
    lists += [record.lanes, *(lane.samples for lane in record.lanes), *(lane.outcomes for lane in record.lanes)]
    if not all(map(is_name, words)) or not all(map(is_one_line, lines)) or max(map(len, lists)) > MOST_ENTRIES:
        return "it has names that nobody gives"
    samples = [*record.samples, *(sample for lane in record.lanes for sample in lane.samples)]
    if not _SHA.fullmatch(record.tree) or not all(math.isfinite(value) for _, value in samples):
        return "it has an id that is none, or a number that is not finite"
    known = {outcome.value for outcome in GuardOutcome}
    said = [*record.outcomes, *(outcome for lane in record.lanes for outcome in lane.outcomes)]
    return "" if all(outcome in known for _, outcome in said) else "it has outcomes that no guard has"


def list_nights(store: Repository, tip: Sha) -> tuple[Placed, ...]:
    """What is in the folder of nights, whoever put it there; nothing where there is no such folder."""
    answer = store.attempt("ls-tree", "-z", "-l", "--full-tree", tip, "--", f"{FOLDER}/")
    if answer.returncode != 0:
        raise RemoteError(f"the history at {tip[:12]} cannot be listed")
    found = []
    for line in filter(None, answer.stdout.decode(errors="surrogateescape").split("\0")):
        meta, path = line.split("\t", 1)
        _, kind, sha, size = meta.split()
        found.append(Placed(path.removeprefix(f"{FOLDER}/"), Sha(sha), int(size) if kind == "blob" else -1))
    return tuple(found)


def _is_of_a_night(name: str, now: datetime) -> bool:
    """Of one that has begun: what is named after a time to come would be newer than every night until then."""
    found = _FILE.fullmatch(name)
    try:
        began = datetime.strptime(found[1][:16], RUN_STAMP).replace(tzinfo=UTC) if found else None
    except ValueError:
        return False
    return began is not None and began - now <= CLOCKS_DIFFER_MOST


def _age(placed: Placed) -> tuple[str, int]:
    """Of two nights that began in the same second, the number behind the dash tells which came first."""
    stamp, _, number = placed.name.removesuffix(".json").partition("-")
    return stamp, int(number or 1)


def _blobs(store: Repository, wanted: Sequence[Sha]) -> list[bytes]:
    """The bytes of each, in one call."""
    if not wanted:
        return []
    out = store.attempt("cat-file", "--batch", stdin="".join(f"{sha}\n" for sha in wanted).encode()).stdout
    found, at = [], 0
    for _ in wanted:
        end = out.index(b"\n", at)
        size = int(out[at:end].split()[2])
        found.append(out[end + 1 : end + 1 + size])
        at = end + 1 + size + 1
    return found


def _told(lane: str, wrong: Sequence[str]) -> str:
    shown = "; ".join("".join(c if c.isprintable() else "?" for c in readable(one))[:120] for one in wrong[:_SHOWN])
    more = f"; and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
    return f"branch {history_branch(lane)} has what is no record of a night, which is passed over: {shown}{more}"


# --- writing -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Change:
    """What one more night changes in the folder."""

    name: str
    dropped: tuple[str, ...]


def decide_change(record: NightRecord, names: Iterable[str], now: datetime) -> Change:
    """Put ``record`` among the nights that are there, and drop the oldest beyond `NIGHTS_KEPT`; pure.

    What is no night's name is not ours to drop, nor to count.
    """
    name = f"{record.night}.json"
    if not _is_of_a_night(name, now):
        raise UsageError(f"{record.night!r} is no id of a night")
    nights = {other for other in names if _is_of_a_night(other, now)} | {name}
    oldest = sorted((Placed(other, ZERO, 0) for other in nights), key=_age)[: max(0, len(nights) - NIGHTS_KEPT)]
    return Change(name, tuple(sorted(map(attrgetter("name"), oldest))))


def keep_night(store: Repository, url: str, record: NightRecord, now: datetime) -> str:
    """Put ``record`` onto the remote's branch; what a reader must know of it, or nothing.

    Equal to what is there already, it changes nothing. A tip that has moved meanwhile is read again. It raises
    nothing: history is kept where it can be.
    """
    problem = record_problem(record, record.lane, now)
    if problem:
        return f"this night is not kept in {history_branch(record.lane)}: {problem}"
    try:
        return _keep(store, url, record, now, TRIES)
    except (PatchstackError, OSError) as error:
        said = " ".join(str(error).split())[:500]
        return f"this night is not kept in {history_branch(record.lane)}, and later ones have it in no band: {said}"


def _keep(store: Repository, url: str, record: NightRecord, now: datetime, tries: int) -> str:
    tip = _tip(store, url, record.lane)
    try:
        said, commit = _next(store, url, tip, record, now)
        if commit is not None:
            store.push(url, {history_ref(record.lane): commit})
        return said
    except RemoteError:
        if tries == 1 or _tip(store, url, record.lane) == tip:
            raise
        return _keep(store, url, record, now, tries - 1)


def _tip(store: Repository, url: str, lane: str) -> Sha | None:
    return store.ls_remote(url, history_ref(lane)).get(history_ref(lane))


def _next(store: Repository, url: str, tip: Sha | None, record: NightRecord, now: datetime) -> tuple[str, Sha | None]:
    """What to say, and the commit that has ``record`` on top of ``tip``; None where there is nothing to write."""
    if tip is not None:
        _fetch(store, url, record.lane, tip)
    placed = {one.name: one for one in list_nights(store, tip)} if tip is not None else {}
    change = decide_change(record, placed, now)
    blob = store.write_blob(encode(record).encode())
    there = placed.get(change.name)
    if there is not None and there.sha == blob:
        return "", None
    if there is not None and not _same_night(store, there, record):
        return f"{history_branch(record.lane)} has another night {record.night}: it stays", None
    if change.name in change.dropped:
        return "", None
    entries = [("100644", str(blob), f"{FOLDER}/{change.name}")]
    entries += [("0", str(ZERO), f"{FOLDER}/{name}") for name in change.dropped]
    tree = store.edit_tree(store.tree_of(tip) if tip is not None else EMPTY_TREE, entries)
    ending = "promoted" if record.promoted else "not promoted"
    message = f"{history_branch(record.lane)}: night {record.night}, {ending}\n\nWhat it measured and what was red.\n"
    seconds = int(datetime.fromisoformat(record.at).timestamp())
    return "", store.commit(tree, [tip] if tip is not None else [], message, Signature(date=f"@{seconds} +0000"))


def _same_night(store: Repository, there: Placed, record: NightRecord) -> bool:
    """Whether what is there says the same of an earlier moment: a part of a night may run twice."""
    if not 0 <= there.size <= MOST_BYTES:
        return False
    (data,) = _blobs(store, [there.sha])
    try:
        return decode(NightRecord, data.decode(errors="replace"), there.name).tree == record.tree
    except UsageError:
        return False


def _fetch(store: Repository, url: str, lane: str, tip: Sha) -> None:
    ref = f"{_OURS}{lane}"
    if store.refs(ref).get(ref) != tip:
        store.fetch(url, [f"+{tip}:{ref}"], strict=True)


def green_in_a_row(nights: Iterable[NightRecord], test: str) -> int:
    """How many of the newest nights, one after the other, had ``test`` green in quarantine."""
    count = 0
    for night in nights:
        if test not in night.quarantined_green:
            break
        count += 1
    return count
