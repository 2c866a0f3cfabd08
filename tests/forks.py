"""Whether a process may be forked: a fork copies none of its threads."""

import os
from pathlib import Path

HARMLESS = {"jemalloc_bg_thd", "polars-ooc-clea"}
"""Threads of allocators, which see to forks themselves, and one that only removes files."""


def check_forkable() -> None:
    """This process has no thread that a fork would miss."""
    others = [path for path in Path("/proc/self/task").iterdir() if path.name != str(os.getpid())]
    names = {(path / "comm").read_text().strip() for path in others}
    assert names <= HARMLESS, f"threads that a fork would not copy: {names - HARMLESS}"
