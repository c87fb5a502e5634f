"""The remote of a lane, asked once: its branches, the dated tags, and the pull requests that it lists itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from patchstack.errors import RemoteError
from patchstack.model import Sha
from patchstack.release.ledger import tag_prefix
from patchstack.release.remote import RemoteState, ensure_embedded_remote, read_remote
from patchstack.workplace import Workplace


def list_remote(work: Workplace) -> Mapping[str, Sha]:
    """Every ref that a night reads, in one `ls-remote`; the embedded remote is made on first use.

    Raises `RemoteError` when it cannot be asked.
    """
    if work.embedded:
        ensure_embedded_remote(Path(work.remote), work.lane.branch)
    patterns = ["refs/heads/*", f"refs/tags/{tag_prefix(work.lane_name)}*"]
    if not work.asks_github:
        patterns.append("refs/pull/*/head")
    with naming_the_way_out(work):
        return work.store().ls_remote(work.remote, *patterns)


@contextmanager
def naming_the_way_out(work: Workplace) -> Iterator[None]:
    """Where the fork on GitHub cannot be read, its reader may have meant the remote of this machine."""
    try:
        yield
    except RemoteError as error:
        if work.on_github:
            raise RemoteError(f"{error}; was {work.state.remote_git} meant? use --local") from error
        raise


def open_remote(work: Workplace, listed: Mapping[str, Sha] | None = None) -> RemoteState:
    """What the remote holds of the lane: as ``listed`` says, or as it is now."""
    if listed is None:
        listed = list_remote(work)
    return read_remote(work.store(), work.remote, lane=work.lane_name, branch=work.lane.branch, listed=listed)
