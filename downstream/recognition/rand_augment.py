"""RandAugment of clips (Cubuk et al., 2019), in timm's variant whose operations grow stronger with the magnitude.

An operation is one function of a pixel's levels and place for all frames of a clip: what depends on the picture
(contrast, equalisation) is measured over the whole clip, so that nothing flickers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from crossview.downstream.recognition.augment_config import Augmentation
from crossview.methods import noise

PROBABILITY = 0.5
"""Of applying an operation that was drawn."""
STRONGEST = 10.0
"""The magnitude at which every operation is strongest."""
FILL = [124.0, 116.0, 104.0]
"""Colour of what was outside the picture: ImageNet's mean."""
_STREAM = 11


@dataclass(frozen=True)
class Operation:
    """One operation and its signed strength in [-1, 1]; where only one direction exists, its size counts."""

    name: str
    strength: float


def drawn(seeds: Tensor, options: Augmentation) -> list[list[Operation]]:
    """The operations of each clip, in order: seeds int64 (B,) -> B lists of up to `options.operations`."""
    draw = noise.uniform(seeds, 5 * options.operations, _STREAM).double().cpu()
    clips = draw.view(len(seeds), options.operations, 5).tolist()
    return [[op for numbers in clip if (op := _operation(numbers, options))] for clip in clips]


def rand_augment(clip: Tensor, operations: list[Operation]) -> Tensor:
    """The operations on a clip, one after the other: uint8 (T, 3, H, W) -> the same shape."""
    for operation in operations:
        clip = OPERATIONS[operation.name](clip, operation.strength)
    return clip


def _operation(numbers: list[float], options: Augmentation) -> Operation | None:
    """Five numbers in [0, 1): whether, which, how strong (two) and the sign."""
    whether, which, radius, angle, sign = numbers
    if whether >= PROBABILITY:
        return None
    normal = math.sqrt(-2 * math.log(1 - radius)) * math.cos(2 * math.pi * angle)
    magnitude = min(max(options.magnitude + options.magnitude_std * normal, 0.0), STRONGEST)
    return Operation(list(OPERATIONS)[int(which * len(OPERATIONS))], math.copysign(magnitude / STRONGEST, sign - 0.5))


def _over_clip(function: Callable[[Tensor], Tensor], clip: Tensor) -> Tensor:
    """A function of a picture on all frames as one tall picture."""
    T = len(clip)
    tall = clip.transpose(0, 1).flatten(1, 2)  # (3, T*H, W)
    return function(tall).unflatten(1, (T, -1)).transpose(0, 1)


def _auto_contrast(clip: Tensor, strength: float) -> Tensor:
    del strength
    return _over_clip(F.autocontrast, clip)


def _equalize(clip: Tensor, strength: float) -> Tensor:
    del strength
    return _over_clip(F.equalize, clip)


def _invert(clip: Tensor, strength: float) -> Tensor:
    del strength
    return F.invert(clip)


def _rotate(clip: Tensor, strength: float) -> Tensor:
    return F.rotate(clip, 30 * strength, InterpolationMode.BILINEAR, fill=FILL)


def _posterize(clip: Tensor, strength: float) -> Tensor:
    return F.posterize(clip, 4 - int(4 * abs(strength)))


def _solarize(clip: Tensor, strength: float) -> Tensor:
    threshold = 256 - int(256 * abs(strength))
    return F.solarize(clip, threshold) if threshold < 256 else clip


def _solarize_add(clip: Tensor, strength: float) -> Tensor:
    return torch.where(clip < 128, clip + int(110 * abs(strength)), clip)


def _factor(strength: float) -> float:
    return max(0.1, 1 + 0.9 * strength)


def _color(clip: Tensor, strength: float) -> Tensor:
    return F.adjust_saturation(clip, _factor(strength))


def _contrast(clip: Tensor, strength: float) -> Tensor:
    return _over_clip(partial(F.adjust_contrast, contrast_factor=_factor(strength)), clip)


def _brightness(clip: Tensor, strength: float) -> Tensor:
    return F.adjust_brightness(clip, _factor(strength))


def _sharpness(clip: Tensor, strength: float) -> Tensor:
    return F.adjust_sharpness(clip, _factor(strength))


def _shear_x(clip: Tensor, strength: float) -> Tensor:
    return _moved(clip, shear=[_degrees(strength), 0.0])


def _shear_y(clip: Tensor, strength: float) -> Tensor:
    return _moved(clip, shear=[0.0, _degrees(strength)])


def _translate_x(clip: Tensor, strength: float) -> Tensor:
    return _moved(clip, translate=[0.45 * strength * clip.shape[-1], 0.0])


def _translate_y(clip: Tensor, strength: float) -> Tensor:
    return _moved(clip, translate=[0.0, 0.45 * strength * clip.shape[-2]])


def _degrees(strength: float) -> float:
    """Of a shear by up to 0.3 pixels per pixel."""
    return math.degrees(math.atan(0.3 * strength))


def _moved(clip: Tensor, *, translate: list[float] | None = None, shear: list[float] | None = None) -> Tensor:
    return F.affine(
        clip,
        angle=0.0,
        translate=translate or [0.0, 0.0],
        scale=1.0,
        shear=shear or [0.0, 0.0],
        interpolation=InterpolationMode.BILINEAR,
        fill=FILL,
        center=[0.0, 0.0],
    )


OPERATIONS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "auto_contrast": _auto_contrast,
    "equalize": _equalize,
    "invert": _invert,
    "rotate": _rotate,
    "posterize": _posterize,
    "solarize": _solarize,
    "solarize_add": _solarize_add,
    "color": _color,
    "contrast": _contrast,
    "brightness": _brightness,
    "sharpness": _sharpness,
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "translate_x": _translate_x,
    "translate_y": _translate_y,
}
"""By name, in timm's order; each is equally likely."""
