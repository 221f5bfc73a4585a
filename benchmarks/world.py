"""Speed of the synthetic world on one core: rendered and H.264-encoded frames per second, printed as one table.

Run: python benchmarks/world.py [--size-px 256] [--takes 2]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from crossview.datasets.synthetic.cameras import view_names
from crossview.datasets.synthetic.config import WorldConfig
from crossview.datasets.synthetic.film import Rig, film
from crossview.datasets.synthetic.take import Take, TakeName


def measure(config: WorldConfig, action: str, number: int, folder: Path) -> tuple[int, float, float]:
    """Frames of all views of one take, seconds to render them, seconds to film them (render, encode, truth)."""
    views = view_names(config.ego_cameras, config.exo_cameras)
    take = Take(config, TakeName("train", action, number))
    frames = len(take.labels) * len(views)
    start = time.process_time()
    rig = Rig(take, views)
    for k in range(len(take.labels)):
        rig.frame(k)
    rendered = time.process_time()
    film(
        take,
        {v: folder / f"{action}{number}{v}.mp4" for v in views},
        {v: v for v in views},
        folder / f"{action}{number}",
    )
    return frames, rendered - start, time.process_time() - rendered


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size-px", type=int, default=256)
    parser.add_argument("--takes", type=int, default=2)
    args = parser.parse_args()
    config = WorldConfig(size_px=args.size_px)
    with tempfile.TemporaryDirectory() as folder:
        measure(WorldConfig(size_px=args.size_px, min_frames=8, max_frames=8), config.actions[0], 0, Path(folder))
        rows = []
        print(f"{'action':16} {'frames':>7} {'render fps':>11} {'render + encode + truth fps':>28}")
        for action in config.actions:
            total = np.sum([measure(config, action, n, Path(folder)) for n in range(args.takes)], axis=0)
            rows.append(total)
            print(f"{action:16} {int(total[0]):7d} {total[0] / total[1]:11.1f} {total[0] / total[2]:28.1f}")
        frames, render, both = np.sum(rows, axis=0)
        print(f"{'all':16} {int(frames):7d} {frames / render:11.1f} {frames / both:28.1f}")
        print(f"{args.size_px}x{args.size_px}, one ego and four exo views, seconds of one core")


if __name__ == "__main__":
    main()
