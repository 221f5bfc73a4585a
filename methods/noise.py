"""Random numbers that depend on the sample alone, not on the batch, the worker or what was drawn before."""

from __future__ import annotations

import torch
from torch import Tensor

_GAMMA = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit integer
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Logical shift: torch's is arithmetic on int64."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    """The SplitMix64 finaliser (Steele, Lea and Flood, OOPSLA 2014)."""
    x = (x ^ _shift_right(x, 30)) * _MIX_1
    x = (x ^ _shift_right(x, 27)) * _MIX_2
    return x ^ _shift_right(x, 31)


def uniform(seed: Tensor, count: int, stream: int) -> Tensor:
    """`count` numbers in [0, 1) for each seed: int64 (B,) -> float32 (B, count).

    `stream` keeps two uses within one step apart. The same seed gives the same numbers on every device and in every
    batch, so masks do not change with the number of workers and need no generator state in a checkpoint.
    """
    counter = torch.arange(1, count + 1, device=seed.device, dtype=torch.int64)
    offset = ((stream + 1) * _MIX_1 + 2**63) % 2**64 - 2**63  # wraps as int64 does
    base = _mix(seed.to(torch.int64) * 2 + 1 + offset)
    bits = _shift_right(_mix(base[:, None] + counter * _GAMMA), 40)  # (B, count), 24 bits
    return bits.to(torch.float32) * 2.0**-24
