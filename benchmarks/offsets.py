"""How well offsets between cameras are found on the synthetic world: planted ones, and pairs of different takes.

Run: python benchmarks/offsets.py [--takes 2] [--size-px 128] [--max-lag-s 10] [--world FOLDER]

Every two cameras of a take are compared by motion once their clocks are set apart by up to 1.3 s, and as many pairs of
different takes as are asked for. Printed are, per limit of certainty, the share of planted offsets that reach it, the
largest error among those in frames, and the share of unrelated pairs that reach it.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np

from crossview.datasets.synchrony.energy import Energy, motion_energy
from crossview.datasets.synchrony.lag import Lag, lag_between
from crossview.datasets.synthetic.config import WorldConfig
from crossview.datasets.synthetic.world import write

LIMITS = (0.99, 0.999, 0.9999)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--takes", type=int, default=2, help="of each action")
    parser.add_argument("--size-px", type=int, default=128)
    parser.add_argument("--max-lag-s", type=float, default=10.0)
    parser.add_argument("--unrelated", type=int, default=3000, help="pairs of different takes")
    parser.add_argument("--world", type=Path, help="folder that keeps the films")
    args = parser.parse_args()
    config = WorldConfig(
        train_takes=args.takes, val_takes=args.takes // 2, test_takes=args.takes // 2, exo_cameras=3,
        size_px=args.size_px, min_frames=90, max_frames=140, cut="whole", workers=2,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        catalog = write(config, args.world or Path(folder))
        measured = {r.id: motion_energy(catalog, r, (0.0, 60.0)) for r in catalog.recordings}
    energies = {name: energy for name, energy in measured.items() if energy is not None}
    scene = {r.id: r.scene for r in catalog.recordings}

    def compared(first: Energy, second: Energy) -> Lag:
        return lag_between(first, second, rate=config.fps, max_lag_s=args.max_lag_s, frame_s=1 / config.fps)

    rng = np.random.default_rng(0)
    certain, errors = [], []
    for a, b in combinations(energies, 2):
        if scene[a] == scene[b]:
            planted = int(rng.integers(-20, 21))
            late = replace(energies[b], edges_s=energies[b].edges_s + planted / config.fps)
            lag = compared(energies[a], late)
            certain.append(lag.certainty)
            errors.append(abs(lag.seconds * config.fps - planted))
    names = list(energies)
    unrelated: list[float] = []
    while len(unrelated) < args.unrelated:
        a, b = (names[k] for k in rng.choice(len(names), 2, replace=False))
        if scene[a] != scene[b]:
            unrelated.append(compared(energies[a], energies[b]).certainty)
    print(f"{len(certain)} planted offsets, {len(unrelated)} unrelated pairs, {len(names)} recordings")
    print(f"{'certainty':>10} {'found':>7} {'largest error in frames':>24} {'unrelated that reach it':>24}")
    for limit in LIMITS:
        found = np.array(certain) >= limit
        worst = float(np.array(errors)[found].max()) if found.any() else float("nan")
        print(f"{limit:10g} {found.mean():7.1%} {worst:24.2f} {np.mean(np.array(unrelated) >= limit):24.2%}")


if __name__ == "__main__":
    main()
