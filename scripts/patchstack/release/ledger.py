"""The ledger: one JSON trailer in the message of each commit that a promotion puts on the deploy branch.

`git log --first-parent deploy` is the history of nights. A commit counts as a night of ours only if its
trailer reads, and what the trailer says is what git holds: its tree, and the octopus as second parent. So a
commit that somebody amended, cherry-picked or reverted is no night, and neither is an existing branch's own
history.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property

from patchstack.errors import RemoteError
from patchstack.git import Repository
from patchstack.model import SCHEMA_VERSION, Action, Bar, Barring, Composition, Kind, LedgerImage, LedgerLine, Sha

TRAILER = "Patchstack-Night"
PRODUCTION = "production"
"""The lane whose tags carry no prefix."""

_SHA = re.compile(r"[0-9a-f]{40}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_IMAGE_NAMES = (
    re.compile(r"[a-z0-9][a-z0-9._:/-]*"),
    re.compile(r"\w[\w.-]{0,127}", re.ASCII),
    re.compile(r"[a-z0-9]+"),
)
"""Of an image's repository, tag and runtime: commands to pull it and names of moving tags are made of them."""
LONGEST_NAME = 255
LONGEST_WORDS = 1000


@dataclass(frozen=True)
class Entry:
    """One commit that patchstack put on the deploy branch."""

    commit: Sha
    previous: Sha
    """Its first parent: the entry before, the genesis commit, or the branch as it was before patchstack."""
    line: LedgerLine

    @property
    def content(self) -> str:
        """The night whose content this is: its own, or the one that a rollback went back to."""
        return self.line.to if self.line.action is Action.ROLLBACK else self.line.night


@dataclass(frozen=True)
class History:
    """What a deploy branch tells of its past, newest first."""

    entries: tuple[Entry, ...]
    """All that patchstack did there: nights, rollbacks, holds and releases."""
    foreign_on_top: int = 0
    """First-parent commits above what is deployed that patchstack did not make; all of them where nothing is."""

    @property
    def nights(self) -> tuple[Entry, ...]:
        """What was promoted, also what was taken back later."""
        return tuple(entry for entry in self.entries if entry.line.action is Action.NIGHT)

    @cached_property
    def standing(self) -> tuple[Entry, ...]:
        """Nights and rollbacks that nobody took back: the first is what is deployed.

        A rollback stands in the place of the night that it went back to.
        """
        stack: list[Entry] = []
        for entry in reversed(self.entries):
            if entry.line.action is Action.ROLLBACK:
                below = next((at for at, older in enumerate(stack) if older.content == entry.content), None)
                if below is not None:
                    del stack[below:]
            if entry.line.action in {Action.NIGHT, Action.ROLLBACK}:
                stack.append(entry)
        return tuple(reversed(stack))

    @property
    def last(self) -> Entry | None:
        """What is deployed."""
        return self.standing[0] if self.standing else None

    @property
    def hold(self) -> Entry | None:
        """The hold in force; the newest, where somebody held what was held already."""
        ends = (entry for entry in self.entries if entry.line.action in {Action.HOLD, Action.RELEASE})
        ends = (entry for entry in ends if entry.line.action is Action.HOLD or not entry.line.releases)
        newest = next(ends, None)
        return newest if newest is not None and newest.line.action is Action.HOLD else None

    @property
    def bars(self) -> tuple[tuple[Entry, Bar], ...]:
        """Each bar in force with the rollback, or the night, that it is from, newest first."""
        found: list[tuple[Entry, Bar]] = []
        released: set[str] = set()
        for entry in self.entries:
            if entry.line.action is Action.RELEASE:
                released |= set(entry.line.releases)
            found += [(entry, bar) for bar in entry.line.bars if bar.name not in released]
        return tuple(found)


def entry_id(history: History, at: datetime) -> str:
    """The id of an entry that no run made: of a run's form, and of no other entry."""
    taken = {entry.line.night for entry in history.entries}
    name, number = f"{at:%Y%m%dT%H%M%SZ}", 1
    while (found := name if number == 1 else f"{name}-{number}") in taken:
        number += 1
    return found


def tag_prefix(lane: str) -> str:
    return "nightly-" if lane == PRODUCTION else f"{lane}-nightly-"


def dated_tag(lane: str, at: str, tree: str) -> str:
    """``nightly-YYYYMMDD-<tree7>``; the tags of lanes other than production begin with the lane's name."""
    return f"{tag_prefix(lane)}{datetime.fromisoformat(at):%Y%m%d}-{tree[:7]}"


