"""A real registry, and everything that goes wrong on the way to it.

``docker-registry`` keeps what is pushed, with a file of users or a token server before it; a proxy makes things go
wrong; ``skopeo``, which others wrote, looks at what is there.
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import subprocess
import sys
import traceback
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from tests.support.image_registry import (
    LOGIN,
    PATH,
    Blobs,
    Fault,
    faulty,
    registry,
    skopeo,
    small_image,
    token_registry,
)

from patchstack import process
from patchstack.errors import ImageError
from patchstack.image import embedded
from patchstack.image.login import Login, login_for
from patchstack.image.names import Place
from patchstack.image.oci import LAYER_GZIP, MANIFEST, Descriptor, digest_of
from patchstack.image.registry import Registry
from patchstack.image.wire import Limits

IMAGE = small_image()
WRONG_DIGEST = f"sha256:{'0' * 64}"
ANOTHER = {"Docker-Content-Digest": WRONG_DIGEST}
SOON = Limits(connect_s=10, silence_s=3.0, finish_s=3.0)


@pytest.fixture(scope="module")
def place(sealed_module: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A registry that anybody may write to; each test has tags and images of its own in it."""
    with registry(tmp_path_factory.mktemp("registry")) as at:
        yield at


@pytest.fixture
def client(place: Place) -> Iterator[Registry]:
    with Registry.at(place) as it:
        yield it


def own_image(request: pytest.FixtureRequest) -> Blobs:
    """An image that no other test has pushed."""
    return small_image({"test": request.node.nodeid.encode()})


def refused(act: Callable[[], object]) -> str:
    with pytest.raises(ImageError) as caught:
        act()
    return str(caught.value)


def tags_at(place: Place, login: Login | None = None) -> dict[str, str | None]:
    """Every tag with its digest, asked for by a client that nothing happens to."""
    with Registry.at(place, login) as it:
        return {tag: it.resolve(tag) for tag in it.tags()}


# --- a whole round ---


def test_what_is_pushed_is_what_others_find(client: Registry, place: Place, request: pytest.FixtureRequest) -> None:
    image = own_image(request)
    assert client.resolve("round") is None
    assert image.push(client, "round") == client.resolve("round") == image.digest
    found = client.manifest("round")
    assert found.raw == image.manifest
    assert client.manifest(image.digest) == found
    assert client.blob(found.config.digest, 10_000) == image.config
    assert client.blob(found.layers[0].digest, 10_000) == image.layer
    name = f"docker://{place.name}:round"
    assert skopeo("inspect", name)["Digest"] == image.digest
    assert skopeo("inspect", "--raw", name) == json.loads(image.manifest)
    assert "round" in skopeo("list-tags", f"docker://{place.name}")["Tags"]


def test_what_is_there_is_not_sent_again(client: Registry, request: pytest.FixtureRequest) -> None:
    image = own_image(request)
    client.push_blob(IMAGE.config, digest_of(IMAGE.config))
    before = client.bytes_sent
    assert client.push_blob(image.layer, digest_of(image.layer)) == len(image.layer)
    assert client.push_blob(image.layer, digest_of(image.layer)) == 0
    assert client.push_blob(image.config, digest_of(image.config)) in {0, len(image.config)}
    sent = client.bytes_sent - before
    image.push(client)
    assert client.bytes_sent - before - sent == len(image.manifest)


def test_a_file_is_sent_and_fetched_piece_by_piece(client: Registry, tmp_path: Path) -> None:
    size = 48 << 20
    file, back = tmp_path / "blob", tmp_path / "back"
    with file.open("wb") as out:
        for number in range(size >> 20):
            out.write(bytes([number]) * (1 << 20))
    digest = digest_of(file.read_bytes())
    tracemalloc.start()
    try:
        assert client.push_blob(file, digest) == size
        client.fetch_blob(Descriptor(LAYER_GZIP, digest, size), back)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < size / 4
    assert digest_of(back.read_bytes()) == digest


def test_a_blob_that_is_not_what_it_is_called_is_not_kept(client: Registry, tmp_path: Path) -> None:
    file = tmp_path / "blob"
    file.write_bytes(b"not what its name says")
    assert "it answered 400 DIGEST_INVALID" in refused(lambda: client.push_blob(file, digest_of(b"something else")))
    assert not client.has_blob(digest_of(b"something else"))


def test_an_empty_blob(client: Registry) -> None:
    assert client.push_blob(b"", digest_of(b"")) == 0
    assert client.has_blob(digest_of(b""))
    assert client.blob(digest_of(b""), 0) == b""


