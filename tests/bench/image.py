"""A one-line change as one layer beside a full rebuild, on the cpu runtime: what is done, pushed and pulled.

Both begin with the wheels on this disk. The full rebuild has neither an image nor a layer; the night has the image of
the night before, in its registry and in the engine's store. Both must come to one digest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tests.bench.measure import Cost, Measurement, Patience, Series, Tally, measured

from patchstack.image.engine import Engine, OpenEngine, engine_at_hand
from patchstack.image.registry import Registry
from patchstack.model import Composition, ImageRef, Sha
from patchstack.store import Run
from patchstack.verbs.image import make_image, open_registry
from patchstack.verbs.plan import composed
from patchstack.workplace import Progress, Workplace, open_workplace

MOST_NIGHT_BYTES = 10_000_000
LEAST_TIMES_LESS = 20
NIGHTS = 3
"""A night's samples, each with a change of its own; the full rebuild is done once."""


@dataclass(frozen=True)
class _Night:
    composition: Composition
    run: Run


def measure_image(
    config: Path, lane: str, cache: Path, folder: Path, patience: Patience, progress: Progress
) -> tuple[list[Measurement], list[Tally]]:
    """Build the cpu image in full and extend one of the night before; `UsageError` where nothing can build it."""
    fresh = _fresh_cache(cache, folder / "cache")
    work = _workplace(config, lane, folder / "night", fresh, progress)
    first = work.state.new_run()
    before = composed(work, first)
    nights = [_Night(_one_line_more(work, before, number), work.state.new_run()) for number in range(1, NIGHTS + 1)]

    elsewhere = replace(work, state=replace(work.state, root=folder / "full"))
    full, full_cost = measured(_made, elsewhere, _Night(nights[0].composition, elsewhere.state.new_run()), work)
    _made(work, _Night(before, first))
    ours: list[Cost] = []
    images: list[ImageRef] = []
    for night in nights:
        if patience.may_repeat(len(ours)):
            image, cost = measured(_made, work, night)
            images.append(image)
            ours.append(cost)
    made = Measurement(
        "image: made and pushed",
        Series("one layer", tuple(ours)),
        Series("full", (full_cost,)),
        "the digest",
        images[0].digest == full.digest,
    )
    pushed = _tally("image: pushed", images[0].bytes_new, full.bytes_new)
    engine = engine_at_hand()
    if engine is None:
        return [made], [pushed]
    pull, pulled = _pulls(work, engine, images[0], before, folder)
    return [made, pull], [pushed, pulled]


def _made(work: Workplace, night: _Night, objects: Workplace | None = None) -> ImageRef:
    """The image of a night; ``objects`` has its commits, where ``work`` has not."""
    if objects is not None:
        work.store().fetch(str(objects.state.store_git), [f"+{night.composition.commit}:refs/bench/composition"])
    made = make_image(work, night.run, night.composition, None)
    assert made.image is not None, made.why_not
    return made.image


def _pulls(
    work: Workplace, engine: Engine, image: ImageRef, before: Composition, folder: Path
) -> tuple[Measurement, Tally]:
    """The night's image pulled by who has the one of the night before, and by who has nothing."""
    with open_registry(work) as registry:
        assert registry is not None
        earlier = next(tag for tag in registry.tags() if before.tree[:7] in tag)
        had = registry.resolve(earlier)
        assert had is not None
        with engine.opened(folder / "engine") as opened:
            opened.pull(registry.place, had, None)
            ours, little = measured(_pull, opened, registry, image)
        with engine.opened(folder / "new engine") as opened:
            theirs, much = measured(_pull, opened, registry, image)
        sizes, there = _sizes(registry, image.digest), _sizes(registry, had)
    pull = Measurement(
        "image: pulled",
        Series("by who has last night's", (little,)),
        Series("by who has none", (much,)),
        "the image's id",
        ours == theirs,
    )
    new = sum(size for digest, size in sizes.items() if digest not in there)
    return pull, _tally("image: pulled", new, sum(sizes.values()))


def _pull(opened: OpenEngine, registry: Registry, image: ImageRef) -> str:
    return opened.pull(registry.place, image.digest, None)


def _sizes(registry: Registry, digest: str) -> Mapping[str, int]:
    """Every blob of an image with its size, its manifest among them."""
    manifest = registry.manifest(digest)
    blobs = (manifest.config, *manifest.layers)
    return {manifest.digest: len(manifest.raw), **{blob.digest: blob.size for blob in blobs}}


def _tally(name: str, ours: int, full: int) -> Tally:
    small = ours < MOST_NIGHT_BYTES and ours * LEAST_TIMES_LESS <= full
    return Tally(name, "bytes", ours, full, f"under {MOST_NIGHT_BYTES:,} and a {LEAST_TIMES_LESS}th", small)


def _fresh_cache(cache: Path, folder: Path) -> Path:
    """A cache with what was downloaded, and no image."""
    folder.mkdir(parents=True)
    for there in cache.iterdir():
        if there.name not in {"images", "containers"}:
            (folder / there.name).symlink_to(there)
    return folder


def _workplace(config: Path, lane: str, state: Path, cache: Path, progress: Progress) -> Workplace:
    work = open_workplace(
        config_path=config,
        state_folder=state,
        lane=lane,
        remote=None,
        local=True,
        offline=False,
        progress=progress,
    )
    return replace(work, cache=cache)


def _one_line_more(work: Workplace, before: Composition, number: int) -> Composition:
    """``before`` with a line more in a file that its first patch changes."""
    store = work.store()
    path = next(path for topic in before.included for path in topic.paths if path.endswith(".py"))
    (entry,) = store.list_tree(before.tree, path)
    text = (store.read_blob(entry.sha) or b"") + f"# line {number} of a bench\n".encode()
    tree = store.edit_tree(before.tree, [(entry.mode, store.write_blob(text), path)])
    parents = (before.base.commit, *(topic.commit for topic in before.included))
    return replace(before, commit=Sha(store.commit(tree, parents, f"bench {number}\n")), tree=tree)
