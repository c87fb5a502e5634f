"""Whose assertion failed: a guard's, or one in the code that it runs?"""

from __future__ import annotations

import os
from pathlib import Path


def is_by_the_test(error: BaseException) -> bool:
    """Whether ``error`` is an AssertionError that was not raised by code of the tree under test.

    SGLang has assertions of its own. One of them is a crash of what is tested; it proves nothing about the
    fault that a guard is made for.
    """
    if not isinstance(error, AssertionError):
        return False
    tree = os.environ.get("PATCHSTACK_TREE")
    trace = error.__traceback__
    if not tree or trace is None:
        return True
    while trace.tb_next is not None:
        trace = trace.tb_next
    return not Path(trace.tb_frame.f_code.co_filename).resolve().is_relative_to(Path(tree).resolve())