def test_a_manifest_whose_blobs_are_not_there_is_refused(client: Registry, request: pytest.FixtureRequest) -> None:
    image = own_image(request)
    told = refused(lambda: client.push_manifest(image.manifest, MANIFEST, "no-blobs"))
    assert "it answered 400 MANIFEST_BLOB_UNKNOWN" in told
    assert client.resolve("no-blobs") is None


def test_a_blob_is_taken_over_from_another_repository(client: Registry, place: Place) -> None:
    data = b"in the other repository"
    with Registry.at(Place(place.host, "acme/other")) as other:
        other.push_blob(data, digest_of(data))
    assert not client.has_blob(digest_of(data))
    assert not client.mount_blob(digest_of(data), "acme/none")
    assert not client.has_blob(digest_of(data))
    before = client.bytes_sent
    assert client.mount_blob(digest_of(data), "acme/other")
    assert client.bytes_sent == before
    assert client.blob(digest_of(data), 100) == data


def test_a_layout_is_pushed_as_it_is(
    client: Registry, place: Place, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    image = own_image(request)
    image.push(client, "as-a-layout")
    skopeo("copy", f"docker://{place.name}:as-a-layout", f"oci:{tmp_path / 'layout'}")
    with Registry.at(Place(place.host, "acme/copy")) as copy:
        assert copy.push_layout(tmp_path / "layout", "copied") == image.digest
        sent = copy.bytes_sent
        assert copy.push_layout(tmp_path / "layout", "copied") == image.digest
        assert copy.bytes_sent == sent + len(image.manifest)
        assert copy.tags() == ("copied",)
    assert skopeo("inspect", f"docker://{place.host}/acme/copy:copied")["Digest"] == image.digest


def test_a_tag_names_what_it_was_given_to_and_nothing_else(client: Registry, request: pytest.FixtureRequest) -> None:
    first, second = own_image(request), small_image({"another": b"image"})
    first.push(client, "given")
    second.push(client)
    told = refused(lambda: client.tag(second.digest, "given"))
    assert f"that tag is of {first.digest} already" in told
    told = refused(lambda: second.push(client, "given"))
    assert client.resolve("given") == first.digest
    client.tag(second.digest, "given", move=True)
    assert client.resolve("given") == second.digest
    assert client.resolve(first.digest) == first.digest


def test_a_repository_that_is_not_there_has_no_tags(place: Place) -> None:
    with Registry.at(Place(place.host, "acme/never")) as it:
        assert it.tags() == ()
        assert it.resolve("nightly") is None
        assert "it is not there" in refused(lambda: it.manifest("nightly"))


def test_what_is_deleted_is_gone_with_its_tags_and_can_come_again(tmp_path: Path) -> None:
    kept = small_image({"kept": b"kept"})
    with registry(tmp_path / "registry") as at, Registry.at(at) as it:
        for image, tag in ((IMAGE, "one"), (IMAGE, "two"), (kept, "kept")):
            image.push(it, tag)
        it.delete_manifest(IMAGE.digest)
        assert it.tags() == ("kept",)
        assert it.resolve(IMAGE.digest) is None
        assert it.has_blob(digest_of(IMAGE.layer))
        assert "it answered 404 MANIFEST_UNKNOWN" in refused(lambda: it.delete_manifest(IMAGE.digest))
    embedded.collect_garbage(tmp_path / "registry")
    with registry(tmp_path / "registry") as at, Registry.at(at) as it:
        assert not it.has_blob(digest_of(IMAGE.layer))
        assert it.blob(digest_of(kept.layer), 10_000) == kept.layer
        assert IMAGE.push(it, "again") == IMAGE.digest
        assert it.blob(digest_of(IMAGE.layer), 10_000) == IMAGE.layer
        assert it.tags() == ("again", "kept")


# --- who gets in ---


@pytest.mark.parametrize(
    ("login", "told"),
    [
        (None, "we have no login for {host}: set PATCHSTACK_REGISTRY_USER and PATCHSTACK_REGISTRY_PASSWORD, or run"),
        (
            Login("ann", "wrong", "a file"),
            "the login shown was that of 'ann' from a file: look whether its password is",
        ),
        (Login("eve", LOGIN.reveal(), "a file"), "the login shown was that of 'eve' from a file"),
    ],
    ids=["nobody", "wrong password", "another user"],
)
def test_only_who_has_the_login_gets_in(tmp_path: Path, login: Login | None, told: str) -> None:
    with registry(tmp_path, login=LOGIN) as at:
        with Registry.at(at, LOGIN) as it:
            IMAGE.push(it, "mine")
            assert it.tags() == ("mine",)
        with Registry.at(at, login) as it:
            acts = (
                lambda: it.resolve("mine"),
                it.tags,
                lambda: IMAGE.push(it),
                lambda: it.delete_manifest(IMAGE.digest),
            )
            for act in acts:
                heard = refused(act)
                assert ": it answered 401" in heard
                assert told.format(host=at.host) in heard
        found = skopeo("inspect", f"docker://{at.name}:mine", place=at, login=LOGIN)
        assert found["Digest"] == IMAGE.digest
        assert tags_at(at, LOGIN) == {"mine": IMAGE.digest}


def test_tokens_are_for_what_is_done_with_them(tmp_path: Path) -> None:
    with token_registry(tmp_path, LOGIN) as (at, tokens):
        with Registry.at(at, LOGIN) as it:
            assert IMAGE.push(it, "mine") == IMAGE.digest
            assert it.tags() == ("mine",)
            asked = [(scope.rpartition(":")[0], set(scope.rpartition(":")[2].split(","))) for scope in tokens.scopes]
            assert asked == [(f"repository:{PATH}", {"pull"}), (f"repository:{PATH}", {"pull", "push"})]
            with Registry.at(replace(at, path="acme/other"), LOGIN) as other:
                IMAGE.push(other)
            assert it.mount_blob(digest_of(IMAGE.layer), "acme/other")
            it.delete_manifest(IMAGE.digest)
            assert it.tags() == ()
        for login in (None, Login("ann", "wrong", "a file")):
            with Registry.at(at, login) as it:
                heard = refused(it.tags)
                assert f"a token from http://{tokens.web.host}: it answered 401 and gave none; " in heard


def test_who_may_only_pull_only_pulls(tmp_path: Path) -> None:
    with token_registry(tmp_path, LOGIN, public=True) as (at, _):
        with Registry.at(at, LOGIN) as it:
            IMAGE.push(it, "public")
        with Registry.at(at) as it:
            assert it.resolve("public") == IMAGE.digest
            assert it.blob(digest_of(IMAGE.layer), 10_000) == IMAGE.layer
            for act in (lambda: it.push_blob(b"new", digest_of(b"new")), lambda: it.tag(IMAGE.digest, "mine")):
                heard = refused(act)
                assert "it answered 401 UNAUTHORIZED" in heard
                assert f"we have no login for {at.host}" in heard
        assert tags_at(at, LOGIN) == {"public": IMAGE.digest}


# --- lists ---


def test_a_list_of_many_pages(client: Registry, place: Place, request: pytest.FixtureRequest) -> None:
    image = own_image(request)
    image.push(client)
    wanted = {f"page-{number:02}" for number in range(11)}
    for tag in wanted:
        client.tag(image.digest, tag)
    with faulty(place) as proxy, Registry.at(proxy.place) as it:
        proxy.page_size = 3
        assert set(it.tags()) == set(client.tags()) >= wanted
        pages = proxy.count("GET", "*/tags/list")
        assert pages >= 4
        for nth in (1, 2, pages):
            proxy.mend()
            proxy.fail(Fault("GET", "*/tags/list", nth=nth, cut=True))
            assert "listing the tags" in refused(it.tags)
        assert proxy.injected == 3


# --- what goes wrong ---


@dataclass(frozen=True)
class Kind:
    """One way in which any request can go wrong."""

    name: str
    fault: Fault
    limits: Limits = Limits()  # noqa: RUF009 - frozen


KINDS = [
    Kind("the connection is lost", Fault(reset=True)),
    Kind("the answer is lost", Fault(reset=True, lost=True)),
    Kind("500", Fault(status=500, code="UNKNOWN")),
    Kind("500 behind it", Fault(status=500, lost=True)),
    Kind("403", Fault(status=403, code="DENIED")),
    Kind("429", Fault(status=429, code="TOOMANYREQUESTS", headers={"Retry-After": "1"})),
    Kind("a page of something else", Fault(status=200)),
]
SILENCE = Kind("silence", Fault(hang=True), SOON)
REQUESTS = (
    *("HEAD blob", "POST upload", "PUT blob", "HEAD blob", "POST upload", "PUT blob"),
    *("PUT manifest", "GET tag", "GET manifest", "PUT tag", "GET tag"),
)
"""What a push with a tag asks for, in this order."""
PUT_TAG = REQUESTS.index("PUT tag") + 1
CASES = [
    *((kind, number) for kind in KINDS for number in range(1, len(REQUESTS) + 1)),
    *((SILENCE, REQUESTS.index(request) + 1) for request in ("PUT blob", "PUT tag")),  # each is waited for
]


def fresh(number: int, kind: str) -> Blobs:
    """Its configuration is new, too: else it is there from another test."""
    image = small_image({"case": f"{kind} {number}".encode()})
    assert image.config != IMAGE.config
    return image


@pytest.mark.parametrize(
    ("kind", "number"), CASES, ids=[f"{kind.name}-{number} {REQUESTS[number - 1]}" for kind, number in CASES]
)
def test_a_push_in_which_one_request_goes_wrong(place: Place, kind: Kind, number: int) -> None:
    """It is an error, names nothing that it should not, and the same push succeeds when all is well again."""
    image, tag = fresh(number, kind.name), f"fault-{kind.name.replace(' ', '-')}-{number}"
    with faulty(place) as proxy, Registry.at(place) as direct:
        proxy.fail(replace(kind.fault, nth=number))
        with Registry.at(proxy.place, limits=kind.limits) as it:
            told = refused(lambda: image.push(it, tag))
        assert proxy.injected == 1
        assert told.startswith(f"{proxy.place.name}: ")
        assert direct.resolve(tag) in ({None} if number < PUT_TAG else {None, image.digest})
        proxy.mend()
        with Registry.at(proxy.place) as it:
            assert image.push(it, tag) == image.digest
        assert direct.resolve(tag) == image.digest


def test_what_a_push_asks_for(place: Place) -> None:
    """The test above goes through all of it."""
    kinds = {"blobs": "blob", "uploads": "upload", "manifests": "manifest"}
    with faulty(place) as proxy, Registry.at(proxy.place) as it:
        fresh(0, "none").push(it, "asks")
        asked = []
        for one in proxy.web.asked:
            below = one.path.removeprefix(f"/v2/{PATH}/").split("/")
            kind = "tag" if below[-1] == "asks" else kinds[below[0]]
            upload = below[1:2] == ["uploads"] and one.method == "POST"
            asked.append(f"{one.method} {'upload' if upload else kind}")
    assert tuple(asked) == REQUESTS


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (Fault("PUT", "*/manifests/sha256:*", headers=ANOTHER), f"it has {WRONG_DIGEST}"),
        (Fault("GET", "*/manifests/sha256:*", headers=ANOTHER), f"it has {WRONG_DIGEST}"),
        (Fault("GET", "*/manifests/sha256:*", changed=True), "where sha256:"),
        (Fault("GET", "*/manifests/sha256:*", body=IMAGE.manifest, headers={"Docker-Content-Digest": IMAGE.digest}),
         f"what came is {IMAGE.digest}; run again, and do not trust this registry"),
        (Fault("GET", "*/manifests/sha256:*", cut=True), "the connection failed (IncompleteRead)"),
        (Fault("PUT", "*/blobs/uploads/*", headers=ANOTHER), f"it has {WRONG_DIGEST}"),
        (Fault("POST", "*/blobs/uploads/", headers={"Location": ""}), "it does not say where to send it to"),
        (Fault("POST", "*/blobs/uploads/", headers={"Location": "http://example.com/"}), "which is not encrypted"),
        (Fault("GET", "*/manifests/nightly-*", status=404), "it answered 404, and not as a registry does"),
    ],
    ids=["pushed as another", "said to be another", "changed", "another", "cut", "blob as another", "nowhere",
         "elsewhere", "no registry"],
)  # fmt: skip
def test_a_registry_that_does_not_tell_the_truth(
    place: Place, fault: Fault, told: str, request: pytest.FixtureRequest
) -> None:
    image = own_image(request)
    tag = f"nightly-{digest_of(image.manifest)[-7:]}"
    with faulty(place) as proxy, Registry.at(proxy.place) as it:
        proxy.fail(fault)
        assert told in refused(lambda: image.push(it, tag))
        assert proxy.injected == 1
    with Registry.at(place) as direct:
        assert direct.resolve(tag) is None


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (Fault("GET", "*/blobs/*", changed=True), "what came is sha256:"),
        (Fault("GET", "*/blobs/*", cut=True), "the connection failed (IncompleteRead)"),
        (Fault("GET", "*/blobs/*", body=bytes(20_000)), "the answer is longer than the 10,000 bytes expected"),
        (Fault("GET", "*/blobs/*", body=b""), "what came is sha256:e3b0c442"),
        (Fault("GET", "*/blobs/*", status=500), "it answered 500"),
        (Fault("GET", "*/blobs/*", reset=True), "Connection reset by peer"),
    ],
    ids=["changed", "cut", "long", "empty", "500", "lost"],
)
def test_a_blob_that_goes_wrong_on_its_way(client: Registry, place: Place, fault: Fault, told: str) -> None:
    IMAGE.push(client)
    with faulty(place) as proxy, Registry.at(proxy.place) as it:
        proxy.fail(fault)
        assert told in refused(lambda: it.blob(digest_of(IMAGE.layer), 10_000))
        assert proxy.injected == 1
        assert it.blob(digest_of(IMAGE.layer), 10_000) == IMAGE.layer


