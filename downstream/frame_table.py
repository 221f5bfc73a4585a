"""The embedding table: one vector per frame of every video of a split; what each downstream task scores."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa

from crossview.errors import UserError


@dataclass(frozen=True)
class FrameTable:
    """Frame embeddings of a split with the phase labels and the perspective of every frame.

    Frames of a video are contiguous and in order, and videos are in the order of `videos`: the order breaks ties, so it
    is part of the result. Perspective is data here, never derived from a path. Raises ValueError, naming the video,
    where the arrays break a rule.
    """

    vectors: np.ndarray
    """float32 (N, D), finite."""
    labels: np.ndarray
    """int32 (N,), phases 0..K-1."""
    video: np.ndarray
    """int32 (N,), index into `videos`: 0, 0, ..., 1, 1, ..."""
    frame: np.ndarray
    """int32 (N,), index in the video, rising within it."""
    is_ego: np.ndarray
    """bool (N,), constant within a video."""
    videos: tuple[str, ...]

    def __post_init__(self) -> None:
        types = {"vectors": np.float32, "labels": np.int32, "video": np.int32, "frame": np.int32, "is_ego": np.bool_}
        for name, dtype in types.items():
            object.__setattr__(self, name, np.ascontiguousarray(getattr(self, name), dtype=dtype))
        object.__setattr__(self, "videos", tuple(self.videos))
        self._check_shapes()
        self._check_videos()
        self._check_values()

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def dim(self) -> int:
        """Width D of a vector."""
        return int(self.vectors.shape[1])

    def video_slices(self) -> list[slice]:
        """The rows of each video, in the order of `videos`."""
        edges = np.searchsorted(self.video, np.arange(len(self.videos) + 1))
        return [slice(int(a), int(b)) for a, b in pairwise(edges)]

    def replace_vectors(self, vectors: np.ndarray) -> FrameTable:
        """The same frames with other vectors, (N, any D)."""
        return FrameTable(vectors, self.labels, self.video, self.frame, self.is_ego, self.videos)

    def require_both_perspectives(self, task: str) -> None:
        """Raise ValueError unless ego and exo frames are both present, as cross-view scores need."""
        if self.is_ego.all() or not self.is_ego.any():
            only = "ego" if self.is_ego.all() else "exo"
            raise UserError(
                f"{task}: all {len(self.videos)} videos (first {self.videos[0]!r}) are {only}; a cross-view score "
                "needs ego and exo videos in both splits: embed the other perspective too"
            )

    def to_table(self) -> pa.Table:
        """One row per frame: video, frame, label, is_ego, vector."""
        flat = pa.array(self.vectors.reshape(-1), type=pa.float32())
        return pa.table(
            {
                "video": pa.DictionaryArray.from_arrays(pa.array(self.video), pa.array(self.videos, type=pa.string())),
                "frame": pa.array(self.frame),
                "label": pa.array(self.labels),
                "is_ego": pa.array(self.is_ego),
                "vector": pa.FixedSizeListArray.from_arrays(flat, self.dim),
            }
        )

    @staticmethod
    def from_table(table: pa.Table) -> FrameTable:
        """Read what `to_table` made; videos are numbered in their order of appearance."""
        missing = {"video", "frame", "label", "is_ego", "vector"} - set(table.column_names)
        if missing:
            raise UserError(
                f"embedding table: columns {sorted(missing)} are missing among {table.column_names}; "
                "write it with `crossview embed`"
            )
        if table.num_rows == 0:
            raise UserError("embedding table: it has no rows; embed a split that holds at least one video")
        names = np.asarray(table["video"].cast(pa.string()).to_pylist(), dtype=object)
        starts = np.flatnonzero(np.r_[True, names[1:] != names[:-1]])
        lengths = np.diff(np.r_[starts, len(names)])
        vectors = table["vector"].combine_chunks()
        width = len(vectors[0])
        return FrameTable(
            vectors=vectors.flatten().to_numpy(zero_copy_only=False).reshape(-1, width),
            labels=table["label"].to_numpy(),
            video=np.repeat(np.arange(len(starts)), lengths),
            frame=table["frame"].to_numpy(),
            is_ego=table["is_ego"].to_numpy(),
            videos=tuple(names[starts]),
        )

    def _check_shapes(self) -> None:
        if self.vectors.ndim != 2 or 0 in self.vectors.shape:
            raise UserError(
                f"embeddings: vectors of shape {self.vectors.shape}; they must be (N, D) with at least one frame and "
                "one channel: embed a split that holds at least one video"
            )
        for name in ("labels", "video", "frame", "is_ego"):
            shape = getattr(self, name).shape
            if shape != (len(self),):
                raise UserError(
                    f"embeddings of {self.videos[:1]}...: {name} has shape {shape} for {len(self)} vectors; "
                    "there must be one entry per frame"
                )

    def _check_videos(self) -> None:
        repeated = [name for i, name in enumerate(self.videos) if name in set(self.videos[:i])]
        if repeated:
            raise UserError(
                f"embeddings: video {repeated[0]!r} occurs in two places; names must be unique in a split and "
                "the frames of a video together: sort the rows by video and frame"
            )
        present = np.unique(self.video)
        if not np.array_equal(present, np.arange(len(self.videos))):
            raise UserError(
                f"embeddings: frames name the videos {present.tolist()[:10]} but {len(self.videos)} videos are listed; "
                "every listed video must have a frame and every index must be listed"
            )
        back = np.flatnonzero(np.diff(self.video) < 0)
        if len(back):
            name = self.videos[self.video[back[0] + 1]]
            raise UserError(
                f"{name}: its frames come after a later video's (row {back[0] + 1}); frames of a video must be "
                "together and videos in the order listed: sort the rows by video"
            )
        same = np.diff(self.video) == 0
        unordered = np.flatnonzero(same & (np.diff(self.frame) <= 0))
        if len(unordered):
            row = unordered[0]
            raise UserError(
                f"{self.videos[self.video[row]]}: frame {self.frame[row + 1]} follows frame {self.frame[row]}; "
                "frame indices must rise within a video: sort the rows by frame"
            )
        mixed = np.flatnonzero(same & (self.is_ego[1:] != self.is_ego[:-1]))
        if len(mixed):
            name = self.videos[self.video[mixed[0]]]
            raise UserError(
                f"{name}: is_ego changes within the video; a video has one perspective: name each view's file apart"
            )

    def _check_values(self) -> None:
        broken = np.flatnonzero(~np.isfinite(self.vectors).all(axis=1))
        if len(broken):
            row = broken[0]
            raise UserError(
                f"{self.videos[self.video[row]]}: the vector of frame {self.frame[row]} is not finite "
                f"({len(broken)} such frames); embeddings must be finite: check the checkpoint and its precision"
            )
        negative = np.flatnonzero((self.labels < 0) | (self.frame < 0))
        if len(negative):
            row = negative[0]
            raise UserError(
                f"{self.videos[self.video[row]]}: frame {self.frame[row]} has label {self.labels[row]}; frame indices "
                "and labels must be 0 or above: every frame needs a phase"
            )
