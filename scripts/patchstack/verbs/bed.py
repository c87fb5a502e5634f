"""`patchstack bed`: a lane's test bed and all that its nights download, and nothing of any pull request."""

from __future__ import annotations

from typing import TypedDict

from patchstack.patches.series import read_series
from patchstack.patches.topics import releases_to_compare
from patchstack.verbs.author import base_of, read_releases
from patchstack.verbs.trees import open_bed
from patchstack.workplace import Workplace


class MadeBed(TypedDict):
    """The verb's JSON."""

    base: str
    key: str
    """Equal for beds with equal packages."""
    python: str
    torch: str
    releases: list[str]
    """What is in the cache: the base's, then those that patches are compared with."""


def make_bed(work: Workplace) -> MadeBed:
    """Make what is not there yet. Raises what importing a release and making a bed raise."""
    store = work.store()
    base = base_of(work, store, work.lane_name)
    patches = read_series(work.patches_folder)
    compared = read_releases(work, store, releases_to_compare(patches, base.version))
    bed = open_bed(work, base)
    releases = list(dict.fromkeys([base.version, *compared]))
    return MadeBed(base=base.name, key=bed.key, python=str(bed.python), torch=bed.torch, releases=releases)
