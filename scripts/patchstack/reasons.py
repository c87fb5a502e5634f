"""What becomes of a candidate that is not in a night, and why. Part of `model.py`, which hands it on."""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    """What became of a candidate that is not a parent of tonight's commit."""

    CARRIED = "carried"
    DROPPED = "dropped"
    EXCLUDED = "excluded"
    WAITING = "waiting"
    """For somebody's word: an admission, or the end of a draft."""
    SKIPPED = "skipped"
    GONE = "gone"
    """It was there in the last night, and no source lists it any more."""


class Reason(StrEnum):
    SAME_HEAD = "same head"
    CONTAINED = "contained"
    SAME_DIFF = "same diff"
    NO_EFFECT_ON_BASE = "no effect on the base"
    NO_EFFECT_ON_STACK = "no effect on what is composed so far"
    CONFLICT = "conflict"
    REQUIRED_LEFT_OUT = "what it requires is left out"
    CARRIER_LEFT_OUT = "its carrier is left out"
    CONTAINS_DEPLOY = "contains a deploy commit"
    NO_COMMON_HISTORY = "no common history"
    INTO_MAIN = "into main: never composed"
    OTHER_LANE = "for another lane"
    HEAD_MISSING = "head is missing"
    EMPTY = "changes nothing"
    NOT_CARRIED = "nothing left that the base carries"
    BUILD_FILES = "changes build files"
    PROTECTED_PATH = "touches protected paths"
    UNUSABLE_NAME = "a name that some file systems cannot hold"
    TOO_LARGE = "larger than a pull request may be"
    SKIPPED_BY_CONFIG = "skipped by deploy.yaml"
    NEEDS_ADMISSION = "needs admission"
    DRAFT = "draft"
    BLOCKED = "blocked"
    BARRED = "barred by a rollback"
    GUILTY = "found guilty of a red night"
    CARRIES_BLOCKED = "carries commits of a blocked one"
    INTO_DEPLOY = "into a deploy branch"
    INTO_OTHER = "into a branch that is not composed"
    OTHER_OWNER = "from a repository that deploy.yaml does not list"
    NOT_WANTED = "its branch is not wanted by deploy.yaml"
    FORK_GONE = "the repository of its branch is gone"
    MERGED = "merged"
    CLOSED = "closed"
    NO_LONGER_LISTED = "no longer listed"
    NOT_FOR_THIS_BASE = "not for this base"
    SWITCHED_OFF = "optional and not switched on"
    ON_REQUEST = "left out by --without"
