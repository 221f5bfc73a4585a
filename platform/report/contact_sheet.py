"""A contact sheet: the cameras of a scene at common instants, which shows at a glance whether clocks agree."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from crossview import storage
from crossview.datasets.catalog import Catalog, Recording
from crossview.datasets.sampling import windows
from crossview.datasets.sampling.spec import Sampling
from crossview.datasets.video.decode import read_clips
from crossview.datasets.video.framing import Framing
from crossview.datasets.video.source import Source, Wanted
from crossview.errors import UserError
from crossview.platform.report.plots import FONT_PX, save

THUMBNAIL_PX = 160
"""Height of a picture in the sheet."""


WHOLE = Framing()
MOST_CAMERAS = 12
"""Rows of a sheet; more cameras are counted in its title."""
_GAP_PX = 4


@dataclass(frozen=True)
class Strip:
    """One camera's pictures, uint8 (H, W, 3) each."""

    camera: str
    pictures: list[np.ndarray]


def contact_sheet(
    catalog: Catalog, scene: Sequence[Recording], out: Path, instants: int = 8, sampling: Sampling | None = None
) -> Path:
    """Write the sheet of one scene's recordings as PNG: a row per camera, a column per instant that all of them cover.

    With `sampling`, pictures are as its method embeds them. Cameras with clocks of their own are shown at equal shares
    of the way through. Raises ValueError if the recordings are features, or never overlap.
    """
    if instants < 1:
        raise UserError(f"instants is {instants}; it must be at least 1")
    recordings = in_order(scene)
    name = recordings[0].scene
    if not recordings[0].has_pixels:
        raise UserError(f"catalog {catalog.place}: scene {name!r} has no video; draw one that has, or name a page")
    if windows.clocks_apart(recordings):
        heads, frames = at_equal_shares(recordings, instants)
        when = "at equal shares of the way through"
    else:
        heads, frames = at_common_instants(catalog, recordings, instants)
        when = f"at {len(heads)} common instants"
    strips = [
        strip(catalog, r, of, sampling) for r, of in zip(recordings[:MOST_CAMERAS], frames[:MOST_CAMERAS], strict=True)
    ]
    storage.make_folder(out.parent)
    return save(sheet(strips, heads, f"Scene {name}: {_shown(recordings)} {when}"), out)


def _shown(recordings: Sequence[Recording]) -> str:
    count = len(recordings)
    return f"{count} cameras" if count <= MOST_CAMERAS else f"{MOST_CAMERAS} of {count} cameras"


def in_order(recordings: Iterable[Recording]) -> list[Recording]:
    """Ego first, then by view."""
    return sorted(recordings, key=lambda r: (r.perspective != "ego", r.view))


def at_common_instants(catalog: Catalog, recordings: list[Recording], count: int) -> tuple[list[str], list[np.ndarray]]:
    """Times on the scene's clock as text, and each recording's frames int64 (count,); raises as `common_instants`."""
    times = common_instants(catalog, recordings, count)
    return [f"{time:.2f} s" for time in times], [catalog.frames_at(r, times) for r in recordings]


def at_equal_shares(recordings: Sequence[Recording], count: int) -> tuple[list[str], list[np.ndarray]]:
    """Shares of the way through as text, and each recording's frames int64 (count,), as `paired` sampling maps them."""
    shares = np.linspace(0, 1, count)
    frames = [np.rint(shares * (r.num_frames - 1)).astype(np.int64) for r in recordings]
    return [f"{share:.0%}" for share in shares], frames


def common_instants(catalog: Catalog, recordings: list[Recording], count: int) -> np.ndarray:
    """`windows.common_instants`; raises ValueError if the recordings have none."""
    if not windows.run_together(recordings):
        spans = [f"{r.view} {r.start_s:.2f}-{r.end_s:.2f} s" for r in recordings]
        raise UserError(
            f"scene {recordings[0].scene!r}: its recordings never overlap in time ({', '.join(spans)}); "
            "check start_offset_s and fps in the catalog"
        )
    return windows.common_instants(catalog, recordings, count)


def strip(catalog: Catalog, recording: Recording, frames: np.ndarray, sampling: Sampling | None = None) -> Strip:
    """A row of the sheet: whole pictures or, with `sampling`, what its method embeds of them."""
    framing = WHOLE
    if sampling is not None:
        view = sampling.view_for(recording.perspective)
        framing = view.centred(recording.height_px, recording.width_px)
    pictures = thumbnails(catalog.source(recording), frames, framing=framing)
    return Strip(f"{recording.view} ({recording.perspective})", pictures)


def thumbnails(
    source: Source, frames: np.ndarray, height_px: int = THUMBNAIL_PX, framing: Framing = WHOLE
) -> list[np.ndarray]:
    """Pictures of any frames, in the given order, framed, then scaled to one height: uint8 (height_px, W, 3) each."""
    wanted, back = np.unique(frames, return_inverse=True)
    pictures = []
    for picture in read_clips(source, [Wanted(wanted, framing)])[0]:
        height, width = picture.shape[:2]
        size = (max(1, round(width * height_px / height)), height_px)
        pictures.append(np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX)))
    return [pictures[i] for i in back]


def sheet(strips: Sequence[Strip], heads: Sequence[str], title: str) -> Figure:
    """Rows of pictures of one height, with the camera's name on the left and what they have in common above."""
    height = strips[0].pictures[0].shape[0]
    width = max(p.shape[1] for s in strips for p in s.pictures)
    tall, wide = height + _GAP_PX, width + _GAP_PX
    mosaic = np.full((tall * len(strips) - _GAP_PX, wide * len(heads) - _GAP_PX, 3), 255, np.uint8)
    for row, of_camera in enumerate(strips):
        for column, picture in enumerate(of_camera.pictures):
            left = column * wide + (width - picture.shape[1]) // 2
            mosaic[row * tall : row * tall + height, left : left + picture.shape[1]] = picture
    inches = 1.2 / THUMBNAIL_PX
    size = (mosaic.shape[1] * inches + 1.1, mosaic.shape[0] * inches + 0.7)
    figure = Figure(figsize=size, layout="constrained")
    axis = figure.subplots()
    axis.imshow(mosaic, interpolation="bilinear")
    axis.spines[:].set_visible(False)
    axis.set_xticks([column * wide + width / 2 for column in range(len(heads))], heads)
    axis.set_yticks([row * tall + height / 2 for row in range(len(strips))], [s.camera for s in strips])
    axis.tick_params(length=0, labelsize=FONT_PX, top=True, labeltop=True, bottom=False, labelbottom=False)
    figure.suptitle(title, fontsize=FONT_PX + 1)
    return figure
