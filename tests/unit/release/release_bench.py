"""A real store, a real bare remote, and nights that are made in one line."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from patchstack.git import EMPTY_TREE, Repository
from patchstack.model import (
    Base,
    Composition,
    Fingerprint,
    Kind,
    LedgerImage,
    LeftOut,
    Outcome,
    Promotion,
    Reason,
    Sha,
    Status,
    Topic,
    Verdict,
)
from patchstack.release.promote import Decision, Source, decide, promote
from patchstack.release.remote import RemoteState, read_remote

FIRST = datetime(2026, 11, 21, 2, 0, tzinfo=UTC)
LANE, BRANCH = "production", "deploy"
GREEN = (Verdict("nightly", Status.PASS, ()), Verdict("stable", Status.INCOMPLETE, ("it needs image",)))

IMAGE = LedgerImage(
    "registry.example.com/acme/sglang",
    f"sha256:{'a' * 64}",
    "nightly-20261121-1234567",
    "cuda",
    "1" * 64,
    f"sha256:{'b' * 64}",
)


@dataclass
class Bench:
    """A store and a remote; ``compose`` makes an octopus, ``night`` promotes one."""

    store: Repository
    remote: Repository

    @property
    def url(self) -> str:
        return str(self.remote.folder)

    def tree(self, **files: str) -> Sha:
        blobs = [("100644", self.store.write_blob(text.encode()), f"{name}.py") for name, text in files.items()]
        return self.store.edit_tree(self.store.run("mktree", stdin=b""), blobs)

    def base(self, text: str = "1") -> Base:
        tree = self.tree(base=text)
        return Base("sglang==0.5.12.post1", "0.5.12.post1", self.store.commit(tree, (), f"base {text}\n"), tree)

    def compose(self, text: str = "a", *, base: Base | None = None, lane: str = LANE) -> Composition:
        base = base or self.base()
        tree = self.tree(base="1", fix=text)
        topic = self.store.commit(tree, (base.commit,), "pd: fix\n")
        octopus = self.store.commit(tree, (base.commit, topic), "octopus\n")
        patch = Topic("fix", Kind.PATCH, "pd: fix", "Acme", topic, topic, base.commit, topic, "id", ("fix.py",))
        lost = LeftOut("#43", Kind.PULL, "t", "eve", topic, Outcome.EXCLUDED, Reason.CONFLICT, "d", ("fix",))
        return Composition(lane, base, octopus, tree, (patch,), (lost,), Fingerprint(f"print {text}", ()))

    def read(self, lane: str = LANE, branch: str = BRANCH) -> RemoteState:
        return read_remote(self.store, self.url, lane=lane, branch=branch)

    def decide(
        self, composition: Composition, day: int = 0, branch: str = BRANCH, image: LedgerImage | None = None
    ) -> Decision:
        at = FIRST + timedelta(days=day)
        return decide(
            night=f"{at:%Y%m%dT%H%M%SZ}",
            at=at,
            composition=composition,
            stack=Source(composition.commit, composition.tree),
            verdicts=GREEN,
            remote=self.read(composition.lane, branch),
            image=image,
        )

    def night(
        self, composition: Composition, day: int = 0, branch: str = BRANCH, image: LedgerImage | None = None
    ) -> Promotion:
        return promote(self.store, self.url, self.decide(composition, day, branch, image))

    def refs(self) -> dict[str, Sha]:
        return self.remote.refs()

    def foreign(self, *parents: str) -> Sha:
        """A commit that no promotion made."""
        return self.store.commit(self.tree(other="x") if parents else EMPTY_TREE, parents, "by hand\n")
