"""Whom the login of a registry is shown to, tokens, TLS, and what nobody is told; a server of the test answers."""

from __future__ import annotations

import io
import json
import logging
import pickle
import ssl
import traceback
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.support.image_registry import LOGIN, PATH, Asked, Reply, Web
from tests.unit.image.asked_registry import (
    BEARER,
    IMAGE,
    SECRETS,
    SOON,
    Answers,
    asking,
    failure,
    failure_of,
    pages,
    said,
)

from patchstack.errors import ImageError
from patchstack.image.login import Login
from patchstack.image.names import Place
from patchstack.image.oci import MANIFEST, digest_of
from patchstack.image.registry import Registry

# --- whom the login is shown to ---


def demanding(demand: str, accepted: str, then: Answers) -> Answers:
    """Answers ``then`` to whom shows what is accepted, and else with a demand."""

    def answer(asked: Asked) -> Reply:
        if asked.headers.get("authorization") != accepted:
            return said(401, "UNAUTHORIZED", **{"WWW-Authenticate": demand})
        return then(asked)

    return answer


def test_a_login_is_shown_when_it_is_demanded_and_from_then_on() -> None:
    answer = demanding('Basic realm="test"', f"Basic {LOGIN.basic}", pages)
    with asking(answer, LOGIN) as (registry, web):
        registry.tags()
        shown = [asked.headers.get("authorization") for asked in web.asked]
        assert shown == [None, *[f"Basic {LOGIN.basic}"] * 4]


def test_nobody_asks_for_a_login_and_none_is_shown() -> None:
    with asking(pages, LOGIN) as (registry, web):
        registry.tags()
        assert not any("authorization" in asked.headers for asked in web.asked)


def test_a_login_of_another_library_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORAS_USER", "somebody")
    monkeypatch.setenv("ORAS_PASS", "else")
    answer = demanding('Basic realm="test"', "never", pages)
    with asking(answer) as (registry, web):
        assert "we have no login" in failure(registry.tags)
        assert not any("authorization" in asked.headers for asked in web.asked)


@pytest.mark.parametrize("status", [302, 303, 307, 308])
def test_a_blob_that_is_elsewhere_is_read_there_without_the_login(status: int) -> None:
    data = b"elsewhere"
    with Web(lambda _: Reply(body=data)) as other:
        answer = demanding(
            'Basic realm="test"',
            f"Basic {LOGIN.basic}",
            lambda _: Reply(status, {"Location": f"http://{other.host}/blob?signature=x"}),
        )
        with asking(answer, LOGIN) as (registry, web):
            assert registry.blob(digest_of(data), 100) == data
            assert "authorization" in web.asked[-1].headers
        assert [asked.target for asked in other.asked] == ["/blob?signature=x"]
        assert "authorization" not in other.asked[0].headers


def test_an_upload_elsewhere_goes_there_without_the_login() -> None:
    with Web(lambda _: Reply(201)) as other:

        def begin(asked: Asked) -> Reply:
            if asked.method == "HEAD":
                return said(404, "BLOB_UNKNOWN")
            return Reply(202, {"Location": f"http://{other.host}/upload"})

        with asking(demanding('Basic realm="test"', f"Basic {LOGIN.basic}", begin), LOGIN) as (registry, _):
            assert registry.push_blob(b"a", digest_of(b"a")) == 1
        assert "authorization" not in other.asked[0].headers


def test_no_proxy_is_between_us_and_this_machine_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    with asking(pages) as (registry, web), Web(lambda _: Reply(502)) as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://{proxy.host}")
        assert len(registry.tags()) == 9
        assert (len(web.asked), proxy.asked) == (4, [])


def test_what_is_written_is_not_sent_on() -> None:
    with Web(lambda _: Reply(201)) as other:
        with asking(lambda _: Reply(307, {"Location": f"http://{other.host}/"})) as (registry, _):
            assert "it answered 307" in failure(lambda: registry.push_manifest(IMAGE.manifest, MANIFEST))
            assert "it answered 307" in failure(lambda: registry.delete_manifest(IMAGE.digest))
        assert other.asked == []


def test_a_circle_ends() -> None:
    with asking(lambda asked: Reply(302, {"Location": asked.target})) as (registry, web):
        assert "more than 5 times" in failure(registry.tags)
        assert len(web.asked) == 6


# --- tokens ---


