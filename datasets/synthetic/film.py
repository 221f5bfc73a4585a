"""Filming a take: every asked camera's file, and the truth of each frame and view."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numba import njit

from .cameras import WornCamera, exo_camera, is_ego, light_of, view_names
from .config import EGO_VIEWS
from .h264 import H264Writer
from .render import Camera, View
from .shapes import CENTRE, GROUP
from .take import Take

BOXES = pa.schema(
    [
        ("recording", pa.string()), ("frame", pa.int32()), ("name", pa.string()),
        ("left_px", pa.int32()), ("top_px", pa.int32()), ("right_px", pa.int32()), ("bottom_px", pa.int32()),
        ("visible_px", pa.int32()),
        ("x_m", pa.float64()), ("y_m", pa.float64()), ("z_m", pa.float64()),
    ]
)  # fmt: skip
"""Box around the visible pixels (right and bottom exclusive); x, y, z: middle of the thing's parts in the world."""
CAMERAS = pa.schema(
    [("recording", pa.string()), ("frame", pa.int32()), ("focal_px", pa.float64()), ("centre_px", pa.float64()),
     ("position_m", pa.list_(pa.float64(), 3)), ("rotation", pa.list_(pa.float64(), 9))]
)  # fmt: skip
"""Pinhole calibration per frame; `rotation` holds the camera's right, down, forward axes in the world, row by row."""


@njit(cache=True)
def _boxes(groups: np.ndarray, count: int) -> np.ndarray:
    """Left, top, right, bottom, pixels (count, 5) of each group in an id image; exclusive right and bottom."""
    out = np.zeros((count, 5), np.int32)
    out[:, 0] = out[:, 1] = groups.shape[0]
    for v in range(groups.shape[0]):
        for u in range(groups.shape[1]):
            k = groups[v, u]
            if 0 <= k < count:
                out[k, 0], out[k, 1] = min(out[k, 0], u), min(out[k, 1], v)
                out[k, 2], out[k, 3] = max(out[k, 2], u + 1), max(out[k, 3], v + 1)
                out[k, 4] += 1
    return out


class Rig:
    """The cameras of one take; `frame(k)` must be called for k = 0, 1, ... in order."""

    def __init__(self, take: Take, views: list[str]) -> None:
        config = take.config
        self.take, self.views = take, views
        held_out = config.held_out_cameras and take.name.split != "train"
        names = view_names(len(EGO_VIEWS), 8)
        self._worn: dict[str, WornCamera] = {}
        self._fixed: dict[str, Camera] = {}
        self._renderers: dict[str, View] = {}
        for view in views:
            rng = take.name.view_rng(config, names.index(view))
            if is_ego(view):
                self._worn[view] = WornCamera(rng, view, config.size_px)
            else:
                self._fixed[view] = exo_camera(rng, int(view[3:]) - 1, config.exo_cameras, held_out, config.size_px)
            self._renderers[view] = View(take.room, light_of(rng, take.lamp, take.ambient), config.size_px)

    def frame(self, k: int) -> tuple[np.ndarray, dict[str, tuple[Camera, np.ndarray, np.ndarray]]]:
        """Middle of each group's parts (G, 3), and per view the camera, I420 planes and group image."""
        moving, head, grasp = self.take.instant(k)
        whole = np.concatenate([moving, head])
        shadow = self.take.shadow(whole)
        time_s = k / self.take.config.fps
        shots = {}
        for view in self.views:
            camera = self._worn[view].at(time_s, grasp) if view in self._worn else self._fixed[view]
            planes, groups = self._renderers[view].render(moving if view in self._worn else whole, camera, shadow)
            shots[view] = (camera, planes, groups)
        group = moving[:, GROUP].astype(int)
        middles = np.stack([moving[group == g, CENTRE : CENTRE + 3].mean(axis=0) for g in range(len(self.take.groups))])
        return middles, shots


def _camera_row(recording: str, frame: int, camera: Camera) -> dict[str, object]:
    return {
        "recording": recording,
        "frame": frame,
        "focal_px": camera.focal_px,
        "centre_px": camera.size_px / 2,
        "position_m": camera.position.tolist(),
        "rotation": camera.rotation.reshape(9).tolist(),
    }


def _box_rows(
    recording: str, frame: int, names: tuple[str, ...], groups: np.ndarray, middles: np.ndarray
) -> list[dict[str, object]]:
    """One row of BOXES per thing that shows at least one pixel."""
    found = _boxes(groups, len(names))
    return [
        dict(zip(BOXES.names, [recording, frame, name, *found[g].tolist(), *middles[g].tolist()], strict=True))
        for g, name in enumerate(names)
        if found[g, 4] > 0
    ]


def film(take: Take, files: dict[str, Path], recordings: dict[str, str], truth: Path) -> None:
    """Render `take` into one file per view, and write boxes, cameras and a summary under `truth` (without suffix).

    The summary `truth`.json is written last: where it exists, the take is complete.
    """
    rig = Rig(take, list(files))
    boxes: list[dict[str, object]] = []
    cameras: list[dict[str, object]] = []
    with ExitStack() as stack:
        writers = {
            v: stack.enter_context(H264Writer(f, take.config.fps, take.config.size_px)) for v, f in files.items()
        }
        for k in range(len(take.labels)):
            middles, shots = rig.frame(k)
            for view, (camera, planes, groups) in shots.items():
                writers[view].write(planes)
                cameras.append(_camera_row(recordings[view], k, camera))
                boxes += _box_rows(recordings[view], k, take.groups, groups, middles)
    truth.parent.mkdir(parents=True, exist_ok=True)
    for kind, rows, schema in (("boxes", boxes, BOXES), ("cameras", cameras, CAMERAS)):
        path = truth.with_name(f"{truth.name}.{kind}.parquet")
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)
    summary = {"subject": take.subject, "handedness": take.handedness, "labels": take.labels.tolist()}
    part = truth.with_name(f"{truth.name}.part")
    part.write_text(json.dumps(summary))
    part.replace(truth.with_name(f"{truth.name}.json"))