def make_line(
    night: str,
    at: datetime,
    composition: Composition,
    channels: Sequence[str],
    image: LedgerImage | None = None,
    *,
    stack: Sha | None = None,
    upstream: str = "",
    lost: Sequence[tuple[str, str]] = (),
    bars: Sequence[Bar] = (),
) -> LedgerLine:
    """The line of a composition that is about to be promoted; ``at`` is a moment in UTC."""
    moment, inputs = moment_of(at), dict(composition.fingerprint.inputs)
    patches = [topic.name for topic in composition.included if topic.kind is Kind.PATCH]
    return LedgerLine(
        night=night,
        lane=composition.lane,
        at=moment,
        base=composition.base.name,
        base_commit=composition.base.commit,
        composition=composition.commit,
        tree=composition.tree,
        fingerprint=composition.fingerprint.digest,
        included=tuple((topic.name, topic.head) for topic in composition.included),
        left_out=tuple((item.name, item.reason.value) for item in composition.left_out),
        channels=tuple(channels),
        tag=dated_tag(composition.lane, moment, composition.tree),
        image=image,
        upstream=upstream,
        stack=stack,
        optional=tuple(topic.name for topic in composition.included if topic.kind is Kind.PATCH and not topic.required),
        lost=tuple(lost),
        onto=composition.hotfix.onto if composition.hotfix else "",
        bars=tuple(bars),
        patches=tuple((slug, inputs[f"patch {slug}"]) for slug in patches if f"patch {slug}" in inputs),
    )


def moment_of(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%SZ}"


def repeat_line(
    line: LedgerLine,
    action: Action,
    night: str,
    at: datetime,
    *,
    because: str = "",
    to: str = "",
    bars: Sequence[Bar] = (),
    releases: Sequence[str] = (),
) -> LedgerLine:
    """The line of something other than a night, with the content of ``line``."""
    moment = moment_of(at)
    return replace(
        line,
        action=action,
        night=night,
        at=moment,
        tag=dated_tag(line.lane, moment, line.tree),
        lost=(),
        onto="",
        to=to,
        because=because,
        bars=tuple(bars),
        releases=tuple(releases),
    )


_TITLES = {
    Action.NIGHT: "{lane} night {night}: {topics} on {base}",
    Action.ROLLBACK: "{lane} rollback {night}: back to {to}",
    Action.HOLD: "{lane} hold {night}: nights are tested and not promoted",
    Action.RELEASE: "{lane} release {night}: {released}",
}


def format_message(line: LedgerLine) -> str:
    """The message of a commit on deploy: what it holds, for `git log`, and the line as its only trailer."""
    listing = [f"  {name} {head[:12]}" for name, head in line.included] or ["  nothing"]
    if line.left_out:
        listing += ["Left out:", *(f"  {name}: {reason}" for name, reason in line.left_out)]
    return "\n".join(
        [
            _TITLES[line.action].format(
                lane=line.lane,
                night=line.night,
                topics=_topics(len(line.included)),
                base=line.base,
                to=line.to,
                released=", ".join(line.releases) or "the hold is over",
            ),
            "",
            *([f"Hotfix onto: {line.onto}"] if line.onto else []),
            *([f"Because: {line.because}"] if line.because else []),
            *(f"Barred: {bar.name} {bar.value[:12]}" for bar in line.bars),
            f"Base: {line.base_commit[:12]}",
            *([f"Image: {line.image.repository}@{line.image.digest}"] if line.image else []),
            "Included:",
            *listing,
            "",
            f"{TRAILER}: {trailer_of(line)}",
            "",
        ]
    )


def trailer_of(line: LedgerLine) -> str:
    """What `parse_trailer` reads."""
    from pydantic import TypeAdapter

    body = {"schema_version": SCHEMA_VERSION, **TypeAdapter(LedgerLine).dump_python(line, mode="json")}
    return json.dumps(body, separators=(",", ":"))


def _topics(number: int) -> str:
    return "1 topic" if number == 1 else f"{number} topics"


