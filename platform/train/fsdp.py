"""Training with every trained parameter in parts on several workers (FSDP2)."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from crossview.platform.train.state import Training


class Sharded(Training):
    """Leaves each worker its part of every trained parameter, of its gradient, its moments and its moving average.

    Frozen parameters stay whole on each worker, and so do single numbers, which cannot be cut. Checkpoints hold whole
    tensors, as `Training`'s do.
    """

    cast_cache = False  # it would hold whole parameters for the length of a pass

    def _place(self) -> None:
        """Block by block: the whole model is never on the device."""
        mesh = init_device_mesh(self.worker.device.type, (self.worker.world,))
        whole = {p for p in self.model.parameters() if not p.requires_grad or p.ndim == 0}
        for parameter in whole:  # FSDP moves the others itself
            parameter.data = parameter.data.to(self.worker.device)
        for block in self.model.blocks():
            fully_shard(block, mesh=mesh, ignored_params=whole)
        fully_shard(self.model, mesh=mesh, ignored_params=whole)

    def forward(self) -> nn.Module:
        """The model itself: it brings its parts together."""
        return self.model.train()

    def _own(self, parameter: Tensor, tensor: Tensor) -> Tensor:
        if isinstance(parameter, DTensor) and tensor.shape == parameter.shape:
            tensor = tensor.to(parameter.device)
            return distribute_tensor(tensor, parameter.device_mesh, parameter.placements, src_data_rank=None)
        return super()._own(parameter, tensor)

    def _whole(self, state: Any) -> Any:
        """Every rank has to take part; only rank 0 keeps what comes of it."""
        if isinstance(state, dict):
            return {k: self._whole(v) for k, v in state.items()}
        if isinstance(state, list):
            return [self._whole(v) for v in state]
        if not isinstance(state, DTensor):
            return state
        full = state.full_tensor()
        return full.cpu() if self.worker.rank == 0 else full.new_empty(0)

    def _clip(self, parameters: list[nn.Parameter], max_norm: float) -> Tensor:
        kinds = [[p for p in parameters if isinstance(p, DTensor) == parts] for parts in (True, False)]
        norms = [nn.utils.get_total_norm([p.grad for p in kind if p.grad is not None]) for kind in kinds if kind]
        norm = torch.stack([n.full_tensor() if isinstance(n, DTensor) else n for n in norms]).norm()
        for kind in kinds:
            nn.utils.clip_grads_with_norm_(kind, max_norm, norm)
        return norm

    def _exchange(self, parameters: list[nn.Parameter]) -> None:
        """FSDP has averaged sharded gradients over workers; the others are averaged here."""
        for parameter in parameters:
            if parameter.grad is not None and not isinstance(parameter, DTensor):
                dist.all_reduce(parameter.grad)
                parameter.grad /= self.worker.world
