"""A registry that takes tokens, and the server that gives them out, as the public registries have it.

https://distribution.github.io/distribution/spec/auth/jwt/ says what is in a token.
"""

from __future__ import annotations

import base64
import json
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from tests.support.image_registry.real import PATH
from tests.support.image_registry.web import Asked, Reply, Web

from patchstack.image import embedded
from patchstack.image.login import Login
from patchstack.image.names import Place

SERVICE, ISSUER = "registry", "tokens of the test"
LIFE_S = 300


class TokenServer:
    """Gives whoever shows the login a token for all that is asked for; anybody else one to pull with, if ``public``."""

    def __init__(self, login: Login, *, public: bool) -> None:
        self.login = login
        self.public = public
        self.tokens: list[str] = []
        """Those that it gave."""
        self.scopes: list[str] = []
        """What was asked for, by whomever."""
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.certificate = _certificate(self._key)
        self.web = Web(self._answer)

    def _answer(self, asked: Asked) -> Reply:
        shown = asked.headers.get("authorization")
        if shown is not None and shown != f"Basic {self.login.basic}":
            return Reply(401, {"Content-Type": "application/json"}, b'{"errors":[{"code":"UNAUTHORIZED"}]}')
        if shown is None and not self.public:
            return Reply(401, {"Content-Type": "application/json"}, b'{"errors":[{"code":"UNAUTHORIZED"}]}')
        scope = asked.query.get("scope", "")
        self.scopes.append(scope)
        token = self._token(scope, all_of_it=shown is not None)
        self.tokens.append(token)
        return Reply(200, {"Content-Type": "application/json"}, json.dumps({"token": token}).encode())

    def _token(self, scope: str, *, all_of_it: bool) -> str:
        now = int(time.time())
        access = []
        for part in scope.split():
            kind, name, actions = part.split(":")
            granted = actions.split(",") if all_of_it else [action for action in actions.split(",") if action == "pull"]
            access.append({"type": kind, "name": name, "actions": granted})
        claims = {
            "iss": ISSUER,
            "sub": self.login.user if all_of_it else "",
            "aud": SERVICE,
            "exp": now + LIFE_S,
            "nbf": now - 10,
            "iat": now - 10,
            "jti": secrets.token_hex(8),
            "access": access,
        }
        der = self.certificate.public_bytes(serialization.Encoding.DER)
        return jwt.encode(claims, self._key, "RS256", {"x5c": [base64.b64encode(der).decode()]})


@contextmanager
def token_registry(folder: Path, login: Login, *, public: bool = False) -> Iterator[tuple[Place, TokenServer]]:
    """A registry that asks for tokens of the server beside it."""
    server = TokenServer(login, public=public)
    folder.mkdir(parents=True, exist_ok=True)
    bundle = folder / "tokens.pem"
    bundle.write_bytes(server.certificate.public_bytes(serialization.Encoding.PEM))
    with server.web:
        realm = f"http://{server.web.host}/token"
        token = {"realm": realm, "service": SERVICE, "issuer": ISSUER, "rootcertbundle": str(bundle)}
        with embedded.run(folder, {**embedded.configuration(folder), "auth": {"token": token}}) as host:
            yield Place(host, PATH), server


def _certificate(key: rsa.RSAPrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, ISSUER)])
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
