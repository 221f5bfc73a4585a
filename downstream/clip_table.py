"""The clip table: one vector per clip of a split with the camera, scene and instant that it shows."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields

import numpy as np
import pyarrow as pa

from crossview.errors import UserError

NAMES = ("recording", "scene", "view", "perspective", "subject", "action")
COLUMNS = (*NAMES, "instant", "vector")


@dataclass(frozen=True, eq=False)
class ClipTable:
    """Clip embeddings of a split; clips of one `scene` with equal `instant` show the same time from other cameras.

    Their order decides ties. Raises ValueError, naming the recording, where the arrays break a rule.
    """

    vectors: np.ndarray
    """float32 (N, D), finite."""
    recording: np.ndarray
    """str (N,), as the other names; a recording has one scene, view, perspective, subject and action."""
    scene: np.ndarray
    view: np.ndarray
    """Name of the camera within the scene."""
    perspective: np.ndarray
    """ "ego" or "exo"."""
    subject: np.ndarray
    action: np.ndarray
    instant: np.ndarray
    """int64 (N,), number of the clip within its scene, from 0."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "vectors", np.ascontiguousarray(self.vectors, dtype=np.float32))
        object.__setattr__(self, "instant", np.ascontiguousarray(self.instant, dtype=np.int64))
        for name in NAMES:
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=np.str_))
        self._check_shapes()
        self._check_recordings()
        self._check_values()

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def dim(self) -> int:
        """Width D of a vector."""
        return int(self.vectors.shape[1])

    def views(self) -> list[str]:
        """Names of the cameras, sorted."""
        return [str(name) for name in np.unique(self.view)]

    def of_views(self, views: Collection[str]) -> ClipTable:
        """The clips of these cameras; raises ValueError if there are none."""
        return self.select(np.isin(self.view, sorted(views)), f"cameras {sorted(views)}")

    def select(self, kept: np.ndarray, what: str) -> ClipTable:
        """The clips where `kept`, bool (N,), is True; raises ValueError if it never is, saying `what` is missing."""
        if not kept.any():
            raise UserError(f"clips: none of {len(self)} is of {what}; cameras here: {', '.join(self.views())}")
        return ClipTable(**{f.name: getattr(self, f.name)[kept] for f in fields(self)})

    def size(self, split: str, seen: Collection[str]) -> str:
        """How much there is to score, and which cameras are not among those `seen` in training; a sentence."""
        new = [view for view in self.views() if view not in seen]
        cameras = f"held-out cameras: {', '.join(new)}" if new else "all cameras trained on"
        return (
            f"split {split}: {len(self)} clips of {len(np.unique(self.recording))} recordings, "
            f"{len(np.unique(self.scene))} scenes and {len(np.unique(self.subject))} subjects; {cameras}."
        )

    def replace_vectors(self, vectors: np.ndarray) -> ClipTable:
        """The same clips with other vectors, (N, any D)."""
        return ClipTable(vectors, **{f.name: getattr(self, f.name) for f in fields(self) if f.name != "vectors"})

    def to_table(self) -> pa.Table:
        """One row per clip: the names, instant, vector."""
        flat = pa.array(self.vectors.reshape(-1), type=pa.float32())
        names = {name: pa.array(getattr(self, name).tolist(), pa.string()) for name in NAMES}
        vectors = pa.FixedSizeListArray.from_arrays(flat, self.dim)
        return pa.table({**names, "instant": pa.array(self.instant), "vector": vectors})

    @staticmethod
    def from_table(table: pa.Table) -> ClipTable:
        """Read what `to_table` made; further columns are passed over."""
        missing = set(COLUMNS) - set(table.column_names)
        if missing:
            raise UserError(
                f"clip table: columns {sorted(missing)} are missing among {table.column_names}; write it with "
                "`crossview evaluate RUN --tasks retrieval`"
            )
        if table.num_rows == 0:
            raise UserError("clip table: it has no rows; embed a split that holds at least one recording")
        vectors = table["vector"].combine_chunks()
        return ClipTable(
            vectors=vectors.flatten().to_numpy(zero_copy_only=False).reshape(-1, len(vectors[0])),
            instant=table["instant"].to_numpy(),
            **{name: np.asarray(table[name].cast(pa.string()).to_pylist(), np.str_) for name in NAMES},
        )

    def _check_shapes(self) -> None:
        if self.vectors.ndim != 2 or 0 in self.vectors.shape:
            raise UserError(
                f"clips: vectors of shape {self.vectors.shape}; they must be (N, D) with at least one clip and one "
                "channel: embed a split that holds at least one recording"
            )
        for name in (*NAMES, "instant"):
            shape = getattr(self, name).shape
            if shape != (len(self),):
                raise UserError(f"clips: {name} has shape {shape} for {len(self)} vectors; there must be one per clip")

    def _check_recordings(self) -> None:
        _, first, of = np.unique(self.recording, return_index=True, return_inverse=True)
        for name in NAMES[1:]:
            values = getattr(self, name)
            mixed = np.flatnonzero(values != values[first[of]])
            if len(mixed):
                row = mixed[0]
                raise UserError(
                    f"{self.recording[row]}: {name} is both {str(values[first[of[row]]])!r} and {str(values[row])!r}; "
                    f"a recording has one {name}: give each camera's file its own id"
                )
        scene, view = (np.unique(v, return_inverse=True)[1] for v in (self.scene, self.view))
        _, index, count = np.unique(
            np.stack([scene, view, self.instant]), axis=1, return_index=True, return_counts=True
        )
        if (count > 1).any():
            row = index[count > 1][0]
            raise UserError(
                f"{self.recording[row]}: {count.max()} clips of camera {str(self.view[row])!r} at instant "
                f"{self.instant[row]} of scene {str(self.scene[row])!r}; a camera has one clip per instant: number the "
                "instants of a scene apart"
            )

    def _check_values(self) -> None:
        broken = np.flatnonzero(~np.isfinite(self.vectors).all(axis=1))
        if len(broken):
            row = broken[0]
            raise UserError(
                f"{self.recording[row]}: the vector of the clip at instant {self.instant[row]} is not finite "
                f"({len(broken)} such clips); embeddings must be finite: check the checkpoint and its precision"
            )
        other = np.flatnonzero(~np.isin(self.perspective, ("ego", "exo")))
        if len(other):
            row = other[0]
            raise UserError(f"{self.recording[row]}: perspective is {str(self.perspective[row])!r}; it is ego or exo")
        if self.instant.min() < 0:
            row = int(self.instant.argmin())
            raise UserError(f"{self.recording[row]}: instant is {self.instant[row]}; instants count from 0")