# --- what nobody is told ---


def test_the_password_is_seen_by_the_registry_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """In no argument and no environment of a program, in no log, no traceback, and in no file that stays."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("PATCHSTACK_REGISTRY_USER", LOGIN.user)
    monkeypatch.setenv("PATCHSTACK_REGISTRY_PASSWORD", LOGIN.reveal())
    started: list[str] = []
    popen = subprocess.Popen

    def watched(argv: Any, *arguments: Any, **options: Any) -> Any:
        started.append(f"{argv} {os.environ if options.get('env') is None else options['env']}")
        return popen(argv, *arguments, **options)

    monkeypatch.setattr(subprocess, "Popen", watched)
    told = ""
    with registry(tmp_path / "registry", login=LOGIN) as at, faulty(at) as proxy:
        login = login_for(proxy.place.host, os.environ, tmp_path)
        with Registry.at(proxy.place, login) as it:
            IMAGE.push(it, "mine")
            proxy.fail(Fault("GET", reset=True), Fault("HEAD", status=500), Fault("PUT", status=401, code="DENIED"))
            for act in (it.tags, lambda: it.has_blob(IMAGE.digest), lambda: it.push_manifest(IMAGE.manifest, MANIFEST)):
                with pytest.raises(ImageError) as caught:
                    act()
                told += "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
        assert skopeo("inspect", f"docker://{at.name}:mine", place=at, login=login)["Digest"] == IMAGE.digest
    assert proxy.injected == 3
    assert len(started) == 2
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert {"registry.log", "htpasswd"} <= {file.name for file in files}
    told += "".join(started) + caplog.text + "".join(capfd.readouterr())
    told += "".join(file.read_text(errors="replace") for file in files)
    assert "from PATCHSTACK_REGISTRY_USER: look whether" in told
    assert not [secret for secret in (LOGIN.reveal(), LOGIN.basic) if secret in told]


# --- the registry of this machine ---


def test_what_was_pushed_is_there_the_next_time(tmp_path: Path) -> None:
    for _ in range(2):
        with embedded.serve(tmp_path / "registry") as at, Registry.at(at) as it:
            assert at.path == "sglang"
            assert at.insecure
            assert IMAGE.push(it, "kept") == IMAGE.digest
            sent = it.bytes_sent
    assert sent == len(IMAGE.manifest)  # the tag was there as well


def test_two_that_serve_one_folder_do_not_mix_up(tmp_path: Path) -> None:
    """As when somebody looks at an image while the night makes one."""
    with embedded.serve(tmp_path) as one, Registry.at(one) as it:
        IMAGE.push(it, "first")
        with embedded.serve(tmp_path) as other:
            assert other.host != one.host
            assert tags_at(other) == {"first": IMAGE.digest}
        IMAGE.push(it, "second")
        assert tags_at(one) == {"first": IMAGE.digest, "second": IMAGE.digest}


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    with embedded.serve(tmp_path / "one") as at:
        port = int(at.host.rpartition(":")[2])
        told = refused(embedded.serve(tmp_path / "two", port=port).__enter__)
        assert told.startswith("the local registry did not start: docker-registry ended with 1:\n")
        assert f"listen tcp 127.0.0.1:{port}: bind: address already in use" in told
    with embedded.serve(tmp_path / "two", port=port) as again:
        assert again == at


def test_it_starts_whatever_is_in_our_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "auth.json"))
    monkeypatch.setenv("REGISTRY_HTTP_ADDR", "0.0.0.0:1")
    with embedded.serve(tmp_path / "registry") as at:
        assert tags_at(at) == {}


def test_no_registry_outlives_us(tmp_path: Path) -> None:
    code = f"""
import os, signal
from pathlib import Path
from patchstack.image import embedded
with embedded.serve(Path({str(tmp_path / "registry")!r})) as at:
    print(Path(f"/proc/self/task/{{os.getpid()}}/children").read_text(), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}  # it cannot clear up after itself
    done = process.run([sys.executable, "-c", code], env=environment, timeout_s=60, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    try:
        registry_process = os.pidfd_open(int(done.stdout))
    except ProcessLookupError:
        return
    ended, _, _ = select.select([registry_process], [], [], 30.0)
    os.close(registry_process)
    assert ended
