"""What is merged tonight, in which order, and what the night was made of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

from patchstack.compose.left_out import because
from patchstack.model import Base, Candidates, Deduped, Fingerprint, Kind, LeftOut, MergePlan, Reason, Topic

JUDGED_BY_CONTENT = frozenset(
    {
        Reason.HEAD_MISSING,
        Reason.CONTAINS_DEPLOY,
        Reason.NO_COMMON_HISTORY,
        Reason.EMPTY,
        Reason.PROTECTED_PATH,
        Reason.BUILD_FILES,
        Reason.NOT_CARRIED,
        Reason.CONFLICT,
        Reason.UNUSABLE_NAME,
        Reason.TOO_LARGE,
    }
)
"""Why a pull request is left out that was wanted and read: another head of it may be merged.

What is left out for any other reason before dedup changes no night: whoever opens, pushes or renames one of
those must not be able to start a night.
"""


def plan(deduped: Deduped, *, lane: str, base: Base, fingerprint: Fingerprint) -> MergePlan:
    """Merge what was kept, in its order: patches, the fork's pull requests, those of other repositories."""
    return MergePlan(lane, base, deduped.kept, deduped.left_out, fingerprint)


def fingerprint(
    candidates: Candidates,
    *,
    lane: str,
    git_version: Sequence[int],
    patchstack_version: str,
    patches: Mapping[str, str],
    skips: Mapping[str, str],
    protected: Sequence[str],
    inputs: Mapping[str, str],
) -> Fingerprint:
    """Name all that decides what a night is; equal inputs give an equal digest.

    ``patches`` is the series in order, each slug with the digest of its header and diffs; ``inputs`` are
    further ones by name (guards, locks, configuration), each with its digest. A pull request counts with the
    head that is to be merged, also when that is left out for what is in it: a new head may merge where the old
    one did not. A blocked or barred one counts, for it bars others. One that is skipped, waits, is gone or is no
    candidate does not; nor does a title, a newer head, or the reason for a skip.
    """
    base = candidates.base
    off = {item.name: item.reason.value for item in candidates.left_out if item.kind is Kind.PATCH}
    judged: list[Topic | LeftOut] = [*candidates.topics]
    judged += [item for item in candidates.left_out if item.reason in JUDGED_BY_CONTENT]
    heads = {
        item.name: item.head or "" for item in judged if item.kind is Kind.PULL and because(skips, item.name) is None
    }
    heads |= {pull.name: f"{pull.head} (blocked)" for pull in candidates.blocked if not pull.barred_by}
    barred = {f"barred {pull.name} {pull.head}": "" for pull in candidates.blocked if pull.barred_by}
    named = {
        "lane": lane,
        "base": f"{base.name} {base.tree}",
        "natives": _digest(sorted((n.python, n.platform, n.filename, n.sha256) for n in base.natives)),
        "git": ".".join(map(str, git_version)),
        **{f"left out {slug}": reason for slug, reason in off.items()},
        **{f"pull request {name}": head for name, head in heads.items()},
        **barred,
        **inputs_here(patchstack_version, patches, skips, protected, inputs),
    }
    return fingerprint_of(named)


def fingerprint_of(named: Mapping[str, str]) -> Fingerprint:
    """The inputs by their names, and what names them all."""
    pairs = tuple(sorted(named.items()))
    return Fingerprint(_digest(pairs), pairs)


def inputs_here(
    patchstack_version: str,
    patches: Mapping[str, str],
    skips: Mapping[str, str],
    protected: Sequence[str],
    inputs: Mapping[str, str],
) -> dict[str, str]:
    """Those inputs of a fingerprint that are read from this repository, and can be read again; by their names there."""
    return {
        "patchstack": patchstack_version,
        "series": " ".join(patches),
        **{f"patch {slug}": digest for slug, digest in patches.items()},
        "skipped": " ".join(sorted(skips)),
        "protected": " ".join(sorted(protected)),
        **{f"input {name}": value for name, value in inputs.items()},
    }


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, separators=(",", ":")).encode()).hexdigest()
