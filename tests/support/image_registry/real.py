"""The real thing: ``docker-registry`` with a file of users, and ``skopeo``, which others wrote, to look at it."""

from __future__ import annotations

import ctypes
import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from patchstack import process
from patchstack.image import embedded
from patchstack.image.login import Login, authfile
from patchstack.image.names import Place

LOGIN = Login("ann", "canary-0123456789", "the test")
PATH = "acme/sglang"
"""How the repository is called."""

_BCRYPT_LETTERS = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


@contextmanager
def registry(folder: Path, *, login: Login | None = None, path: str = PATH) -> Iterator[Place]:
    """A registry with its data in ``folder``; with a ``login``, nobody else gets in."""
    configured = embedded.configuration(folder)
    if login is not None:
        folder.mkdir(parents=True, exist_ok=True)
        users = folder / "htpasswd"
        users.write_text(f"{login.user}:{bcrypt(login.reveal())}\n")
        configured["auth"] = {"htpasswd": {"realm": "test", "path": str(users)}}
    with embedded.run(folder, configured) as host:
        yield Place(host, path)


def skopeo(*arguments: str, place: Place | None = None, login: Login | None = None) -> Any:
    """What ``skopeo`` prints as JSON; with a ``login`` for the registry of ``place``."""
    with authfile(login, place.host if place else "nowhere") as file:
        verb, *rest = arguments
        argv = ["skopeo", verb, "--authfile", str(file), *_unencrypted(verb), *rest]
        said = process.run(argv, timeout_s=120).stdout
    return json.loads(said) if said.lstrip().startswith(("{", "[")) else said


def _unencrypted(verb: str) -> tuple[str, ...]:
    if verb == "copy":
        return ("--src-tls-verify=false", "--dest-tls-verify=false")
    return ("--tls-verify=false",)


def bcrypt(password: str) -> str:
    """A password as htpasswd keeps it: by the C library's own crypt(3), with few rounds."""
    library = ctypes.CDLL("libcrypt.so.1")
    library.crypt.restype = ctypes.c_char_p
    salt = "".join(secrets.choice(_BCRYPT_LETTERS) for _ in range(21)) + "."
    hashed = library.crypt(password.encode(), f"$2b$04${salt}".encode())
    assert hashed is not None
    assert hashed.startswith(b"$2b$"), "this C library knows no bcrypt"
    return str(hashed.decode())
