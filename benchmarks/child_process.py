"""What decoding in a child process costs beside decoding in this one: CPU and wall time per clip, side by side.

The pattern is a training row: 10 windows of 16 frames of each of 4 prepared copies at 224 px, as YUV 4:2:0. CPU time is
that of both processes. Run as `python benchmarks/child_process.py [--video FILE ...]`; without --video it encodes
moving textures itself.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from decode import render

from crossview.datasets.catalog import Catalog, Recording
from crossview.datasets.video import child
from crossview.datasets.video.copies import prepare
from crossview.datasets.video.decode import DECODERS, TIME_LIMIT_S, read_clips
from crossview.datasets.video.framing import Framing
from crossview.datasets.video.indexing import scan
from crossview.datasets.video.source import Source, Wanted

VIEWS, WINDOWS, FRAMES, SIZE_PX = 4, 10, 16, 224
Read = Callable[[Source, list[Wanted]], list[np.ndarray]]


def in_process(source: Source, wanted: list[Wanted]) -> list[np.ndarray]:
    return DECODERS["pyav"].read(source, wanted, pixels="yuv420", time_limit_s=TIME_LIMIT_S)


def in_child(source: Source, wanted: list[Wanted]) -> list[np.ndarray]:
    return read_clips(source, wanted, pixels="yuv420")


def prepared(videos: list[Path], folder: Path) -> list[tuple[Source, int]]:
    """Copies of the videos with their frame indexes, and their numbers of frames."""
    sources = []
    for k, video in enumerate(videos):
        facts = scan(video, time_limit_s=600.0)[0]
        recording = Recording(
            dataset="d", scene="s", view=f"v{k}", perspective="exo", subject="", action="", path=video.name,
            kind="video", fps=facts.fps, num_frames=facts.num_frames, height_px=facts.height_px,
            width_px=facts.width_px,
        )  # fmt: skip
        catalog = prepare(Catalog(video.parent, (recording,)), folder / str(k))
        copy = catalog.file(catalog.recordings[0])
        index = scan(copy, time_limit_s=600.0)[1]
        index.write(folder / f"{k}.npz")
        sources.append((Source(copy, index=folder / f"{k}.npz"), facts.num_frames))
    return sources


def row(sources: list[tuple[Source, int]], seed: int) -> list[tuple[Source, list[Wanted]]]:
    """The same windows of all views: every second frame from a random one."""
    rng = np.random.default_rng(seed)
    shortest = min(count for _, count in sources)
    starts = rng.integers(0, shortest - 2 * FRAMES, WINDOWS)
    framing = Framing(size=(SIZE_PX, SIZE_PX))
    return [(source, [Wanted(start + 2 * np.arange(FRAMES), framing) for start in starts]) for source, _ in sources]


def cpu_s(process: int) -> float:
    """User and system time of a process so far."""
    threads = Path(f"/proc/{process}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


def measure(read: Read, rows: list[list[tuple[Source, list[Wanted]]]]) -> tuple[float, float]:
    """CPU and wall time per clip in ms."""
    processes = [os.getpid(), *(c.process.pid for c in child._idle)]
    cpu, wall = sum(map(cpu_s, processes)), time.monotonic()
    clips = 0
    for sources in rows:
        for source, wanted in sources:
            clips += sum(int(clip[0, 0, 0] >= 0) for clip in read(source, wanted))
    return 1e3 * (sum(map(cpu_s, processes)) - cpu) / clips, 1e3 * (time.monotonic() - wall) / clips


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--video", type=Path, nargs="+")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--rows", type=int, default=3, help="per round")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        videos = options.video or [render(folder / f"{k}.mp4", 900, 720, 1280) for k in range(VIEWS)]
        sources = prepared(videos, folder / "copies")
        ways: dict[str, Read] = {"in this process": in_process, "in a child": in_child}
        found: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
        for read in ways.values():  # the child is started, files are cached
            measure(read, [row(sources, 0)])
        for k in range(options.rounds):
            rows = [row(sources, 1 + k * options.rows + r) for r in range(options.rows)]
            for way in list(ways)[:: 1 if k % 2 else -1]:
                found[way].append(measure(ways[way], rows))
    base = np.array(found["in this process"])
    print(f"{'ms per clip':18}{'CPU':>8}{'wall':>8}{'CPU, ratio':>13}{'wall, ratio':>13}")
    for way, times in found.items():
        cpu, wall = np.median(times, axis=0)
        ratios = [statistics.median(r) for r in (np.array(times) / base).T]
        print(f"{way:18}{cpu:8.2f}{wall:8.2f}{ratios[0]:13.3f}{ratios[1]:13.3f}")


if __name__ == "__main__":
    main()
