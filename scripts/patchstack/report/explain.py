"""What is inside an image and how far that is verified, and how two images differ, as pages for a terminal.

The image stage's values are known here by their shape, as stages do not import each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from patchstack.contents import Contents
from patchstack.model import Kind, Reason, Sha
from patchstack.report import inside, words
from patchstack.report.page import Badge, Line, Page, Quoted, Section
from patchstack.report.terminal import page_text

VERIFICATION, VALUES, PACKAGES = "How far this is verified", "Made from", "Packages"
ROWS = 40

SAME: Line = ("Nothing differs: patches, pull requests, packages, base and recipe are the same.",)


class StatementView(Protocol):
    @property
    def key(self) -> str: ...
    @property
    def builder(self) -> str: ...


class ExplainedView(Protocol):
    """The image stage's `Explained`, as far as it is shown."""

    @property
    def repository(self) -> str: ...
    @property
    def digest(self) -> str: ...
    @property
    def contents(self) -> Contents: ...
    @property
    def layers(self) -> int: ...
    @property
    def size_bytes(self) -> int: ...
    @property
    def night_bytes(self) -> int: ...
    @property
    def compared(self) -> Sequence[str]: ...
    @property
    def not_compared(self) -> Sequence[str]: ...
    @property
    def signature(self) -> str: ...
    @property
    def statement(self) -> StatementView | None: ...


