"""What becomes of a request to a registry, whatever is answered: a server of the test says each answer.

A real registry is asked in tests/e2e/test_image_registry.py.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest
from tests.support.image_registry import LOGIN, PATH, Asked, Reply, Web
from tests.unit.image.asked_registry import IMAGE, OTHER, SOON, asking, failure, failure_of, pages, said

from patchstack.errors import ImageError, MachineError
from patchstack.image.names import Place
from patchstack.image.oci import INDEX, LAYER_GZIP, MANIFEST, Descriptor, digest_of
from patchstack.image.registry import MANIFEST_BYTES, Registry
from patchstack.image.wire import Limits

# --- what is absent ---


@pytest.mark.parametrize("code", ["MANIFEST_UNKNOWN", "NAME_UNKNOWN", "NOT_FOUND"])
def test_what_a_registry_itself_says_is_absent_is_absent(code: str) -> None:
    with asking(lambda _: said(404, code)) as (registry, _):
        assert registry.resolve("nightly") is None
        assert registry.tags() == ()


@pytest.mark.parametrize("act", [lambda it: it.resolve("nightly"), lambda it: it.tags()], ids=["resolve", "tags"])
@pytest.mark.parametrize(
    "reply",
    [
        Reply(404),
        Reply(404, {"Content-Type": "text/html"}, b"<html>no such page</html>"),
        Reply(404, {}, b'{"errors": []}'),
        Reply(404, {}, b'{"errors": [null]}'),
        Reply(404, {}, b"[" * 100_000),
        said(404, "UNKNOWN"),
    ],
    ids=["empty", "page", "no errors", "no error", "deep", "another code"],
)
def test_any_other_404_is_no_absence(reply: Reply, act: Callable[[Registry], object]) -> None:
    told = failure_of(lambda _: reply, act)
    assert told.endswith("it answered 404, and not as a registry does; is this the registry's address?")


def test_an_absent_manifest_or_blob_is_an_error_where_it_is_needed() -> None:
    with asking(lambda _: said(404, "MANIFEST_UNKNOWN")) as (registry, _):
        assert failure(lambda: registry.manifest("nightly")) == (
            "reading manifest nightly: it is not there; look at the repository's tags"
        )
        assert failure(lambda: registry.delete_manifest(IMAGE.digest)).startswith(
            f"deleting {IMAGE.digest}: it answered 404 MANIFEST_UNKNOWN: said so; "
        )
        assert failure(lambda: registry.blob(IMAGE.digest, 10)).startswith(
            f"reading blob {IMAGE.digest}: it answered 404"
        )


# --- what is refused ---


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (said(500, "UNKNOWN"), "500 UNKNOWN: said so; it has a problem of its own: run again when that is over"),
        (Reply(502, {}, b"<html>"), "502; it has a problem of its own: run again when that is over"),
        (said(429, "TOOMANYREQUESTS"), "429 TOOMANYREQUESTS: said so; run again later"),
        (said(429, "X", **{"Retry-After": "30"}), "429 X: said so; it was asked too often: run again in 30 s"),
        (said(302, "X"), "302 X: said so; the repository is elsewhere: write it by the name that it has now"),
        (said(202, "X"), "202 X: said so; it does not take that: look into what it says"),
        (said(405, "X"), "405 X: said so; this registry does not allow that: look into its own settings"),
    ],
    ids=["500", "no words", "429", "429 for so long", "moved", "another", "405"],
)  # fmt: skip
def test_an_answer_that_was_not_asked_for_is_told_with_what_to_do(reply: Reply, told: str) -> None:
    heard = failure_of(lambda _: reply, lambda it: it.manifest("nightly"))
    assert heard == f"reading manifest nightly: it answered {told}"


@pytest.mark.parametrize(
    "act",
    [
        lambda it: it.resolve("nightly"),
        lambda it: it.manifest("nightly"),
        lambda it: it.tags(),
        lambda it: it.blob(IMAGE.digest, 100),
        lambda it: it.has_blob(IMAGE.digest),
        lambda it: it.push_blob(b"a", digest_of(b"a")),
        lambda it: it.mount_blob(IMAGE.digest, "acme/other"),
        lambda it: it.push_manifest(IMAGE.manifest, MANIFEST),
        lambda it: it.tag(IMAGE.digest, "nightly"),
        lambda it: it.delete_manifest(IMAGE.digest),
    ],
    ids=["resolve", "manifest", "tags", "blob", "has", "push", "mount", "manifest", "tag", "delete"],
)
@pytest.mark.parametrize(
    "reply",
    [said(500, "UNKNOWN"), Reply(reset=True), said(403, "DENIED"), said(429, "TOOMANYREQUESTS")],
    ids=["500", "reset", "403", "429"],
)
def test_nothing_that_is_asked_takes_a_failure_for_an_answer(reply: Reply, act: Callable[[Registry], object]) -> None:
    with asking(lambda _: reply) as (registry, web):
        failure(lambda: act(registry))
        assert len(web.asked) == 1  # and nothing is tried a second time


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_names_the_login_and_where_it_is_from(status: int) -> None:
    told = failure_of(lambda _: said(status, "DENIED"), lambda it: it.tags(), LOGIN)
    assert told == (
        f"listing the tags: it answered {status} DENIED: said so; the login shown was that of 'ann' from the test: "
        "look whether its password is right, and whether it may do this"
    )
    with asking(lambda _: said(status, "DENIED")) as (registry, web):
        assert failure(registry.tags) == (
            f"listing the tags: it answered {status} DENIED: said so; we have no login for {web.host}: set "
            f"PATCHSTACK_REGISTRY_USER and PATCHSTACK_REGISTRY_PASSWORD, or run `podman login {web.host}`"
        )


# --- the connection ---


def test_a_registry_that_is_not_there() -> None:
    with Web(lambda _: Reply()) as web:
        pass
    with Registry.at(Place(web.host, PATH)) as registry:
        assert failure(registry.tags) == (
            "listing the tags: the connection failed (Connection refused); run again when it is there"
        )


def test_a_connection_that_ends() -> None:
    told = failure_of(lambda _: Reply(reset=True), lambda it: it.tags())
    assert told == "listing the tags: the connection failed (Connection reset by peer); run again when it is there"


def test_silence_is_waited_out_for_so_long_and_no_longer() -> None:
    with asking(lambda _: Reply(hang=True), limits=SOON) as (registry, _):
        for act in (registry.tags, lambda: registry.push_manifest(IMAGE.manifest, MANIFEST)):
            assert failure(act).endswith(": it did not answer in time; run again when it does")


def test_what_is_sent_may_take_the_registry_longer() -> None:
    limits = Limits(silence_s=0.2, finish_s=20)
    with asking(lambda _: Reply(201, late_s=0.6), limits=limits) as (registry, _):
        assert registry.push_manifest(IMAGE.manifest, MANIFEST) == IMAGE.digest


def test_an_answer_that_stops_in_its_middle() -> None:
    told = failure_of(lambda _: Reply(body=IMAGE.layer, cut=True), lambda it: it.blob(digest_of(IMAGE.layer), 9999))
    assert told.startswith(f"reading blob {digest_of(IMAGE.layer)}: the connection failed (")


def test_an_answer_that_drips() -> None:
    """Each piece comes in time, and so it could go on for days."""
    limits = Limits(silence_s=0.4, slowest=1e9)
    data = bytes(1000)
    with asking(lambda _: Reply(body=data, drip_s=0.05), limits=limits) as (registry, web):
        told = failure(lambda: registry.blob(digest_of(data), 1000))
        assert told == f"reading blob {digest_of(data)}: the answer came too slowly; run again"
        assert 0 < web.dripped < 500


# --- what is read ---


def test_what_is_read_is_what_its_digest_says() -> None:
    data, digest = b"other", digest_of(b"data")
    assert failure_of(lambda _: Reply(body=data), lambda it: it.blob(digest, 100)) == (
        f"reading blob {digest}: what came is {digest_of(data)}, 5 bytes long; pull it again"
    )
    assert failure_of(lambda _: Reply(body=IMAGE.manifest), lambda it: it.manifest(OTHER.digest)) == (
        f"reading manifest {OTHER.digest}: what came is {IMAGE.digest}; run again, and do not trust this registry"
    )


def test_what_the_registry_says_of_a_manifest_is_what_it_is() -> None:
    told = failure_of(
        lambda _: Reply(headers={"Docker-Content-Digest": OTHER.digest}, body=IMAGE.manifest),
        lambda it: it.resolve("nightly"),
    )
    assert told == (
        f"reading manifest nightly: it has {OTHER.digest} where {IMAGE.digest} is meant; nothing may use it"
    )


def test_a_digest_need_not_be_said() -> None:
    with asking(lambda _: Reply(body=IMAGE.manifest)) as (registry, _):
        assert registry.resolve("nightly") == IMAGE.digest


@pytest.mark.parametrize("length", [None, 101])
def test_no_more_is_read_than_is_expected(length: int | None) -> None:
    told = failure_of(lambda _: Reply(body=bytes(101), length=length), lambda it: it.blob(IMAGE.digest, 100))
    assert told == f"reading blob {IMAGE.digest}: the answer is longer than the 100 bytes expected"


def test_a_manifest_has_its_bound() -> None:
    told = failure_of(lambda _: Reply(body=bytes(MANIFEST_BYTES + 1)), lambda it: it.resolve("nightly"))
    assert told.endswith("the answer is longer than the 4,194,304 bytes expected")


def test_an_index_is_seen_and_is_no_image() -> None:
    index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": []}).encode()
    with asking(lambda _: Reply(headers={"Content-Type": INDEX}, body=index)) as (registry, web):
        assert registry.resolve("nightly") == digest_of(index)
        assert INDEX in web.asked[0].headers["accept"]
        with pytest.raises(ImageError, match="not one image's manifest"):
            registry.manifest("nightly")


# --- lists ---


def test_every_page_of_a_list_is_read() -> None:
    with asking(pages) as (registry, _):
        assert registry.tags() == ("a0", "a1", "a2", "a3", "b", "c0", "c1", "c2", "c3")


def test_a_page_that_fails_fails_the_list() -> None:
    told = failure_of(
        lambda asked: said(500, "UNKNOWN") if asked.query.get("page") == "2" else pages(asked), Registry.tags
    )
    assert told.startswith("listing the tags: it answered 500")


@pytest.mark.parametrize(
    "onward", [f"/v2/{PATH}/tags/list", "http://{other}/", "http://example.com/v2/tags", "http://["]
)
def test_a_list_ends_and_stays_where_it_is(onward: str) -> None:
    with Web(pages) as other:
        headers = {"Link": f'<{onward.format(other=other.host)}>; rel="next"'}
        with asking(lambda _: Reply(headers=headers, body=b'{"tags": ["a"]}')) as (registry, web):
            failure(registry.tags)
            assert (len(web.asked), other.asked) == (1, [])


def test_a_repository_without_tags() -> None:
    with asking(lambda _: Reply(body=b'{"name": "acme/sglang", "tags": null}')) as (registry, _):
        assert registry.tags() == ()


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"tags": "a"}', b'{"tags": [1]}', b"{}", b"[" * 100_000])
def test_what_is_no_list_is_no_empty_list(body: bytes) -> None:
    told = failure_of(lambda _: Reply(body=body), Registry.tags)
    assert told == "listing the tags: what came is no list of tags; is this the registry's address?"


# --- what is pushed ---


def test_bytes_that_are_not_what_they_are_called_are_not_sent() -> None:
    with asking(lambda _: Reply()) as (registry, web):
        assert "a bug in patchstack" in failure(lambda: registry.push_blob(b"a", digest_of(b"b")))
        assert web.asked == []


def test_a_file_that_becomes_shorter_while_it_is_sent(tmp_path: Path) -> None:
    file = tmp_path / "blob"
    file.write_bytes(bytes(10_000_000))

    def answer(asked: Asked) -> Reply:
        if asked.method == "HEAD":
            return said(404, "BLOB_UNKNOWN")
        return Reply(202, {"Location": "/upload"})

    class Shrinking(type(file)):  # type: ignore[misc]
        """Its length is asked for first."""

        def open(self, *arguments: Any, **options: Any) -> IO[Any]:
            os.truncate(self, 1000)
            return super().open(*arguments, **options)

    with asking(answer) as (registry, _):
        told = failure(lambda: registry.push_blob(Shrinking(file), digest_of(b"whatever")))
        assert "the file became shorter while it was sent" in told


def test_a_file_is_fetched_whole_or_not_at_all(tmp_path: Path) -> None:
    file, data = tmp_path / "blob", bytes(range(256)) * 10_000
    blob = Descriptor(LAYER_GZIP, digest_of(data), len(data))
    with asking(lambda _: Reply(body=data)) as (registry, _):
        registry.fetch_blob(blob, file)
        assert file.read_bytes() == data
        with pytest.raises(MachineError, match="cannot be written: No such file or directory; make room for it"):
            registry.fetch_blob(blob, tmp_path / "none" / "blob")
    for reply in (Reply(body=data[1:] + b"x"), Reply(body=data + b"x"), Reply(body=data, cut=True)):
        assert failure_of(lambda _, reply=reply: reply, lambda it: it.fetch_blob(blob, file))
        assert not file.exists()


def test_nothing_is_sent_as_nothing() -> None:
    """And not in chunks, as for what has no known length: not every registry takes that."""

    def answer(asked: Asked) -> Reply:
        if asked.method == "POST":
            return Reply(202, {"Location": "/upload"})
        return said(404, "BLOB_UNKNOWN") if asked.method == "HEAD" else Reply(201)

    with asking(answer) as (registry, web):
        assert registry.push_blob(b"", digest_of(b"")) == 0
        assert web.asked[-1].method == "PUT"
        assert web.asked[-1].headers["content-length"] == "0"
        assert "transfer-encoding" not in web.asked[-1].headers


@pytest.mark.parametrize(
    ("location", "told"),
    [
        ("", "it does not say where to send it to"),
        ("http://example.com/upload", "it sends us on to http://example.com, which is not encrypted"),
        ("http://[", "it sends us on to what is no address"),
        ("ftp://127.0.0.1/upload", "it sends us on to ftp://127.0.0.1, which is not encrypted"),
    ],
)
def test_an_upload_goes_only_where_it_is_private(location: str, told: str) -> None:
    def answer(asked: Asked) -> Reply:
        return said(404, "BLOB_UNKNOWN") if asked.method == "HEAD" else Reply(202, {"Location": location})

    heard = failure_of(answer, lambda it: it.push_blob(b"a", digest_of(b"a")))
    assert heard.startswith(f"pushing blob {digest_of(b'a')}: {told}")


def test_an_upload_keeps_what_its_address_asks_for() -> None:
    def answer(asked: Asked) -> Reply:
        if asked.method == "POST":
            return Reply(202, {"Location": "/upload?state=a%3Db"})
        return said(404, "BLOB_UNKNOWN") if asked.method == "HEAD" else Reply(201)

    with asking(answer) as (registry, web):
        assert registry.push_blob(b"a", digest_of(b"a")) == 1
        assert web.asked[-1].query == {"state": "a=b", "digest": digest_of(b"a")}


def test_a_manifest_that_the_registry_has_otherwise_gets_no_tag() -> None:
    with asking(lambda _: Reply(201, {"Docker-Content-Digest": OTHER.digest})) as (registry, web):
        told = failure(lambda: registry.push_manifest(IMAGE.manifest, MANIFEST, "nightly"))
        assert f"it has {OTHER.digest} where {IMAGE.digest} is meant" in told
        assert [asked.path for asked in web.asked] == [f"/v2/{PATH}/manifests/{IMAGE.digest}"]


class Tags:
    """A registry of manifests alone, in which somebody else may be at work, too."""

    def __init__(self, **tags: bytes) -> None:
        self.named = {**tags, IMAGE.digest: IMAGE.manifest, OTHER.digest: OTHER.manifest}
        self.meanwhile: dict[str, bytes] = {}
        """What somebody else writes right after us."""

    def __call__(self, asked: Asked) -> Reply:
        name = asked.path.rpartition("/")[2]
        if asked.method == "PUT":
            self.named[name] = asked.body
            self.named |= self.meanwhile
            return Reply(201, {"Docker-Content-Digest": digest_of(asked.body)})
        found = self.named.get(name)
        return Reply(headers={"Content-Type": MANIFEST}, body=found) if found else said(404, "MANIFEST_UNKNOWN")


def test_a_tag_is_given_once() -> None:
    tags = Tags()
    with asking(tags) as (registry, web):
        registry.tag(IMAGE.digest, "nightly")
        assert tags.named["nightly"] == IMAGE.manifest
        assert web.asked[-2].headers["content-type"] == MANIFEST
        before = len(web.asked)
        registry.tag(IMAGE.digest, "nightly")
        assert [asked.method for asked in web.asked[before:]] == ["GET"]


def test_a_tag_of_another_is_moved_only_on_purpose() -> None:
    tags = Tags(nightly=OTHER.manifest)
    with asking(tags) as (registry, web):
        assert failure(lambda: registry.tag(IMAGE.digest, "nightly")) == (
            f"naming {IMAGE.digest} nightly: that tag is of {OTHER.digest} already, and is never moved; "
            "choose another name"
        )
        assert {asked.method for asked in web.asked} == {"GET"}
        failure(lambda: registry.push_manifest(IMAGE.manifest, MANIFEST, "nightly"))
        assert tags.named["nightly"] == OTHER.manifest
        registry.tag(IMAGE.digest, "nightly", move=True)
        assert tags.named["nightly"] == IMAGE.manifest


def test_somebody_else_who_writes_the_same_tag_is_found_out() -> None:
    tags = Tags()
    tags.meanwhile = {"nightly": OTHER.manifest}
    with asking(tags) as (registry, _):
        told = failure(lambda: registry.tag(IMAGE.digest, "nightly"))
        assert told.endswith(f"afterwards it was {OTHER.digest}: somebody else writes this tag; find out who")


def test_what_is_not_there_gets_no_tag() -> None:
    with asking(Tags()) as (registry, web):
        assert "it is not there" in failure(lambda: registry.tag(digest_of(b""), "nightly"))
        assert {asked.method for asked in web.asked} == {"GET"}


def test_only_a_digest_is_deleted() -> None:
    with asking(lambda _: Reply(202)) as (registry, web):
        assert "only a digest is deleted" in failure(lambda: registry.delete_manifest("nightly"))
        assert web.asked == []
