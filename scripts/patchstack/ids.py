"""The id of a git object. Part of `model.py`, which hands it on."""

from __future__ import annotations

from typing import NewType

Sha = NewType("Sha", str)
"""A git object id: 40 lower-case hexadecimal digits."""
