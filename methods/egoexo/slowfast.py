"""SlowFast networks: two ResNets over the same clip, one slow and wide, one fast and narrow (ICCV 2019)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from crossview.methods.egoexo.config import Backbone

_INNER, _OUTER = (1, 2, 4, 8), (4, 8, 16, 32)
"""Inner and output channels of each stage's blocks, per channel of the stem."""


def slow_indices(frames: int, alpha: int, device: torch.device | None = None) -> Tensor:
    """Indices of the slow pathway's frames: floor(linspace(0, T - 1, T // alpha)), int64."""
    # In float64: float32 could round to just below an integer.
    return torch.linspace(0, frames - 1, max(1, frames // alpha), dtype=torch.float64, device=device).floor().long()


class SlowFast(nn.Module):
    """Normalised clips (B, 3, T, H, W) -> last feature maps: slow (B, D, T', h, w), fast (B, D / beta, T, h, w).

    Without a fast pathway the result is the slow map alone, with all T frames.
    """

    def __init__(self, config: Backbone) -> None:
        super().__init__()
        self.config = config
        self.has_fast = config.pathways == "slowfast"
        slow, fast = config.width, config.width // config.beta_inverse
        lateral = config.fusion_ratio if self.has_fast else 0  # channels of the lateral connection per fast channel
        self.slow_stem, self.slow_stages = _stem(slow, 1), nn.ModuleList()
        if self.has_fast:
            self.fast_stem, self.fast_stages, self.lateral = _stem(fast, 5), nn.ModuleList(), nn.ModuleList()
        slow_in, fast_in = slow, fast
        for stage, temporal in enumerate((1, 1, 3, 3)):
            if self.has_fast:
                self.lateral.append(_Lateral(fast_in, config))
                self.fast_stages.append(_stage(config, stage, fast_in, fast, 3))
            self.slow_stages.append(_stage(config, stage, slow_in + lateral * fast_in, slow, temporal))
            slow_in, fast_in = slow * _OUTER[stage], fast * _OUTER[stage]
        self.widths = (slow_in, fast_in) if self.has_fast else (slow_in,)
        _initialise(self, zero_init_residual=config.zero_init_residual)

    def layers(self) -> list[list[nn.Parameter]]:
        """Parameters of the stems, then of each stage of both pathways; a lateral connection's with what it feeds."""
        parts: list[list[nn.Module]] = [[self.slow_stem], *([stage] for stage in self.slow_stages)]
        if self.has_fast:
            parts[0].append(self.fast_stem)
            for layer, fast, lateral in zip(parts[1:], self.fast_stages, self.lateral, strict=True):
                layer += [lateral, fast]
        return [[p for part in layer for p in part.parameters()] for layer in parts]

    def forward(self, clips: Tensor) -> list[Tensor]:
        """The pathways' last feature maps, slow first."""
        if not self.has_fast:
            x = self.slow_stem(clips)
            for stage in self.slow_stages:
                x = stage(x)
            return [x]
        frames = slow_indices(clips.shape[2], self.config.alpha, clips.device)
        x, y = self.slow_stem(clips.index_select(2, frames)), self.fast_stem(clips)
        for slow, fast, lateral in zip(self.slow_stages, self.fast_stages, self.lateral, strict=True):
            x = torch.cat([x, lateral(y, x.shape[2])], dim=1)
            x, y = slow(x), fast(y)
        return [x, y]


class _Lateral(nn.Module):
    """Lateral connection from fast to slow: a temporally strided convolution."""

    def __init__(self, channels: int, config: Backbone) -> None:
        super().__init__()
        kernel, out = config.fusion_kernel, config.fusion_ratio * channels
        self.conv = nn.Conv3d(
            channels, out, (kernel, 1, 1), stride=(config.alpha, 1, 1), padding=(kernel // 2, 0, 0), bias=False
        )
        self.norm = nn.BatchNorm3d(out)

    def forward(self, fast: Tensor, frames: int) -> Tensor:
        """(B, C, T, H, W) -> (B, C', T', H, W), cut to T' = `frames` of the slow pathway."""
        return nn.functional.relu(self.norm(self.conv(fast)), inplace=True)[:, :, :frames]


class _Bottleneck(nn.Module):
    """Residual block with kernels (temporal, 1, 1), (1, 3, 3) and (1, 1, 1)."""

    def __init__(self, channels: int, inner: int, out: int, temporal: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(channels, inner, (temporal, 1, 1), padding=(temporal // 2, 0, 0), bias=False)
        self.norm1 = nn.BatchNorm3d(inner)
        self.conv2 = nn.Conv3d(inner, inner, (1, 3, 3), stride=(1, stride, stride), padding=(0, 1, 1), bias=False)
        self.norm2 = nn.BatchNorm3d(inner)
        self.conv3 = nn.Conv3d(inner, out, 1, bias=False)
        self.norm3 = nn.BatchNorm3d(out)
        self.shortcut: nn.Module = nn.Identity()
        if channels != out or stride != 1:
            self.shortcut = nn.Sequential(
                nn.Conv3d(channels, out, 1, stride=(1, stride, stride), bias=False), nn.BatchNorm3d(out)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) -> (B, C', T, H', W')."""
        y = nn.functional.relu(self.norm1(self.conv1(x)), inplace=True)
        y = nn.functional.relu(self.norm2(self.conv2(y)), inplace=True)
        return nn.functional.relu(self.shortcut(x) + self.norm3(self.conv3(y)), inplace=True)


def _stem(width: int, temporal: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(3, width, (temporal, 7, 7), stride=(1, 2, 2), padding=(temporal // 2, 3, 3), bias=False),
        nn.BatchNorm3d(width),
        nn.ReLU(inplace=True),
        nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1)),
    )


def _stage(config: Backbone, stage: int, channels: int, width: int, temporal: int) -> nn.Sequential:
    inner, out = width * _INNER[stage], width * _OUTER[stage]
    return nn.Sequential(
        *(
            _Bottleneck(
                channels if block == 0 else out,
                inner,
                out,
                temporal if block < config.temporal_blocks[stage] else 1,
                config.strides[stage] if block == 0 else 1,
            )
            for block in range(config.blocks[stage])
        )
    )


def _initialise(module: nn.Module, *, zero_init_residual: bool) -> None:
    """MSRA initialisation (He et al., ICCV 2015) with the fan-out."""
    for part in module.modules():
        if isinstance(part, nn.Conv3d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
        if isinstance(part, _Bottleneck) and zero_init_residual:
            nn.init.zeros_(part.norm3.weight)
