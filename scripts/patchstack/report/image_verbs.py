"""What `image`, `registry` and `retire` print."""

from __future__ import annotations

from collections.abc import Sequence

from patchstack.model import ImageResult
from patchstack.report.image_words import made, pulled, why_not
from patchstack.report.page import Page
from patchstack.report.terminal import page_text


def render_image(result: ImageResult) -> str:
    """What became of a run's image."""
    lead = (pulled(result.image), made(result.image)) if result.image else (why_not(result),)
    return page_text(Page(("Image",), lead, ()))


def render_retired(gone: Sequence[tuple[tuple[str, ...], str]], *, dry_run: bool) -> str:
    """``gone``: the tags of each thing that goes, and why."""
    if not gone:
        return "nothing to delete: all that the registry has is needed"
    verb = "would be deleted" if dry_run else "deleted"
    return "\n".join(f"{', '.join(tags)}: {verb}: {why}" for tags, why in gone)


def how_to_pull(repository: str, tags: Sequence[str]) -> str:
    """``repository`` with its host; ``tags`` are what is worth pulling from it."""
    lead = f"{repository} is served until Ctrl-C, on this machine alone."
    if not tags:
        return f"{lead} It holds no image yet: run `patchstack nightly --local`"
    return "\n".join([lead, *(f"  podman pull --tls-verify=false {repository}:{tag}" for tag in tags)])
