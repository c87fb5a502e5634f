"""`/opt/patchstack/NIGHT.md`: what an image is, for whoever has only the image.

It is read on a terminal by `cat` at least as often as it is rendered, so that it has lists and no tables, and nothing
is cut off: there is no report beside it that would hold the rest.
"""

from __future__ import annotations

from collections.abc import Sequence

from patchstack.contents import Contents, Item, ItemLeftOut
from patchstack.model import Kind
from patchstack.report import words
from patchstack.report.markdown import render_page
from patchstack.report.page import Badge, Line, Link, Page, Part, Prose, Quoted, Section

PATCHES, PULLS, OTHERS = "Patches", "Pull requests", "Left out"
VERIFY, FILES, LICENSES = "How to verify it", "What else is here", "Licences"

NONE: Line = ("None.",)


def render_inside(contents: Contents) -> str:
    """NIGHT.md; equal contents give equal text."""
    return render_page(inside_page(contents))


def inside_page(contents: Contents) -> Page:
    return Page(
        ("SGLang ", Quoted(contents.release), " as lane ", Quoted(contents.lane), " runs it"),
        lead(contents),
        (*items(contents), *left_out(contents.left_out), _verify(contents), _files(), _licenses()),
    )


# --- what `explain` shows too --------------------------------------------------------------------------


def lead(contents: Contents) -> tuple[Line, ...]:
    """What it is, and from what."""
    patches, pulls = _of(contents, Kind.PATCH), _of(contents, Kind.PULL)
    return (
        (
            f"{words.count(len(patches), 'patch', 'patches')} and ",
            f"{words.count(len(pulls), 'pull request', 'pull requests')} on ",
            *(Quoted(contents.base), ", composed by ", Quoted(contents.fork), "."),
        ),
        (
            "Lane ",
            Quoted(contents.lane),
            ", runtime ",
            Quoted(contents.runtime),
            ", of ",
            Quoted(contents.created),
            ".",
        ),
        ("Composition: commit ", Quoted(contents.composition), ", tree ", Quoted(contents.tree), "."),
        ("Base: commit ", Quoted(contents.base_commit), ", tree ", Quoted(contents.base_tree), "."),
        (
            f"On {packages(contents)}, from recipe ",
            *(words.short(contents.recipe), ", image ", Quoted(contents.dependencies), "."),
        ),
    )


def packages(contents: Contents) -> str:
    """``205 Python and 93 Debian packages``; of somebody else's image they are not known."""
    kinds = [package.kind for package in contents.packages]
    if not kinds:
        return "packages that nobody has listed"
    return f"{kinds.count('python')} Python and {kinds.count('debian')} Debian packages"


def items(contents: Contents) -> tuple[Section, ...]:
    """What is in it, in the order in which it was merged."""
    patches, pulls = _of(contents, Kind.PATCH), _of(contents, Kind.PULL)
    off: Line = ("Each can be switched off where it is run: ", Quoted("docker run --env NAME=VALUE …"), ".")
    return (
        Section(PATCHES, (off,) if patches else (NONE,), items=tuple(map(_patch, patches))),
        Section(PULLS, () if pulls else (NONE,), items=tuple(map(_pull, pulls))),
    )


def left_out(those: Sequence[ItemLeftOut]) -> tuple[Section, ...]:
    """What is not in it, by what became of it, in the order of a night's report."""
    lines = [_left_out(item) for outcome in words.LEFT_OUT for item in those if item.outcome is outcome]
    return (Section(OTHERS, () if lines else (NONE,), items=tuple(lines)),)


def _of(contents: Contents, kind: Kind) -> list[Item]:
    return [item for item in contents.items if item.kind is kind]


def _patch(item: Item) -> Line:
    parts: list[Line] = [(Quoted(item.name), ": ", Quoted(item.title))]
    if item.kill_switch:
        parts.append(("off with ", Quoted(item.kill_switch)))
    if item.upstream_status:
        parts.append(("upstream: ", Quoted(item.upstream_status)))
    if item.requires:
        parts.append(("on ", *words.names_all(item.requires)))
    return (*words.joined(parts), "; commit ", words.short(item.head), ".")


def _pull(item: Item) -> Line:
    author: Line = (" by ", Quoted(item.author)) if item.author else ()
    return (name_of(item.name, item.url), ": ", Quoted(item.title), *author, "; head ", Quoted(item.head), ".")


def name_of(name: str, url: str) -> Part:
    return Link(name, url) if url.startswith("https://") else Quoted(name)


def _left_out(item: ItemLeftOut) -> Line:
    twins: Line = (" (", *words.names_all(item.twins), ")") if item.twins else ()
    detail: Line = (". ", Prose(item.detail)) if item.detail else (".",)
    return (Quoted(item.name), " ", Badge(_OUTCOMES[item.outcome]), ": ", item.reason.value, *twins, *detail)


_OUTCOMES = {outcome: title.lower() for outcome, (title, _) in words.LEFT_OUT.items()}


# --- what only the file says ---------------------------------------------------------------------------


def _verify(contents: Contents) -> Section:
    explain: Line = (
        *("In a checkout of ", Quoted(contents.fork), " run ", Quoted("patchstack explain IMAGE"), ": it compares "),
        "the image's labels with these files as the registry has them, and verifies the signed statement on the ",
        *("image's digest, where the lane has a key. ", Quoted("patchstack explain A..B"), " says what differs "),
        "between two images. This text alone proves nothing.",
    )
    return Section(VERIFY, (explain,))


def _files() -> Section:
    return Section(
        FILES,
        items=(
            (Quoted("contents.json"), ": all of this for programs."),
            (Quoted("sbom.cdx.json"), ": every package by name and version, and what was patched, as CycloneDX 1.6."),
            (Quoted("patches/"), ": each patch's page (symptom, cause, cure, when it can go) and its diff."),
        ),
    )


def _licenses() -> Section:
    ours = "SGLang and the patches are under the Apache License 2.0. "
    return Section(LICENSES, ((ours, "Each package has its own licence, which it carries with it."),))
