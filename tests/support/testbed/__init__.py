"""The test bed: real processes, ports, gloo ranks and a Mooncake pair for guards on real SGLang code.

A guard's module imports what it needs from here; the fixtures come from `testbed.plugin`:

``children``
    a `Children`: starts functions of the guard in processes of their own, joins them with a limit, shows
    the Python stacks of those that hang, and leaves none behind.
``shared_servers``, ``programs``
    whole SGLang servers with a tiny model, shared by all tests of a run or of one test alone: `testbed.server`
    and `testbed.pd_servers`.
``ports``
    a `Ports`: loopback ports that no other test of this machine gets at the same time.

In one look::

    from testbed import run_ranks

    def consume(rank):                           # runs in each process, gloo group ready
        return rank.gather(rank.number * 100)

    def test_sum(children):
        ended = run_ranks(children, consume, size=2, limit_s=60)
        assert not ended.hung, ended.describe()  # a hang is this guard's own assertion
        assert ended.values() == [[0, 100]] * 2

Two marks: ``control`` (must pass with the patch and without it) and ``limit(seconds)`` (default 120).
This package is imported by processes without torch as well: it imports torch and SGLang where they are
used, never at its top.
"""

from testbed.gloo import Rank, run_ranks, start_ranks
from testbed.ports import Ports
from testbed.processes import Child, ChildEnded, ChildFailed, Children, ChildSilent, Ended, Link, State

__all__ = [
    "Child",
    "ChildEnded",
    "ChildFailed",
    "ChildSilent",
    "Children",
    "Ended",
    "Link",
    "Ports",
    "Rank",
    "State",
    "run_ranks",
    "start_ranks",
]
