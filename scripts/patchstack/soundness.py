"""What git asks of objects that pull requests bring, and whose hooks have a say in that: nobody's."""

from __future__ import annotations

import os

from patchstack.errors import RemoteError

NO_HOOKS = ("-c", f"core.hooksPath={os.devnull}")
"""A hook that the user has everywhere (`reference-transaction`) does not decide what is kept or pushed."""

# https://git-scm.com/docs/git-fsck#_fsck_messages: what a server that checks a push refuses, GitHub's among them; in
# the history of `deploy` it would stop every promotion. Named one by one, so that no configuration lets it through.
_REFUSED = (
    *("badDate", "badDateOverflow", "badEmail", "badFilemode", "badName", "badParentSha1", "badTimezone", "badTree"),
    *("badTreeSha1", "duplicateEntries", "emptyName", "fullPathname", "hasDot", "hasDotdot", "hasDotgit"),
    *("missingAuthor", "missingCommitter", "missingEmail", "missingNameBeforeEmail", "missingSpaceBeforeDate"),
    *("missingSpaceBeforeEmail", "missingTree", "multipleAuthors", "nulInCommit", "nulInHeader", "nullSha1"),
    *("treeNotSorted", "unknownType", "unterminatedHeader", "zeroPaddedFilemode"),
)
STRICT = (
    *("-c", "fetch.fsckObjects=true"),
    *(part for name in _REFUSED for part in ("-c", f"fetch.fsck.{name}=error")),
)
"""Options of git for a fetch that looks at every object that comes in."""


class UnsoundError(RemoteError):
    """A remote hands over objects that git refuses."""
