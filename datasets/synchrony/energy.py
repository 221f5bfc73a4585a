"""How much a recording moves or sounds over time, on its scene's clock."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from crossview.datasets.catalog import Catalog, Recording
from crossview.datasets.video.child import call
from crossview.datasets.video.decode import read_clips
from crossview.datasets.video.frame_index import cached_index
from crossview.datasets.video.frames import TIME_LIMIT_S, as_unreadable, opened, progressed
from crossview.datasets.video.framing import Framing
from crossview.datasets.video.indexing import clock_start
from crossview.datasets.video.source import Wanted

MOTION_PX = 32
"""Side of the pictures whose change is measured: so small that little is left of noise and of coding."""
SOUND_HZ = 100
"""Values of the sound's energy per second."""
_SAMPLES_HZ = 8000
_MOTION_FLOOR, _SOUND_FLOOR = 0.02, 1e-3
"""Added before the logarithm: grey levels, and a share of the mean power."""


@dataclass(frozen=True, eq=False)
class Energy:
    """Energy per interval of time; intervals touch."""

    edges_s: np.ndarray
    """float64 (n + 1,), rising, on the scene's clock."""
    values: np.ndarray
    """float64 (n,), at least 0."""
    floor: float
    """What is added before the logarithm is taken."""

    def on_grid(self, rate: float) -> tuple[int, np.ndarray]:
        """Number of the first interval of 1 / rate s from the clock's 0, and the logarithm of each one's energy."""
        first = int(np.ceil(self.edges_s[0] * rate - 1e-6))
        last = int(np.floor(self.edges_s[-1] * rate + 1e-6))
        if last <= first:
            return first, np.empty(0)
        total = np.concatenate([[0.0], np.cumsum(self.values * np.diff(self.edges_s))])
        within = np.interp(np.arange(first, last + 1) / rate, self.edges_s, total)
        return first, np.log(np.maximum(np.diff(within) * rate, 0) + self.floor)


def motion_energy(catalog: Catalog, recording: Recording, span_s: tuple[float, float]) -> Energy | None:
    """Mean absolute change of grey from each frame to the next within a span of the scene's clock.

    None if fewer than three frames are in it. Raises UnreadableVideo as reading the frames does. The change to a key
    frame is replaced by that of its neighbours: encoders change the whole picture there, and at the same moments in
    cameras of one model, whatever these show.
    """
    first, last = catalog.frames_at(recording, np.array(span_s))
    if last - first < 2:
        return None
    frames = np.arange(first, last + 1)
    source = catalog.source(recording)
    small = Framing(size=(MOTION_PX, MOTION_PX), scaling="area")
    planes = read_clips(source, [Wanted(frames, small)], pixels="yuv420")[0][:, :MOTION_PX].astype(np.float32)
    values = np.abs(np.diff(planes, axis=0)).mean((1, 2)).astype(np.float64)
    edges_s = catalog.instants(recording, frames)
    if source.index is not None and source.kind == "video":
        keys = cached_index(source.index).entry_frames - source.first_frame
        coded = np.isin(frames[1:], keys)
        if 0 < coded.sum() <= len(coded) // 2:  # else every picture is coded by itself, and none stands out
            where = np.arange(len(values))
            values[coded] = np.interp(where[coded], where[~coded], values[~coded])
    rising = np.concatenate([[True], np.diff(edges_s) > 0])
    if not rising.all():
        return None
    return Energy(edges_s, values, _MOTION_FLOOR)


def sound_energy(catalog: Catalog, recording: Recording, span_s: tuple[float, float]) -> Energy | None:
    """Power of the file's first audio stream within a span of the scene's clock; None if the file has no sound there.

    Raises UnreadableVideo if the file is damaged.
    """
    if recording.kind != "video":
        return None
    source = catalog.source(recording)
    index = None if source.index is None else cached_index(source.index)
    shown_s = recording.first_s if index is None else float(index.times_s[recording.first_frame])
    late_s = recording.start_s - shown_s  # from the file's time to the scene's
    start_s, stop_s = max(span_s[0], recording.start_s), min(span_s[1], recording.end_s)
    power = call(
        source.path, [source.path], TIME_LIMIT_S, _power, source.path, start_s - late_s, stop_s - late_s, TIME_LIMIT_S
    )
    if not len(power) or not power.any():
        return None
    edges_s = start_s + np.arange(len(power) + 1) / SOUND_HZ
    return Energy(edges_s, power, float(_SOUND_FLOOR * power.mean()))


def _power(path: Path, start_s: float, stop_s: float, time_limit_s: float) -> np.ndarray:
    """Mean square per 1 / SOUND_HZ s between two times of the file's clock: float64 (n,), empty without sound."""
    step = _SAMPLES_HZ // SOUND_HZ
    total = np.zeros(max(0, int((stop_s - start_s) * SOUND_HZ)) * step)
    found = False
    with opened(path, time_limit_s) as (container, video), as_unreadable(path):
        if not container.streams.audio:
            return np.empty(0)
        stream = container.streams.audio[0]
        clock_s = clock_start(video, float((video.start_time or 0) * (video.time_base or 1)))
        resampler = av.AudioResampler(format="flt", layout="mono", rate=_SAMPLES_HZ)
        if start_s > 5:
            container.seek(int((start_s + clock_s - 2) * av.time_base))
        for frame in container.decode(stream):
            progressed()
            if frame.time is None:
                continue
            if frame.time - clock_s > stop_s:
                break
            at = round((frame.time - clock_s - start_s) * _SAMPLES_HZ)
            frame.pts = None  # the resampler refuses gaps; each frame is placed by its own time
            for part in resampler.resample(frame):
                samples = part.to_ndarray().ravel()
                low, high = max(0, at), min(len(total), at + len(samples))
                if high > low:
                    total[low:high] = samples[low - at : high - at]
                    found = True
                at += len(samples)
    return (total.reshape(-1, step) ** 2).mean(1) if found else np.empty(0)
