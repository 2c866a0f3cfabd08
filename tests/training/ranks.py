"""One of two processes that train together: what test_distributed looks at, in one go, as starting torch is slow."""

import dataclasses
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import polars as pl
import torch

from catalog.errors import ServiceError
from training.arm import ArmConfig
from training.checkpoint import latest_checkpoint
from training.data import TrainingData
from training.distributed import Strategy, World
from training.fit import fit


def plain_arm(**changed: Any) -> ArmConfig:
    """Without dropout, as every process draws its own; odd batches and unequal numbers of labels."""
    arm = ArmConfig(
        name="plain",
        backbone_options={"vocab_size": 300, "dim": 16, "dropout": 0.0, "feedforward_options": {"hidden": 16}},
        steps=6,
        batch_size=7,
        max_tokens=16,
        checkpoint_every=3,
        ema_decay=0.9,
        # Not scale-free, as Adam otherwise is: gradients of half the size would not do.
        optimizer_options={"eps": 0.1},
        max_gradient_norm=7.5,
    )
    return dataclasses.replace(arm, **changed)


def experts_arm(**options: Any) -> ArmConfig:
    """Experts, of which a process's tokens may leave some without work, balanced in both ways; and gradients that are
    cut, by a norm of which the experts of each process are a part.
    """
    parts = {"num_experts": 4, "hidden": 16, "balancing": "bias", "biases": "own"}
    parts |= {"balance_weight": 0.5, "z_weight": 0.1} | options
    return plain_arm(
        max_gradient_norm=0.5,
        backbone_options={
            "vocab_size": 300,
            "dim": 16,
            "dropout": 0.0,
            "feedforward": "moe_topk",
            "feedforward_options": parts,
        },
    )


def adafactor_arm() -> ArmConfig:
    """An optimizer whose state is no part of a weight's shape, and whose steps depend on whole weights."""
    return plain_arm(optimizer="adafactor", optimizer_options={}, learning_rate=1e-2)


def language_arm(**changed: Any) -> ArmConfig:
    """A causal model, whose losses are over tokens: of these, too, shares have different numbers."""
    shape = {"vocab_size": 300, "dim": 16, "dropout": 0.0, "order": "causal", "positions": "rope"}
    return plain_arm(objective="clm", steps=4, backbone_options=shape, **changed)


SEGMENTS = language_arm(objective_options={"segment_tokens": 5, "memory_tokens": 7})
READING = language_arm(retrieval="cross_attention", retrieval_options={"chunk_tokens": 4, "key_dim": 32})


def main(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    data = TrainingData.build(pl.read_parquet(folder / "frame.parquet"))
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    found: dict[str, Any] = {}

    def trained(name: str, arm: ArmConfig, strategy: Strategy, checkpoints: Path | None, stop_at: int = 0) -> None:
        done = [0]
        world = World(rank=rank, size=2, strategy=strategy)
        result = fit(
            arm,
            data,
            world=world,
            checkpoint_dir=checkpoints,
            on_progress=lambda step, total, loss: done.append(step),
            # One process alone wants it; all stop.
            should_stop=lambda: rank == 1 and stop_at > 0 and done[-1] >= stop_at,
        )
        weights = b"".join(one.numpy().tobytes() for one in result.model.state_dict().values())
        found[name] = {
            "losses": result.losses,
            "steps": result.steps,
            "done": done[1:],
            "router": result.router,
            "weights": hashlib.sha256(weights).hexdigest(),
        }
        if rank == 0:
            torch.save(result.model.state_dict(), folder / f"{name}.pt")
        torch.distributed.barrier()

    trained("ddp", plain_arm(), "ddp", folder / "ddp")
    trained("ddp-micro", plain_arm(micro_batch_size=2), "ddp", None)
    trained("fsdp2", plain_arm(), "fsdp2", None)
    trained("ddp-experts", experts_arm(), "ddp", None)
    trained("expert", experts_arm(), "expert", None)
    trained("fsdp2-experts", experts_arm(), "fsdp2", folder / "fsdp2-experts")
    trained("ddp-adafactor", adafactor_arm(), "ddp", None)
    trained("ddp-segments", SEGMENTS, "ddp", None)
    trained("ddp-reads", READING, "ddp", None)
    trained("fsdp2-reads", READING, "fsdp2", None)
    # Two processes stop after step 4; one alone will go on.
    trained("fsdp2-stopped", plain_arm(), "fsdp2", folder / "two-to-one", stop_at=4)
    # One process stopped after step 4 before; these go on.
    trained("fsdp2-resumed", plain_arm(), "fsdp2", folder / "one-to-two")
    # Online: the order follows losses that the processes have a part of each.
    trained(
        "online",
        plain_arm(pacing="self_paced", pacing_options={"every": 2}, batch_size=20),
        "ddp",
        None,
    )
    for name, arm, strategy in (
        ("few", plain_arm(batch_size=1), "ddp"),
        ("uneven", plain_arm(batch_size=3, micro_batch_size=1), "ddp"),
        ("adafactor", adafactor_arm(), "fsdp2"),
        ("no-experts", plain_arm(), "expert"),
        ("odd-experts", experts_arm(num_experts=3), "expert"),
        ("fsdp2-experts", experts_arm(), "expert"),
        ("half", dataclasses.replace(experts_arm(), precision="float16"), "expert"),
    ):
        try:
            fit(arm, data, world=World(rank=rank, size=2, strategy=strategy), checkpoint_dir=folder / name)  # type: ignore[arg-type]
        except ServiceError as error:
            found[f"{name}-refused"] = str(error)
    written = latest_checkpoint(folder / "two-to-one")
    assert written is not None
    found["files"] = sorted(one.name for one in written.iterdir())
    trained("two-again-stopped", plain_arm(), "fsdp2", folder / "two-one-two", stop_at=2)
    trained("expert-stopped", experts_arm(), "expert", folder / "expert-two-one-two", stop_at=2)
    written = latest_checkpoint(folder / "expert-two-one-two")
    assert written is not None
    found["expert-files"] = sorted(one.name for one in written.iterdir())
    torch.distributed.destroy_process_group()
    if rank == 0:
        found["between"] = alone_until(4, plain_arm(), data, folder / "two-one-two")
        found["expert-between"] = alone_until(4, experts_arm(), data, folder / "expert-two-one-two")
    # Whoever is first waits for the other.
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/again", rank=rank, world_size=2)
    trained("two-one-two", plain_arm(), "fsdp2", folder / "two-one-two")
    trained("expert-two-one-two", experts_arm(), "expert", folder / "expert-two-one-two")
    (folder / f"found-{rank}.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


def alone_until(last_step: int, arm: ArmConfig, data: TrainingData, checkpoints: Path) -> list[int]:
    """The steps that one process does until then, from the newest checkpoint on."""
    done: list[int] = []
    fit(
        arm,
        data,
        checkpoint_dir=checkpoints,
        on_progress=lambda step, total, loss: done.append(step),
        should_stop=lambda: done[-1:] == [last_step],
    )
    return done


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
