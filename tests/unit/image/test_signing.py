"""Keys that are taken and keys that are not; envelopes that verify and envelopes that do not."""

from __future__ import annotations

import base64
import json
import pickle
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from patchstack.credential import SIGNING_KEY
from patchstack.errors import ImageError, UsageError
from patchstack.image.signing import Private, opened, public_key, read_public_key, signed_by, signer_of

from .fixed_image import ED25519, OTHER, P256, pem, public_of, public_pem, signer

TYPE = "application/vnd.in-toto+json"
P384 = ec.derive_private_key(4711, ec.SECP384R1())
RSA = rsa.generate_private_key(65537, 2048)
ENCRYPTED = ED25519.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")).decode()
KEYS = pytest.mark.parametrize("private", [ED25519, P256], ids=["ed25519", "p256"])


def _signed(private: Private, payload: bytes = b"payload") -> bytes:
    return signer(private).envelope(payload, TYPE)


# --- keys ---


def test_a_key_is_named_by_its_ssh_fingerprint() -> None:
    # As `ssh-keygen -lf` says of this key.
    assert public_of(ED25519).fingerprint == "SHA256:lbmsoA0yIEcEiVDRnMWuzm+nV+3ZEEpVIURqFoeSspg"


@KEYS
def test_a_public_key_is_read_from_its_file(private: Private, tmp_path: Path) -> None:
    path = tmp_path / "key.pub.pem"
    path.write_bytes(public_pem(private))

    assert read_public_key(path).fingerprint == public_of(private).fingerprint


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "is no public key: write an Ed25519 or an ECDSA P-256 key in PEM form there; a new pair is made by"),
        (b"\xff\x00", "is no public key"),
        (pem(ED25519).encode(), "is a private key: keep it secret, and write its public half there"),
        (ENCRYPTED.encode(), "is a private key"),
        (
            RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            "is a key of a kind that is not used here",
        ),
        (
            P384.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            "is a key of a kind that is not used here",
        ),
    ],
    ids=["empty", "no text", "private", "encrypted", "rsa", "p384"],
)
def test_what_is_no_public_key_is_refused_by_name(data: bytes, problem: str) -> None:
    with pytest.raises(UsageError, match=rf"^key\.pub\.pem {problem}"):
        public_key(data, "key.pub.pem")


def test_a_public_key_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"absent\.pem cannot be read: No such file or directory; a new pair is made"):
        read_public_key(tmp_path / "absent.pem")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is not set: put the private key into it as the text of its PEM file, or take public_key out of deploy"),
        ("  \n", "is not set"),
        ("secret words", "does not read as a private key: set it to an Ed25519 or an ECDSA P-256 key in PEM form"),
        (pem(ED25519)[:-30], "does not read as a private key"),
        (ENCRYPTED, "is encrypted, and nobody can be asked for its passphrase at night"),
        (public_pem(ED25519).decode(), "does not read as a private key"),
        (
            RSA.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
            "is a key of a kind that is not used here",
        ),
        (pem(OTHER), r"is the private key of another one \(SHA256:"),
        (pem(P256), r"is the private key of another one \(SHA256:"),
    ],
    ids=["absent", "blank", "no key", "cut", "encrypted", "public", "rsa", "another", "another kind"],
)
def test_a_private_key_that_is_not_the_other_half_is_refused_and_never_quoted(text: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem) as refused:
        signer_of({SIGNING_KEY: text}, public_of(ED25519))

    said = str(refused.value)
    assert SIGNING_KEY in said
    assert not [line for line in text.splitlines() if line.strip() and line in said]


def test_a_private_key_of_another_curve_is_refused() -> None:
    text = P384.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()

    with pytest.raises(UsageError, match="is a key of a kind that is not used here"):
        signer_of({SIGNING_KEY: text}, public_of(P256))


@KEYS
def test_a_signer_shows_its_key_to_nobody(private: Private) -> None:
    made = signer(private)

    assert repr(made) == f"Signer({public_of(private).fingerprint})"
    with pytest.raises(TypeError):
        pickle.dumps(made)


