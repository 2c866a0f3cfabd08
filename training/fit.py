"""The training loop: one arm, in one process or several, exactly resumable.

Everything random in a step follows from (seed, step): the batch from the stream, dropout from a generator seeded anew
at every step. So a checkpoint needs weights, optimizer state and one integer, and a run that was killed anywhere ends
with the same bits as one that was not.
"""

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from catalog.errors import ConfigError
from training.arm import ArmConfig
from training.backbones import BACKBONES
from training.checkpoint import (
    Moving,
    TrainingState,
    latest_checkpoint,
    load_weights,
    read_state,
    save_checkpoint,
)
from training.data import TrainingData
from training.distributed import ALONE, World, whole_weights
from training.initial import Initial, model_document
from training.loop import loader_of, tell, tracking, updated
from training.memory import MemoryNeed, free_memory
from training.network import build_network
from training.objectives import objective_of
from training.precision import resolved_precision
from training.run import Run
from training.stopping import has_stalled, trained_on
from training.stream import Revision, Stream
from training.token_source import TokenSource
from training.tokenizer import Encoded, TextTokenizer
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
    with _seeded_per_step(device, world.rank) as seed_step, ExitStack() as opened:
        begun = _begin(arm, data, device, checkpoint_dir, token_dir, initial, world, memory_limit_bytes, seed_step)
        run, tokenizer, state = begun.run, begun.tokenizer, begun.state
        on_start(begun.beginning)
        told = [opened.enter_context(one) for one in tracking(arm, trackers, track_dir, state.step, world)]
        loader = opened.enter_context(loader_of(run, state.step, num_workers))
        config = model_document(arm, data.classes, tokenizer.vocab_size)

        def save(now: TrainingState) -> None:
            if checkpoint_dir:
                document, losses = tokenizer.document, run.record_losses
                save_checkpoint(checkpoint_dir, now, begun.moving, document, losses, world, config)

        def after(now: TrainingState) -> None:
            tell(told, run, now)
            on_progress(now.step, arm.steps, now.losses[-1])
            if on_model is not None:
                with torch.no_grad():
                    on_model(now.step, begun.model.eval(), tokenizer)
                run.network.train()

        state = updated(
            run,
            loader,
            state,
            before=lambda step: seed_step(arm.seed, step),
            after=after,
            save=save,
            should_stop=should_stop,
            publish_to=checkpoint_dir if world.rank == 0 else None,
        )
        return _result(begun, state, initial)


@dataclass(frozen=True, kw_only=True)
class _Begun:
    """A run that is ready for its next update, with the state that it goes on from.

    Parameters
    ----------
    sizes : elements of every weight, and whether it is trained; before weights are spread over processes.
    flops_per_token : of a forward and a backward pass.
    """

    run: Run
    model: nn.Module
    tokenizer: TextTokenizer
    state: TrainingState
    moving: Moving
    sizes: list[tuple[int, bool]]
    flops_per_token: float
    beginning: Beginning


def _begin(
    arm: ArmConfig,
    data: TrainingData,
    device: torch.device,
    checkpoint_dir: Path | None,
    token_dir: Path | None,
    initial: Initial | None,
    world: World,
    memory_limit_bytes: int | None,
    seed_step: Callable[[int, int], None],
) -> _Begun:
    """Build what is trained, refuse what does not fit into memory, and go on from the newest checkpoint."""
    state = TrainingState(
        config_digest=arm.digest(), data_digest=data.digest, precision=resolved_precision(arm.precision, device)
    )
    checkpoint = latest_checkpoint(checkpoint_dir) if checkpoint_dir else None
    document = None
    if checkpoint:
        state, document = read_state(checkpoint, state)
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
    return _Begun(
        run=run,
        model=model,
        tokenizer=tokenizer,
        state=state,
        moving=moving,
        sizes=sizes,
        flops_per_token=flops_per_token,
        beginning=Beginning(memory=need, free_bytes=limit, losses=tuple(state.losses)),
    )


def _result(begun: _Begun, state: TrainingState, initial: Initial | None) -> FitResult:
    """What is left after the last update: whole weights, averaged where the arm averages, on the CPU."""
    run, arm, data = begun.run, begun.run.arm, begun.run.data
    router = router_statistics(run.network)
    if begun.moving.average is not None:
        begun.moving.average.put()
    run.world.reunite(run.network)
    model, network = begun.model, run.network
    if run.world.strategy == "fsdp2":
        model, network = _in_one_piece(arm, data, begun.tokenizer, network, initial)
    return FitResult(
        arm=arm,
        model=BACKBONES[arm.backbone].member.merge(model.to("cpu").eval()),
        tokenizer=begun.tokenizer,
        classes=tuple(data.classes),
        losses=list(enumerate(state.losses, start=1)),
        steps=state.step,
        seconds=state.seconds,
        flops=round(begun.flops_per_token * state.num_tokens),
        num_parameters=sum(size for size, _ in begun.sizes),
        num_trained_parameters=sum(size for size, trained in begun.sizes if trained),
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
