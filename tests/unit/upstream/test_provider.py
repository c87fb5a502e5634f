"""What `deploy.yaml` says of a lane's upstream becomes its base, and the pinned tree is held to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from patchstack.config import Upstream
from patchstack.errors import ConfigError
from patchstack.git import EMPTY_TREE, Repository
from patchstack.upstream.provider import resolve_base

RELEASE = "sglang==0.5.12.post1"
TREE = "ad10d27c86b93c2a1fda5bf5d1f4a9b1a8c4c9a6"


@dataclass(frozen=True)
class Source:
    pypi: str | None = None
    git: str | None = None
    ref: str | None = None
    tree: str | None = None


def test_a_pinned_release(repository: Repository, index: Path, cache: Path, write_wheel: Callable[..., Path]) -> None:
    write_wheel(index)
    said: list[str] = []
    first = resolve_base(Upstream(pypi=RELEASE), repository, cache, progress=said.append)

    pinned = resolve_base(
        Upstream(pypi=RELEASE, tree=first.tree), repository, cache, offline=True, progress=said.append
    )

    assert pinned == first
    assert said[0] == f"fetching {RELEASE} from the package index"
    assert len(said) == 2


def test_another_tree_than_the_pinned_one_names_both(
    repository: Repository, index: Path, cache: Path, write_wheel: Callable[..., Path]
) -> None:
    write_wheel(index)
    base = resolve_base(Source(pypi=RELEASE), repository, cache)

    with pytest.raises(ConfigError) as caught:
        resolve_base(Source(pypi=RELEASE, tree=TREE), repository, cache, where="lanes.production.upstream")

    assert str(caught.value) == (
        f"lanes.production.upstream.tree: {RELEASE} has tree {base.tree}, and {TREE} is pinned: "
        "this is not what was reviewed; find out why, then pin the tree that it has"
    )


def test_a_git_ref(repository: Repository, tmp_path: Path, cache: Path) -> None:
    upstream = Repository.init(tmp_path / "upstream.git")
    tree = upstream.edit_tree(EMPTY_TREE, [("100644", upstream.write_blob(b"A = 1\n"), "python/sglang/a.py")])
    upstream.set_refs({"refs/tags/v0.5.23": upstream.commit(tree, (), "release")})
    url = str(upstream.folder)

    base = resolve_base(Source(git=url, ref="v0.5.23", tree=tree), repository, cache)

    assert (base.name, base.version, base.tree, base.natives) == (f"{url}@v0.5.23", "0.5.23", tree, ())


def test_neither_source_is_a_fault_of_the_configuration(repository: Repository, cache: Path) -> None:
    with pytest.raises(ConfigError, match="upstream: name one source"):
        resolve_base(Source(git="url"), repository, cache)