class Tokens:
    """A registry that takes one token at a time, and gives it out itself."""

    def __init__(self, *, answers: Reply | None = None, scheme: str = "http", refusal: int = 401) -> None:
        self.scheme = scheme
        self.current = ""
        self.given = 0
        self.answers = answers
        self.refusal = refusal

    def __call__(self, asked: Asked) -> Reply:
        if asked.path == "/token":
            if self.answers is not None:
                return self.answers
            assert asked.headers["authorization"] == f"Basic {LOGIN.basic}"
            self.given += 1
            self.current = f"{BEARER}-{self.given}"
            return Reply(body=json.dumps({"token": self.current}).encode())
        if asked.headers.get("authorization") != f"Bearer {self.current}" or not self.current:
            realm = f"{self.scheme}://{asked.headers['host']}/token"
            demand = f'Bearer realm="{realm}",service="s",scope="repository:{PATH}:pull"'
            return said(self.refusal, "UNAUTHORIZED", **{"WWW-Authenticate": demand})
        if asked.method in {"HEAD", "POST"}:
            return said(404, "BLOB_UNKNOWN") if asked.method == "HEAD" else Reply(202, {"Location": "/upload"})
        return Reply(201, body=b"") if asked.method == "PUT" else Reply(body=b'{"tags": ["a"]}')


def test_a_token_is_asked_for_with_the_login_and_kept() -> None:
    tokens = Tokens()
    with asking(tokens, LOGIN) as (registry, web):
        assert registry.tags() == registry.tags() == ("a",)
        assert tokens.given == 1
        shown = [asked.headers.get("authorization", "").partition(" ")[0] for asked in web.asked]
        assert shown == ["", "Basic", "Bearer", "Bearer"]


@pytest.mark.parametrize("status", [401, 403])
def test_a_token_that_is_too_old_or_for_less_is_exchanged(status: int) -> None:
    tokens = Tokens(refusal=status)
    with asking(tokens, LOGIN) as (registry, _):
        registry.tags()
        tokens.current = "another"
        assert registry.tags() == ("a",)
        assert tokens.given == 2


def test_a_token_that_gets_too_old_while_a_file_is_sent_does_not_cut_the_file(tmp_path: Path) -> None:
    tokens = Tokens()
    data = bytes(range(256)) * 10_000
    file = tmp_path / "blob"
    file.write_bytes(data)

    def answer(asked: Asked) -> Reply:
        if asked.method == "PUT" and tokens.given == 1:
            tokens.current = "another"
        return tokens(asked)

    with asking(answer, LOGIN) as (registry, web):
        assert registry.push_blob(file, digest_of(data)) == len(data)
        assert [asked.body == data for asked in web.asked if asked.method == "PUT"] == [True, True]
        assert registry.bytes_sent == 2 * len(data)


def test_a_login_that_the_token_server_does_not_take() -> None:
    with asking(Tokens(answers=said(401, "DENIED")), LOGIN) as (registry, web):
        assert failure(registry.tags) == (
            f"listing the tags: a token from http://{web.host}: it answered 401 and gave none; the login shown was "
            "that of 'ann' from the test: look whether its password is right, and whether it may do this"
        )


@pytest.mark.parametrize(
    "answers",
    [
        Reply(body=b"<html>"),
        Reply(body=b"[]"),
        Reply(body=b"null"),
        Reply(body=b"{}"),
        Reply(body=b'{"token": 1}'),
        Reply(body=b'{"token": "a\\r\\nb"}'),
        Reply(500),
        Reply(reset=True),
        Reply(body=b'{"token": "x"}', cut=True),
    ],
    ids=["page", "list", "null", "nothing", "number", "two lines", "500", "reset", "cut"],
)
@pytest.mark.parametrize("login", [LOGIN, None], ids=["login", "no login"])
def test_a_token_server_that_gives_something_else(answers: Reply, login: Login | None) -> None:
    with asking(Tokens(answers=answers), login) as (registry, _):
        assert failure(registry.tags).startswith("listing the tags: ")


@pytest.mark.parametrize("realm", ["", "/token", "{other}/token", "http://example.com/token", "http://["])
def test_a_password_goes_to_no_token_server_that_is_not_private(realm: str) -> None:
    with Web(lambda _: Reply(body=b'{"token": "x"}')) as other:
        answer = demanding(f'Bearer realm="{realm.format(other=other.host)}",service="s"', "never", pages)
        with asking(answer, LOGIN) as (registry, web):
            failure(registry.tags)
            assert [asked.headers.get("authorization") for asked in web.asked] == [None]
        assert other.asked == []


@pytest.mark.parametrize("demand", ["", "Negotiate", 'Digest realm="x"'])
def test_a_demand_that_is_for_something_else(demand: str) -> None:
    told = failure_of(demanding(demand, "never", pages), Registry.tags, LOGIN)
    assert told.startswith("listing the tags: it answered 401 UNAUTHORIZED")


# --- over TLS, as with every registry that is not on this machine itself ---


