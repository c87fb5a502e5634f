"""The contents of the fixed night's image, and keys to sign statements with."""

from __future__ import annotations

from datetime import UTC, datetime

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from tests.unit.report.fixed_night import COMPOSITION

from patchstack.contents import Package
from patchstack.credential import SIGNING_KEY
from patchstack.image.contents import PatchSource, contents_of
from patchstack.image.signing import Private, PublicKey, Signer, public_key, signer_of

SOURCES = (
    PatchSource(
        "ib-device-map",
        "SGLANG_IB_DEVICE_MAP=0",
        "Backport [0.5.13]",
        (("patch.md", b"page\n"), ("0.5.12.post1..0.5.12.post1.patch", b"diff\n")),
    ),
    PatchSource(
        "zmq-locked-sends",
        "SGLANG_ZMQ_LOCKED_SENDS=0",
        "Submitted [https://github.com/sgl-project/sglang/pull/9]",
        (("patch.md", b"page\n"),),
    ),
    PatchSource("pd-transfer-parking", "SGLANG_PARKING=0", "Pending [unread]", (("patch.md", b"left out\n"),)),
)
PACKAGES = (
    Package("python", "torch", "2.9.1+cpu"),
    Package("debian", "libc6", "2.36-9+deb12u10"),
    Package("python", "numpy", "2.3.5"),
)
RECIPE = "1" * 64
DEPENDENCIES = f"sha256:{'b' * 64}"
DIGEST = f"sha256:{'a' * 64}"
REPOSITORY = "registry.example.com/acme/sglang"
DEPENDENCY_NAME = f"{REPOSITORY}:deps-cpu-{'1' * 16}"

CONTENTS = contents_of(
    COMPOSITION,
    SOURCES,
    fork="Acme/sglang",
    runtime="cpu",
    recipe=RECIPE,
    dependencies=DEPENDENCIES,
    packages=PACKAGES,
    created=datetime(2026, 11, 20, 18, 30, tzinfo=UTC),
)


def pem(private: Private) -> str:
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def public_pem(private: Private) -> bytes:
    return private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def public_of(private: Private, source: str = "key.pub.pem") -> PublicKey:
    return public_key(public_pem(private), source)


def signer(private: Private) -> Signer:
    return signer_of({SIGNING_KEY: pem(private)}, public_of(private))


# The same ones each time, so that a signature by the first is the same, too.
ED25519 = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
P256 = ec.derive_private_key(4711, ec.SECP256R1())
