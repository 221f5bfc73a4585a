"""Single frames of the world and what covers each of their patches: truth to train a frame encoder on, no phases."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

import numpy as np

from crossview.errors import UserError

from .cameras import view_names
from .config import WorldConfig
from .film import Rig
from .take import Take, TakeName

PARTS = (
    "right_hand", "left_hand", "bowl", "egg", "plate", "tray", "cup", "pitcher", "coaster",
    "ladle", "block", "mallet", "peg",
)  # fmt: skip
"""Hands and objects of all actions, in the order of the coverage's channels."""


def part_frames(
    config: WorldConfig, *, every: int, patch_px: int, progress: Callable[[int, int], None] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Every `every`-th frame of all views of the train takes, and each patch's share that a part covers.

    Returns pixels uint8 (n, 3, H, W) in RGB and coverage uint8 (n, parts, H / patch_px, W / patch_px), 255 where a part
    fills the patch. Nothing is written and nothing is encoded.
    """
    if config.size_px % patch_px:
        raise UserError(f"patch_px is {patch_px}; it must divide the world's size_px {config.size_px}")
    names = [TakeName("train", a, k) for a in config.actions for k in range(config.takes("train"))]
    pixels, coverage = [], []
    with ProcessPoolExecutor(config.workers, get_context("spawn")) as pool:
        for done, (x, c) in enumerate(pool.map(partial(_frames_of, config, every, patch_px), names)):
            pixels.append(x)
            coverage.append(c)
            if progress:
                progress(done + 1, len(names))
    return np.concatenate(pixels), np.concatenate(coverage)


def _frames_of(config: WorldConfig, every: int, patch_px: int, name: TakeName) -> tuple[np.ndarray, np.ndarray]:
    take = Take(config, name)
    views = view_names(config.ego_cameras, config.exo_cameras)
    rig, grid = Rig(take, views), config.size_px // patch_px
    channels = [PARTS.index(group) for group in take.groups]
    pixels, coverage = [], []
    for frame in range(0, len(take.labels), every):
        _, shots = rig.frame(frame)
        for _, planes, groups in shots.values():
            share = np.zeros((len(PARTS), grid, grid), np.uint8)
            for group, channel in enumerate(channels):
                tiles = (groups == group).reshape(grid, patch_px, grid, patch_px)
                share[channel] = np.round(255 * tiles.mean((1, 3)))
            pixels.append(_rgb(planes, config.size_px))
            coverage.append(share)
    return np.stack(pixels), np.stack(coverage)


def _rgb(planes: np.ndarray, size_px: int) -> np.ndarray:
    """I420, BT.601 limited range -> uint8 (3, H, W)."""
    half = size_px // 2
    flat = planes.reshape(-1).astype(np.float32)
    luma = 1.164383 * (flat[: size_px**2].reshape(size_px, size_px) - 16)
    u, v = (p.reshape(half, half).repeat(2, 0).repeat(2, 1) - 128 for p in np.split(flat[size_px**2 :], 2))
    rgb = np.stack([luma + 1.596027 * v, luma - 0.391762 * u - 0.812968 * v, luma + 2.017232 * u])
    return np.clip(rgb + 0.5, 0, 255).astype(np.uint8)
