"""Keys, and DSSE envelopes that are signed with them (https://github.com/secure-systems-lab/dsse).

A key is named by its SSH fingerprint, as `ssh-keygen -l` shows it: other readers of DSSE take no other name for a
key that they are given as a file.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import Error, VerificationError
from securesystemslib.signer import CryptoSigner, SSlibKey  # type: ignore[attr-defined]

from patchstack.credential import SIGNING_KEY
from patchstack.errors import ImageError, UsageError

Private = Ed25519PrivateKey | EllipticCurvePrivateKey
Public = Ed25519PublicKey | EllipticCurvePublicKey

ACCEPTED = "an Ed25519 or an ECDSA P-256 key in PEM form"
HOW_TO = "openssl genpkey -algorithm ed25519 -out key.pem && openssl pkey -in key.pem -pubout -out key.pub.pem"


@dataclass(frozen=True)
class PublicKey:
    """What a signature is verified with."""

    source: str
    """Where it is from, for a person."""
    key: SSlibKey

    @property
    def fingerprint(self) -> str:
        return self.key.keyid


class Signer:
    """A private key; nothing that prints it shows it."""

    def __init__(self, private: Private, public: PublicKey) -> None:
        self._signer = CryptoSigner(private, public.key)
        self.public = public

    def __repr__(self) -> str:
        return f"Signer({self.public.fingerprint})"

    def envelope(self, payload: bytes, payload_type: str) -> bytes:
        """``payload`` in an envelope that is signed, as JSON."""
        made = Envelope(payload, payload_type, {})
        made.sign(self._signer)
        return json.dumps(made.to_dict(), sort_keys=True, separators=(",", ":")).encode()


# --- keys ----------------------------------------------------------------------------------------------


def read_public_key(path: Path) -> PublicKey:
    """The key in the file at ``path``; `UsageError` when there is none that can be used."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"the public key {path} cannot be read: {error.strerror}; {_how_to()}") from error
    return public_key(data, str(path))


def public_key(pem: bytes, source: str) -> PublicKey:
    """The key in a PEM text; `UsageError` names ``source`` when it is none that can be used."""
    if b"PRIVATE KEY" in pem:
        raise UsageError(f"{source} is a private key: keep it secret, and write its public half there: {_how_to()}")
    try:
        loaded = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UsageError(f"{source} is no public key: write {ACCEPTED} there; {_how_to()}") from error
    if not isinstance(loaded, Public) or not _is_accepted(loaded):
        raise UsageError(f"{source} is a key of a kind that is not used here: write {ACCEPTED} there; {_how_to()}")
    return PublicKey(source, _named(loaded))


def signer_of(environment: Mapping[str, str], public: PublicKey) -> Signer:
    """The other half of ``public``, from the environment; `UsageError` where it is not there, or is not that."""
    pem = environment.get(SIGNING_KEY, "")
    wanted = f"images are signed with the other half of {public.source} ({public.fingerprint})"
    if not pem.strip():
        raise UsageError(
            f"{wanted}, and {SIGNING_KEY} is not set: put the private key into it as the text of its PEM file, or take "
            "public_key out of deploy.yaml"
        )
    private = _private_key(pem)
    found = _named(private.public_key())
    if found.keyval != public.key.keyval:
        raise UsageError(
            f"{wanted}, and {SIGNING_KEY} is the private key of another one ({found.keyid}): set the right one, or put "
            "its public half into the file"
        )
    return Signer(private, public)


def _private_key(pem: str) -> Private:
    # No message of the library is passed on: none may quote the key.
    problem = ""
    if "ENCRYPTED" in pem:
        problem = "is encrypted, and nobody can be asked for its passphrase at night: take that off"
    else:
        try:
            loaded = load_pem_private_key(pem.encode(), password=None)
            if isinstance(loaded, Private) and _is_accepted(loaded.public_key()):
                return loaded
            problem = f"is a key of a kind that is not used here: set it to {ACCEPTED}"
        except (ValueError, TypeError, UnsupportedAlgorithm):
            problem = f"does not read as a private key: set it to {ACCEPTED}, all of its lines"
    raise UsageError(f"{SIGNING_KEY} {problem}; {_how_to()}")


def _is_accepted(key: Public) -> bool:
    return isinstance(key, Ed25519PublicKey) or isinstance(key.curve, SECP256R1)


def _named(key: Public) -> SSlibKey:
    wire = base64.b64decode(key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).split()[1])
    fingerprint = base64.b64encode(hashlib.sha256(wire).digest()).decode().rstrip("=")
    return SSlibKey.from_crypto(key, keyid=f"SHA256:{fingerprint}")


def _how_to() -> str:
    return f"a new pair is made by `{HOW_TO}`"


# --- envelopes -----------------------------------------------------------------------------------------


def opened(envelope: bytes, key: PublicKey, payload_type: str, what: str) -> bytes:
    """The payload of an envelope that ``key`` has signed; `ImageError` names ``what`` for any other."""
    made = _parse(envelope, what)
    # A signature's name for its key is a hint, and not signed: whichever is valid counts, under any name.
    for signature in list(made.signatures.values()):
        signature.keyid = key.key.keyid
        try:
            Envelope(made.payload, made.payload_type, {key.key.keyid: signature}).verify([key.key], 1)
        except VerificationError:
            continue
        if made.payload_type != payload_type:
            raise ImageError(f"{what} is signed, but is of type {made.payload_type!r}, not {payload_type}")
        return made.payload
    named = ", ".join(_hints(envelope)) or "no key that it names"
    raise ImageError(
        f"{what} is not signed by {key.source} ({key.fingerprint}): it is by {named}, or was changed since"
    )


def signed_by(envelope: bytes, what: str) -> tuple[str, ...]:
    """Which keys an envelope says that it is signed by; nothing is verified."""
    _parse(envelope, what)
    return _hints(envelope)


def _hints(envelope: bytes) -> tuple[str, ...]:
    return tuple(str(one["keyid"]) for one in json.loads(envelope)["signatures"] if one.get("keyid"))


def _parse(envelope: bytes, what: str) -> Envelope:
    try:
        body: dict[str, Any] = json.loads(envelope)
        # The library holds signatures by the names of their keys, and wants one under each; the names may be missing.
        signatures = [{**one, "keyid": f"{number}"} for number, one in enumerate(body["signatures"])]
        if not isinstance(body["payloadType"], str):
            raise ValueError("its payload has no type")
        return Envelope.from_dict({**body, "signatures": signatures})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, Error) as error:
        raise ImageError(f"{what} is no signed envelope: it does not read") from error
