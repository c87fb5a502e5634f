"""One patch as a mail: what git-format-patch writes and git-am reads, in one canonical form.

The canonical form does not depend on the user's configuration: it is made in the store, where git sees none,
by options that name everything (https://git-scm.com/docs/git-format-patch).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC
from email import policy
from email.errors import HeaderParseError
from email.header import decode_header
from email.parser import BytesParser
from email.utils import parseaddr, parsedate_to_datetime

from patchstack.git import Repository, Signature

CUT_ON = "Cut-On"

CANONICAL_MAIL = (
    "--zero-commit",
    "--full-index",
    "--no-signature",
    "--no-stat",
    "--no-renames",
    "--binary",
    "-U3",
    "--diff-algorithm=myers",
    "--indent-heuristic",
    "--src-prefix=a/",
    "--dst-prefix=b/",
    "--no-attach",
    "--no-thread",
    "--keep-subject",
    "--no-color",
    "--no-ext-diff",
    "--no-textconv",
)


class MailProblem(ValueError):
    """A file that is no patch in mail format; the message is ``path: problem: fix``, ``line`` counts from 1."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(problem)
        self.line = line


@dataclass(frozen=True)
class Mail:
    author: Signature
    message: str
    """The whole commit message, with one newline at its end."""
    diff: bytes
    diff_line: int
    """The line of the file at which ``diff`` begins."""

    @property
    def subject(self) -> str:
        return self.message.partition("\n")[0]

    @property
    def cut_on(self) -> str | None:
        """The release named by the trailer, or None."""
        last_paragraph = self.message.rstrip("\n").rpartition("\n\n")[2]
        found: list[str] = re.findall(rf"^{CUT_ON}: *(\S+) *$", last_paragraph, re.MULTILINE)
        return found[-1] if found else None


def read_mail(data: bytes) -> Mail:
    """Take a mail apart; `MailProblem` says what it lacks. The diff's bytes are kept as they are."""
    head, separator, rest = data.partition(b"\n\n")
    start = re.search(rb"^diff --git ", rest, re.MULTILINE)
    if not separator or not re.match(rb"(From |From: )", head):
        raise MailProblem(1, "(mail header): there is none: write the file with `patchstack patch export`")
    if not head.isascii():
        raise MailProblem(1, "(mail header): it holds bytes that are not ASCII: encode them as RFC 2047 says")
    if start is None:
        raise MailProblem(1, "(diff): there is none, it changes nothing: remove the patch from the series")
    if head.startswith(b"From "):
        head = head.partition(b"\n")[2]
    headers = BytesParser(policy=policy.compat32).parsebytes(head + b"\n\n", headersonly=True)
    name, address = parseaddr(_unfolded(headers["From"]))
    if not address:
        raise MailProblem(1, "From: it names no author: write `From: Name <address>`")
    try:
        moment = parsedate_to_datetime(_unfolded(headers["Date"]))
    except ValueError:
        raise MailProblem(1, "Date: it is missing or no date: write it as `Sat, 21 Nov 2026 00:00:00 +0000`") from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    subject = _decoded(_unfolded(headers["Subject"]))
    if not subject:
        raise MailProblem(1, "Subject: it is missing: write the title of patch.md")
    try:
        # As git-am does: what stands between a line `---` and the diff (a diffstat) is no part of the message.
        body = re.split(r"^---$", rest[: start.start()].decode(), maxsplit=1, flags=re.MULTILINE)[0].strip("\n")
    except UnicodeDecodeError as error:
        raise MailProblem(1, f"(message): not UTF-8 ({error.reason}): save it as UTF-8") from error
    author = Signature(_decoded(name) or address, address, f"@{int(moment.timestamp())} {moment:%z}")
    before_diff = data[: len(data) - len(rest) + start.start()]
    return Mail(
        author=author,
        message=f"{subject}\n\n{body}\n" if body else f"{subject}\n",
        diff=rest[start.start() :],
        diff_line=before_diff.count(b"\n") + 1,
    )


def _unfolded(header: object) -> str:
    return re.sub(r"\r?\n(?=[ \t])", "", str(header or ""))


def _decoded(text: str) -> str:
    """RFC 2047 words as text. The header classes of `email.policy` put a space between two that belong together."""
    try:
        parts = [
            part if isinstance(part, str) else part.decode(charset or "ascii") for part, charset in decode_header(text)
        ]
    except (ValueError, LookupError, HeaderParseError) as error:
        raise MailProblem(1, f"(mail header): {text!r} cannot be decoded ({error}): write it in UTF-8") from error
    return "".join(parts).strip()


def format_mail(store: Repository, commit: str) -> bytes:
    """The canonical mail of a commit that has one parent."""
    return store.attempt_ok(
        "-c", "core.quotepath=true", "format-patch", "-1", "--stdout", *CANONICAL_MAIL, commit
    ).stdout


def authorship(store: Repository, commit: str) -> Signature:
    """Author and author date of a commit, in UTF-8 whatever it was written in."""
    name, email, date = store.run("log", "-1", "--date=raw", "--format=%an%n%ae%n%ad", commit).split("\n")
    return Signature(name, email, f"@{date}")


def message_of(store: Repository, commit: str) -> str:
    """The whole message of a commit, with one newline at its end."""
    return store.show(commit, "%B").strip("\n") + "\n"


def with_cut_on(store: Repository, message: str, release: str) -> str:
    """``message`` with its one trailer `Cut-On:` naming ``release``."""
    trailer = f"{CUT_ON}: {release}"
    lines = [line for line in message.splitlines() if not line.startswith(f"{CUT_ON}:")]
    plain = "\n".join(lines).rstrip("\n") + "\n"
    return store.run("interpret-trailers", "--no-divider", "--trailer", trailer, stdin=plain.encode()) + "\n"
