"""Peak resident memory of this process, as the kernel counts it."""

import ctypes
import logging
import resource
import sys
from pathlib import Path

import pyarrow as pa

log = logging.getLogger(__name__)

_TRIM = getattr(ctypes.CDLL(None), "malloc_trim", None)
"""Of glibc alone."""
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def reset_peak() -> None:
    """Count the peak from here, where the kernel can (Linux); elsewhere it stays that of the whole process."""
    try:
        _RESET.write_text("5", encoding="ascii")
    except OSError as error:
        log.debug("the peak of memory cannot be reset: %s", error)


def release_memory() -> None:
    """Return freed memory that the allocators keep to the system: a big unit does not weigh on the next."""
    pa.default_memory_pool().release_unused()
    if _TRIM is not None:
        _TRIM(0)


def peak_bytes() -> int:
    """The most resident memory since ``reset_peak``, in bytes."""
    if _STATUS.exists():
        for line in _STATUS.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024
