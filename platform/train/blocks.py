"""How a model's blocks are executed: compiled, and with their activations computed again in the backward pass."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from crossview.errors import UserError
from crossview.methods.trained import Trained, like_members
from crossview.platform.config import Compute

VARIANTS = 4
"""Graphs per block that a run may need: with and without gradients, and for clips of two lengths."""


def check_blocks(model: Trained, compute: Compute, device: torch.device | None) -> None:
    """Raise ValueError if an option has no block to act on; `device` is None if training runs on other machines."""
    if compute.activation_checkpointing and not recomputed_blocks(model):
        raise UserError(
            "compute.activation_checkpointing is on, but this configuration has no repeated blocks of trained "
            "parameters, whose activations it would drop; leave it out, or configure a deeper network"
        )
    if not compute.compile:
        return
    if not compiled_blocks(model):
        raise UserError(
            "compute.compile is on, but this configuration has no repeated blocks to compile; leave it out, or "
            "configure a deeper network"
        )
    compiler = os.environ.get("CXX", "g++")
    if device is not None and device.type == "cpu" and shutil.which(compiler) is None:
        raise UserError(
            f"compute.compile is on, but torch.compile needs a C++ compiler on the CPU and {compiler} is not here; "
            "install g++, name another one in the environment variable CXX, or leave the option out"
        )


def recomputed_blocks(model: Trained) -> list[nn.Module]:
    """`Method.blocks` without single layers, which keep little more than their input."""
    return [block for block in model.blocks() if any(True for _ in block.children())]


def compiled_blocks(model: Trained) -> list[nn.Module]:
    """The same and the blocks of frozen parts, which are executed just as often."""
    frozen = [m for m in like_members(model) if not any(p.requires_grad for p in m.parameters())]
    return [*recomputed_blocks(model), *(m for m in frozen if any(True for _ in m.children()))]


def set_up_blocks(model: Trained, compute: Compute) -> None:
    """Replace each block's `forward` as the options say.

    Nothing else of a block changes: names in checkpoints stay the same, and hooks, such as FSDP's, run as before around
    the new `forward`.
    """
    if compute.compile:
        import torch._dynamo.config as dynamo

        if not torch.cuda.is_available():  # it warns that CUDA's compiler is here and a GPU is not
            logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
        blocks = compiled_blocks(model)
        # Blocks of one class share a limit; beyond it torch would run them uncompiled.
        dynamo.recompile_limit = max(dynamo.recompile_limit, VARIANTS * len(blocks))
        for block in blocks:
            _replace(block, torch.compile(block.forward))
    if compute.activation_checkpointing:
        for block in recomputed_blocks(model):
            _replace(block, _recomputed(block, block.forward))


def _replace(block: nn.Module, forward: Callable[..., Any]) -> None:
    block.forward = forward


def _recomputed(block: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
    def recomputed(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        contexts = contextlib.nullcontext(), _buffers_kept(block)
        return checkpoint(forward, *args, use_reentrant=False, context_fn=lambda: contexts, **kwargs)

    return recomputed


@contextlib.contextmanager
def _buffers_kept(block: nn.Module) -> Iterator[None]:
    """Let a second forward pass change copies of the buffers: running statistics must not count a batch twice."""
    kept = [(module, dict(module._buffers)) for module in block.modules() if module._buffers]
    for module, buffers in kept:
        module._buffers.update({name: b if b is None else b.clone() for name, b in buffers.items()})
    try:
        yield
    finally:
        for module, buffers in kept:
            module._buffers.update(buffers)
