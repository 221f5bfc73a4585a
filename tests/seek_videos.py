"""Videos of every kind that makes seeking hard; frame k shows the number k as `clock_videos` draws it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import clock_videos as clock
import numpy as np

FRAMES = 90
TIMES_S = np.arange(FRAMES) / 30


def _x264(params: str, **more: str) -> dict[str, str]:
    return {"preset": "veryfast", "crf": "14", "x264-params": params, **more}


CLOSED = _x264("keyint=8:min-keyint=8:scenecut=0:bframes=0:open-gop=0")
B_FRAMES = _x264("keyint=24:min-keyint=24:scenecut=0:bframes=3:open-gop=0")
OPEN = _x264("keyint=12:min-keyint=12:scenecut=0:bframes=8:b-pyramid=normal:open-gop=1")
X265 = {"preset": "ultrafast", "crf": "14"}
MPEG4 = {"g": "12", "bf": "2", "q:v": "2"}


def _file(name: str, **options: object) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        times_s = options.get("times_s", TIMES_S)
        others = {k: v for k, v in options.items() if k != "times_s"}
        return clock.write(folder / name, times_s, show=range(len(times_s)), **others)  # type: ignore[arg-type]

    return write


def _remuxed(source: Path, target: Path, later_s: float, sound_s: float = 0.0, sound_from_s: float = 0.0) -> Path:
    """The packets of `source` with later time stamps, beside `sound_s` seconds of sound from `sound_from_s` on."""
    with av.open(str(source)) as read, av.open(str(target), "w") as out:
        picture = read.streams.video[0]
        sound = out.add_stream("aac", rate=16000) if sound_s else None
        stream = out.add_stream_from_template(picture)
        if sound is not None:
            for k in range(0, int(sound_s * 16000), 1024):
                samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
                samples.sample_rate, samples.time_base = 16000, Fraction(1, 16000)
                samples.pts = round(sound_from_s * 16000) + k
                out.mux(sound.encode(samples))
            out.mux(sound.encode(None))
        for packet in read.demux(picture):
            if packet.size:
                ticks = round(later_s / packet.time_base)
                packet.stream, packet.pts, packet.dts = stream, packet.pts + ticks, packet.dts + ticks
                out.mux(packet)
    return target


def _hidden_start(folder: Path) -> Path:
    """An edit list hides the first 15 frames, so that those that are left show 15 to 89."""
    whole = clock.write(folder / "whole.mp4", TIMES_S, show=range(FRAMES), options=B_FRAMES)
    return _remuxed(whole, folder / "hidden.mp4", -0.5)


def _after_sound(name: str, sound_from_s: float = 0.0) -> Callable[[Path], Path]:
    """The picture begins half a second after the sound."""

    def write(folder: Path) -> Path:
        silent = clock.write(folder / "silent.mp4", TIMES_S, show=range(FRAMES), options=B_FRAMES)
        return _remuxed(silent, folder / name, sound_from_s + 0.5, 3.0, sound_from_s)

    return write


def _hidden_references(folder: Path) -> Path:
    """VP9 in which each group begins with a frame that is only referred to, in one packet with the first one shown.

    libvpx hides frames like this, of pictures that are shown later, but only in two passes: here key frames are hidden
    by their bit.
    """
    shown = [k for first in range(0, FRAMES, 12) for k in (min(first + 11, FRAMES - 1), *range(first, first + 12))]
    shown = shown[: FRAMES + -(-FRAMES // 12)]
    options = {"cpu-used": "8", "deadline": "realtime", "g": "13", "error-resilient": "default"}
    whole = clock.write(
        folder / "whole.webm", np.arange(len(shown)) / 30, show=shown, codec="libvpx-vp9", options=options
    )
    with av.open(str(whole)) as read, av.open(str(folder / "a.webm"), "w") as out:
        stream = out.add_stream_from_template(read.streams.video[0])
        hidden, count = b"", 0
        for packet in read.demux(video=0):
            if packet.is_keyframe:
                first, *rest = bytes(packet)
                hidden = bytes([first & ~2, *rest])  # show_frame = 0
            elif packet.size:
                mark = bytes([0xC0 | 3 << 3 | 1])  # a superframe's index: two frames, their sizes in four bytes each
                sizes = b"".join(len(part).to_bytes(4, "little") for part in (hidden, bytes(packet)))
                both = av.Packet(hidden + bytes(packet) + mark + sizes + mark if hidden else bytes(packet))
                both.stream, both.time_base, both.is_keyframe = stream, Fraction(1, 30), bool(hidden)
                both.pts = both.dts = count
                out.mux(both)
                hidden, count = b"", count + 1
    return folder / "a.webm"


def _wrapping(folder: Path) -> Path:
    """A transport stream whose 33-bit clock starts anew in the middle."""
    return clock.write(
        folder / "wraps.ts", TIMES_S, show=range(FRAMES), first_pts_s=2**33 / 90000 - 1.5, options=B_FRAMES
    )


def bursts() -> np.ndarray:
    """Times at 30 per s, without the second from 1 to 2 s, and at 20 per s at the end."""
    return np.concatenate([np.arange(30) / 30, 2 + np.arange(30) / 30, 3 + np.arange(1, 31) / 20])


KINDS: dict[str, Callable[[Path], Path]] = {
    "closed groups of 8": _file("a.mp4", options=CLOSED),
    "B-frames": _file("a.mp4", options=B_FRAMES),
    "open groups": _file("a.mp4", options=OPEN),
    "open groups in Matroska": _file("a.mkv", options=OPEN),
    "key frames only": _file("a.mp4", options=_x264("keyint=1")),
    "one key frame": _file("a.mp4", options=_x264("keyint=infinite:scenecut=0")),
    "intra refresh": _file("a.mp4", options=_x264("keyint=30:intra-refresh=1:bframes=0")),
    "interlaced": _file("a.mp4", options=_x264("keyint=12:bframes=2:interlaced=1")),
    "fragmented": _file("a.mp4", options=B_FRAMES, container_options={"movflags": "frag_keyframe+empty_moov"}),
    "edit list": _hidden_start,
    "late start": _file("a.mkv", options=B_FRAMES, first_pts_s=26.5 * 3600),
    "negative start": _file("a.mkv", options=B_FRAMES, first_pts_s=-0.5, container_options={"avoid_negative_ts": "0"}),
    "sound starts earlier": _after_sound("sound.mp4"),
    "variable rate": _file("a.mp4", times_s=bursts(), options=B_FRAMES),
    "variable rate in Matroska": _file("a.mkv", times_s=bursts(), options=B_FRAMES),
    "transport stream": _file("a.ts", options=B_FRAMES),
    "transport stream whose clock wraps": _wrapping,
    "transport stream beside sound": _after_sound("sound.ts", sound_from_s=1.0),
    "transport stream beside sound whose clock wraps": _after_sound("sound.ts", sound_from_s=2**33 / 90000 - 1.5),
    "MPEG-4 in mp4": _file("a.mp4", codec="mpeg4", options=MPEG4, ticks=30),
    "MPEG-4 in AVI": _file("a.avi", codec="mpeg4", options=MPEG4, ticks=30),
    "MJPEG in AVI": _file("a.avi", codec="mjpeg", pix_fmt="yuvj420p", options={"q:v": "2"}, ticks=30),
    "HEVC": _file("a.mp4", codec="libx265", options=X265 | {"x265-params": "keyint=12:bframes=3:log-level=none"}),
    "HEVC with open groups": _file(
        "a.mp4", codec="libx265", options=X265 | {"x265-params": "keyint=12:bframes=4:open-gop=1:log-level=none"}
    ),
    "H.264 10 bit": _file("a.mp4", pix_fmt="yuv420p10le", options=B_FRAMES),
    "VP9": _file("a.webm", codec="libvpx-vp9", options={"cpu-used": "8", "deadline": "realtime", "g": "12"}),
    "VP9 with hidden frames": _hidden_references,
    "AV1": _file("a.mp4", codec="libsvtav1", options={"preset": "10", "svtav1-params": "lp=1:keyint=12"}),
    "a single frame": _file("a.mp4", times_s=[0.0], options=CLOSED),
}
"""By name, what writes such a file in a folder."""

FORWARD = ("one key frame", "intra refresh", "a single frame", "negative start")
"""Kinds in which decoding can start at the first frame alone, or whose frames have no times."""


def numbers(file: Path, frames: Sequence[np.ndarray]) -> list[int]:
    """What the frames show, as indices: from 15 on if an edit list hides what comes before."""
    first = 15 if file.name == "hidden.mp4" else 0
    return [clock.read(frame) - first for frame in frames]
