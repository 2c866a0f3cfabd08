"""The training loop: one arm, in one process or several, exactly resumable.

Everything random in a step follows from (seed, step): the batch from the stream, dropout from a generator seeded anew
at every step. So a checkpoint needs weights, optimizer state and one integer, and a run that was killed anywhere ends
with the same bits as one that was not.
"""

import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from catalog.errors import ConfigError
from training.arm import ArmConfig
from training.backbones import BACKBONES
from training.checkpoint import (
    TrainingState,
    latest_checkpoint,
    load_weights,
    publish_manifest,
    read_state,
    save_checkpoint,
)
from training.data import TrainingData
from training.distributed import ALONE, World, whole_weights
from training.initial import Initial, model_document
from training.loader import Loader
from training.memory import MemoryNeed, free_memory
from training.network import build_network
from training.objectives import Batch, objective_of
from training.precision import resolved_precision
from training.run import Run
from training.stopping import has_stalled, trained_on
from training.stream import Revision, Stream
from training.token_source import TokenSource
from training.tokenizer import Encoded, TextTokenizer
from training.trackers import TRACKERS, Tracked, Tracker
from training.upcycling import router_statistics

log = logging.getLogger(__name__)
_MODEL_DRAW = -1
"""The "step" whose seed draws the starting weights."""


@dataclass(frozen=True, kw_only=True)
class Beginning:
    """What is known before the first update of an attempt.

    Parameters
    ----------
    memory : what a step will take beyond the weights.
    free_bytes : what the device had free.
    losses : of the updates that earlier attempts did and this one goes on from.
    """

    memory: MemoryNeed
    free_bytes: int
    losses: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """A trained model and what it took.

    Parameters
    ----------
    arm : what was trained.
    model : the merged network in evaluation mode, on the CPU; of averaged weights where the arm averages.
    tokenizer : its tokenizer.
    classes : names of its outputs.
    losses : (step, loss) of every update, step counted from 1; the objective alone, in nats.
    steps : updates done; fewer than ``arm.steps`` when stopped.
    seconds : training time over all attempts, without building and saving.
    flops : floating-point operations of all forward and backward passes: counted on the first micro-batch, scaled by
        padded tokens.
    num_parameters, num_trained_parameters : size of the network under training, and the part that was trained.
    precision : what it computed in.
    stream_wait_share : share of ``seconds`` that was spent waiting for a batch, in [0, 1].
    revisions : manifests that an online pacing published, with the steps from which they were in force.
    checks : (step, loss) of the held-out records, where the arm may stop early.
    record_losses : (n,) loss that each record of the manifest had when it was last drawn, NaN where it never was; None
        where nobody asked.
    network : what was trained: the model, or what holds it and the objective's own modules.
    router : how evenly experts were used in the last step, by layer; see ``router_statistics``.
    """

    arm: ArmConfig
    model: nn.Module
    tokenizer: TextTokenizer
    classes: tuple[str, ...]
    losses: list[tuple[int, float]]
    steps: int
    seconds: float
    flops: int
    num_parameters: int
    num_trained_parameters: int
    precision: str
    stream_wait_share: float = 0.0
    revisions: tuple[Revision, ...] = ()
    checks: tuple[tuple[int, float], ...] = ()
    router: dict[str, float] = field(default_factory=dict)
    record_losses: npt.NDArray[np.float64] | None = None
    network: nn.Module | None = None

    @property
    def stopped_early(self) -> bool:
        """Whether the held-out loss found no new best any more."""
        return self.steps < self.arm.steps and has_stalled([loss for _, loss in self.checks], self.arm.stop_patience)

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do."""
        return self.steps == self.arm.steps or self.stopped_early

    def encode(self, texts: list[str]) -> Encoded:
        """Turn texts into the model's input."""
        return self.tokenizer.encode(texts, self.arm.max_tokens)


