"""Update after update of a run that is ready for them, told to whoever follows it."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path

from training.arm import ArmConfig
from training.checkpoint import TrainingState, publish_manifest
from training.distributed import World
from training.loader import Loader
from training.objectives import Batch
from training.run import Run
from training.stopping import has_stalled
from training.trackers import TRACKERS, Tracked, Tracker
from training.upcycling import router_statistics


def loader_of(run: Run, start_step: int, num_workers: int) -> Loader[list[Batch]]:
    """The batches of this process, made ahead by so many threads from a step on."""
    world = run.world
    return Loader(
        run.stream,
        run.fetch,
        start_step=start_step,
        rank=world.rank,
        world_size=world.size,
        num_workers=num_workers,
    )


def _is_over(arm: ArmConfig, state: TrainingState) -> bool:
    """Whether all steps are done, or more would find no new best."""
    return state.step >= arm.steps or has_stalled([loss for _, loss in state.checks], arm.stop_patience)


def updated(
    run: Run,
    loader: Loader[list[Batch]],
    state: TrainingState,
    *,
    before: Callable[[int], None],
    after: Callable[[TrainingState], None],
    save: Callable[[TrainingState], None],
    should_stop: Callable[[], bool],
    publish_to: Path | None,
) -> TrainingState:
    """The state after all updates, or after those until somebody asked to stop; saved when one is due, and at the end.

    Parameters
    ----------
    before : called before every update with its step, counted from 0.
    after : called after every update, and after the checkpoint where one was due.
    publish_to : where manifests of an online pacing go; None publishes none.
    """
    arm = run.arm
    while not _is_over(arm, state) and not run.world.agreed(should_stop()):
        before(state.step)
        state = _advanced(run, loader, state, publish_to)
        if state.step % arm.checkpoint_every == 0:
            save(state)
        after(state)
    if state.step % arm.checkpoint_every:
        save(state)
    return state


def _advanced(run: Run, loader: Loader[list[Batch]], state: TrainingState, publish_to: Path | None) -> TrainingState:
    """The state after one more update, and after a check of the held-out records where one is due."""
    started, waited = time.perf_counter(), loader.wait_seconds
    loss, num_tokens = run.update(state.step, loader.take())
    step, arm = state.step + 1, run.arm
    if run.revise(step):
        loader.revise(run.stream)
        if publish_to:
            publish_manifest(publish_to, run.stream.revisions[-1].manifest)
    is_due = arm.stop_patience > 0 and step % arm.stop_every == 0
    return replace(
        state,
        step=step,
        losses=(*state.losses, loss),
        num_tokens=state.num_tokens + num_tokens,
        checks=(*state.checks, (step, _check(run))) if is_due else state.checks,
        seconds=state.seconds + time.perf_counter() - started,
        wait_seconds=state.wait_seconds + loader.wait_seconds - waited,
        revisions=tuple((start, one.digest) for start, one in run.stream.revisions),
    )


def _check(run: Run) -> float:
    """The loss on held-out records, by the weights that would be saved now."""
    average = run.moving.average
    with average.in_place() if average is not None else nullcontext():
        return run.held_out_loss()


@contextmanager
def _closing(tracker: Tracker) -> Iterator[Tracker]:
    try:
        yield tracker
    finally:
        tracker.close()


def tracking(
    arm: ArmConfig, names: Sequence[str], folder: Path | None, start_step: int, world: World
) -> list[AbstractContextManager[Tracker]]:
    """The trackers of the first process, each to be opened and closed."""
    if world.rank or not names:
        return []
    if folder is None:
        raise ValueError(f"trackers={list(names)} need track_dir")
    return [
        _closing(
            TRACKERS[name].member(
                Tracked(folder=folder / name, name=arm.name, settings=asdict(arm), start_step=start_step)
            )
        )
        for name in names
    ]


def tell(told: Sequence[Tracker], run: Run, state: TrainingState) -> None:
    """Tell trackers what the last update measured."""
    if not told:
        return
    values = (
        run.measured | {"seconds": state.seconds, "tokens": float(state.num_tokens)} | router_statistics(run.network)
    )
    if state.checks and state.checks[-1][0] == state.step:
        values["held_out_loss"] = state.checks[-1][1]
    for one in told:
        one.log(state.step, values)
