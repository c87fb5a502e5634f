"""The one entry of this stage: what `deploy.yaml` says of a lane's upstream -> its base."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from patchstack.errors import ConfigError
from patchstack.git import Repository
from patchstack.model import Base
from patchstack.upstream.importer import import_ref, import_release
from patchstack.upstream.releases import Progress, fetch_wheel, silent


class UpstreamSource(Protocol):
    """`upstream:` of a lane: either ``pypi`` or ``git`` with ``ref``, and the tree that is expected."""

    @property
    def pypi(self) -> str | None: ...
    @property
    def git(self) -> str | None: ...
    @property
    def ref(self) -> str | None: ...
    @property
    def tree(self) -> str | None: ...


def resolve_base(
    upstream: UpstreamSource,
    store: Repository,
    cache: Path,
    *,
    offline: bool = False,
    where: str = "upstream",
    progress: Progress = silent,
) -> Base:
    """The base commit of ``upstream`` in ``store``, fetched and imported only if it is not there yet.

    ``where`` is the path in `deploy.yaml` that a message names. Raises `ConfigError` with both ids when the
    tree is not the pinned one, and what `fetch_wheel` and `import_ref` raise.
    """
    if upstream.pypi is not None:
        base = import_release(store, fetch_wheel(upstream.pypi, cache, offline=offline, progress=progress))
    elif upstream.git is not None and upstream.ref is not None:
        progress(f"fetching {upstream.ref} from upstream's repository")
        base = import_ref(store, upstream.git, upstream.ref, offline=offline)
    else:
        raise ConfigError([f"{where}: name one source: either `pypi: sglang==X` or `git: URL` with `ref: R`"])
    if upstream.tree is not None and upstream.tree != base.tree:
        problem = f"{where}.tree: {base.name} has tree {base.tree}, and {upstream.tree} is pinned"
        raise ConfigError([f"{problem}: this is not what was reviewed; find out why, then pin the tree that it has"])
    return base
