"""Augmentation of a batch of clips on the device: every draw depends on the clip's seed alone.

All frames of a clip undergo the same. The share and the place of a mixed clip depend on its seed too, what it is mixed
with on the batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from scipy.special import betaincinv
from torch import Tensor

from crossview.downstream.recognition import rand_augment
from crossview.downstream.recognition.augment_config import Augmentation
from crossview.methods import noise

ERASED_AREA = (0.02, 1 / 3)
ERASED_ASPECT = (0.3, 1 / 0.3)
"""Ranges of an erased rectangle's share of the frame, and of its height over its width."""
TRIES = 10
"""Draws of a rectangle that fits, before the clip is left whole."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of the noise in erased rectangles, ImageNet's: standard normal after standardising."""
_COPY = 0x5851F42D4C957F2D
"""Distance between the seeds of a clip's copies."""
_FLIP, _ERASE, _PIXELS, _MIX = 10, 12, 13, 14  # 11 is RandAugment's


def augment(
    clips: Tensor, seeds: Tensor, targets: Mapping[str, Tensor], options: Augmentation
) -> tuple[Tensor, dict[str, Tensor]]:
    """Augmented copies of clips and their soft targets: N = B * copies, a clip's copies beside each other.

    Clips (B, T, 3, H, W), uint8 or float from 0 to 255 (rounded first) -> (N, T, 3, H, W) on that scale, float32 where
    clips are erased or mixed, else uint8. Seeds int64 (B,). Targets by name (B, C) -> float32 (N, C).
    """
    levels = clips if clips.dtype == torch.uint8 else clips.round().clamp(0, 255).to(torch.uint8)
    copies = options.copies
    out = levels.repeat_interleave(copies, dim=0)  # (N, T, 3, H, W)
    soft = {name: value.float().repeat_interleave(copies, dim=0) for name, value in targets.items()}
    seeds = copied_seeds(seeds, copies)
    _flip(out, seeds, options.flip)
    for i, operations in enumerate(rand_augment.drawn(seeds, options)):
        if operations:
            out[i] = rand_augment.rand_augment(out[i], operations)
    if not options.mixes and not options.erase:
        return out, soft
    out = out.float()
    _erase(out, seeds, options.erase)
    return mix(out, seeds, soft, options, shift=copies) if options.mixes else (out, soft)


def copied_seeds(seeds: Tensor, copies: int) -> Tensor:
    """Seeds of each clip's copies, of which the first keeps the clip's: int64 (B,) -> (B * copies,)."""
    return (seeds[:, None] + torch.arange(copies, device=seeds.device) * _COPY).flatten()


def mix(
    clips: Tensor, seeds: Tensor, targets: Mapping[str, Tensor], options: Augmentation, *, shift: int = 1
) -> tuple[Tensor, dict[str, Tensor]]:
    """Mixup or cutmix of each clip with the one `shift` before it; float (N, T, 3, H, W) and targets (N, C).

    A clip's share of its target is its weight (mixup) or its part of the area (cutmix). Where the reference draws one
    share for a batch, every clip draws its own.
    """
    weights = kept(seeds, clips.shape[-2], clips.shape[-1], options).to(clips.device)  # (N, H, W)
    share = weights.mean((1, 2))[:, None]  # (N, 1)
    out = torch.lerp(clips.roll(shift, 0), clips, weights[:, None, None])
    return out, {name: torch.lerp(y.roll(shift, 0), y, share) for name, y in targets.items()}


def kept(seeds: Tensor, height: int, width: int, options: Augmentation) -> Tensor:
    """How much of each pixel a clip keeps when it is mixed: int64 (N,) -> float32 (N, H, W) in host memory.

    One share over the frame with mixup; with cutmix 0 in a rectangle around a random point, cut off at the border.
    """
    draw = noise.uniform(seeds, 4, _MIX).double().cpu()
    share, switch, down, across = draw.unbind(1)
    both = options.mixup is not None and options.cutmix is not None
    cut = switch < options.switch if both else torch.full_like(switch, options.cutmix is not None, dtype=torch.bool)
    lam = torch.where(cut, _beta(share, options.cutmix), _beta(share, options.mixup))  # (N,)
    weights = lam.float()[:, None, None].repeat(1, height, width)
    for i in cut.nonzero().flatten().tolist():
        side = math.sqrt(1 - float(lam[i]))
        (top, bottom), (left, right) = (
            (max(0, int(at * size) - cut_px // 2), min(size, int(at * size) - cut_px // 2 + cut_px))
            for at, size, cut_px in (
                (float(down[i]), height, int(height * side)),
                (float(across[i]), width, int(width * side)),
            )
        )
        weights[i] = 1
        weights[i, top:bottom, left:right] = 0
    return weights


def _beta(quantile: Tensor, parameter: float | None) -> Tensor:
    """Quantiles of Beta(parameter, parameter); 1 where it is None."""
    if parameter is None:
        return torch.ones_like(quantile)
    return torch.from_numpy(betaincinv(parameter, parameter, quantile.numpy()))


def _flip(clips: Tensor, seeds: Tensor, chance: float) -> None:
    """Mirror some clips in place."""
    if chance:
        mirrored = noise.uniform(seeds, 1, _FLIP)[:, 0] < chance
        clips[mirrored] = clips[mirrored].flip(-1)


def _erase(clips: Tensor, seeds: Tensor, chance: float) -> None:
    """Fill a rectangle of some clips with noise in place, the same in all frames (Zhong et al., AAAI 2020)."""
    if not chance:
        return
    H, W = clips.shape[-2:]
    draws = noise.uniform(seeds, 1 + 4 * TRIES, _ERASE).double().cpu().tolist()
    for i, (whether, *numbers) in enumerate(draws):
        if whether >= chance or (place := _rectangle(numbers, H, W)) is None:
            continue
        top, left, height, width = place
        clips[i, :, :, top : top + height, left : left + width] = _pixels(seeds[i : i + 1], height, width)


def _rectangle(numbers: list[float], height: int, width: int) -> tuple[int, int, int, int] | None:
    """Top, left, height and width of the first rectangle that is smaller than the frame; four numbers per try."""
    low, high = (math.log(aspect) for aspect in ERASED_ASPECT)
    for k in range(0, len(numbers), 4):
        share, shape, down, across = numbers[k : k + 4]
        area = (ERASED_AREA[0] + (ERASED_AREA[1] - ERASED_AREA[0]) * share) * height * width
        aspect = math.exp(low + (high - low) * shape)
        tall, wide = max(1, round(math.sqrt(area * aspect))), max(1, round(math.sqrt(area / aspect)))
        if tall < height and wide < width:
            return int(down * (height - tall + 1)), int(across * (width - wide + 1)), tall, wide
    return None


def _pixels(seed: Tensor, height: int, width: int) -> Tensor:
    """Normal noise on the scale of pixels: int64 (1,) -> float32 (3, height, width)."""
    radius, angle = noise.uniform(seed, 6 * height * width, _PIXELS).view(2, 3, height, width)
    normal = torch.sqrt(-2 * torch.log1p(-radius)) * torch.cos(2 * math.pi * angle)
    mean, std = (normal.new_tensor(values)[:, None, None] for values in (MEAN, STD))
    return (mean + std * normal) * 255
