"""Event files for TensorBoard."""

import json

from training.trackers import TRACKERS, Tracked, Tracker, needed


class _Events:
    def __init__(self, tracked: Tracked) -> None:
        needed("tensorboard", "tensorboard")
        from torch.utils.tensorboard import SummaryWriter

        # What an attempt that was killed noted beyond its checkpoint is not shown twice.
        purge = tracked.start_step + 1 if tracked.start_step else None
        self._writer = SummaryWriter(str(tracked.folder), purge_step=purge)
        if not tracked.start_step:
            settings = json.dumps(tracked.settings, indent=1, sort_keys=True, ensure_ascii=False)
            self._writer.add_text("settings", f"    {settings}".replace("\n", "\n    "))

    def log(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


@TRACKERS.register("tensorboard")
def tensorboard(tracked: Tracked) -> Tracker:
    """One scalar a number, in event files that ``tensorboard --logdir`` reads."""
    return _Events(tracked)
