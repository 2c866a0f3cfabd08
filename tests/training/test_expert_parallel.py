"""Experts spread over two processes compute what one process does with all of them."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as processes
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from catalog.errors import ConfigError
from training.feedforward.expert_parallel import gather_experts, place_experts
from training.feedforward.moe_topk import MoeFeedForward, MoeTopK

SPLIT = 25
"""Tokens of the first process, of 40."""


def layer() -> MoeFeedForward:
    torch.manual_seed(0)
    made = MoeFeedForward(16, MoeTopK(num_experts=6, hidden=8, biases="own", balance_weight=0.0, z_weight=0.0))
    with torch.no_grad():
        made.gate.weight[5] -= 100  # an expert that gets no token
        torch.nn.init.normal_(made.experts.up_bias_EH)
    return made.train()


def tokens() -> torch.Tensor:
    return torch.randn(40, 16, generator=torch.Generator().manual_seed(1)).abs()


def half(rank: int) -> slice:
    return slice(SPLIT) if rank == 0 else slice(SPLIT, None)


def refusal(mesh: DeviceMesh, num_experts: int) -> str:
    with pytest.raises(ConfigError) as caught:
        place_experts(MoeFeedForward(16, MoeTopK(num_experts=num_experts)), mesh)
    return str(caught.value)


def work(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meet'}", rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (1, 2), mesh_dim_names=("data", "expert"))
    refused = [refusal(mesh, 6), refusal(mesh["expert"], 5)]
    model = torch.nn.ModuleDict({"feedforward": layer()})
    apart = place_experts(model, mesh["expert"])
    x = tokens()[half(rank)].requires_grad_()
    out = model["feedforward"](x)
    (2 * out.square().sum()).backward()  # so that the mean of both processes is the whole batch's sum
    local = model["feedforward"].experts
    found = {"out": out.detach(), "x": x.grad / 2, "apart": apart, "rows": len(local.up_ECH), "refused": refused}
    gate = model["feedforward"].gate.weight.grad
    dist.all_reduce(gate)
    found["gate"] = gate / 2
    for one in local.parameters():
        one.data.copy_(one.grad)
    gather_experts(model)
    found["gradients"] = dict(model["feedforward"].experts.named_parameters())
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_give_the_outputs_and_gradients_of_one(tmp_path: Path) -> None:
    processes.spawn(work, (tmp_path,), nprocs=2)
    whole = layer()
    x = tokens().requires_grad_()
    out = whole(x)
    out.square().sum().backward()
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=False)
        assert found["rows"] == 3
        assert found["apart"] == [f"feedforward.experts.{name}" for name, _ in whole.experts.named_parameters()]
        assert torch.allclose(found["out"], out[half(rank)], atol=1e-5)
        assert torch.allclose(found["x"], x.grad[half(rank)], atol=1e-5)
        assert torch.allclose(found["gate"], whole.gate.weight.grad, atol=1e-4)
        for name, one in whole.experts.named_parameters():
            assert torch.allclose(found["gradients"][name], one.grad, atol=1e-4), name
            assert one.grad.abs().max() > 0.01
        several, uneven = found["refused"]
        assert several == "a mesh of 2 dimensions says not where experts go; take one: mesh['expert']"
        assert uneven == "num_experts=5 of '' must be a multiple of the mesh's 2 processes; change either"
