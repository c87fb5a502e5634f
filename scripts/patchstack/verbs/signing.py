"""The lane's keys: the public one beside deploy.yaml, the private one in the environment."""

from __future__ import annotations

import os

from patchstack.config import line_in
from patchstack.credential import SIGNING_KEY
from patchstack.errors import ConfigError, UsageError
from patchstack.image.signing import PublicKey, Signer, read_public_key, signer_of
from patchstack.workplace import Workplace


def public_key_of(work: Workplace) -> PublicKey | None:
    """The key that the lane's images are verified with; None where deploy.yaml names none.

    Raises `ConfigError` for a file that holds none.
    """
    settings = work.lane.image
    if settings is None or settings.public_key is None:
        return None
    try:
        return read_public_key(work.config_path.parent / settings.public_key)
    except UsageError as error:
        location = ("lanes", work.lane_name, "image", "public_key")
        line = line_in(work.config_path, *location)
        raise ConfigError([f"{work.config_path}:{line}: {'.'.join(location)}: {error}"]) from error


def signer_for(work: Workplace) -> Signer | None:
    """What tonight's image is signed with; None where deploy.yaml names no key.

    Raises `UsageError` where it names one and the environment does not have its other half. The embedded registry is
    one person's: there an image is signed only by who has the key.
    """
    public = public_key_of(work)
    if public is None or (work.embedded and not os.environ.get(SIGNING_KEY, "").strip()):
        return None
    return signer_of(os.environ, public)
