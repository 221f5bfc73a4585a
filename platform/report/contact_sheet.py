"""A contact sheet: the cameras of a scene at common instants, which shows at a glance whether clocks agree."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from crossview import storage
from crossview.datasets.catalog import Catalog, Recording
from crossview.datasets.sampling import windows
from crossview.datasets.video.decode import read_clips
from crossview.datasets.video.source import Source, Wanted
from crossview.errors import UserError
from crossview.platform.report.plots import FONT_PX, save

THUMBNAIL_PX = 160
"""Height of a picture in the sheet."""


@dataclass(frozen=True)
class Strip:
    """One camera's pictures, uint8 (H, W, 3) each."""

    camera: str
    pictures: list[np.ndarray]


def contact_sheet(catalog: Catalog, scene: str, out: Path, instants: int = 8) -> Path:
    """Write the sheet of one scene as PNG: a row per camera, a column per instant that all of them cover, with times.

    Raises ValueError if the scene is unknown, has no video, or its recordings never overlap in time.
    """
    recordings = _recordings(catalog, scene)
    times = common_instants(catalog, recordings, instants)
    strips = [
        Strip(f"{r.view} ({r.perspective})", thumbnails(catalog.source(r), catalog.frames_at(r, times)))
        for r in recordings
    ]
    figure = sheet(strips, times, f"Scene {scene}: {len(strips)} cameras at {len(times)} common instants")
    storage.make_folder(out.parent)
    return save(figure, out)


def _recordings(catalog: Catalog, scene: str) -> list[Recording]:
    """The scene's videos, ego first."""
    found = [r for r in catalog.recordings if r.scene == scene and r.has_pixels]
    if not found:
        known = list(dict.fromkeys(r.scene for r in catalog.recordings if r.has_pixels))
        more = f" and {len(known) - 8} more" if len(known) > 8 else ""
        raise UserError(
            f"catalog {catalog.place}: scene {scene!r} has no video; scenes: {', '.join(known[:8]) or 'none'}{more}"
        )
    found = [r for r in found if r.dataset == found[0].dataset]  # another may have a scene of that name
    return sorted(found, key=lambda r: (r.perspective != "ego", r.view))


def common_instants(catalog: Catalog, recordings: list[Recording], count: int) -> np.ndarray:
    """`windows.common_instants`; raises ValueError if the recordings have none."""
    if count < 1:
        raise UserError(f"instants is {count}; it must be at least 1")
    if not windows.run_together(recordings):
        spans = [f"{r.view} {r.start_s:.2f}-{r.end_s:.2f} s" for r in recordings]
        raise UserError(
            f"scene {recordings[0].scene!r}: its recordings never overlap in time ({', '.join(spans)}); "
            "check start_offset_s and fps in the catalog"
        )
    return windows.common_instants(catalog, recordings, count)


def thumbnails(source: Source, frames: np.ndarray, height_px: int = THUMBNAIL_PX) -> list[np.ndarray]:
    """Pictures of any frames, in the given order, scaled to one height: uint8 (height_px, W, 3) each."""
    wanted, back = np.unique(frames, return_inverse=True)
    pictures = []
    for picture in read_clips(source, [Wanted(wanted)])[0]:
        height, width = picture.shape[:2]
        size = (max(1, round(width * height_px / height)), height_px)
        pictures.append(np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX)))
    return [pictures[i] for i in back]


def sheet(strips: list[Strip], times: np.ndarray, title: str) -> Figure:
    """Rows of pictures with the camera's name on the left and the time in seconds above."""
    widths = [max(p.shape[1] / p.shape[0] for p in s.pictures) for s in strips]
    cell = 1.2
    figure = Figure(figsize=(max(widths) * cell * len(times) + 1.0, cell * len(strips) + 0.7), layout="constrained")
    axes = figure.subplots(len(strips), len(times), squeeze=False)
    for row, strip in enumerate(strips):
        for column, picture in enumerate(strip.pictures):
            axis = axes[row, column]
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
            axis.imshow(picture, interpolation="bilinear")
            if row == 0:
                axis.set_title(f"{times[column]:.2f} s", fontsize=FONT_PX)
        axes[row, 0].set_ylabel(strip.camera, fontsize=FONT_PX)
    figure.suptitle(title, fontsize=FONT_PX + 1)
    figure.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0.01, hspace=0.01)  # type: ignore[union-attr, call-arg]
    return figure
