"""Energy of a piece of work, always together with how the number was obtained."""

from collections.abc import Callable
from typing import Any, NamedTuple

from training.third_party import quietly

_MEASURED = {
    "intel_rapl": "CPU measured by RAPL",
    "intel_power_gadget": "CPU measured by Intel Power Gadget",
    "windows_emi": "CPU measured by Windows EMI",
}


class Energy(NamedTuple):
    """Joules of the whole machine over a window, or None with the reason in ``method``."""

    joules: float | None
    method: str


class EnergyMeter:
    """codecarbon's offline tracker, started once (about a second) and read around each piece of work.

    No network is asked and no file is written. In a virtual machine without power counters the number is modelled from
    the load of the whole machine and the processor's rated power: good for comparing variants on one quiet machine,
    no more. ``method`` says which it is.
    """

    def __init__(self) -> None:
        with quietly():
            from codecarbon import OfflineEmissionsTracker

            # The country only turns energy into emissions, which are not used.
            self._tracker = OfflineEmissionsTracker(
                country_iso_code="USA",
                save_to_file=False,
                log_level="error",
                allow_multiple_runs=True,
                measure_power_secs=1,
            )
        self._count = 0

    def measure(self, run: Callable[[], object]) -> Energy:
        """Energy used by the machine while ``run`` runs; windows under a second are mostly rounding."""
        self._count += 1
        name = f"window-{self._count}"
        with quietly():
            self._tracker.start_task(name)
        try:
            run()
        finally:
            with quietly():
                used = self._tracker.stop_task(name)
        return Energy(float(used.energy_consumed) * 3.6e6, self._method(used))

    def close(self) -> None:
        """End the tracker's threads."""
        with quietly():
            self._tracker.stop()

    def _method(self, used: Any) -> str:
        from importlib.metadata import version

        parts = []
        for part in getattr(self._tracker, "_hardware", []):
            kind = type(part).__name__
            mode = getattr(part, "_mode", "")
            if kind == "CPU" and mode in _MEASURED:
                parts.append(_MEASURED[mode])
            elif kind == "CPU":
                source = "machine load" if mode == "cpu_load" else mode or "unknown mode"
                parts.append(f"CPU modelled from {source} at {getattr(part, '_tdp', 0):g} W rated power")
            elif kind == "RAM":
                parts.append(f"RAM modelled at {used.ram_power:g} W")
            else:
                parts.append(f"{kind} measured")
        return f"codecarbon {version('codecarbon')}, whole machine: " + ("; ".join(parts) or "unknown hardware")
