"""Rows of clips become arrays: pictures or features of frames, with the labels and teachers' outputs beside them."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from crossview.datasets.catalog import Recording
from crossview.datasets.catalog.probing import indexed
from crossview.datasets.sampling.geometry import boxes_in
from crossview.datasets.sampling.mixture import Mixture
from crossview.datasets.sampling.plan import Clip, Plan, Row
from crossview.datasets.teachers.store import FOLDER, Teachers
from crossview.datasets.video.decode import read_clips
from crossview.datasets.video.frames import UnreadableVideo
from crossview.datasets.video.framing import Framing
from crossview.datasets.video.source import Source, Wanted
from crossview.errors import UserError
from crossview.platform.config import Data
from crossview.platform.data.decoder import Arrays, Decoder, Shard
from crossview.platform.data.embedding_files import clip_key, read_embeddings, width
from crossview.platform.data.feature_files import feature_shape, read_features
from crossview.platform.data.frame_cache import frame_cache


@dataclass(frozen=True)
class Slot:
    """One camera's place in a row."""

    name: str
    """Key in the batch."""
    frames: int
    shape: tuple[int, ...]
    """Of a clip as it travels: (T, ...), or (D,) where it is embedded."""
    dtype: str


class RowDecoder(Decoder):
    """Decodes rows of clips. Each file of a row is opened once for all of the row's windows.

    A forward pass that failed once is not tried again up to the same frame or beyond.
    """

    plan: Plan | Mixture

    def __init__(self, plan: Plan | Mixture, data: Data, shard: Shard) -> None:
        super().__init__(plan, data, shard)
        self.pixels = data.pixels(next(iter(plan.sampling.views.values())))
        self.group = plan.sampling.pairing == "group"
        self.embedded = plan.embedded if isinstance(plan, Plan) else None
        self.slots = self._slots()
        wanted = plan.sampling.scores or plan.sampling.boxes
        self.teachers = Teachers.load(data.catalog / FOLDER) if wanted else None
        if self.teachers:
            self.teachers.check_recordings(r.id for r in plan.catalog.recordings)
        self._indexed: dict[int, Source] = {}

    def _slots(self) -> list[Slot]:
        vector = () if self.embedded is None else (width(self.embedded),)
        frame = None if vector else self._feature_frame()
        slots = []
        for name in self.plan.slots:
            view = self.plan.sampling.views[name]
            size, count = view.size_px, self.plan.sampling.max_frames(view)
            shape: tuple[int, ...] = (size * 3 // 2, size) if self.pixels == "yuv420" else (size, size, 3)
            kind = ((count, *shape), "uint8") if frame is None else ((count, *frame), "float16")
            slots.append(Slot("video" if self.group else name, count, *((vector, "float32") if vector else kind)))
        return slots

    def _feature_frame(self) -> tuple[int, ...] | None:
        """Shape (N, D) of one frame's features; None for a catalog of videos."""
        catalog = self.plan.catalog
        kinds = {r.kind for r in catalog.recordings}
        if "features" not in kinds:
            return None
        if len(kinds) > 1:
            raise UserError(f"catalog {catalog.place}: it mixes videos and features; train on one of them")
        for recording in catalog.recordings:
            try:
                return feature_shape(catalog.file(recording), recording)[1:]
            except (UnreadableVideo, FileNotFoundError):
                continue
        raise UserError(f"catalog {catalog.place}: none of its {len(catalog.recordings)} feature files can be read")

    def empty(self, rows: int) -> Arrays:
        """Zeros in the shapes of `rows` rows: (rows, windows, [V,] *clip), frames and counts beside them."""
        W, V = self.plan.sampling.windows, len(self.slots)
        out: Arrays = {"sample": np.zeros((rows, W), np.int64), "seed": np.zeros((rows, W), np.int64)}
        for slot in self.slots:
            cameras = (V,) if self.group else ()
            out[slot.name] = np.zeros((rows, W, *cameras, *slot.shape), slot.dtype)
            out[f"{slot.name}/frames"] = np.zeros((rows, W, *cameras, slot.frames), np.int64)
            out[f"{slot.name}/num_frames"] = np.zeros((rows, W, *cameras), np.int64)
            if self.group:
                out["video/mask"] = np.zeros((rows, W, V), np.uint8)
            out |= self._empty_facts(slot, (rows, W))
        return out

    def _empty_facts(self, slot: Slot, shape: tuple[int, int]) -> Arrays:
        """What travels beside a slot's frames, as the sampling declares it."""
        sampling, name = self.plan.sampling, slot.name
        out: Arrays = {}
        if sampling.window_length == "true":
            out[f"{name}/length"] = np.zeros(shape, np.int64)
        for kind, count in sampling.labels.items():
            out[f"{name}/label/{kind}"] = np.zeros((*shape, count), np.uint8)
        for task, count in sampling.scores.items():
            out[f"{name}/scores/{task}"] = np.zeros((*shape, count), np.float32)
            out[f"{name}/scores/{task}/mask"] = np.zeros(shape, np.uint8)
        if sampling.boxes:
            out[f"{name}/boxes"] = np.zeros((*shape, slot.frames, sampling.boxes, 6), np.float32)
            out[f"{name}/boxes/mask"] = np.zeros(shape, np.uint8)
        return out

    def _clear(self, out: Arrays, k: int) -> None:
        """Where the next row has no camera, nothing of this one may stay."""
        for slot in self.slots:
            out[slot.name][k] = 0

    def _place(self, out: Arrays, k: int, row: Row, reports: list[dict[str, Any]]) -> None:
        self._place_pictures(out, k, row, reports)
        for window, clips in enumerate(row.clips):
            for place, (slot, clip) in enumerate(zip(self.slots, clips, strict=True)):
                if clip is not None:
                    self._place_facts(out, slot.name, clip, (k, window, place) if self.group else (k, window))

    def _place_facts(self, out: Arrays, name: str, clip: Clip, at: tuple[int, ...]) -> None:
        sampling, recording = self.plan.sampling, self.plan.catalog.recordings[clip.recording]
        out[f"{name}/frames"][at] = clip.frames
        out[f"{name}/num_frames"][at] = recording.num_frames
        if self.group:
            out["video/mask"][at] = 1
            at = at[:2]
        if clip.length is not None:
            out[f"{name}/length"][at] = clip.length
        if sampling.labels:
            shown_s = self.plan.catalog.instants(recording, clip.frames[[0, -1]]) - recording.start_offset_s
            first_s, last_s = shown_s.tolist()
            for kind in sampling.labels:
                out[f"{name}/label/{kind}"][at] = self.plan.labels.of(recording, kind, first_s, last_s, clip.segment)
        for task, count in sampling.scores.items():
            logits = self.teachers.scores(recording.id, task) if self.teachers else None
            if logits is not None:
                if logits.shape != (count,):
                    raise UserError(
                        f"{self.data.catalog}/teachers: {len(logits)} scores of task {task!r} for {recording.id}, but "
                        f"the method is configured for {count}; import that teacher's scores again, or set the number"
                    )
                out[f"{name}/scores/{task}"][at] = logits
                out[f"{name}/scores/{task}/mask"][at] = 1
        if sampling.boxes and self.teachers:
            boxes = self.teachers.boxes(recording.id, clip.frames, sampling.boxes)
            if boxes is not None:
                out[f"{name}/boxes"][at] = boxes_in(boxes, self._framing(clip))
                out[f"{name}/boxes/mask"][at] = 1

    def _place_pictures(self, out: Arrays, k: int, row: Row, reports: list[dict[str, Any]]) -> None:
        """The row's clips into place k; each file is opened once."""
        of_recording: dict[int, list[tuple[Clip, np.ndarray]]] = {}
        for window, clips in enumerate(row.clips):
            for place, (slot, clip) in enumerate(zip(self.slots, clips, strict=True)):
                if clip is not None:
                    at = (k, window, place) if self.group else (k, window)
                    of_recording.setdefault(clip.recording, []).append((clip, out[slot.name][at]))
        for recording, wanted in of_recording.items():
            of_file, places = [clip for clip, _ in wanted], [place for _, place in wanted]
            last = max(int(clip.frames[-1]) for clip in of_file)
            try:
                if self._fails(recording, last):
                    raise UnreadableVideo(f"{recording}: it failed before")
                self.read(recording, of_file, places)
            except UnreadableVideo as error:
                self._failure(recording, last, error, reports)
                raise

    def _fails(self, recording: int, last: int) -> bool:
        """Whether a forward pass up to frame `last` is known to fail; seeking may pass over what is damaged."""
        sought = self.plan.catalog.recordings[recording].index and self.data.decoder == "pyav"
        return not sought and recording in self._failed and last >= self._failed[recording]

    def _sought(self, recording: int, source: Source) -> Source:
        """The source with a frame index, which a catalog made quickly lacks: made at the recording's first use."""
        if self.data.decoder != "pyav" or source.index is not None:
            return source
        if recording not in self._indexed:
            self._indexed[recording] = indexed(source, self.data.time_limit_s)
        return self._indexed[recording]

    def _framing(self, clip: Clip) -> Framing:
        facts = self.plan.catalog.recordings[clip.recording]
        return self.plan.sampling.views[clip.view].framing(clip.region, facts.height_px, facts.width_px)

    def read(self, recording: int, clips: list[Clip], places: list[np.ndarray]) -> None:
        """Clips of one recording into their places, each of its slot's shape; raises UnreadableVideo."""
        catalog, data = self.plan.catalog, self.data
        facts = catalog.recordings[recording]
        if self.embedded is not None:
            vectors = read_embeddings(self.embedded, facts, np.array([clip_key(clip) for clip in clips]))
            for vector, place in zip(vectors, places, strict=True):
                place[:] = vector
            return
        if facts.kind == "features":
            array = _features(catalog.file(facts), facts, self.slots[0].shape[1:])
            for clip, place in zip(clips, places, strict=True):
                place[:] = array[clip.frames]
            return
        source, framings = catalog.source(facts), [self._framing(clip) for clip in clips]
        if data.cache_frames:
            # A file that cannot be read to its end gives what can be read of it below.
            with contextlib.suppress(UnreadableVideo):
                cached = {framing: frame_cache(source, facts, framing, self.pixels, data) for framing in set(framings)}
                for clip, framing, place in zip(clips, framings, places, strict=True):
                    place[:] = cached[framing][clip.frames]
                return
        read_clips(
            self._sought(recording, source),
            [Wanted(clip.frames, framing) for clip, framing in zip(clips, framings, strict=True)],
            pixels=self.pixels,
            decoder=data.decoder,
            time_limit_s=data.time_limit_s,
            into=places,
        )


def _features(path: Path, recording: Recording, shape: tuple[int, ...]) -> np.ndarray:
    array = read_features(path, recording)
    if array.shape[1:] != shape:
        raise UnreadableVideo(f"{path}: features of shape {array.shape[1:]} per frame; the others here have {shape}")
    return array