# --- envelopes ---


@KEYS
def test_what_is_signed_is_opened_by_the_other_half_alone(private: Private) -> None:
    envelope = _signed(private)

    assert opened(envelope, public_of(private), TYPE, "it") == b"payload"
    with pytest.raises(ImageError, match=r"^it is not signed by key\.pub\.pem \(SHA256:.*\): it is by SHA256:.*, or"):
        opened(envelope, public_of(OTHER), TYPE, "it")


def test_an_envelope_is_what_dsse_says() -> None:
    """https://github.com/secure-systems-lab/dsse/blob/master/protocol.md, verified by the library of the keys alone."""
    body = json.loads(_signed(ED25519))
    (signature,) = body["signatures"]

    assert body["payloadType"] == TYPE
    assert base64.b64decode(body["payload"]) == b"payload"
    assert signature["keyid"] == public_of(ED25519).fingerprint
    signed = b"DSSEv1 %d %b %d %b" % (len(TYPE), TYPE.encode(), 7, b"payload")
    ED25519.public_key().verify(base64.b64decode(signature["sig"]), signed)


def test_ed25519_signs_the_same_the_same() -> None:
    assert _signed(ED25519) == _signed(ED25519)


@KEYS
def test_the_name_of_a_key_in_an_envelope_is_a_hint_only(private: Private) -> None:
    body = json.loads(_signed(private))
    foreign = json.loads(_signed(OTHER))["signatures"][0]
    unnamed = {"sig": body["signatures"][0]["sig"]}
    for signatures in ([unnamed], [{**unnamed, "keyid": "other"}], [foreign, unnamed], [unnamed, foreign]):
        envelope = json.dumps({**body, "signatures": signatures}).encode()

        assert opened(envelope, public_of(private), TYPE, "it") == b"payload"


def test_a_foreign_signature_under_our_keys_name_does_not_count() -> None:
    body = json.loads(_signed(OTHER))
    body["signatures"][0]["keyid"] = public_of(ED25519).fingerprint

    with pytest.raises(ImageError, match="is not signed by"):
        opened(json.dumps(body).encode(), public_of(ED25519), TYPE, "it")


def _changed(**change: object) -> bytes:
    return json.dumps({**json.loads(_signed(ED25519)), **change}).encode()


@pytest.mark.parametrize(
    ("envelope", "problem"),
    [
        (_changed(payload=base64.b64encode(b"another").decode()), "is not signed by"),
        (_changed(payloadType="text/plain"), "is not signed by"),
        (_changed(signatures=[]), "is not signed by .* it is by no key that it names"),
        (_changed(signatures=[{"keyid": "x"}]), "does not read"),
        (_changed(signatures={}), "is not signed by"),
        (_changed(signatures=None), "does not read"),
        (_changed(payload=7), "does not read"),
        (_changed(payloadType=7), "does not read"),
        (b"", "does not read"),
        (b"[]", "does not read"),
        (b"\xff", "does not read"),
        (b"[" * 100_000, "does not read"),
        (signer(ED25519).envelope(b"payload", "text/plain"), "is signed, but is of type 'text/plain', not"),
    ],
    ids=[
        "payload",
        "type",
        "no signature",
        "no bytes",
        "a mapping",
        "none",
        "number",
        "type is a number",
        "empty",
        "list",
        "no text",
        "deep",
        "another type",
    ],
)
def test_any_change_is_seen(envelope: bytes, problem: str) -> None:
    with pytest.raises(ImageError, match=problem):
        opened(envelope, public_of(ED25519), TYPE, "it")


def test_who_says_to_have_signed_can_be_told_without_a_key() -> None:
    assert signed_by(_signed(OTHER), "it") == (public_of(OTHER).fingerprint,)
    with pytest.raises(ImageError, match="does not read"):
        signed_by(b"{}", "it")
