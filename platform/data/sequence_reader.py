"""Rows of feature sequences become arrays: each step's maximum, its frames or its embedding, and its target."""

from __future__ import annotations

from typing import Any

import numpy as np

from crossview.datasets.sampling.feature_plan import FeaturePlan, SequenceRow
from crossview.datasets.sampling.sequences import UNLABELLED, Sequences
from crossview.datasets.video.frames import UnreadableVideo
from crossview.errors import UserError
from crossview.platform.config import Data
from crossview.platform.data.decoder import Arrays, Decoder, Shard
from crossview.platform.data.embedding_files import read_embeddings, width
from crossview.platform.data.feature_files import feature_shape, read_features


class SequenceReader(Decoder):
    """Reads rows of a plan over features; each file is read memory-mapped."""

    plan: FeaturePlan

    def __init__(self, plan: FeaturePlan, data: Data, shard: Shard) -> None:
        super().__init__(plan, data, shard)
        self.width = feature_width(plan) if plan.embedded is None else width(plan.embedded)

    def empty(self, rows: int) -> Arrays:
        """Zeros in the shapes of `rows` rows, with targets of -100."""
        plan, T = self.plan, self.plan.steps
        steps = (T,) if plan.pooled or plan.embedded else (T, plan.frames_per_step)
        kind = np.float32 if plan.embedded else np.float16
        out: Arrays = {"sample": np.zeros((rows, 1), np.int64), "seed": np.zeros((rows, 1), np.int64)}
        out["features"] = np.zeros((rows, 1, plan.views, *steps, self.width), kind)
        out["features/mask"] = np.zeros((rows, 1, T), np.uint8)
        out["features/count"] = np.zeros((rows, 1, T), np.int64)
        each = (T,) if isinstance(plan.spec, Sequences) else ()
        return out | {f"target/{kind}": np.full((rows, 1, *each), UNLABELLED, np.int64) for kind in plan.spec.labels}

    def read(self, row: SequenceRow, reports: list[dict[str, Any]]) -> Arrays | None:
        """One row as `empty(1)` shapes it; None where a file cannot be read, which is reported the first time."""
        out = self.empty(1)
        out["sample"][:], out["seed"][:] = row.sample, row.seed
        try:
            self._place(out, 0, row, reports)
        except UnreadableVideo:
            return None
        return out

    def _clear(self, out: Arrays, k: int) -> None:
        for name, array in self.empty(1).items():
            if name not in ("sample", "seed"):
                out[name][k] = array[0]

    def _place(self, out: Arrays, k: int, row: SequenceRow, reports: list[dict[str, Any]]) -> None:
        for view, recording in enumerate(row.recordings):
            try:
                self._read(out["features"][k, 0, view], recording, row.frames[view], row.count)
            except UnreadableVideo as error:
                self._failure(recording, int(row.frames[view].max()), error, reports)
                raise
        T = len(row.count)
        out["features/mask"][k, 0, :T] = row.count > 0
        out["features/count"][k, 0, :T] = row.count
        for kind, target in row.targets.items():
            if target.ndim:
                out[f"target/{kind}"][k, 0, :T] = target
            else:
                out[f"target/{kind}"][k, 0] = target

    def _read(self, place: np.ndarray, recording: int, frames: np.ndarray, count: np.ndarray) -> None:
        """Frames int64 (T, n) of one recording into their place, `count` (T,) of each step."""
        catalog = self.plan.catalog
        facts = catalog.recordings[recording]
        if self.plan.embedded is not None:
            steps = np.stack([frames[:, 0], count], 1)
            place[: len(frames)] = read_embeddings(self.plan.embedded, facts, steps)
            return
        array = read_features(catalog.file(facts), facts)
        if int(np.prod(array.shape[1:])) != self.width:
            raise UnreadableVideo(
                f"{catalog.file(facts)}: features of shape {array.shape[1:]} per frame; the others here have "
                f"{self.width} values"
            )
        flat, (T, n) = array.reshape(len(array), -1), frames.shape
        low = int(frames.min())
        span = np.asarray(flat[low : int(frames.max()) + 1])  # one read, in the file's order
        steps = span[frames - low]  # (T, n, D)
        if self.plan.pooled:
            place[:T] = steps.max(1)
        else:
            place[:T, :n] = steps
            place[:T, n:] = steps[:, -1:]


def feature_width(plan: FeaturePlan) -> int:
    """Values of one frame's features (D) in the plan's catalog."""
    catalog = plan.catalog
    for recording in catalog.recordings:
        try:
            return int(np.prod(feature_shape(catalog.file(recording), recording)[1:]))
        except (UnreadableVideo, FileNotFoundError):
            continue
    raise UserError(f"catalog {catalog.place}: none of its {len(catalog.recordings)} feature files can be read")
