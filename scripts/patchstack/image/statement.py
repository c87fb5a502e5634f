"""The signed statement on an image: what it was made from, and by whom.

An in-toto Statement (https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md) with SLSA's provenance
for its predicate (https://slsa.dev/spec/v1.0/provenance), in a DSSE envelope. In the registry it is a small image of
one layer under a tag that is made from the image's digest, as cosign lays out attestations
(https://github.com/sigstore/cosign/blob/main/specs/ATTESTATION_SPEC.md). It tells of no run and no clock: a night that
is made again states the same.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from patchstack import __version__
from patchstack.contents import Contents, Item
from patchstack.errors import ImageError
from patchstack.image.contents import CONTENTS, contents_digest
from patchstack.image.names import statement_tag
from patchstack.image.oci import CONFIG, MANIFEST, Descriptor, Manifest, digest_of
from patchstack.image.registry import Registry
from patchstack.image.signing import PublicKey, Signer, opened
from patchstack.model import Kind

STATEMENT = "https://in-toto.io/Statement/v1"
PROVENANCE = "https://slsa.dev/provenance/v1"
PAYLOAD = "application/vnd.in-toto+json"
ENVELOPE = "application/vnd.dsse.envelope.v1+json"

MOST_BYTES = 4 << 20
"""An envelope's size: a statement names a few hundred commits at most."""
MOST_ENVELOPES = 32

_PREDICATE_TYPE = "predicateType"
_ANNOTATIONS = {"dev.cosignproject.cosign/signature": "", _PREDICATE_TYPE: PROVENANCE}


@dataclass(frozen=True)
class Verified:
    """A statement that a key has signed, and that is about the image in question."""

    key: str
    """The key's fingerprint."""
    image: str
    """The digest of the image that it is about."""
    contents: str
    """The digest of the image's contents.json, as it states."""
    lane: str
    builder: str
    """Who says that it was made there, with which version."""


# --- what is stated ------------------------------------------------------------------------------------


def statement(contents: Contents, repository: str, digest: str) -> bytes:
    """The statement on the image ``digest`` of ``repository``, as the bytes that are signed."""
    source = f"https://github.com/{contents.fork}"
    body = {
        "_type": STATEMENT,
        "subject": [{"name": repository, "digest": _hex(digest)}],
        "predicateType": PROVENANCE,
        "predicate": {
            "buildDefinition": {
                "buildType": f"{source}/patchstack/night@v1",
                "externalParameters": {
                    "lane": contents.lane,
                    "runtime": contents.runtime,
                    "base": contents.base,
                    "included": [{"name": item.name, "head": item.head} for item in contents.items],
                },
                "internalParameters": {"fingerprint": contents.fingerprint, "recipe": contents.recipe},
                "resolvedDependencies": [
                    {
                        "name": contents.base,
                        "uri": f"git+{source}",
                        "digest": {"gitCommit": contents.base_commit, "gitTree": contents.base_tree},
                    },
                    {"name": "dependencies", "uri": f"oci://{repository}", "digest": _hex(contents.dependencies)},
                    *(_resolved(item, source) for item in contents.items),
                ],
            },
            "runDetails": {
                "builder": {"id": source, "version": {"patchstack": __version__}},
                "byproducts": [
                    {"name": CONTENTS, "digest": _hex(contents_digest(contents))},
                    {
                        "name": "composition",
                        "uri": f"git+{source}",
                        "digest": {"gitCommit": contents.composition, "gitTree": contents.tree},
                    },
                ],
            },
        },
    }
    return json.dumps(body, sort_keys=True, separators=(",", ":")).encode()


def _resolved(item: Item, source: str) -> dict[str, Any]:
    uri = item.url if item.kind is Kind.PULL and item.url else f"git+{source}"
    return {"name": item.name, "uri": uri, "digest": {"gitCommit": item.head}}


def _hex(digest: str) -> dict[str, str]:
    kind, _, value = digest.partition(":")
    return {kind: value}