def fit(
    arm: ArmConfig,
    data: TrainingData,
    *,
    device: torch.device | str = "cpu",
    checkpoint_dir: Path | None = None,
    on_start: Callable[[Beginning], None] = lambda beginning: None,  # noqa: ARG005
    on_progress: Callable[[int, int, float], None] = lambda step, total, loss: None,  # noqa: ARG005
    should_stop: Callable[[], bool] = lambda: False,
    on_model: Callable[[int, nn.Module, TextTokenizer], None] | None = None,
    token_dir: Path | None = None,
    num_workers: int = 1,
    initial: Initial | None = None,
    trackers: Sequence[str] = (),
    track_dir: Path | None = None,
    world: World = ALONE,
    memory_limit_bytes: int | None = None,
) -> FitResult:
    """Train one arm, from its newest checkpoint when there is one.

    Parameters
    ----------
    arm : what to train.
    data : what to train on.
    device : where to compute.
    checkpoint_dir : folder of this run's checkpoints, the same for all processes; None writes none.
    on_start : called once, before the first update.
    on_progress : called after every update with (updates done, updates in all, loss).
    should_stop : asked before every update; True saves a checkpoint and returns what there is.
    on_model : called after every update with (updates done, the network in evaluation mode, its tokenizer), without
        gradients; for measuring as training goes on. It is not counted into the time, and must not change the network.
    token_dir : folder in which all texts are tokenized ahead, once for all runs with the same texts and tokenizer; None
        tokenizes each batch when its turn comes.
    num_workers : threads that make batches ahead. Like ``token_dir`` they change the time, not the result.
    initial : what the arm's ``init_from`` names; needed where it names something, and only then.
    trackers, track_dir : names in ``TRACKERS`` that are told every update, and the folder for what they keep.
    world : the processes that train together; all call this with the same arguments but ``world`` and ``device``.
    memory_limit_bytes : what the run may take beyond its weights; None takes what the device has free.

    Raises
    ------
    ConfigError : the arm names or configures something that does not exist, or it will not fit into memory.
    DataError : fewer records than a batch, or a loss that is not finite (with the record ids).
    ConflictError, CorruptionError : a checkpoint of another run, or a damaged one.
    """
    device = torch.device(device)
    if not arm.steps:
        raise ConfigError(f"steps=0 of arm {arm.name!r} trains nothing; take the model that init_from names as it is")
    stream_of(arm, data)
    state = TrainingState(
        config_digest=arm.digest(), data_digest=data.digest, precision=resolved_precision(arm.precision, device)
    )
    checkpoint = latest_checkpoint(checkpoint_dir) if checkpoint_dir else None
    document = None
    if checkpoint:
        state, document = read_state(checkpoint, state)
    with _seeded_per_step(device, world.rank) as seed_step, ExitStack() as opened:
        seed_step(arm.seed, _MODEL_DRAW)
        objective = objective_of(arm)
        tokenizer, model = build_network(arm, data, document, objective, initial)
        # Holds the model, and whatever else the objective trains beside it.
        network = objective.network(model).to(device)
        source = TokenSource(arm, data, tokenizer, token_dir)
        stream = stream_of(arm, data, source.lengths)
        run = Run(arm, data, stream, source, objective, network, world, device, state.precision)
        seed_step(arm.seed, 0)
        limit = free_memory(device) if memory_limit_bytes is None else memory_limit_bytes
        need = run.memory_need()
        need.check(arm, limit)
        log.info("arm %r takes about %s; %.2f GiB are free", arm.name, need, limit / 2**30)
        flops_per_token = run.probe_flops()
        sizes = [(one.numel(), one.requires_grad) for one in network.parameters()]
        moving = run.start()
        if checkpoint and checkpoint_dir:
            load_weights(checkpoint, moving, world)
            run.restore(checkpoint_dir, checkpoint, state)
            log.info("arm %r goes on from step %d of %d", arm.name, state.step, arm.steps)
        on_start(Beginning(memory=need, free_bytes=limit, losses=tuple(state.losses)))
        told = [opened.enter_context(one) for one in _tracking(arm, trackers, track_dir, state.step, world)]
        loader = opened.enter_context(_loader(run, state.step, num_workers))
        publish_to = checkpoint_dir if world.rank == 0 else None
        config = model_document(arm, data.classes, tokenizer.vocab_size)

        def save(now: TrainingState) -> None:
            if checkpoint_dir:
                save_checkpoint(checkpoint_dir, now, moving, tokenizer.document, run.record_losses, world, config)

        while not _is_over(arm, state) and not world.agreed(should_stop()):
            seed_step(arm.seed, state.step)
            state = _advanced(run, loader, state, publish_to)
            if state.step % arm.checkpoint_every == 0:
                save(state)
            _tell(told, run, state)
            on_progress(state.step, arm.steps, state.losses[-1])
            if on_model is not None:
                with torch.no_grad():
                    on_model(state.step, model.eval(), tokenizer)
                network.train()
        if state.step % arm.checkpoint_every:
            save(state)
        router = router_statistics(network)
        if moving.average is not None:
            moving.average.put()
        if world.strategy == "fsdp2":
            model, network = _in_one_piece(arm, data, tokenizer, network, initial)
    return FitResult(
        arm=arm,
        model=BACKBONES[arm.backbone].member.merge(model.to("cpu").eval()),
        tokenizer=tokenizer,
        classes=tuple(data.classes),
        losses=list(enumerate(state.losses, start=1)),
        steps=state.step,
        seconds=state.seconds,
        flops=round(flops_per_token * state.num_tokens),
        num_parameters=sum(size for size, _ in sizes),
        num_trained_parameters=sum(size for size, trained in sizes if trained),
        precision=state.precision,
        stream_wait_share=state.wait_seconds / state.seconds if state.seconds else 0.0,
        revisions=run.stream.revisions,
        checks=state.checks,
        router=router,
        record_losses=run.record_losses,
        network=network.to("cpu").eval(),
    )


