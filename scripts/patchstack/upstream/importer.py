"""From a wheel, or a ref of upstream's repository, to a base commit of ours in the local store.

The commit is a function of upstream's bytes alone: sources only, under upstream's own paths, author and
date constant. No filter of git, no umask, locale or configuration has a say in it.
"""

from __future__ import annotations

import hashlib
import re
import tempfile

from packaging.version import InvalidVersion, Version

from patchstack.errors import ConfigError, RemoteError
from patchstack.git import EMPTY_TREE, ZERO, Repository, Signature, without_secret
from patchstack.model import Base, Sha
from patchstack.upstream.wheel import Part, Wheel, blob_id, part_of, read_files

RULES = 1
"""Part of every memo's name: raise it when the rules below give another tree or commit for the same input."""

_MEMO = f"refs/patchstack/base/{RULES}"
_FETCHED = "refs/patchstack/upstream"


def import_release(store: Repository, wheel: Wheel) -> Base:
    """The release as a parentless commit; kept in ``store`` by the wheel's digest and not made twice.

    Every wheel of a release gives the same tree and commit: the sources are the same bytes in each of them.
    Raises `RemoteError` for a wheel with entries that no honest release has.
    """
    memo = f"{_MEMO}/wheel/{wheel.sha256}"
    commit = store.resolve(f"{memo}^{{commit}}")
    if commit is None:
        tree = _import_sources(store, wheel)
        commit = store.commit(tree, (), f"Sources of {wheel.name} {wheel.version}\n")
        store.set_refs({memo: commit})
    return Base(f"{wheel.name}=={wheel.version}", wheel.version, commit, store.tree_of(commit), (wheel.native,))


def _import_sources(store: Repository, wheel: Wheel) -> Sha:
    entries = []
    with tempfile.TemporaryFile() as stream:
        for source, data in read_files(wheel, Part.SOURCE):
            stream.write(b"blob\ndata %d\n" % len(data))
            stream.write(data)
            stream.write(b"\n")
            # The id is our own reckoning: `write-tree` fails if git came to another.
            entries.append(("100755" if source.executable else "100644", blob_id(data), f"python/{source.path}"))
        stream.write(b"done\n")
        stream.flush()
        stream.seek(0)
        store.fast_import(stream)
    return store.edit_tree(EMPTY_TREE, entries)


def import_ref(store: Repository, url: str, ref: str, *, offline: bool = False) -> Base:
    """A branch, tag or full commit id of upstream's repository as one commit of ours on top of upstream's.

    Its tree is upstream's less what a base never holds (`*.so`, `*.dist-info`, `.github/`); its date is that of
    upstream's commit, so that histories stay in order. The version is that of the highest release tag (`vX.Y.Z`)
    in its history, with the distance as a local part: ``0.5.23+12.g1a2b3c4``. A commit id that was fetched before
    needs no network. Raises `RemoteError` when the repository cannot be read (or ``offline``, and the network is
    needed), `ConfigError` when it has no such ref or no release tag.
    """
    key = hashlib.sha256(url.encode()).hexdigest()[:16]
    name = f"{without_secret(url)}@{ref}"
    upstream = _fetched_before(store, key, ref)
    if upstream is None and offline:
        raise RemoteError(
            f"{name} needs the network, which is not to be used; name a commit id that was fetched before"
        )
    if upstream is None:
        upstream = _fetch(store, url, ref, key)
    version = _version(store, upstream, f"{_FETCHED}/{key}/tags/", name)
    memo = f"{_MEMO}/git/{upstream}"
    commit = store.resolve(f"{memo}^{{commit}}")
    if commit is None:
        left_out = [entry.path for entry in store.list_tree(upstream) if part_of(entry.path) is not Part.SOURCE]
        tree = store.edit_tree(store.tree_of(upstream), [("0", ZERO, path) for path in left_out])
        signature = Signature(date=f"@{store.show(upstream, '%ct')} +0000")
        commit = store.commit(tree, (upstream,), f"Sources of {upstream}\n", author=signature)
        store.set_refs({memo: commit})
    return Base(name, version, commit, store.tree_of(commit))


def _is_id(ref: str) -> bool:
    return re.fullmatch(r"[0-9a-f]{40}", ref) is not None


def _fetched_before(store: Repository, key: str, ref: str) -> Sha | None:
    return store.resolve(f"{_FETCHED}/{key}/commits/{ref}^{{commit}}") if _is_id(ref) else None


def _fetch(store: Repository, url: str, ref: str, key: str) -> Sha:
    """Fetch what ``ref`` names, and upstream's release tags; the commit."""
    wanted = Sha(ref) if _is_id(ref) else _listed(store, url, ref)
    kept = f"{_FETCHED}/{key}/commits/{wanted}"
    store.fetch(url, [f"+{wanted}:{kept}", f"+refs/tags/v*:{_FETCHED}/{key}/tags/v*"])
    commit = store.resolve(f"{kept}^{{commit}}")
    if commit is None:
        raise ConfigError(
            [f"upstream.ref: {ref} of {without_secret(url)} is no commit; name a branch, a tag or a commit"]
        )
    return commit


def _listed(store: Repository, url: str, ref: str) -> Sha:
    names = (ref,) if ref.startswith("refs/") else (f"refs/tags/{ref}", f"refs/heads/{ref}")
    listed = store.ls_remote(url, *names)
    found = {name: listed[name] for name in names if name in listed}
    where = f"upstream.ref: {without_secret(url)}"
    if not found:
        raise ConfigError([f"{where} has no branch or tag {ref!r}; name one that it has, or a full commit id"])
    if len(set(found.values())) > 1:
        raise ConfigError([f"{where} has both a branch and a tag {ref!r}; write {' or '.join(found)}"])
    return next(iter(found.values()))


def _version(store: Repository, commit: Sha, tags: str, name: str) -> str:
    """PEP 440 version of the highest release tag that ``commit`` holds, with the distance where there is one."""
    merged = store.run("for-each-ref", f"--merged={commit}", "--format=%(refname)", tags).splitlines()
    releases = {}
    for tag in merged:
        try:
            releases[Version(tag.removeprefix(tags))] = tag
        except InvalidVersion:
            continue
    if not releases:
        problem = (
            f"upstream.ref: no release tag (v0.5.23) is in the history of {name}, so no patch can choose its variant"
        )
        raise ConfigError([f"{problem}; push upstream's tags to that repository"])
    newest = max(releases)
    distance = store.run("rev-list", "--count", commit, f"^{releases[newest]}", "--")
    return str(newest) if distance == "0" else f"{newest}+{distance}.g{commit[:7]}"
