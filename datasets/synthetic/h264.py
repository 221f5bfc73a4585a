"""Writing I420 frames to an H.264 file that decodes fast and seeks exactly."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

GOP = 8


class H264Writer:
    """Writes to a temporary name and renames on a clean exit; closed GOP of 8, BT.601 limited range."""

    def __init__(self, path: Path, fps: int, size_px: int) -> None:
        self._path, self._partial = path, path.with_name(f".{path.stem}.{os.getpid()}.part.mp4")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._container = av.open(str(self._partial), "w")
        self._stream = self._container.add_stream("libx264", rate=fps)
        self._stream.width = self._stream.height = size_px
        self._stream.pix_fmt = "yuv420p"
        self._stream.time_base = Fraction(1, fps)
        self._stream.codec_context.thread_count = 1
        self._stream.options = {
            "preset": "veryfast",
            "tune": "fastdecode",
            "crf": "21",
            # mbtree's assembly reads beyond small frames and makes the bits differ from run to run
            "x264-params": f"keyint={GOP}:min-keyint={GOP}:scenecut=0:open-gop=0:threads=1:mbtree=0:cpu-independent=1:"
            "colormatrix=smpte170m:colorprim=smpte170m:transfer=smpte170m:range=tv:log=none",
        }

    def __enter__(self) -> H264Writer:
        return self

    def write(self, planes: np.ndarray) -> None:
        """One frame, I420 uint8 (3S/2, S)."""
        frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        frame.colorspace, frame.color_range = Colorspace.ITU601, ColorRange.MPEG
        self._container.mux(self._stream.encode(frame))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._container.mux(self._stream.encode())
        self._container.close()
        if kind is None:
            self._partial.replace(self._path)
        else:
            self._partial.unlink(missing_ok=True)
