"""A repository in a registry, in the terms of the OCI distribution specification.

https://github.com/opencontainers/distribution-spec/blob/main/spec.md

Whatever is read is compared with its digest. What fails is an `ImageError`; the one absence that is an answer is
that of a manifest that `resolve` looks for, and it has to be told in a registry's own words.
"""

from __future__ import annotations

import hashlib
import io
import json
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self
from urllib.parse import quote, urlencode, urlsplit

from patchstack.errors import ImageError, MachineError
from patchstack.image.layout import blob_of_layout, read_layout
from patchstack.image.login import Login
from patchstack.image.names import Place, is_digest
from patchstack.image.oci import (
    DOCKER_LIST,
    INDEX,
    MANIFEST_TYPES,
    Descriptor,
    Manifest,
    digest_of,
    parse_manifest,
)
from patchstack.image.wire import Answer, Limits, Stream, Wire

MANIFEST_BYTES = 4 << 20
"""How long a manifest may be: no registry has to take a longer one."""
PAGE_BYTES = 16 << 20
PAGES = 10_000

_ACCEPT = {"Accept": ", ".join((*MANIFEST_TYPES, INDEX, DOCKER_LIST))}
"""Indexes too: one that a tag names must not look like a tag that is free."""
_ABSENT = frozenset({"MANIFEST_UNKNOWN", "NAME_UNKNOWN", "NOT_FOUND"})
_DIGEST = "Docker-Content-Digest"
_OK, _CREATED, _ACCEPTED, _NOT_FOUND = 200, 201, 202, 404


