from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from crossview.datasets.synthetic.config import WorldConfig
from crossview.datasets.synthetic.parts import PARTS, part_frames
from crossview.methods.base import FrozenViT
from crossview.methods.base_config import Base
from crossview.methods.base_training import train_base

WORLD = WorldConfig(actions=("pour_milk",), train_takes=2, train_subjects=2, size_px=64, min_frames=16, max_frames=20)
BASE = Base(model="vit_tiny_patch16_224", weights="random", size_px=64, width=48, depth=1, heads=2)


@pytest.fixture(scope="module")
def frames() -> tuple[np.ndarray, np.ndarray]:
    return part_frames(WORLD, every=4, patch_px=16)


def test_frames_show_the_parts_that_the_coverage_names(frames: tuple[np.ndarray, np.ndarray]) -> None:
    pixels, coverage = frames
    assert pixels.shape[1:] == (3, 64, 64)
    assert coverage.shape == (len(pixels), len(PARTS), 4, 4)
    seen = {part for part, share in zip(PARTS, coverage.max((0, 2, 3)), strict=True) if share > 0}
    assert seen == {"right_hand", "left_hand", "cup", "pitcher", "coaster"}
    assert coverage.astype(int).sum(1).max() <= 255 + len(PARTS)  # a pixel shows one thing
    assert pixels.std() > 20


def test_the_number_of_processes_changes_nothing(frames: tuple[np.ndarray, np.ndarray]) -> None:
    again = part_frames(dataclasses.replace(WORLD, workers=2), every=4, patch_px=16)
    assert all(np.array_equal(a, b) for a, b in zip(frames, again, strict=True))


def test_a_patch_that_does_not_divide_the_frame_is_refused() -> None:
    with pytest.raises(ValueError, match=r"patch_px is 24; it must divide .* 64"):
        part_frames(WORLD, every=4, patch_px=24)


def test_training_names_parts_and_its_file_is_a_base(tmp_path: Path) -> None:
    """A red square covers one patch of a grey frame: the loss must fall below that of knowing its frequency alone."""
    torch.manual_seed(0)
    where = torch.randint(16, (256,))
    coverage = torch.zeros(256, 1, 16, dtype=torch.uint8)
    coverage[torch.arange(256), 0, where] = 255
    coverage = coverage.view(256, 1, 4, 4)
    mask = coverage.repeat_interleave(16, 2).repeat_interleave(16, 3) > 0
    pixels = torch.where(mask, torch.tensor([220, 20, 20]).view(3, 1, 1), torch.tensor(90)).to(torch.uint8)
    losses: list[float] = []
    file = tmp_path / "base.safetensors"
    train_base(BASE, pixels, coverage, file, steps=60, batch=32, tell=lambda _, loss: losses.append(loss))
    prior = -(1 / 16 * np.log(1 / 16) + 15 / 16 * np.log(15 / 16))
    assert np.mean(losses[-5:]) < 0.5 * prior
    trained = FrozenViT(dataclasses.replace(BASE, weights=str(file)))
    tokens = trained(pixels[:8][None])[0]
    assert tokens.shape == (8, 16, 48)
    assert not any(p.requires_grad for p in trained.parameters())


def test_a_grid_that_is_not_the_bases_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"grid of \(8, 8\), the base of \(4, 4\)"):
        train_base(
            BASE,
            torch.zeros(4, 3, 64, 64, dtype=torch.uint8),
            torch.zeros(4, 2, 8, 8, dtype=torch.uint8),
            tmp_path / "base.safetensors",
            steps=1,
        )
