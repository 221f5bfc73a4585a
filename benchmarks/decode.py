"""CPU time per clip of three ways to decode, side by side in one run; print their ratios.

The pattern is a training row: several windows of one recording at a wide stride. Run as
`python benchmarks/decode.py [--video FILE ...]`; without --video it encodes moving textures itself.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import av
import numpy as np

from crossview.datasets.catalog import Catalog, Recording
from crossview.datasets.video.copies import prepare
from crossview.datasets.video.decode import decode, probe

SIZE_PX = 224
Way = Callable[[Path, list[np.ndarray]], object]


def render(path: Path, frames: int, height: int, width: int) -> Path:
    """A smooth texture that slides under another one: H.264, GOP 250, B-frames, as cameras and editors write."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (2, height // 8, 2 * width // 8, 3), dtype=np.uint8)
    back, front = (np.repeat(np.repeat(layer, 8, 0), 8, 1) for layer in coarse)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.height, stream.width, stream.pix_fmt, stream.gop_size = height, width, "yuv420p", 250
        stream.options = {"preset": "veryfast", "crf": "23"}
        for k in range(frames):
            picture = back[:, 2 * k % width :][:, :width].copy()
            picture[height // 4 : height // 2] = front[height // 4 : height // 2, 5 * k % width :][:, :width]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def reader_per_clip(path: Path, clips: list[np.ndarray]) -> object:
    """The field's habit: a fresh decord reader for each clip, seek, RGB, float."""
    import decord

    out = []
    for frames in clips:
        reader = decord.VideoReader(str(path), num_threads=1, width=SIZE_PX, height=SIZE_PX)
        out.append(reader.get_batch(frames).asnumpy().astype(np.float32) / 255)
    return out


def one_pass_rgb(path: Path, clips: list[np.ndarray]) -> object:
    """All windows in one forward pass, RGB at the model's size."""
    frames, where = np.unique(np.stack(clips), return_inverse=True)
    return decode(path, frames, size_px=SIZE_PX)[where.reshape(len(clips), -1)]


def one_pass_yuv(path: Path, clips: list[np.ndarray]) -> object:
    """All windows in one forward pass, planes kept at the stored size; colour and resize are left to the device."""
    frames, where = np.unique(np.stack(clips), return_inverse=True)
    return decode(path, frames, pixels="yuv420")[where.reshape(len(clips), -1)]


def one_pass_yuv_small(path: Path, clips: list[np.ndarray]) -> object:
    """As above, but resized while decoding, for batches of one shape."""
    frames, where = np.unique(np.stack(clips), return_inverse=True)
    return decode(path, frames, size_px=SIZE_PX, pixels="yuv420")[where.reshape(len(clips), -1)]


WAYS: dict[str, Way] = {
    "decord reader per clip, RGB float": reader_per_clip,
    f"PyAV one pass, RGB {SIZE_PX}": one_pass_rgb,
    f"PyAV one pass, YUV {SIZE_PX}": one_pass_yuv_small,
    "PyAV one pass, YUV as stored": one_pass_yuv,
}


def cpu_ms(run: Callable[[], object]) -> float:
    """User and system time of this process, all threads."""

    def used() -> float:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return usage.ru_utime + usage.ru_stime

    start = used()
    run()
    return 1000 * (used() - start)


def windows(num_frames: int, count: int, length: int, stride: int, rng: np.random.Generator) -> list[np.ndarray]:
    stride = max(1, min(stride, (num_frames - 1) // max(length - 1, 1)))
    last = num_frames - 1 - (length - 1) * stride
    return [
        np.minimum(start + stride * np.arange(length), num_frames - 1)
        for start in rng.integers(0, max(last, 0) + 1, count)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--video", type=Path, nargs="+", help="files to decode; default: one that is encoded here")
    parser.add_argument("--frames", type=int, default=600, help="length of the video that is encoded here")
    parser.add_argument("--windows", type=int, default=8, help="clips of one recording in a row")
    parser.add_argument("--length", type=int, default=16, help="frames in a clip")
    parser.add_argument("--stride", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        originals = options.video or [render(here / "texture.mp4", options.frames, 480, 848)]
        for original in originals:
            info = probe(original)
            recording = Recording(
                dataset="", scene="", view="", perspective="exo", subject="", action="", path=original.name,
                kind="video", fps=info.fps, num_frames=info.num_frames, height_px=info.height_px,
                width_px=info.width_px,
            )  # fmt: skip
            copy = prepare(Catalog(original.parent.resolve(), (recording,)), here / "prepared")
            print(f"{original.name}: {info.num_frames} frames, {info.width_px}x{info.height_px}")
            report({"original": original, "prepared": copy.file(copy.recordings[0])}, info.num_frames, options)


def report(files: dict[str, Path], num_frames: int, options: argparse.Namespace) -> None:
    """Interleave the ways in each round, so that a busy machine slows all of them alike."""
    spent: dict[tuple[str, str], list[float]] = {}
    for turn in range(options.rounds):
        clips = windows(num_frames, options.windows, options.length, options.stride, np.random.default_rng(turn))
        for name, file in files.items():
            for way, run in WAYS.items():
                spent.setdefault((name, way), []).append(cpu_ms(partial(run, file, clips)) / len(clips))
    base = statistics.median(spent["original", next(iter(WAYS))])
    print(f"{'way':36} {'file':10} {'CPU ms/clip':>12} {'times faster':>13}")
    for (name, way), values in spent.items():
        print(f"{way:36} {name:10} {statistics.median(values):12.1f} {base / statistics.median(values):13.1f}")


if __name__ == "__main__":
    main()
