"""`patchstack image-check`: what is inside the image of a run, as it is pulled."""

from __future__ import annotations

import click

from patchstack.console import Options, emit, with_json, with_run, workplace


@click.command(name="image-check")
@with_run
@with_json
@click.pass_obj
def image_check(options: Options, run_id: str | None, as_json: bool) -> None:
    """Pull a run's image by its digest and look inside it. [default: the newest run with an image]"""
    from patchstack import store
    from patchstack.errors import GateFailed, Incomplete, UsageError
    from patchstack.model import GuardOutcome, ImageResult
    from patchstack.report.terminal import render_image_tests
    from patchstack.verbs.image_check import check_image, image_of
    from patchstack.verbs.plan import read_composition

    work = workplace(options)
    with work.locked():
        run = work.state.run(run_id) if run_id is not None else work.newest(ImageResult)
        if run is None:
            raise UsageError(f"no run in {work.state.runs} has an image yet: run `patchstack image` first")
        tests = check_image(work, run, read_composition(work, run), image_of(run))
    assert tests is not None
    emit(store.encode(tests) if as_json else render_image_tests(tests))
    red = [check for check in tests.checks if check.outcome not in {GuardOutcome.PASS, GuardOutcome.SKIPPED_BY_RULE}]
    if red:
        kind = Incomplete if all(check.outcome is GuardOutcome.MISSING for check in red) else GateFailed
        raise kind(f"the image of run {run.id} did not pass: {', '.join(check.name for check in red)}")