def verify(envelope: bytes, key: PublicKey, digest: str) -> Verified:
    """What ``envelope`` states of the image ``digest``; `ImageError` unless ``key`` signed it, and it is about that."""
    what = f"the statement on {digest}"
    payload = opened(envelope, key, PAYLOAD, what)
    try:
        body = json.loads(payload)
        if body["_type"] != STATEMENT or body["predicateType"] != PROVENANCE:
            raise ImageError(f"{what} is signed, but states something else: {body['predicateType']!r}")
        subjects = [subject["digest"]["sha256"] for subject in body["subject"]]
        definition, run = body["predicate"]["buildDefinition"], body["predicate"]["runDetails"]
        named = {one["name"]: one["digest"] for one in run["byproducts"]}
        lane, builder, version = definition["externalParameters"]["lane"], run["builder"]["id"], run["builder"]
        found = Verified(
            key=key.fingerprint,
            image=digest,
            contents=f"sha256:{named[CONTENTS]['sha256']}",
            lane=str(lane),
            builder=f"{builder}, patchstack {version['version']['patchstack']}",
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ImageError(f"{what} is signed, but does not read as a statement of patchstack: {error!r}") from error
    if subjects != [digest.removeprefix("sha256:")]:
        others = ", ".join(f"sha256:{subject}" for subject in subjects) or "nothing"
        raise ImageError(f"{what} is signed, but is about another image: {others}")
    return found


# --- in the registry -----------------------------------------------------------------------------------


def push_statement(registry: Registry, contents: Contents, repository: str, digest: str, signer: Signer) -> str:
    """Sign and push the statement on the image ``digest``, and return the digest of what holds it.

    ``repository`` is what the image is stated to be in. Statements of other signers on this image stay. Where ours is
    there already, and states the same, nothing is pushed: signatures by ECDSA differ each time.
    """
    payload = statement(contents, repository, digest)
    there = _manifest(registry, digest)
    others: list[Descriptor] = []
    for layer in there.layers if there else ():
        said = _said_by(signer.public, registry.blob(layer.digest, MOST_BYTES), digest) if _is_ours(layer) else None
        if there and said == payload:
            return there.digest
        if said is None:
            others.append(layer)
    envelope = signer.envelope(payload, PAYLOAD)
    mine = Descriptor(ENVELOPE, digest_of(envelope), len(envelope), tuple(_ANNOTATIONS.items()))
    layers = (*others, mine)
    config = _config(layers)
    registry.push_blob(envelope, mine.digest)
    registry.push_blob(config, digest_of(config))
    return registry.push_manifest(_encode(config, layers), MANIFEST, statement_tag(digest), move=True)


def read_statements(registry: Registry, digest: str) -> tuple[bytes, ...]:
    """The envelopes with provenance of the image ``digest``, newest first; none where it is not signed."""
    found = _manifest(registry, digest)
    if found is None:
        return ()
    return tuple(registry.blob(layer.digest, MOST_BYTES) for layer in reversed(found.layers) if _is_ours(layer))


def verified(envelopes: Sequence[bytes], key: PublicKey, digest: str) -> Verified:
    """The first statement that ``key`` has signed; `ImageError` of the first one where there is none.

    Who can write to the registry can put further ones beside ours, so that one which is wrong proves nothing.
    """
    problem: ImageError | None = None
    for envelope in envelopes:
        try:
            return verify(envelope, key, digest)
        except ImageError as error:
            problem = problem or error
    raise problem or ImageError(
        f"{digest} is not signed: there is no statement of {key.source} ({key.fingerprint}) on it"
    )


def _said_by(key: PublicKey, envelope: bytes, digest: str) -> bytes | None:
    """What ``key`` stated in an envelope about that image; None where that is somebody else's, or something else."""
    try:
        verify(envelope, key, digest)
        return opened(envelope, key, PAYLOAD, "it")
    except ImageError:
        return None


def _manifest(registry: Registry, digest: str) -> Manifest | None:
    there = registry.resolve(statement_tag(digest))
    if there is None:
        return None
    found = registry.manifest(there)
    if len(found.layers) > MOST_ENVELOPES:
        raise ImageError(
            f"{registry.place.name}:{statement_tag(digest)} holds {len(found.layers)} statements, more than are read: "
            "find out who wrote them, and delete it"
        )
    return found


def _is_ours(layer: Descriptor) -> bool:
    """Whether it says to be an envelope with provenance."""
    return layer.media_type == ENVELOPE and dict(layer.annotations).get(_PREDICATE_TYPE) == PROVENANCE


def _config(layers: Sequence[Descriptor]) -> bytes:
    """An image's configuration that says nothing, as cosign writes it for attestations."""
    body = {
        "architecture": "",
        "config": {},
        "created": "0001-01-01T00:00:00Z",
        "history": [{"created": "0001-01-01T00:00:00Z"} for _ in layers],
        "os": "",
        "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in layers]},
    }
    return json.dumps(body, sort_keys=True, separators=(",", ":")).encode()


def _encode(config: bytes, layers: Sequence[Descriptor]) -> bytes:
    body = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": Descriptor(CONFIG, digest_of(config), len(config)).encode(),
        "layers": [layer.encode() for layer in layers],
    }
    return json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
