"""What is merged tonight, in which order, and what the night was made of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

from patchstack.model import Base, Candidates, Deduped, Fingerprint, Kind, MergePlan


def plan(deduped: Deduped, *, lane: str, base: Base, fingerprint: Fingerprint) -> MergePlan:
    """Merge what was kept: patches in series order, then pull requests by number."""
    return MergePlan(lane, base, deduped.kept, deduped.left_out, fingerprint)


def fingerprint(
    candidates: Candidates,
    *,
    lane: str,
    git_version: Sequence[int],
    patchstack_version: str,
    patches: Mapping[str, str],
    skips: Mapping[int, str],
    protected: Sequence[str],
    inputs: Mapping[str, str],
) -> Fingerprint:
    """Name all that decides what a night is; equal inputs give an equal digest.

    ``patches`` is the series in order, each slug with the digest of its header and diffs; ``inputs`` are
    further ones by name (guards, locks, configuration), each with its digest. A pull request counts with its
    head alone, also when it is left out: a new head may merge where the old one did not. Its title does not
    count, nor does the reason for a skip.
    """
    base = candidates.base
    on = {topic.name for topic in candidates.topics if topic.kind is Kind.PATCH}
    off = {item.name: item.reason for item in candidates.left_out if item.kind is Kind.PATCH}
    heads: list[tuple[str, str]] = [(topic.name, topic.head) for topic in candidates.topics if topic.kind is Kind.PULL]
    heads += [(item.name, item.head or "") for item in candidates.left_out if item.kind is Kind.PULL]
    named = {
        "lane": lane,
        "base": f"{base.name} {base.tree}",
        "natives": _digest(sorted((n.python, n.platform, n.filename, n.sha256) for n in base.natives)),
        "git": ".".join(map(str, git_version)),
        "patchstack": patchstack_version,
        "series": " ".join(patches),
        **{
            f"patch {slug}": digest if slug in on else f"{digest} ({off.get(slug, 'not here')})"
            for slug, digest in patches.items()
        },
        **{f"pull request {name}": head for name, head in sorted(heads)},
        "skipped": " ".join(f"#{number}" for number in sorted(skips)),
        "protected": " ".join(protected),
        **{f"input {name}": value for name, value in inputs.items()},
    }
    pairs = tuple(sorted(named.items()))
    return Fingerprint(_digest(pairs), pairs)


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, separators=(",", ":")).encode()).hexdigest()
