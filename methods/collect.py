"""Vectors of all workers in one tensor, for losses whose negatives come from the whole batch."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def workers() -> int:
    """Processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gather(x: Tensor) -> Tensor:
    """The workers' tensors, of one shape, joined along the first axis in the order of ranks: (n, ...) -> (R * n, ...).

    Every worker's loss sends its gradient back to every worker. Each of the R losses is that of the whole batch, so the
    gradient that arrives is R times as large as one process would have; DistributedDataParallel's mean over workers
    takes that factor away again.
    """
    joined: Tensor = _Gather.apply(x) if workers() > 1 else x
    return joined


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.count, x = len(x), x.contiguous()
        parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, x)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total.narrow(0, dist.get_rank() * ctx.count, ctx.count)
