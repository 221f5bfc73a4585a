"""The stream against the field's habit: a torch DataLoader whose workers open a decord reader for every clip.

Both deliver the same clips of the same plan as uint8 RGB. Rates are between the first batch and the last; the time to
the first batch stands beside them.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"

import av
import numpy as np
import psutil
import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from crossview.datasets.catalog import Catalog, Recording
from crossview.datasets.sampling.plan import Plan
from crossview.datasets.sampling.spec import Sampling, View
from crossview.platform.config import Data
from crossview.platform.data.loader import Shard, Stream

FPS, FRAMES, SIZE_PX, SCENES = 30, 300, 256, 6
BATCH = 2


def film(path: Path, seed: int) -> None:
    """H.264 as `prepare` writes it: a textured background that drifts and a disc that crosses it."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (24, 24, 3), dtype=np.uint8)
    texture = np.kron(coarse, np.ones((16, 16, 1), np.uint8)) // 2 + rng.integers(0, 60, (384, 384, 3), dtype=np.uint8)
    y, x = np.mgrid[:SIZE_PX, :SIZE_PX]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width = stream.height = SIZE_PX
        stream.pix_fmt, stream.gop_size = "yuv420p", 8
        stream.options = {"bf": "0", "preset": "veryfast", "tune": "fastdecode", "x264-params": "open-gop=0"}
        for k in range(FRAMES):
            image = texture[k // 8 : k // 8 + SIZE_PX, k // 5 : k // 5 + SIZE_PX].copy()
            image[(x - k) ** 2 + (y - 128) ** 2 < 900] = (240, 200, 30)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))


def footage(root: Path) -> Catalog:
    """Scenes of one ego and one exo camera."""
    recordings = []
    for k in range(2 * SCENES):
        view = ("ego", "exo")[k % 2]
        film(root / f"{k}.mp4", k)
        recordings.append(
            Recording(
                dataset="benchmark",
                scene=str(k // 2),
                view=view,
                perspective=view,  # type: ignore[arg-type]
                subject="0",
                action="drift",
                path=f"{k}.mp4",
                kind="video",
                fps=FPS,
                num_frames=FRAMES,
                height_px=SIZE_PX,
                width_px=SIZE_PX,
            )
        )
    return Catalog(root, tuple(recordings))


class PerClip(TorchDataset[torch.Tensor]):
    """A reader per clip, resized frame by frame in torch: what a VideoMAE-style dataset does, less the float copy."""

    def __init__(self, plan: Plan, rows: int) -> None:
        self.plan, self.rows = plan, rows

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, i: int) -> torch.Tensor:
        """uint8 (windows * cameras, T, 3, H, W)."""
        import decord

        clips = []
        for clip in (clip for window in self.plan.row(i).clips for clip in window if clip is not None):
            size = self.plan.sampling.views[clip.view].size_px
            path = self.plan.catalog.file(self.plan.catalog.recordings[clip.recording])
            pictures = decord.VideoReader(str(path), num_threads=1).get_batch(clip.frames).asnumpy()
            video = torch.from_numpy(pictures).permute(0, 3, 1, 2)
            video = torch.nn.functional.interpolate(video, (size, size), mode="bilinear", antialias=True)
            clips.append(video)
        return torch.stack(clips)


@dataclass
class Measured:
    """One way to the consumer."""

    first_s: float
    mb_per_s: float
    cpu_s_per_gb: float
    wait_s_per_gb: float


def cpu_s() -> float:
    """CPU time of this process and everything it started that still runs."""
    me, total = psutil.Process(), 0.0
    for process in [me, *me.children(recursive=True)]:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def measure(batches: Iterable[int], count: int) -> Measured:
    """Take `count` batches, given as their bytes."""
    begun, wait, seen = time.perf_counter(), 0.0, 0
    source = iter(batches)
    next(source)
    first, cpu = time.perf_counter(), cpu_s()
    for _ in range(count - 1):
        asked = time.perf_counter()
        seen += next(source)
        wait += time.perf_counter() - asked
    gb = seen / 1e9
    spent = time.perf_counter() - first
    return Measured(first - begun, 1e3 * gb / spent, (cpu_s() - cpu) / gb, wait / gb)


def habit(plan: Plan, rows: int) -> Measured:
    loader = DataLoader(PerClip(plan, rows), batch_size=BATCH, num_workers=2)
    return measure((batch.nbytes for batch in loader), rows // BATCH)


def ours(plan: Plan, rows: int, *, in_process: bool) -> Measured:
    shard = Shard(start_step=0, stop_step=rows // BATCH, batch=BATCH, micro_batch=BATCH)
    data = Data(catalog=plan.catalog.root, decode_actors=2)
    source = Stream(plan, data, shard, device=torch.device("cpu"), run_dir=None, in_process=in_process)
    with source:
        return measure((sum(b[name].nbytes for name in plan.slots) for b in source), rows // BATCH)


def main() -> None:
    import ray

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=48, help="rows of the plan: 2 cameras x 4 windows x 16 frames each")
    rows = parser.parse_args().rows
    torch.set_num_threads(1)
    view = View(perspective="ego", frames=16, fps=FPS / 4, size_px=224)
    views = {"ego": view, "exo": View(perspective="exo", frames=16, fps=FPS / 4, size_px=224)}
    with tempfile.TemporaryDirectory() as folder:
        plan = Plan(footage(Path(folder)), Sampling(views=views, pairing="synchronized", windows=4), seed=0)
        ray.init(num_cpus=4, include_dashboard=False, object_store_memory=512 * 2**20, log_to_driver=False)
        found = {
            "DataLoader, decord per clip": habit(plan, rows),
            "this stream, in process": ours(plan, rows, in_process=True),
            "this stream, Ray Data": ours(plan, rows, in_process=False),
        }
        ray.shutdown()
    base = found["DataLoader, decord per clip"]
    print(f"\n{'':30}{'first batch s':>14}{'MB/s':>8}{'ratio':>7}{'CPU s/GB':>10}{'ratio':>7}{'wait s/GB':>11}")
    for name, m in found.items():
        print(
            f"{name:30}{m.first_s:14.1f}{m.mb_per_s:8.0f}{m.mb_per_s / base.mb_per_s:7.1f}{m.cpu_s_per_gb:10.1f}"
            f"{base.cpu_s_per_gb / m.cpu_s_per_gb:7.1f}{m.wait_s_per_gb:11.1f}"
        )


if __name__ == "__main__":
    main()
