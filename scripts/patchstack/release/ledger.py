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
from dataclasses import dataclass
from datetime import datetime

from patchstack.errors import RemoteError
from patchstack.git import Repository
from patchstack.model import SCHEMA_VERSION, Composition, LedgerImage, LedgerLine, Sha

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


@dataclass(frozen=True)
class PromotedNight:
    """A night as the deploy branch holds it."""

    commit: Sha
    previous: Sha
    """Its first parent: the night before, the genesis commit, or the branch as it was before patchstack."""
    line: LedgerLine


@dataclass(frozen=True)
class History:
    """The nights of a branch, newest first."""

    nights: tuple[PromotedNight, ...]
    foreign_on_top: int = 0
    """First-parent commits above the newest night that no promotion made; all of them where there is no night."""

    @property
    def last(self) -> PromotedNight | None:
        return self.nights[0] if self.nights else None


def tag_prefix(lane: str) -> str:
    return "nightly-" if lane == PRODUCTION else f"{lane}-nightly-"


def dated_tag(lane: str, at: str, tree: str) -> str:
    """``nightly-YYYYMMDD-<tree7>``; the tags of lanes other than production begin with the lane's name."""
    return f"{tag_prefix(lane)}{datetime.fromisoformat(at):%Y%m%d}-{tree[:7]}"


def make_line(
    night: str, at: datetime, composition: Composition, channels: Sequence[str], image: LedgerImage | None = None
) -> LedgerLine:
    """The line of a composition that is about to be promoted; ``at`` is a moment in UTC."""
    moment = f"{at:%Y-%m-%dT%H:%M:%SZ}"
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
    )


def format_message(line: LedgerLine) -> str:
    """The message of a night's commit: what is in it, for `git log`, and the line as its only trailer."""
    from pydantic import TypeAdapter

    body = {"schema_version": SCHEMA_VERSION, **TypeAdapter(LedgerLine).dump_python(line, mode="json")}
    listing = [f"  {name} {head[:12]}" for name, head in line.included] or ["  nothing"]
    if line.left_out:
        listing += ["Left out:", *(f"  {name}: {reason}" for name, reason in line.left_out)]
    return "\n".join(
        [
            f"{line.lane} night {line.night}: {_topics(len(line.included))} on {line.base}",
            "",
            f"Base: {line.base_commit[:12]}",
            *([f"Image: {line.image.repository}@{line.image.digest}"] if line.image else []),
            "Included:",
            *listing,
            "",
            f"{TRAILER}: {json.dumps(body, separators=(',', ':'))}",
            "",
        ]
    )


def _topics(number: int) -> str:
    return "1 topic" if number == 1 else f"{number} topics"


def parse_trailer(text: str, commit: str) -> LedgerLine | None:
    """The line in a trailer's value, or None when it is none; `RemoteError` when a newer patchstack wrote it."""
    from pydantic import TypeAdapter, ValidationError

    try:
        body = json.loads(text)
        version = body.pop("schema_version")
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise RemoteError(
                f"commit {commit} was promoted by a newer patchstack (ledger schema {version}, this one reads "
                f"{SCHEMA_VERSION}); update patchstack and run again"
            )
        line = TypeAdapter(LedgerLine).validate_python(body)
        shas = (line.base_commit, line.composition, line.tree, *(head for _, head in line.included))
        dated = datetime.fromisoformat(line.at).tzinfo is not None
        named = all(map(_SHA.fullmatch, shas)) and (line.image is None or _is_sound(line.image))
        sound = dated and named and line.tag == dated_tag(line.lane, line.at, line.tree)
    except (ValueError, KeyError, AttributeError, TypeError, ValidationError):
        return None
    return line if sound and version == SCHEMA_VERSION else None


def _is_sound(image: LedgerImage) -> bool:
    names = zip(_IMAGE_NAMES, (image.repository, image.tag, image.runtime), strict=True)
    digests = (image.digest, image.dependencies)
    return all(map(_DIGEST.fullmatch, digests)) and all(form.fullmatch(name) for form, name in names)


def history(store: Repository, tip: str | None) -> History:
    """The nights that the branch at ``tip`` holds; ``tip`` and its history must be in ``store``."""
    if tip is None:
        return History(())
    # Git's own trailer parser reads the line; --grep keeps a long history of somebody else's short.
    layout = f"--format=%H%x00%T%x00%P%x00%(trailers:key={TRAILER},valueonly,unfold,separator=%x01)"
    out = store.run("log", "-z", "--first-parent", "--no-show-signature", f"--grep=^{TRAILER}: ", layout, tip, "--")
    fields = out.removesuffix("\0").split("\0") if out else []
    nights = []
    for commit, tree, parents, trailer in zip(*[iter(fields)] * 4, strict=True):
        line = parse_trailer(trailer, commit)
        two = parents.split()
        if line is not None and line.tree == tree and two[1:] == [line.composition]:
            nights.append(PromotedNight(Sha(commit), Sha(two[0]), line))
    above = (tip, f"^{nights[0].commit}") if nights else (tip,)
    foreign = int(store.run("rev-list", "--first-parent", "--count", *above, "--"))
    return History(tuple(nights), foreign)
