"""Synchronized groups from prepared copies, one file per view, beside a scene's views packed into one Parquet file.

    python benchmarks/packing.py                     # recordings and copies are made in build/bench/recordings once
    python benchmarks/packing.py --seconds 10 --groups 2

`packed_scene.py` writes and reads the packed form, whose row groups hold the packets of all views for 32 frames. A
group is 4 views with 1 or 10 windows of 16 frames, as YUV 4:2:0 at 224 x 224, decoded in one thread of this process.
Every way gets the same groups in turn and must give the same pictures. The S3 server is moto's, in another process: CPU
time is that of this one, requests and bytes are those that its S3 client has answers to. The first read of copies
fetches their frame indexes too, which reading in ranges finds there. Prints a Markdown table of averages over groups.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from packed_scene import Group, Packed, pack
from s3_server import s3
from stream_footage import CAMERAS, FPS, footage

from crossview import storage
from crossview.datasets.catalog import Catalog
from crossview.datasets.sampling.plan import Plan
from crossview.datasets.sampling.spec import Sampling, View
from crossview.datasets.video.decode import DECODERS
from crossview.datasets.video.frame_index import FrameIndex, cached_index
from crossview.datasets.video.frames import TIME_LIMIT_S
from crossview.datasets.video.placing import placed
from crossview.datasets.video.seeking import passes
from crossview.datasets.video.source import Source, Wanted, frames_in_file

WINDOWS = (1, 10)
READ_AHEAD = 2**17
"""Bytes beyond those asked for that a request for a range of a copy fetches."""
FIRST_READ = "S3 copies, first read (fetches the files)"

Read = Callable[[Group], list[np.ndarray]]


@dataclass
class Traffic:
    """What an S3 client has been answered."""

    requests: int = 0
    bytes: int = 0

    def watch(self, bucket: Path) -> None:
        """Count from now on."""
        storage.filesystem(bucket)[1].connect().meta.events.register("after-call.s3", self._answered)

    def _answered(self, model: Any, parsed: dict[str, Any], **_: object) -> None:
        self.requests += 1
        if model.name == "GetObject":
            self.bytes += parsed["ContentLength"]


@dataclass
class Spent:
    """On one group or, added up, on several."""

    cpu_ms: float = 0.0
    wall_ms: float = 0.0
    requests: float = 0
    bytes: float = 0


def from_copies(catalog: Catalog, group: Group) -> list[np.ndarray]:
    """As decoding does it, every picture checked against the frame index."""
    return [
        clip
        for source, wanted in sources(catalog, group)
        for clip in DECODERS["pyav"].read(source, wanted, pixels="yuv420", time_limit_s=TIME_LIMIT_S)
    ]


def in_ranges(catalog: Catalog, group: Group) -> list[np.ndarray]:
    """From remote copies that are opened where they are: what lies between the windows is not fetched."""
    clips = []
    for source, wanted in sources(catalog, group):
        assert source.index is not None
        path, store = storage.filesystem(source.path)
        with store.open(path, block_size=READ_AHEAD) as file, av.open(file) as container:
            found = sought(container, cached_index(source.index), frames_in_file(source, wanted))
            clips += placed(source, wanted, "yuv420", found)
    return clips


def sought(container: InputContainer, index: FrameIndex, frames: np.ndarray) -> Iterator[tuple[int, VideoFrame]]:
    """Frames int64 (n,), sorted and unique, with their numbers."""
    stream = container.streams.video[0]
    stream.codec_context.thread_count = 1
    for part in passes(frames, index):
        if part.entry_stamp is not None:
            container.seek(part.entry_stamp, stream=stream)
        numbers = dict(zip(index.pts[part.frames].tolist(), part.frames.tolist(), strict=True))
        for frame in container.decode(stream):
            number = numbers.pop(frame.pts, None)
            if number is not None:
                yield number, frame
            if not numbers:
                break


def sources(catalog: Catalog, group: Group) -> Iterator[tuple[Source, list[Wanted]]]:
    for recording, wanted in group.items():
        yield catalog.source(catalog.recordings[recording]), wanted


def forget(cache: Path, local: Catalog) -> None:
    """Empty this node's cache of remote files; local frame indexes stay in memory."""
    shutil.rmtree(cache, ignore_errors=True)
    storage.cache._settled.clear()
    cached_index.cache_clear()
    for recording in local.recordings:
        cached_index(local.source(recording).index)


