"""Which of the test processes does what: what shares a fixture stays together, and what takes long begins first.

pytest-xdist's own ``loadgroup`` says groups by node ids that it changes, which pytest 9.2 no longer lets it do, without
a word (pytest-xdist#1386). Groups here are paths, which both sides see.
"""

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

TOGETHER = ("tests/browser", "tests/cli", "tests/faults")
"""Folders whose modules share a running service, a browser, or servers. Elsewhere a module stays together."""

FIRST = (
    "tests/cli",
    "tests/faults",
    "tests/workers/test_determinism.py",
    "tests/service/test_simulate.py",
    "tests/workers/test_semantic.py",
    "tests/browser",
    "tests/service/test_tracing.py",
    "tests/workers/test_pipelines.py",
    "tests/workers/test_labeling.py",
    "tests/service/test_processes.py",
    "tests/workers/test_garbage.py",
)
"""What takes longest, in this order: begun last it would leave the other processes idle."""


def group_of(nodeid: str) -> str:
    """The folder or module whose tests one process does.

    >>> group_of("tests/cli/test_up.py::test_service_comes_up[::1]")
    'tests/cli'
    >>> group_of("tests/training/test_fit.py::test_loss_falls[a/b::c]")
    'tests/training/test_fit.py'
    """
    module = nodeid.partition("::")[0]
    folder = module.rpartition("/")[0]
    return folder if folder in TOGETHER else module


def place_of(nodeid: str) -> int:
    """Where a test's group comes in ``FIRST``, or after all of it."""
    group = group_of(nodeid)
    return FIRST.index(group) if group in FIRST else len(FIRST)


class ByGroup(LoadScopeScheduling):
    """Gives out whole groups, in the order in which they were collected."""

    def __init__(self, config: pytest.Config, log: Producer) -> None:
        super().__init__(config, log)
        # By default those with the most tests come first, which need not be the longest.
        config.option.loadscopereorder = False

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)