def stream_of(arm: ArmConfig, data: TrainingData, lengths: npt.NDArray[np.int64] | None = None) -> Stream:
    """The order in which an arm sees the records.

    Parameters
    ----------
    lengths : (n,) tokens of each record; without them nothing is drawn, and only what they have no say in is checked.

    Raises
    ------
    ConfigError, DataError : the arm names or configures something that does not exist, or has too few records.
    """
    return Stream(
        manifest=trained_on(arm, data.manifest),
        pacing=arm.pacing,
        options=arm.pacing_options,
        seed=arm.seed,
        total_steps=arm.steps,
        global_batch_size=arm.batch_size,
        lengths=np.zeros(len(data.manifest), dtype=np.int64) if lengths is None else lengths,
        length_window=arm.length_window,
    )


def _loader(run: Run, start_step: int, num_workers: int) -> Loader[list[Batch]]:
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


def _tracking(
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


def _tell(told: Sequence[Tracker], run: Run, state: TrainingState) -> None:
    if not told:
        return
    values = (
        run.measured | {"seconds": state.seconds, "tokens": float(state.num_tokens)} | router_statistics(run.network)
    )
    if state.checks and state.checks[-1][0] == state.step:
        values["held_out_loss"] = state.checks[-1][1]
    for one in told:
        one.log(state.step, values)


def _in_one_piece(
    arm: ArmConfig, data: TrainingData, tokenizer: TextTokenizer, spread: nn.Module, initial: Initial | None
) -> tuple[nn.Module, nn.Module]:
    """Model and network of one whose weights are spread over processes."""
    objective = objective_of(arm)
    _, model = build_network(arm, data, tokenizer.document, objective, initial)
    network = objective.network(model)
    network.load_state_dict(whole_weights(spread))
    return model, network


@contextmanager
def _seeded_per_step(device: torch.device, rank: int) -> Iterator[Callable[[int, int], None]]:
    """Lend torch's global generator, which dropout and initialisers insist on, and give it back as it was."""

    def seed_step(seed: int, step: int) -> None:
        # Every process draws the same starting weights, and its own dropout.
        own = f"/{rank}" if rank and step != _MODEL_DRAW else ""
        digest = hashlib.sha256(f"{seed}/{step}{own}".encode()).digest()
        torch.manual_seed(int.from_bytes(digest[:7], "little"))

    devices = [device.index or 0] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        yield seed_step