def make_ways(local: Catalog, folder: Path, bucket: Path) -> dict[str, Read]:
    """The rows of the table; the files of those from S3 are put there."""
    here, there = folder / "scene.parquet", bucket / "scene.parquet"
    pack(local, here)
    storage.upload(here, there)
    assert local.folder is not None
    for file in local.folder.rglob("*"):
        if file.is_file():
            storage.upload(file, bucket / "copies" / file.relative_to(local.folder).as_posix())
    remote = Catalog.load(bucket / "copies", bucket / "copies")
    copies_mb = sum(local.file(recording).stat().st_size for recording in local.recordings) / 1e6
    print(f"copies of {copies_mb:.1f} MB, packed {here.stat().st_size / 1e6:.1f} MB\n")
    return {
        "local copies": partial(from_copies, local),
        "local, packed": Packed(here).read,
        FIRST_READ: partial(from_copies, remote),
        "S3 copies, later reads": partial(from_copies, remote),
        "S3 copies, read in ranges without the cache": partial(in_ranges, remote),
        "S3, packed, first read": lambda group: Packed(there).read(group),
        "S3, packed, later reads": Packed(there).read,
    }


def group_of(plan: Plan, row: int) -> Group:
    group: Group = {}
    for clip in (clip for clips in plan.row(row).clips for clip in clips if clip is not None):
        facts = plan.catalog.recordings[clip.recording]
        framing = plan.sampling.views[clip.view].framing(clip.region, facts.height_px, facts.width_px)
        group.setdefault(clip.recording, []).append(Wanted(clip.frames, framing))
    return group


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=Path("build/bench/recordings"), help="folder for the recordings")
    parser.add_argument("--seconds", type=int, default=120, help="length of the recordings")
    parser.add_argument("--groups", type=int, default=6, help="that are averaged")
    parser.add_argument("--stride", type=int, default=1, help="frames from one of a window to the next")
    options = parser.parse_args()
    local = Catalog.load(footage(options.cache, options.seconds)["prepared"])
    traffic = Traffic()
    found: dict[tuple[str, int], Spent] = {}
    with tempfile.TemporaryDirectory() as name, s3() as bucket:
        folder = Path(name)
        os.environ["CROSSVIEW_CACHE"] = str(folder / "cache")
        ways = make_ways(local, folder, bucket)
        traffic.watch(bucket)
        for windows in WINDOWS:
            view = View(perspective="ego", frames=16, fps=FPS / options.stride)
            exo = View(perspective="exo", frames=16, fps=view.fps, count=len(CAMERAS) - 1)
            plan = Plan(local, Sampling(views={"ego": view, "exo": exo}, pairing="group", windows=windows), seed=0)
            for row in range(options.groups + 1):
                group, clips = group_of(plan, row), None
                for way, read in ways.items():
                    if way == FIRST_READ:
                        forget(folder / "cache", local)
                    got, spent = measured(read, group, traffic)
                    clips = clips or got
                    assert len(got) == len(CAMERAS) * windows, way
                    assert all(map(np.array_equal, got, clips)), way
                    if row:  # the first is not counted: imports, connections, the page cache
                        total = found.setdefault((way, windows), Spent())
                        for field, value in vars(spent).items():
                            setattr(total, field, getattr(total, field) + value / options.groups)
    print(table(found, list(ways)))


def measured(read: Read, group: Group, traffic: Traffic) -> tuple[list[np.ndarray], Spent]:
    requests, fetched = traffic.requests, traffic.bytes
    cpu, wall = time.process_time(), time.perf_counter()
    clips = read(group)
    cpu_s, wall_s = time.process_time() - cpu, time.perf_counter() - wall
    return clips, Spent(1e3 * cpu_s, 1e3 * wall_s, traffic.requests - requests, traffic.bytes - fetched)


def table(found: dict[tuple[str, int], Spent], ways: list[str]) -> str:
    columns = ["CPU ms per group", "requests", "MB fetched", "wall ms"]
    first, *more = WINDOWS
    heads = [head for c in columns for head in (f"{c}: {first} window", *(f"{n} windows" for n in more))]
    lines = [f"| way | {' | '.join(heads)} |", f"|---{'|---:' * len(heads)}|"]
    for way in ways:
        spent = [found[way, windows] for windows in WINDOWS]
        values = [f"{s.cpu_ms:.0f}" for s in spent] + [number(s.requests) for s in spent]
        values += [number(s.bytes / 1e6) for s in spent] + [f"{s.wall_ms:.0f}" for s in spent]
        lines.append(f"| {way} | {' | '.join(values)} |")
    return "\n".join(lines)


def number(value: float) -> str:
    """With one decimal below 10, unless that is 0."""
    return f"{value:.1f}".removesuffix(".0") if value < 10 else f"{value:.0f}"


if __name__ == "__main__":
    main()