@pytest.fixture
def encrypted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Web], tuple[Place, Path]]:
    """Makes a server speak TLS, and this machine one that is not trusted without; its place, and its certificate."""
    monkeypatch.setattr("patchstack.image.names.is_loopback", lambda name: False)
    monkeypatch.setattr("patchstack.image.wire.is_loopback", lambda name: False)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    chain = tmp_path / "chain.pem"
    private = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    chain.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(serialization.Encoding.PEM, *private)
    )

    def encrypt(web: Web) -> tuple[Place, Path]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain)
        web.encrypt(context)
        return Place(f"localhost:{web.host.rpartition(':')[2]}", PATH), chain

    return encrypt


def test_a_certificate_that_nobody_knows_is_refused(encrypted: Callable[[Web], tuple[Place, Path]]) -> None:
    web = Web(pages)
    place, _ = encrypted(web)
    with web, Registry.at(place, LOGIN) as registry:
        assert "certificate verify failed" in failure(registry.tags)
        assert web.asked == []


def test_the_way_stays_encrypted(
    encrypted: Callable[[Web], tuple[Place, Path]], monkeypatch: pytest.MonkeyPatch, sealed: Path
) -> None:
    (sealed / ".netrc").write_text("machine localhost login netrc password netrc\n")
    replies = [
        pages,
        lambda _: Reply(302, {"Location": f"http://{plain.host}/"}),
        lambda _: said(401, "X", **{"WWW-Authenticate": f'Bearer realm="http://{plain.host}/token"'}),
    ]
    with Web(lambda _: Reply(body=b'{"tags": []}')) as plain:
        web = Web(lambda asked: replies[0](asked))
        place, authority = encrypted(web)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority))
        with web, Registry.at(place, LOGIN) as registry:
            assert len(registry.tags()) == 9
            for _ in range(2):
                replies.pop(0)
                assert f"http://{plain.host}, which is not encrypted" in failure(registry.tags)
            assert not any("authorization" in asked.headers for asked in web.asked)  # nor that of ~/.netrc
        assert plain.asked == []


def test_a_token_is_asked_for_with_our_login_and_no_other(
    encrypted: Callable[[Web], tuple[Place, Path]], monkeypatch: pytest.MonkeyPatch, sealed: Path
) -> None:
    (sealed / ".netrc").write_text("machine localhost login netrc password netrc\n")
    tokens = Tokens(scheme="https")
    web = Web(tokens)
    place, authority = encrypted(web)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority))
    with web, Registry.at(place, LOGIN) as registry:
        assert registry.tags() == ("a",)
        assert tokens.given == 1


# --- what nobody is told ---


@pytest.mark.parametrize("kind", ["basic", "token"])
def test_no_failure_tells_a_secret(
    kind: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither in its text, nor in what a traceback shows of variables, nor in what the libraries log."""
    caplog.set_level(logging.DEBUG)
    tokens = Tokens()

    def echo(asked: Asked) -> Reply:
        shown = asked.headers["authorization"]
        return said(500, "UNKNOWN", f"you sent {shown} {LOGIN.reveal()}")

    def answer(asked: Asked) -> Reply:
        if kind == "token" and (asked.path == "/token" or "Bearer" not in asked.headers.get("authorization", "")):
            return tokens(asked)
        if kind == "basic" and "authorization" not in asked.headers:
            return said(401, "UNAUTHORIZED", **{"WWW-Authenticate": 'Basic realm="x"'})
        return Reply(reset=True) if asked.method == "PUT" else echo(asked)

    acts: list[Callable[[Registry], object]] = [
        Registry.tags,
        lambda it: it.push_manifest(IMAGE.manifest, MANIFEST),
        lambda it: it.blob(IMAGE.digest, 3),
    ]
    told = ""
    with asking(answer, LOGIN) as (registry, _):
        for act in acts:
            with pytest.raises(ImageError) as caught:
                act(registry)
            shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
            told += str(caught.value) + "".join(shown.format()) + repr(registry)
        with pytest.raises(TypeError, match="not written down"):
            pickle.dumps(registry)
    told += caplog.text + "".join(capfd.readouterr())
    assert "***" in told
    assert not [secret for secret in (*SECRETS, BEARER) if secret in told]


def test_the_libraries_below_tell_nobody_anything() -> None:
    """Whoever configures the root logger would read what oras says, which is not written for him."""
    heard = io.StringIO()
    handler = logging.StreamHandler(heard)
    logging.getLogger().addHandler(handler)
    try:
        for answers in (said(401, "DENIED"), Reply(body=b"{}")):
            failure_of(Tokens(answers=answers), Registry.tags, LOGIN)
    finally:
        logging.getLogger().removeHandler(handler)
    assert heard.getvalue() == ""


def test_a_token_server_is_not_waited_for_without_end() -> None:
    with asking(Tokens(answers=Reply(hang=True)), LOGIN, SOON) as (registry, web):
        assert failure(registry.tags) == (
            f"listing the tags: a token from http://{web.host}: it did not answer in time; run again when it does"
        )
