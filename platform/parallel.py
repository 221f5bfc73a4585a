"""One model on several workers: a copy on each (DistributedDataParallel), or its parameters in parts (FSDP2)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from crossview.methods.method import Method


def shard(model: Method, device: torch.device) -> None:
    """Leave this worker its part of every trained parameter, on the device, block by block: the whole never lies there.

    Frozen parameters stay whole on each worker, and so do single numbers, which cannot be cut.
    """
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    ignored = {p for p in model.parameters() if not p.requires_grad or p.ndim == 0}
    for parameter in ignored:  # FSDP moves the others itself
        parameter.data = parameter.data.to(device)
    for block in model.blocks():
        fully_shard(block, mesh=mesh, ignored_params=ignored)
    fully_shard(model, mesh=mesh, ignored_params=ignored)


def average_whole(parameters: Iterable[nn.Parameter]) -> None:
    """Mean over workers of the gradients that FSDP leaves alone: those of parameters that are not in parts."""
    for parameter in parameters:
        if parameter.grad is not None and not isinstance(parameter, DTensor):
            dist.all_reduce(parameter.grad)
            parameter.grad /= dist.get_world_size()


def clip_gradients(parameters: list[nn.Parameter], max_norm: float) -> Tensor:
    """Scale the whole gradient down to `max_norm`, wherever its parts lie; returns the norm that it had."""
    kinds = [[p for p in parameters if isinstance(p, DTensor) == parts] for parts in (True, False)]
    if not kinds[0]:
        return nn.utils.clip_grad_norm_(parameters, max_norm)
    norms = [nn.utils.get_total_norm([p.grad for p in kind if p.grad is not None]) for kind in kinds if kind]
    norm = torch.stack([whole(n) for n in norms]).norm()
    for kind in kinds:
        nn.utils.clip_grads_with_norm_(kind, max_norm, norm)
    return norm


def whole(tensor: Tensor) -> Tensor:
    """The tensor whose part this worker holds; every worker has to ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def part_for(parameter: Tensor, tensor: Tensor) -> Tensor:
    """What this worker keeps of a whole tensor that belongs to a parameter, such as a moving average of it."""
    if isinstance(parameter, DTensor) and tensor.shape == parameter.shape:
        tensor = tensor.to(parameter.device)
        return distribute_tensor(tensor, parameter.device_mesh, parameter.placements, src_data_rank=None)
    return tensor


def gathered(state: Any, *, keep: bool) -> Any:
    """A nested state with every tensor that lies in parts made whole, on the CPU; empty tensors where not to `keep`.

    Every worker has to call it. What lies in one piece stays as it is.
    """
    if isinstance(state, dict):
        return {k: gathered(v, keep=keep) for k, v in state.items()}
    if isinstance(state, list):
        return [gathered(v, keep=keep) for v in state]
    if not isinstance(state, DTensor):
        return state
    full = whole(state)
    return full.cpu() if keep else full.new_empty(0)


def parts_of(state: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """An optimiser's whole state, as `gathered` gave it, in the parts that this worker's parameters have."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    moments = {
        k: {name: part_for(parameters[k], v) if isinstance(v, Tensor) else v for name, v in values.items()}
        for k, values in state["state"].items()
    }
    return {**state, "state": moments}
