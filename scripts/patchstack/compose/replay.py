"""A pull request's own diff, replayed three-way onto a base that its head was not cut from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from patchstack.compose.carried import restrict
from patchstack.compose.octopus import date_of
from patchstack.git import Repository, Signature, readable
from patchstack.model import Pull, Sha

# Git drops these from the ends of a name, and refuses one that holds nothing else.
_CRUD = " .,:;<>\"\\'"


@dataclass(frozen=True)
class Replayed:
    commit: Sha | None
    """The own diff on the new base; None when it conflicts."""
    conflicts: tuple[str, ...]


def replay(store: Repository, pull: Pull, onto: Sha, carried_below: Sequence[str]) -> Replayed:
    """Commit ``pull``'s own diff, as far as the base carries it, on ``onto``.

    Three commits with nothing but trees make the merge: merge base -> onto, merge base -> head. So renames
    are found, and what both sides changed alike is no conflict, where `git apply` would fail.
    """
    start = store.commit(restrict(store, pull.merge_base, carried_below), [], "merge base\n")
    ours = store.commit(store.tree_of(onto), [start], "onto\n")
    theirs = store.commit(restrict(store, pull.head, carried_below), [start], "head\n")
    merged = store.merge_tree(ours, theirs)
    if not merged.clean:
        return Replayed(None, merged.conflicts)
    subject = readable(store.show(pull.head, "%s"))
    message = f"{pull.name}: {subject}\n\nThe changes of {pull.merge_base}..{pull.head} on {onto}.\n"
    return Replayed(store.commit(merged.tree, [onto], message, _author(store, pull.head)), ())


def _author(store: Repository, head: Sha) -> Signature:
    """The head's author, as far as git lets us write the name again, at the head's date."""
    name, email = (_clean(part) for part in readable(store.show(head, "%an%x00%ae")).split("\0"))
    date = date_of(store, head)
    return Signature(name, email, date) if name and email else Signature(date=date)


def _clean(text: str) -> str:
    return "".join(character for character in text if character.isprintable()).strip(_CRUD)