class Registry:
    """The repository of one `Place`; a context manager, which closes its connections."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    @classmethod
    def at(cls, place: Place, login: Login | None = None, *, limits: Limits | None = None) -> Registry:
        """The registry at ``place``; nothing is asked yet. ``login`` is shown once the registry demands one."""
        return cls(Wire(place, login, limits or Limits()))

    @property
    def place(self) -> Place:
        return self._wire.place

    @property
    def bytes_sent(self) -> int:
        """Of blobs and manifests, since the beginning; what was sent in vain is in it."""
        return self._wire.bytes_sent

    def close(self) -> None:
        self._wire.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError("what holds a login is not written down")

    # --- manifests ---

    def resolve(self, name: str) -> str | None:
        """The digest of what a tag or a digest names, an index too; None where the registry says that it has none."""
        found = self._look(name)
        return digest_of(found[0]) if found is not None else None

    def manifest(self, name: str) -> Manifest:
        """The image manifest of a tag or digest; `ImageError` for one that is absent, and for an index."""
        raw, media_type = self._manifest(name)
        return parse_manifest(raw, media_type, f"{self.place.name}: {name}")

    def push_manifest(self, raw: bytes, media_type: str, tag: str | None = None, *, move: bool = False) -> str:
        """Push a manifest and return its digest; only when the registry has it is it given its ``tag`` (see `tag`)."""
        digest = digest_of(raw)
        self._put_manifest(raw, media_type, digest)
        if tag is not None:
            self.tag(digest, tag, move=move)
        return digest

    def tag(self, digest: str, name: str, *, move: bool = False) -> None:
        """Let ``name`` be a tag of ``digest``, which is there; without ``move``, never one that is another's.

        No registry can do this in one step. So it is looked at before, and again behind it: who wrote the same name
        between the two is found out then, and not before.
        """
        what = f"naming {digest} {name}"
        before = self.resolve(name)
        if before == digest:
            return
        if before is not None and not move:
            raise self._wire.error(what, f"that tag is of {before} already, and is never moved; choose another name")
        raw, media_type = self._manifest(digest)
        self._put_manifest(raw, media_type, name)
        after = self.resolve(name)
        if after != digest:
            raise self._wire.error(what, f"afterwards it was {after}: somebody else writes this tag; find out who")

    def delete_manifest(self, digest: str) -> None:
        """Delete a manifest, with every tag that it has; its blobs go when the registry collects its garbage."""
        what = f"deleting {digest}"
        if not is_digest(digest):
            raise self._wire.error(what, "only a digest is deleted, for a tag may have moved meanwhile")
        self._wire.ask("DELETE", self._url(f"manifests/{digest}"), what, frozenset({_OK, _ACCEPTED})).body()

    def tags(self) -> tuple[str, ...]:
        """Every tag, in order; none where the registry says that the repository is not there yet."""
        what = "listing the tags"
        found: list[str] = []
        seen: set[str] = set()
        url = f"{self._wire.origin}{self._url('tags/list')}"
        while url not in seen:
            seen.add(url)
            answer = self._wire.ask("GET", url, what, frozenset({_OK, _NOT_FOUND}))
            if answer.status == _NOT_FOUND:
                self._require_absence(answer, what)
                return ()
            found += self._page(answer, what)
            onward = answer.link_to_next()
            if onward is None:
                return tuple(sorted(set(found)))
            url = self._wire.onward(answer, onward, what)
            if len(seen) >= PAGES or not self._wire.is_own(url):
                break
        raise self._wire.error(what, f"its list goes on without an end, or elsewhere, after {len(seen)} pages")

    # --- blobs ---

    def blob(self, digest: str, most_bytes: int) -> bytes:
        """A blob; `ImageError` when it is longer than ``most_bytes``, or not what its digest says."""
        what = f"reading blob {digest}"
        data = self._wire.ask("GET", self._url(f"blobs/{digest}"), what, frozenset({_OK})).body(most_bytes)
        if digest_of(data) != digest:
            raise self._wire.error(what, f"what came is {digest_of(data)}, {len(data):,} bytes long; pull it again")
        return data

    def fetch_blob(self, blob: Descriptor, file: Path) -> None:
        """Write a blob of any size to ``file``, piece by piece; `ImageError`, and no file, when it is another."""
        what = f"reading blob {blob.digest}"
        found = hashlib.sha256()
        answer = self._wire.ask("GET", self._url(f"blobs/{blob.digest}"), what, frozenset({_OK}))
        try:
            with file.open("wb") as out:
                for piece in answer.pieces(blob.size):
                    found.update(piece)
                    out.write(piece)
            if f"sha256:{found.hexdigest()}" != blob.digest:
                raise self._wire.error(what, f"what came is sha256:{found.hexdigest()}; pull it again")
        except OSError as error:
            answer.close()
            file.unlink(missing_ok=True)
            raise MachineError(f"{file} cannot be written: {error.strerror}; make room for it") from error
        except ImageError:
            file.unlink(missing_ok=True)
            raise

    def has_blob(self, digest: str) -> bool:
        what = f"looking for blob {digest}"
        answer = self._wire.ask("HEAD", self._url(f"blobs/{digest}"), what, frozenset({_OK, _NOT_FOUND}))
        answer.close()
        return answer.status == _OK

    def push_blob(self, data: bytes | Path, digest: str) -> int:
        """Push a blob that may be there already; how many of its bytes were sent, 0 when it was there.

        A file is sent piece by piece; it is the registry that compares it with ``digest``.
        """
        what = f"pushing blob {digest}"
        if isinstance(data, bytes) and digest_of(data) != digest:
            raise self._wire.error(what, f"what is to be pushed is {digest_of(data)}: a bug in patchstack")
        if self.has_blob(digest):
            return 0
        begun = self._wire.ask("POST", self._url("blobs/uploads/"), what, frozenset({_ACCEPTED}))
        begun.body()
        return self._finish_upload(begun, data, digest, what)

    def mount_blob(self, digest: str, from_path: str) -> bool:
        """Take a blob over from another repository of this registry; False when the registry does not do that."""
        what = f"mounting blob {digest} from {from_path}"
        asked = urlencode({"mount": digest, "from": from_path})
        answer = self._wire.ask(
            "POST", f"{self._url('blobs/uploads/')}?{asked}", what, frozenset({_CREATED, _ACCEPTED})
        )
        answer.body()
        if answer.status == _CREATED:
            self._require_digest(answer, digest, what)
            return True
        # It has begun an upload instead. Not every registry lets that be called off; it forgets about it in time.
        with suppress(ImageError):
            self._wire.ask("DELETE", self._location(answer, what), what, frozenset({_OK, _ACCEPTED, 204})).body()
        return False

    # --- a whole image ---

    def push_layout(self, folder: Path, tag: str, *, move: bool = False) -> str:
        """Push the one image of an OCI layout: the blobs that are not there, then its manifest; its digest.

        https://github.com/opencontainers/image-spec/blob/main/image-layout.md
        """
        manifest = read_layout(folder)
        for blob in dict.fromkeys((manifest.config, *manifest.layers)):
            self.push_blob(blob_of_layout(folder, blob), blob.digest)
        return self.push_manifest(manifest.raw, manifest.media_type, tag, move=move)

    # --- what these are made of ---

    def _url(self, below: str) -> str:
        return f"/v2/{quote(self.place.path)}/{below}"

    def _manifest(self, name: str) -> tuple[bytes, str]:
        found = self._look(name)
        if found is None:
            raise self._wire.error(f"reading manifest {name}", "it is not there; look at the repository's tags")
        return found

    def _look(self, name: str) -> tuple[bytes, str] | None:
        """A manifest's bytes, and what kind the registry says that they are."""
        what = f"reading manifest {name}"
        url = self._url(f"manifests/{quote(name)}")
        answer = self._wire.ask("GET", url, what, frozenset({_OK, _NOT_FOUND}), headers=_ACCEPT)
        if answer.status == _NOT_FOUND:
            self._require_absence(answer, what)
            return None
        raw = answer.body(MANIFEST_BYTES)
        self._require_digest(answer, digest_of(raw), what)
        if is_digest(name) and digest_of(raw) != name:
            raise self._wire.error(what, f"what came is {digest_of(raw)}; run again, and do not trust this registry")
        return raw, answer.headers.get("Content-Type", "").partition(";")[0].strip()

    def _put_manifest(self, raw: bytes, media_type: str, name: str) -> None:
        what = f"pushing manifest {digest_of(raw)} as {name}"
        body = lambda: Stream(io.BytesIO(raw), len(raw), self._wire.count)  # noqa: E731
        headers = {"Content-Type": media_type}
        url = self._url(f"manifests/{quote(name)}")
        answer = self._wire.ask("PUT", url, what, frozenset({_CREATED}), headers=headers, body=body)
        answer.body()
        self._require_digest(answer, digest_of(raw), what)

    def _require_absence(self, answer: Answer, what: str) -> None:
        """Raise `ImageError` unless it is a registry that says that it has no such thing."""
        code, _ = answer.problem()
        if code not in _ABSENT:
            raise self._wire.error(what, "it answered 404, and not as a registry does; is this the registry's address?")

    def _require_digest(self, answer: Answer, digest: str, what: str) -> None:
        """Raise `ImageError` where the registry says that it has something else."""
        said = answer.headers.get(_DIGEST)
        if said is not None and said != digest:
            raise self._wire.error(what, f"it has {said} where {digest} is meant; nothing may use it")

    def _page(self, answer: Answer, what: str) -> list[str]:
        try:
            tags = json.loads(answer.body(PAGE_BYTES))["tags"] or []
        except (ValueError, KeyError, TypeError, RecursionError):
            tags = None
        if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
            raise self._wire.error(what, "what came is no list of tags; is this the registry's address?")
        return tags

    def _location(self, answer: Answer, what: str) -> str:
        """Where an upload that was begun goes on."""
        there = answer.headers.get("Location", "")
        if not there:
            raise self._wire.error(what, "it does not say where to send it to; its settings are wrong")
        return self._wire.onward(answer, there, what)

    def _finish_upload(self, begun: Answer, data: bytes | Path, digest: str, what: str) -> int:
        location = self._location(begun, what)
        url = f"{location}{'&' if urlsplit(location).query else '?'}{urlencode({'digest': digest})}"
        size = len(data) if isinstance(data, bytes) else data.stat().st_size

        def body() -> Stream:
            return Stream(io.BytesIO(data) if isinstance(data, bytes) else data.open("rb"), size, self._wire.count)

        headers = {"Content-Type": "application/octet-stream"}
        answer = self._wire.ask("PUT", url, what, frozenset({_CREATED}), headers=headers, body=body)
        answer.body()
        self._require_digest(answer, digest, what)
        return size
