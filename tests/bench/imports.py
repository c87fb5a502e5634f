"""A release into an empty store, beside the same question to a store that has it."""

from __future__ import annotations

from pathlib import Path

from tests.bench.measure import Cost, Measurement, Patience, Series, measured

from patchstack.config import Upstream
from patchstack.git import Repository
from patchstack.model import Base
from patchstack.upstream.provider import resolve_base


def measure_imports(upstream: Upstream, cache: Path, folder: Path, patience: Patience, *, offline: bool) -> Measurement:
    """The wheel must be in the cache already: no download is measured."""
    cold: list[Cost] = []
    memo: list[Cost] = []
    found: set[Base] = set()
    while patience.may_repeat(len(memo)):
        store = Repository.init(folder / f"store-{len(memo)}.git")
        for costs in (cold, memo):
            base, cost = measured(resolve_base, upstream, store, cache, offline=offline)
            costs.append(cost)
            found.add(base)
    ours, beside = Series("memo", tuple(memo)), Series("cold import", tuple(cold))
    return Measurement("base", ours, beside, "base commits", len(found) == 1)
