"""What a reader of a night or of a lane's status is told of images."""

from __future__ import annotations

from patchstack.model import GuardOutcome, ImageCheck, ImageRef, ImageResult, ImageTests, LedgerImage, LedgerLine
from patchstack.report.page import Badge, Line, Page, Prose, Quoted, Section, Table

IMAGE = "Image"
CHECK_COLUMNS = ("Looked at", "Outcome", "What was seen", "Seconds")


def named(image: ImageRef | LedgerImage) -> str:
    """As it is pulled."""
    return f"{image.repository}@{image.digest}"


def pulled(image: ImageRef) -> Line:
    return ("Image ", Quoted(named(image)), ", tag ", Quoted(image.tag), ".")


def made(image: ImageRef) -> Line:
    how = "Its dependencies were not in the registry yet" if image.built else "One layer on the dependencies of before"
    return (
        f"{how}; {image.bytes_new / 1e6:.1f} MB pushed; ",
        *(("signed statement ", Quoted(_short(image.provenance))) if image.provenance else ("no statement is signed",)),
        ".",
    )


def why_not(result: ImageResult) -> Line:
    return (Badge("no image"), ": ", Prose(result.why_not))


def section(result: ImageResult | None, tests: ImageTests | None) -> tuple[Section, ...]:
    """What became of the image, and what was seen inside it."""
    if result is None:
        return ()
    if result.image is None:
        return (Section(IMAGE, (why_not(result),)),)
    checks = tests.checks if tests else ()
    rows = tuple(_row(check) for check in checks)
    table = Table(CHECK_COLUMNS, rows) if rows else None
    unseen: tuple[Line, ...] = () if rows else (("Nobody has looked inside it.",),)
    return (Section(IMAGE, (pulled(result.image), made(result.image), *unseen), table=table),)


def tests_page(tests: ImageTests) -> Page:
    """What was seen inside one image, alone."""
    lead: Line = ("Image ", Quoted(f"{tests.repository}@{tests.digest}"), ".")
    table = Table(CHECK_COLUMNS, tuple(_row(check) for check in tests.checks))
    return Page(("Image check",), (lead,), (Section(IMAGE, (), table=table),))


def _row(check: ImageCheck) -> tuple[Line, ...]:
    # Who hands in checks can call them anything.
    return ((Prose(check.name),), (Badge(_word(check.outcome)),), (Prose(check.detail),), (f"{check.duration_s:.1f}",))


def _word(outcome: GuardOutcome) -> str:
    return outcome.value.replace("_", " ")


# --- status --------------------------------------------------------------------------------------------


def deployed(line: LedgerLine, image_night: str | None) -> tuple[Line, ...]:
    """The deployed night's image, or whose image is the newest; nothing where there never was one."""
    if line.image is not None:
        return (("Image ", Quoted(named(line.image)), ", tag ", Quoted(line.image.tag), "."),)
    if image_night is None:
        return ()
    return (("The night has ", Badge("no image"), "; the newest image is that of night ", Quoted(image_night), "."),)


def tag_lags(name: str, wanted: str, found: str | None) -> Line:
    where: Line = ("at ", Quoted(_short(found))) if found else ("absent",)
    said: Line = (", the ledger says ", Quoted(_short(wanted)), "; the next night moves it")
    return ("image tag ", Quoted(name), " ", Badge("lags"), ": ", *where, *said)


def registry_problem(problem: str) -> Line:
    return (Badge("registry"), " could not be asked where the image tags are: ", Prose(problem))


def _short(digest: str) -> str:
    return digest[:19]