def parse_trailer(text: str, commit: str) -> LedgerLine | None:
    """The line in a trailer's value, or None when it is none; `RemoteError` when a newer patchstack wrote it.

    What reads is safe to show and to make commands of: its names and reasons are printable and of one line, its ids
    are ids. An action has the fields that are its own and no others.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        body = json.loads(text)
        version = body.pop("schema_version")
        if type(version) is not int or version < SCHEMA_VERSION:
            return None
        if version > SCHEMA_VERSION:
            raise RemoteError(
                f"commit {commit} was promoted by a newer patchstack (ledger schema {version}, this one reads "
                f"{SCHEMA_VERSION}); update patchstack and run again"
            )
        line = TypeAdapter(LedgerLine).validate_python(body)
        sound = _has_ids(line) and _has_names(line) and _is_consistent(line)
        sound = sound and datetime.fromisoformat(line.at).tzinfo is not None
        sound = sound and line.tag == dated_tag(line.lane, line.at, line.tree)
    except (ValueError, KeyError, AttributeError, TypeError, ValidationError, RecursionError):
        return None
    return line if sound else None


def _has_ids(line: LedgerLine) -> bool:
    stack = () if line.stack is None else (line.stack,)
    heads = [head for _, head in line.included] + [bar.value for bar in line.bars if bar.kind is Barring.HEAD]
    shas = (line.base_commit, line.composition, line.tree, *stack, *heads)
    return all(map(_SHA.fullmatch, shas)) and (line.image is None or _is_sound(line.image))


def _has_names(line: LedgerLine) -> bool:
    included = [name for name, _ in line.included]
    others = [name for name, _ in (*line.left_out, *line.lost, *line.patches)] + [bar.name for bar in line.bars]
    plans = [bar.value for bar in line.bars if bar.kind is Barring.PLAN]
    single = (line.night, line.lane, line.base, line.fingerprint, line.at)
    digests = [digest for _, digest in line.patches]
    names = (
        *single,
        *included,
        *others,
        *plans,
        *digests,
        *line.channels,
        *line.releases,
        *filter(None, (line.to, line.onto)),
    )
    words = (line.upstream, line.because, *(why for _, why in (*line.left_out, *line.lost)))
    return all(map(is_name, names)) and all(map(is_one_line, words)) and set(line.optional) <= set(included)


def _is_consistent(line: LedgerLine) -> bool:
    """Whether no field says what another action's would."""
    rollback, release = line.action is Action.ROLLBACK, line.action is Action.RELEASE
    if line.action is Action.NIGHT and line.because:
        return False
    if line.action is not Action.NIGHT and (line.lost or line.onto):
        return False
    if line.action is Action.NIGHT and any(bar.kind is not Barring.HEAD for bar in line.bars):
        return False
    barring = rollback or line.action is Action.NIGHT
    return bool(line.to) == rollback and (barring or not line.bars) and (release or not line.releases)


def is_name(text: str) -> bool:
    return 0 < len(text) <= LONGEST_NAME and text.isprintable()


def is_one_line(text: str) -> bool:
    """Whether it is printable, in one line; nothing at all is, too."""
    return len(text) <= LONGEST_WORDS and text.isprintable()


def _is_sound(image: LedgerImage) -> bool:
    names = zip(_IMAGE_NAMES, (image.repository, image.tag, image.runtime), strict=True)
    digests = (image.digest, image.dependencies)
    return all(map(_DIGEST.fullmatch, digests)) and all(form.fullmatch(name) for form, name in names)


def history(store: Repository, tip: str | None, lane: str) -> History:
    """The nights of ``lane`` that the branch at ``tip`` holds; ``tip`` and its history must be in ``store``.

    A branch that was begun from another lane's has that one's nights, holds and bars below: they are not its own.
    """
    if tip is None:
        return History(())
    entries = _entries(store, lane, "--first-parent", tip)
    newest = entries[0].commit if entries else None
    if tip != newest:
        _require_nothing_aside(store, lane, Sha(tip), newest, entries)
    found = History(tuple(entries))
    last = found.last
    ours = len(entries) if last is None else entries.index(last)
    above = (tip,) if last is None else (tip, f"^{last.commit}")
    foreign = int(store.run("rev-list", "--first-parent", "--count", *above, "--")) - ours
    return replace(found, foreign_on_top=foreign)


def _entries(store: Repository, lane: str, *walk: str) -> tuple[Entry, ...]:
    # Git's own trailer parser reads the line; --grep keeps a long history of somebody else's short.
    layout = f"--format=%H%x00%T%x00%P%x00%(trailers:key={TRAILER},valueonly,unfold,separator=%x01)"
    out = store.run("log", "-z", "--no-show-signature", f"--grep=^{TRAILER}: ", layout, *walk, "--")
    fields = out.removesuffix("\0").split("\0") if out else []
    entries = []
    for commit, tree, parents, trailer in zip(*[iter(fields)] * 4, strict=True):
        line = parse_trailer(trailer, commit)
        two = parents.split()
        if line is not None and line.lane == lane and line.tree == tree and two[1:] == [line.composition]:
            entries.append(Entry(Sha(commit), Sha(two[0]), line))
    return tuple(entries)


def _require_nothing_aside(
    store: Repository, lane: str, tip: Sha, newest: Sha | None, entries: Sequence[Entry]
) -> None:
    """`RemoteError` where a merge by hand has put entries aside: with them holds and bars would be lifted unseen.

    `git pull` on an older deploy makes such a merge, and its push is a fast-forward.
    """
    on_the_line = {entry.commit for entry in entries}
    walk = (tip, f"^{newest}") if newest else (tip,)
    aside = next((entry for entry in _entries(store, lane, *walk) if entry.commit not in on_the_line), None)
    if aside is not None:
        raise RemoteError(
            f"a merge by hand has {aside.line.action.value} {aside.line.night} ({aside.commit[:12]}) for its second "
            f"parent, so that the first-parent history of {lane} has lost it: check {aside.commit} out, "
            f"`git merge --no-ff {tip}`, and push that merge; nothing was moved"
        )