class ItemChangeView(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> Kind: ...
    @property
    def change(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def before(self) -> Sha | None: ...
    @property
    def after(self) -> Sha | None: ...
    @property
    def url(self) -> str: ...
    @property
    def kill_switch(self) -> str: ...
    @property
    def said(self) -> Sequence[str]: ...
    @property
    def why(self) -> Reason | None: ...


class PackageChangeView(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def before(self) -> Sequence[str]: ...
    @property
    def after(self) -> Sequence[str]: ...


class ValueChangeView(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def before(self) -> str: ...
    @property
    def after(self) -> str: ...


class DifferenceView(Protocol):
    """The image stage's `Difference`."""

    @property
    def a(self) -> str: ...
    @property
    def b(self) -> str: ...
    @property
    def values(self) -> Sequence[ValueChangeView]: ...
    @property
    def items(self) -> Sequence[ItemChangeView]: ...
    @property
    def packages(self) -> Sequence[PackageChangeView]: ...
    @property
    def is_empty(self) -> bool: ...


def render_explained(image: ExplainedView) -> str:
    return page_text(explained_page(image))


def render_difference(difference: DifferenceView) -> str:
    return page_text(difference_page(difference))


# --- one image -----------------------------------------------------------------------------------------


def explained_page(image: ExplainedView) -> Page:
    contents = image.contents
    title: Line = ("Image ", Quoted(f"{image.repository}@{image.digest}", whole=True))
    lead = (*inside.lead(contents), _size(image), _pull(image))
    parts = (_verification(image), *inside.items(contents), *inside.left_out(contents.left_out))
    return Page(title, lead, parts)


def megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size < 1e9 else f"{size / 1e9:.2f} GB"


def _size(image: ExplainedView) -> Line:
    layers = words.count(image.layers, "layer", "layers")
    ours = f"the last, with all that is ours, has {megabytes(image.night_bytes)}"
    return (f"{megabytes(image.size_bytes)} in {layers}; {ours}.",)


def _pull(image: ExplainedView) -> Line:
    if "/" not in image.repository:
        serve = Quoted("patchstack --local registry", whole=True)
        return ("It is in the registry of this machine: ", serve, " serves it, and says how to pull from there.")
    return ("Pull it: ", Quoted(f"podman pull {image.repository}@{image.digest}", whole=True))


_COMPARED = {
    "labels": "labels and annotations are those of the contents",
    "bill of materials": "the bill of materials lists the packages of the contents",
    "packages": "the packages are those that the dependency image lists",
    "layers": "the layers below the night's are those of the dependency image",
}
_NOT_COMPARED = {
    "packages": "the packages: the image below does not list its own",
    "layers": "the layers below the night's: the dependency image is not in this repository (any more)",
}


def _verification(image: ExplainedView) -> Section:
    good: list[Line] = [(Badge("verified"), ": ", _COMPARED[name]) for name in image.compared]
    bad: list[Line] = [(Badge("not verified"), ": ", _NOT_COMPARED[name]) for name in image.not_compared]
    unseen: Line = (
        *(
            Badge("not verified"),
            ": the files of SGLang itself. They are compared with the composition by the night's ",
        ),
        "image checks, before it is promoted",
    )
    signed = _signed(image)
    found = [signed, *good] if image.statement else [*good, signed]
    return Section(VERIFICATION, items=(*found, *bad, unseen))


def _signed(image: ExplainedView) -> Line:
    if image.statement is not None:
        statement = image.statement
        return (
            *(Badge("verified"), ": the statement on this digest is signed by ", Quoted(statement.key)),
            *(", for ", Quoted(statement.builder)),
        )
    if image.signature == "no key":
        there = "there is a signed statement, but no key to verify it with: name one with "
        return (Badge("not verified"), f": who made it: {there}", Quoted("--key"), " or in deploy.yaml")
    return (Badge("not verified"), ": who made it: it is not signed, and no key is configured")


# --- two images ----------------------------------------------------------------------------------------

_VALUES = {
    "fork": "fork",
    "lane": "lane",
    "runtime": "runtime",
    "base": "base",
    "base_tree": "base's tree",
    "tree": "composed tree",
    "recipe": "recipe",
    "dependencies": "dependency image",
}
_SAID = {
    "title": "title",
    "author": "author",
    "paths": "files",
    "url": "address",
    "requires": "what it requires",
    "kill_switch": "kill switch",
    "upstream_status": "upstream status",
}


def difference_page(difference: DifferenceView) -> Page:
    title: Line = ("From ", Quoted(difference.a, whole=True), " to ", Quoted(difference.b, whole=True))
    if difference.a == difference.b:
        return Page(title, (("It is one image.",),))
    if difference.is_empty:
        return Page(title, (SAME,))
    parts = [_values(difference.values)] if difference.values else []
    for name, kind in ((inside.PATCHES, Kind.PATCH), (inside.PULLS, Kind.PULL)):
        those = [item for item in difference.items if item.kind is kind]
        parts.append(Section(name, () if those else (("The same.",),), items=tuple(map(_item, those))))
    parts.append(_packages(difference.packages))
    return Page(title, (), tuple(parts))


def _values(values: Sequence[ValueChangeView]) -> Section:
    lines: list[Line] = [
        (f"{_VALUES[value.name]}: ", Quoted(value.before), " became ", Quoted(value.after)) for value in values
    ]
    return Section(VALUES, items=tuple(lines))


def _item(item: ItemChangeView) -> Line:
    name: Line = (inside.name_of(item.name, item.url), " ", Badge(item.change), ": ", Quoted(item.title))
    if item.before is None:
        switch: Line = (", off with ", Quoted(item.kill_switch)) if item.kill_switch else ()
        return (*name, "; head ", words.short(item.after), *switch)
    if item.after is None:
        why: Line = (": ", item.why.value) if item.why else ()
        return (*name, "; head was ", words.short(item.before), *why)
    if item.said:
        return (*name, "; the same head; changed: ", ", ".join(_SAID.get(one, one) for one in item.said))
    return (*name, "; head ", words.short(item.before), " became ", words.short(item.after))


def _packages(packages: Sequence[PackageChangeView]) -> Section:
    if not packages:
        return Section(PACKAGES, (("The same.",),))
    rest = len(packages) - ROWS
    more = f"{rest} more with --json" if rest > 0 else ""
    return Section(PACKAGES, items=tuple(map(_package, packages[:ROWS])), more=more)


def _package(package: PackageChangeView) -> Line:
    if not package.before:
        return (Quoted(package.name), " ", Badge("added"), ": ", *words.names_all(package.after))
    if not package.after:
        return (Quoted(package.name), " ", Badge("removed"), ": was ", *words.names_all(package.before))
    return (Quoted(package.name), ": ", *words.names_all(package.before), " became ", *words.names_all(package.after))
