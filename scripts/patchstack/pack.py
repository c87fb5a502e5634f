"""A night's run as one file: what one part of a night hands to the next, on another machine.

A pack is a plain tar with the run's stage files, its `report.md` and, once something is composed, a git bundle
with the commits that the parts after it need: the octopus, which has the base and every topic as parents, the patches'
mutants, and what is deployed, with which a red night is compared. The required stack and the grounds are made from
these. Equal runs give equal bytes.

Who wrote a pack is not known to its reader. A pack is read as what it must be, byte by byte, and refused for
anything else before any of it is where a verb would look; what the bundle brings is checked against the stage
files. It is moved into place with one rename, and what was killed before that is swept by the next one.
"""

from __future__ import annotations

import re
import shutil
import tarfile
import tempfile
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, BinaryIO, TypeVar

from patchstack.bundle import read_bundle_header
from patchstack.errors import UsageError
from patchstack.git import Repository
from patchstack.model import (
    Blame,
    Composition,
    GuardReport,
    ImageTests,
    LedgerLine,
    MergePlan,
    NightReport,
    Promotion,
    Sha,
    Verdicts,
)
from patchstack.store import STAGE_FILES, Run, State, decode

BUNDLE, REPORT_TEXT = "objects.bundle", "report.md"

MOST_BYTES = {
    **dict.fromkeys(STAGE_FILES.values(), 64 << 20),
    REPORT_TEXT: 16 << 20,
    BUNDLE: 4 << 30,
}
"""Each file that a pack may hold, and how large it may be."""

REFS = "refs/patchstack/pack"
"""How the bundle names its commits; no repository of ours keeps such a ref."""

_SCRATCH = ".pack-"
_BLOCK = tarfile.BLOCKSIZE
_PIECE_BYTES = 1 << 20
_RUN_ID = re.compile(r"\d{8}T\d{6}Z(-\d{1,4})?")

Value = TypeVar("Value")


_LAST = f"{REFS}/last"


def commits_of(composition: Composition, last: LedgerLine | None = None) -> dict[str, Sha]:
    """The refs of a composition's bundle: all that is reached from these is in it.

    ``last`` is the line of what is deployed, where its commits are at hand.
    """
    found = {f"{REFS}/composition": composition.commit}
    if last is not None:
        found[_LAST] = last.composition
    for topic in composition.included:
        for mutant in topic.mutants:
            if mutant.commit is not None:
                found[f"{REFS}/mutants/{topic.name}/{mutant.name}"] = mutant.commit
    return found


# --- writing -------------------------------------------------------------------------------------------


def write_pack(run: Run, state: State, store: Repository, file: Path) -> None:
    """Write ``run`` to ``file``, whole or not at all; what was there before is replaced."""
    file = file.absolute()
    partial = f".{file.name}.partial-"
    for left in [path for path in file.parent.iterdir() if path.name.startswith(partial)]:
        left.unlink()
    with _scratch(state) as folder, ExitStack() as files:
        held = {name: run.folder / name for name in MOST_BYTES if (run.folder / name).is_file()}
        if run.has(Composition):
            held[BUNDLE] = folder / BUNDLE
            last = run.read(NightReport).previous if run.has(NightReport) else None
            there = last is not None and store.has(f"{last.composition}^{{commit}}")
            store.write_bundle(held[BUNDLE], commits_of(run.read(Composition), last if there else None))
        beside = files.enter_context(tempfile.NamedTemporaryFile(dir=file.parent, prefix=partial, delete=False))
        place = Path(beside.name)
        try:
            with beside:
                _write_tar(beside, held)
            place.chmod(0o644)
            place.replace(file)
        except BaseException:
            place.unlink(missing_ok=True)
            raise


def _write_tar(out: IO[bytes], held: dict[str, Path]) -> None:
    for name, path in sorted(held.items()):
        size = path.stat().st_size
        out.write(_header(name, size))
        with path.open("rb") as stream:
            shutil.copyfileobj(stream, out, _PIECE_BYTES)
        out.write(_padding(size))
    out.write(_end(out.tell()))


