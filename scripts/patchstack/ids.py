"""The id of a git object, and how who looks after something is named. `model.py` hands the first on."""

from __future__ import annotations

from typing import NewType

Sha = NewType("Sha", str)
"""A git object id: 40 lower-case hexadecimal digits."""

OWNER = r"^@[A-Za-z0-9][A-Za-z0-9-]*(/[A-Za-z0-9._-]+)?$"
"""Who looks after a patch, a guard or an entry of the quarantine, as CODEOWNERS has it: ``@acme/pd``."""
