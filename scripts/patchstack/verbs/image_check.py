"""`patchstack image-check`: tonight's image as it is pulled from the registry, looked at before anything moves.

It can run where the image was made or on another machine: what it needs is the run, an engine for containers, and the
registry.
"""

from __future__ import annotations

import os
from pathlib import Path

from patchstack.errors import MachineError, UsageError
from patchstack.image.check import Asked, check, no_engine, nothing_seen
from patchstack.image.engine import engine_at_hand
from patchstack.image.login import login_for
from patchstack.model import Composition, ImageCheck, ImageRef, ImageResult, ImageTests
from patchstack.store import Run
from patchstack.verbs.image import open_registry
from patchstack.workplace import Workplace

_MODEL = Path("tests", "support", "testbed", "tiny_model.py")
"""Beside deploy.yaml: what guards start their servers on, too."""


def check_image(work: Workplace, run: Run, composition: Composition, result: ImageResult) -> ImageTests | None:
    """Look at the image of ``result``, write what was seen into ``run``, and return it; None where there is no image.

    What could not be looked at is `missing`, and says why.
    """
    if result.image is None:
        return None
    tests = ImageTests(result.image.repository, result.image.digest, _checks(work, composition, result.image))
    run.write(tests)
    return tests


def image_of(run: Run) -> ImageResult:
    """What became of the run's image; `UsageError` where nobody has tried to make it, or there is none."""
    result = run.read(ImageResult)
    if result.image is None:
        raise UsageError(f"run {run.id} has no image: {result.why_not}")
    return result


def _checks(work: Workplace, composition: Composition, image: ImageRef) -> tuple[ImageCheck, ...]:
    model = work.root / _MODEL
    if not model.is_file():
        return nothing_seen(f"{_MODEL} is not there, of which a small model is made: restore it")
    with open_registry(work) as registry:
        if registry is None:
            return nothing_seen("the registry of the image is not there: run this where the image was made")
        engine = engine_at_hand()
        if engine is None:
            return no_engine()
        place = registry.place
        base = work.lane.image.base if work.lane.image and not work.embedded else None
        asked = Asked(
            image=image,
            place=place,
            login=None if work.embedded else login_for(place.host, os.environ, Path.home()),
            composition=composition,
            store=work.store(),
            make_model=model.read_text(),
            root=base.root if base else None,
        )
        try:
            with engine.opened(work.cache, work.progress) as opened:
                return check(opened, asked, work.progress)
        except MachineError as error:
            return nothing_seen(f"{engine.name} does not work here: {error}")