def _header(name: str, size: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o644
    return member.tobuf(tarfile.USTAR_FORMAT)


def _padding(size: int) -> bytes:
    return bytes(-size % _BLOCK)


def _end(size: int) -> bytes:
    """What ends a tar of ``size`` bytes: two empty blocks, and what fills the last record."""
    return bytes(2 * _BLOCK + -(size + 2 * _BLOCK) % tarfile.RECORDSIZE)


# --- reading -------------------------------------------------------------------------------------------


def read_value(file: Path, kind: type[Value]) -> Value:
    """One stage's value out of a pack; `UsageError` when the pack is none, or has no such value."""
    found = read_value_if_there(file, kind)
    if found is None:
        name = STAGE_FILES[kind]
        raise UsageError(f"{file} has no {name}: it was packed before that stage, or by a part that failed")
    return found


def read_value_if_there(file: Path, kind: type[Value]) -> Value | None:
    """The same for a value that a pack need not have."""
    name = STAGE_FILES[kind]
    with tempfile.TemporaryDirectory(prefix="patchstack-pack-") as folder:
        held = _extract(file, Path(folder), only={name})
        return _decoded(kind, Path(folder) / name, file) if name in held else None


@contextmanager
def unpacked(file: Path, state: State, store: Repository, lane: str) -> Iterator[Run]:
    """The run of a pack in a folder of its own, every value read and its commits in ``store``.

    Nothing is among the state folder's runs before `keep_run`, and after the block nothing is left elsewhere.
    The caller holds the lock. Raises `UsageError` for what is no pack of a night of ``lane``.
    """
    with _scratch(state) as folder:
        whole = folder / "run"
        whole.mkdir()
        held = _extract(file, whole)
        for kind, name in STAGE_FILES.items():
            if name in held:
                _decoded(kind, whole / name, file)
        if STAGE_FILES[NightReport] not in held:
            raise UsageError(f"{file} has no report: every part of a night packs one; it was made by something else")
        run = Run(whole.rename(folder / _run_id(file, whole / STAGE_FILES[NightReport])))
        _require_lane(file, run, lane)
        if run.has(Composition) != (BUNDLE in held):
            raise UsageError(f"{file} has one of composition.json and {BUNDLE} without the other")
        if run.has(Composition):
            try:
                bundle = run.folder / BUNDLE
                last = run.read(NightReport).previous if _LAST in read_bundle_header(bundle).refs else None
                store.fetch_bundle(bundle, commits_of(run.read(Composition), last))
            except UsageError as error:
                raise UsageError(f"{file}: {error}") from error
            (run.folder / BUNDLE).unlink()
        yield run


def keep_run(fresh: Run, state: State) -> Run:
    """Move an unpacked run among the runs; where it is there already it must be the same night.

    A night that goes on has a newer report and further files: those stay. One that went on with a part of what is
    composed here begins again with all of it. Any other difference is refused.
    """
    kept = Run(state.runs / fresh.id)
    if not kept.folder.exists():
        state.runs.mkdir(parents=True, exist_ok=True)
        fresh.folder.rename(kept.folder)
        return kept
    if _went_on_with_a_part(kept, fresh):
        for kind in (GuardReport, ImageTests, Verdicts):
            kept.path(kind).unlink(missing_ok=True)
        # What tells that it went on goes last: where this is killed half-way it is done again.
        told = STAGE_FILES[Composition]
        for path in sorted(fresh.folder.iterdir(), key=lambda path: path.name == told):
            path.replace(kept.folder / path.name)
        kept.path(Blame).unlink()
        return kept
    reports = {REPORT_TEXT, STAGE_FILES[NightReport]}
    for path in sorted(fresh.folder.iterdir()):
        there = kept.folder / path.name
        if path.name not in reports and (not there.is_file() or there.read_bytes() != path.read_bytes()):
            raise UsageError(
                f"run {fresh.id} is in {state.runs} already, with another {path.name}; move that run away, or use "
                "another --state"
            )
    return kept


def _went_on_with_a_part(kept: Run, fresh: Run) -> bool:
    """Whether ``kept`` has left the guilty out of what ``fresh`` has."""
    if not (kept.has(Blame) and kept.has(Composition) and fresh.has(Composition)):
        return False
    first = kept.read(Blame)
    while first.before is not None:
        first = first.before
    whole = fresh.read(Composition).commit
    return first.composition == whole != kept.read(Composition).commit


def _run_id(file: Path, report: Path) -> str:
    night = _decoded(NightReport, report, file).night
    if not _RUN_ID.fullmatch(night):
        raise UsageError(f"{file} calls its night {night[:80]!r}, which is no run's name")
    return night


def _require_lane(file: Path, run: Run, lane: str) -> None:
    lanes = {run.read(NightReport).lane}
    lanes |= {run.read(MergePlan).lane} if run.has(MergePlan) else set()
    lanes |= {run.read(Composition).lane} if run.has(Composition) else set()
    lanes |= {run.read(Promotion).lane} if run.has(Promotion) else set()
    if lanes != {lane}:
        other = min(lanes - {lane})
        raise UsageError(f"{file} is of lane {other}, not of {lane}: use --lane {other}")


def _decoded(kind: type[Value], path: Path, file: Path) -> Value:
    try:
        text = path.read_text()
    except UnicodeDecodeError as error:
        raise UsageError(f"{file}: {path.name}: it is not text ({error.reason})") from error
    return decode(kind, text, f"{file}: {path.name}")


def _extract(file: Path, folder: Path, only: Collection[str] | None = None) -> frozenset[str]:
    """Write the files of a pack (of ``only``, where given) into ``folder``; the names of all that it has."""
    held: set[str] = set()
    try:
        with file.open("rb") as stream:
            while (size := _next(stream, file, held)) is not None:
                name, bytes_left = size
                _copy(stream, folder / name if only is None or name in only else None, bytes_left, file, name)
                held.add(name)
    except FileNotFoundError:
        raise UsageError(f"there is no pack {file}: name the file that --pack wrote") from None
    except IsADirectoryError:
        raise UsageError(f"{file} is a folder: name the file that --pack wrote") from None
    return frozenset(held)


def _next(stream: BinaryIO, file: Path, held: set[str]) -> tuple[str, int] | None:
    """Name and size of the next file, or None at the end of the pack. Every header must be as `_header` makes it."""
    begin = stream.tell()
    block = stream.read(_BLOCK)
    if block == bytes(_BLOCK):
        if block + stream.read(2 * tarfile.RECORDSIZE) != _end(begin):
            raise UsageError(f"{file} has something behind its end")
        return None
    if len(block) < _BLOCK:
        raise UsageError(f"{file} ends early: it was cut, or is no pack")
    try:
        member = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
    except (tarfile.HeaderError, ValueError) as error:
        raise UsageError(f"{file} is no pack: {error}") from error
    name = member.name
    if name not in MOST_BYTES:
        raise UsageError(f"{file} holds {name[:80]!r}, which is no file of a pack")
    if name in held:
        raise UsageError(f"{file} holds {name} twice")
    if member.type != tarfile.REGTYPE:
        raise UsageError(f"{file} holds {name} as something else than a file: a link, or a folder")
    if not 0 <= member.size <= MOST_BYTES[name]:
        raise UsageError(f"{file}: {name} has {member.size} bytes; a pack's has at most {MOST_BYTES[name]}")
    if block != _header(name, member.size) or (held and name < max(held)):
        raise UsageError(f"{file} was not written by `--pack`: its entry {name} is another than that would write")
    return name, member.size


def _copy(stream: BinaryIO, place: Path | None, size: int, file: Path, name: str) -> None:
    """Copy ``size`` bytes to a new file, or to nowhere, and read what fills their last block."""
    with ExitStack() as files:
        out = files.enter_context(place.open("xb")) if place is not None else None
        left = size
        while left:
            piece = stream.read(min(left, _PIECE_BYTES))
            if not piece:
                raise UsageError(f"{file} ends early, in {name}: it was cut")
            left -= len(piece)
            if out is not None:
                out.write(piece)
    if stream.read(-size % _BLOCK) != _padding(size):
        raise UsageError(f"{file} is no pack: something stands behind the end of {name}")


@contextmanager
def _scratch(state: State) -> Iterator[Path]:
    """A folder beside the runs; what a killed process left there goes first (the caller holds the lock)."""
    state.root.mkdir(parents=True, exist_ok=True)
    for left in [path for path in state.root.iterdir() if path.name.startswith(_SCRATCH)]:
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=state.root, prefix=_SCRATCH) as folder:
        yield Path(folder)
