"""Colour conversion where the pixels are consumed, so that 1.5 bytes per pixel travel instead of 3."""

from __future__ import annotations

import torch
from torch import Tensor

from crossview.errors import UserError

_CHUNK = 8
"""Pictures converted at once on a CPU: their intermediates stay in its cache."""


def yuv420_to_rgb(planes: Tensor) -> Tensor:
    """RGB of planar I420 in BT.601 limited range: uint8 (..., H * 3 // 2, W) -> uint8 (..., 3, H, W).

    H and W are even. Chroma is repeated (nearest), as swscale does by default; fixed point with four fractional bits,
    so every device gives the same bytes. Source: ITU-R BT.601-7, 2.5.3 and 2.5.4.
    """
    *leading, rows, width = planes.shape
    height = rows * 2 // 3
    if rows % 3 or height % 2 or width % 2:
        raise UserError(f"planes are {rows} x {width}; I420 has 3/2 * H rows of W bytes with H and W even")
    flat = planes.reshape(-1, rows * width)
    rgb = torch.empty((len(flat), 3, height, width), dtype=torch.uint8, device=planes.device)
    step = _CHUNK if planes.device.type == "cpu" else max(1, len(flat))
    for start in range(0, len(flat), step):
        _convert(flat[start : start + step], rgb[start : start + step])
    return rgb.reshape(*leading, 3, height, width)


def _convert(planes: Tensor, rgb: Tensor) -> None:
    """I420 bytes (B, H * W * 3 // 2) into `rgb` (B, 3, H, W), in sixteenths of a grey level (int16)."""
    B, _, H, W = rgb.shape
    luma = planes[:, : H * W].to(torch.int16).sub_(16)
    # 255 / 219 * 16 = 18.63 = 18 + 5/8: no product leaves int16.
    luma = luma.mul(5).bitwise_right_shift_(3).add_(luma, alpha=18).add_(8).reshape(B, H // 2, 2, W)
    chroma = planes[:, H * W :].reshape(B, 2, H // 2, W // 2).float().sub_(128)
    blue, red = chroma[:, 0], chroma[:, 1]
    # 16 * 255 / 224 * (1.402, -0.3441 and -0.7141, 1.772)
    for channel, offset in enumerate((red * 25.536, blue * -6.268 - red * 13.007, blue * 32.276)):
        wide = torch.empty((B, H // 2, 1, W), dtype=torch.int16, device=rgb.device)
        wide[..., 0, 0::2] = wide[..., 0, 1::2] = offset.round_()
        value = (luma + wide).bitwise_right_shift_(4).clamp_(0, 255)
        rgb[:, channel] = value.reshape(B, H, W)
