"""Runs of Weights & Biases."""

import hashlib

from training.trackers import TRACKERS, Tracked, Tracker, needed


class _WandbRun:
    def __init__(self, tracked: Tracked) -> None:
        wandb = needed("wandb", "wandb")
        tracked.folder.mkdir(parents=True, exist_ok=True)
        # The same folder is the same run, so that a resumed training goes on in it.
        number = hashlib.sha256(str(tracked.folder).encode()).hexdigest()[:16]
        self._run = wandb.init(
            project="winnow",
            name=tracked.name,
            id=number,
            resume="allow",
            dir=str(tracked.folder),
            config=tracked.settings,
            reinit="create_new",
        )

    def log(self, step: int, values: dict[str, float]) -> None:
        self._run.log(values, step=step)

    def close(self) -> None:
        self._run.finish()


@TRACKERS.register("wandb")
def wandb(tracked: Tracked) -> Tracker:
    """A run of the project ``winnow``; WANDB_MODE=offline keeps it on this machine."""
    return _WandbRun(tracked)
