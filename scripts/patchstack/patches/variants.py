"""A patch's diffs: ``<low>..<high>.patch``, each for a range of releases and cut on one of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from packaging.version import InvalidVersion, Version

from patchstack.patches.diff import DiffProblem, FileDiff, parse_diff
from patchstack.patches.mail import CUT_ON, Mail, MailProblem, read_mail

_NAME = re.compile(r"(?P<low>[^/]+?)\.\.(?P<high>[^/]+)\.patch")


@dataclass(frozen=True)
class Variant:
    """One diff and the releases that it is for, both ends included."""

    low: str
    high: str
    cut_on: str
    """The release on which it was made: there every pre-image must match."""
    path: Path
    mail: Mail
    files: tuple[FileDiff, ...]

    def covers(self, version: str) -> bool:
        return Version(self.low) <= Version(version) <= Version(self.high)


def variant_name(low: str, high: str) -> str:
    return f"{low}..{high}.patch"


def read_variants(folder: Path) -> tuple[tuple[Variant, ...], list[str]]:
    """The diffs in a patch's folder, lowest release first, and every problem with them."""
    found: list[Variant] = []
    problems: list[str] = []
    for path in sorted(folder.glob("*.patch")):
        try:
            found.append(_read(path))
        except (MailProblem, DiffProblem) as problem:
            problems.append(f"{path}:{problem.line}: {problem}")
    found.sort(key=lambda variant: Version(variant.low))
    for before, after in pairwise(found):
        if after.covers(before.high) or before.covers(after.low):
            problems.append(
                f"{after.path}:1: (file name): it and {before.path.name} are for the same releases: "
                "rename one so that their ranges do not meet"
            )
    return tuple(found), problems


def _read(path: Path) -> Variant:
    match = _NAME.fullmatch(path.name)
    try:
        low, high = (Version(match["low"]), Version(match["high"])) if match else (None, None)
    except InvalidVersion:
        low = high = None
    if match is None or low is None or high is None or low > high:
        raise MailProblem(1, "(file name): it names no range of releases: call it 0.5.12.post1..0.5.13.patch")
    mail = read_mail(path.read_bytes())
    cut_on = mail.cut_on
    try:
        if cut_on is None or not low <= Version(cut_on) <= high:
            raise MailProblem(
                1,
                f"{CUT_ON}: {'the trailer is missing' if cut_on is None else f'{cut_on} is not in the range'}: "
                "end the message with the release of its range that it was cut on",
            )
    except InvalidVersion:
        raise MailProblem(1, f"{CUT_ON}: {cut_on} is no release: write one, as 0.5.12.post1") from None
    try:
        files = parse_diff(mail.diff)
    except DiffProblem as problem:
        raise DiffProblem(problem.line + mail.diff_line - 1, str(problem)) from None
    return Variant(match["low"], match["high"], cut_on, path, mail, files)
