"""`patchstack plan` and `patchstack merge`: from deploy.yaml to one octopus commit."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from patchstack import __version__
from patchstack.compose.compose import compose
from patchstack.compose.dedup import dedup
from patchstack.compose.merge import merge as merge_plan
from patchstack.compose.plan import fingerprint
from patchstack.compose.plan import plan as decide_plan
from patchstack.compose.topics import pull_topics
from patchstack.config import GitHubSource
from patchstack.errors import UsageError
from patchstack.git import Repository
from patchstack.git import version as git_version
from patchstack.model import Base, Candidates, Composition, MergePlan, Topic
from patchstack.patches.header import Patch
from patchstack.patches.series import read_series
from patchstack.patches.topics import build_topics
from patchstack.pulls.refs import read_pulls
from patchstack.regress.suites import find_suites
from patchstack.release.remote import ensure_embedded_remote
from patchstack.store import Run
from patchstack.upstream.provider import resolve_base
from patchstack.verbs.author import releases, validate
from patchstack.workplace import Workplace
