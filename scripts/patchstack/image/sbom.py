"""The bill of materials of an image, in CycloneDX 1.6: what is in it, from whom, and what was changed.

https://cyclonedx.org/docs/1.6/json/. It holds what the contents say and no more: equal contents, equal bytes.
"""

from __future__ import annotations

import re
import uuid
from contextlib import suppress
from datetime import datetime

from cyclonedx.exception.model import InvalidUriException
from cyclonedx.model import ExternalReference, ExternalReferenceType, XsUri
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Commit, Component, ComponentType, Diff, Patch, PatchClassification, Pedigree
from cyclonedx.model.issue import IssueClassification, IssueType
from cyclonedx.model.license import DisjunctiveLicense
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL

from patchstack.contents import Contents, Item, Package
from patchstack.image.contents import LICENSE, PATCHES, version_of
from patchstack.model import Kind

_NAMESPACE = uuid.UUID("9b6d1c7a-3f0e-5c52-8a41-6d2f5e0b7c93")
"""Ours: serial numbers are names within it (RFC 9562, version 5)."""
_VCS = ExternalReferenceType.VCS
_URL = re.compile(r"https://[^\s\[\]]+")


def sbom(contents: Contents) -> bytes:
    """CycloneDX JSON, indented, ending with a newline."""
    image = Component(
        name=contents.fork,
        version=version_of(contents),
        type=ComponentType.CONTAINER,
        bom_ref="image",
    )
    bom = Bom(
        serial_number=serial_number(contents),
        metadata=BomMetaData(component=image, timestamp=datetime.fromisoformat(contents.created)),
        components=[_sglang(contents), *(_package(package) for package in dict.fromkeys(contents.packages))],
    )
    bom.register_dependency(image, bom.components)
    text = make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string(indent=2)
    return f"{text}\n".encode()


def serial_number(contents: Contents) -> uuid.UUID:
    """The same for the same tree on the same dependencies."""
    return uuid.uuid5(_NAMESPACE, f"{contents.tree} {contents.dependencies} {contents.composition}")


def _sglang(contents: Contents) -> Component:
    """The composed SGLang: what it was made from, and what was done to that."""
    released = contents.base == f"sglang=={contents.release}"
    base = Component(
        name="sglang",
        version=contents.release,
        type=ComponentType.LIBRARY,
        bom_ref="base",
        purl=PackageURL("pypi", None, "sglang", contents.release) if released else None,
        external_references=[] if released else [ExternalReference(type=_VCS, url=uri) for uri in _uris(contents.base)],
    )
    owner, _, name = contents.fork.partition("/")
    return Component(
        name="sglang",
        version=version_of(contents),
        type=ComponentType.LIBRARY,
        bom_ref="sglang",
        purl=PackageURL("github", owner, name, contents.composition),
        licenses=[DisjunctiveLicense(id=LICENSE)],
        pedigree=Pedigree(
            ancestors=[base],
            commits=[Commit(uid=contents.composition)],
            patches=[_patch(item, contents.fork) for item in contents.items],
        ),
    )


def _patch(item: Item, fork: str) -> Patch:
    """What one patch or pull request changed, and where it can be read.

    The address of a patch is relative to the bill's own place in the image, so that it is read where this image
    has it, whatever becomes of the fork.
    """
    told_at = item.url if item.url.startswith("https://") else ""
    if item.kind is Kind.PATCH:
        read_at = f"{PATCHES}/{item.name}/"
    else:
        read_at = f"{told_at}.diff" if told_at else f"https://github.com/{fork}/commit/{item.head}.diff"
    about = IssueType(
        type=IssueClassification.DEFECT if item.kind is Kind.PATCH else IssueClassification.ENHANCEMENT,
        id=item.name,
        name=item.title or None,
        references=_uris(*([told_at] if told_at else _URL.findall(item.upstream_status))),
    )
    diffs = [Diff(url=uri) for uri in _uris(read_at)]
    return Patch(type=_classification(item), diff=diffs[0] if diffs else None, resolves=[about])


def _uris(*texts: str) -> list[XsUri]:
    """Those of ``texts`` that are addresses."""
    found = []
    for text in texts:
        with suppress(InvalidUriException):
            found.append(XsUri(text))
    return found


def _classification(item: Item) -> PatchClassification:
    if item.upstream_status.startswith("Backport"):
        return PatchClassification.BACKPORT
    # A pull request of another repository is named OWNER/NAME#NUMBER.
    return PatchClassification.CHERRY_PICK if "/" in item.name else PatchClassification.UNOFFICIAL


def _package(package: Package) -> Component:
    kind, namespace = ("deb", "debian") if package.kind == "debian" else ("pypi", None)
    purl = PackageURL(kind, namespace, package.name, package.version)
    return Component(
        name=package.name,
        version=package.version,
        type=ComponentType.LIBRARY,
        bom_ref=purl.to_string(),
        purl=purl,
    )
