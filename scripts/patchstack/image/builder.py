"""What builds a Containerfile, by argv: buildah, else docker with buildx.

Each gets a folder to build from and a folder to keep everything in, and leaves an OCI layout. Nothing of an earlier
build is used, no network is there, and no setting of the user's changes what comes out.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from patchstack import process
from patchstack.image.debian import is_at_hand
from patchstack.image.recipe import EPOCH_S

BUILDAH, DOCKER = "buildah", "docker"
TAG = "image"


@dataclass(frozen=True)
class Folders:
    """The places of one build, all below ``work``, which goes away with all that the builder keeps."""

    work: Path

    @property
    def context(self) -> Path:
        return self.work / "context"

    @property
    def layout(self) -> Path:
        return self.work / "layout"

    @property
    def scratch(self) -> Path:
        return self.work / "scratch"


@dataclass(frozen=True)
class Step:
    """One program to run; ``adds`` goes into its environment."""

    what: str
    argv: tuple[str, ...]
    adds: tuple[tuple[str, str], ...] = ()


class Builder(Protocol):
    @property
    def name(self) -> str: ...
    def steps(self, folders: Folders, target: str, labels: Mapping[str, str]) -> Sequence[Step]:
        """What makes ``folders.layout`` of the target in ``folders.context``."""
        ...

    def remove(self, work: Path) -> Sequence[str]:
        """The command that removes ``work`` where its files are not ours by their owner."""
        ...


@dataclass(frozen=True)
class Buildah:
    """https://github.com/containers/buildah, with a store of its own in each build's folder.

    Its steps run in a chroot, which needs neither a daemon nor cgroups, and `chroot` knows no network but the host's:
    so buildah itself has none.
    """

    as_root: bool

    @property
    def name(self) -> str:
        return BUILDAH

    @property
    def _without_network(self) -> tuple[str, ...]:
        # Only root makes a network namespace; others are root in a user namespace of buildah's.
        return ("unshare", "--net", "--") if self.as_root else (BUILDAH, "unshare", "unshare", "--net", "--")

    def steps(self, folders: Folders, target: str, labels: Mapping[str, str]) -> Sequence[Step]:
        store = (BUILDAH, "--root", str(folders.work / "store"), "--runroot", str(folders.work / "run"))
        made = [*store, "build", "--isolation", "chroot", "--layers", "--no-cache", "--no-hosts"]
        made += ["--timestamp", str(EPOCH_S), "--identity-label=false", "--http-proxy=false"]
        made += ["--format", "oci", "--target", target, "--tag", TAG]
        made += [part for name, text in sorted(labels.items()) for part in ("--label", f"{name}={text}")]
        made.append(str(folders.context))
        pushed = [*store, "push", "--quiet", "--format", "oci", TAG, f"oci:{folders.layout}:{TAG}"]
        adds = (("TMPDIR", str(folders.scratch)), ("BUILDAH_ISOLATION", "chroot"))
        return (
            Step("installing", (*self._without_network, *made), adds),
            Step("compressing", (*self._without_network, *pushed), adds),
        )

    def remove(self, work: Path) -> Sequence[str]:
        return (*(() if self.as_root else (BUILDAH, "unshare")), "rm", "-rf", "--one-file-system", str(work))


@dataclass(frozen=True)
class Buildx:
    """`docker buildx build`, by whichever builder docker is set to use."""

    @property
    def name(self) -> str:
        return f"{DOCKER} buildx"

    def steps(self, folders: Folders, target: str, labels: Mapping[str, str]) -> Sequence[Step]:
        argv = [DOCKER, "buildx", "build", "--platform", "linux/amd64", "--no-cache", "--network", "none"]
        argv += ["--provenance", "false", "--sbom", "false", "--build-arg", f"SOURCE_DATE_EPOCH={EPOCH_S}"]
        argv += ["--file", str(folders.context / "Containerfile"), "--target", target]
        argv += [part for name, text in sorted(labels.items()) for part in ("--label", f"{name}={text}")]
        argv += ["--output", f"type=oci,dest={folders.layout},tar=false,oci-mediatypes=true,rewrite-timestamp=true"]
        return (Step("installing", (*argv, str(folders.context))),)

    def remove(self, work: Path) -> Sequence[str]:
        return ("rm", "-rf", "--one-file-system", str(work))


def builder_at_hand() -> Builder | None:
    """The builder of this machine; None where there is none, or no mmdebstrap."""
    if not is_at_hand():
        return None
    if _is_there(BUILDAH):
        return Buildah(os.geteuid() == 0)
    if _is_there(DOCKER) and _answers((DOCKER, "buildx", "version")) and _answers((DOCKER, "version")):
        return Buildx()
    return None


def _is_there(program: str) -> bool:
    return shutil.which(program) is not None


def _answers(argv: Sequence[str]) -> bool:
    return process.run(argv, check=False, timeout_s=60).returncode == 0
