"""Folders of numbered images for tests, which show their numbers as `videos.picture` draws them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image
from videos import picture


def write(
    folder: Path, numbers: Iterable[int], *, name: str = "frame_{}.jpg", height: int = 64, width: int = 96
) -> list[Path]:
    """Image k shows barcode k, whatever its number."""
    files = [folder / name.format(n) for n in numbers]
    for k, file in enumerate(files):
        save(file, picture(k, height, width))
    return files


def save(file: Path, image: np.ndarray, *, orientation: int = 0) -> Path:
    """One image, uint8 (H, W, 3), of nearly no loss; `orientation` is that of EXIF."""
    file.parent.mkdir(parents=True, exist_ok=True)
    options = {} if file.suffix == ".png" else {"quality": 95, "subsampling": 2}
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    Image.fromarray(image).save(file, exif=exif, **options)  # type: ignore[arg-type]
    return file
