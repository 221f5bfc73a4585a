"""What cataloguing costs beside reading the videos, and what opening a large catalog costs.

    python benchmarks/catalog.py      # names of NTU RGB+D 120 and Assembly101; opening 120,000 recordings

Files are empty, and every one is taken for a video of 100 frames: what remains is names, lists and tables.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from crossview.datasets import assembly101, ntu
from crossview.datasets.catalog import Catalog, Quarantined, Recording, Segment, one_protocol
from crossview.datasets.catalog.probing import Prober
from crossview.datasets.video.image_folder import Images
from crossview.datasets.video.indexing import VideoInfo

FACTS = VideoInfo(fps=30.0, num_frames=100, height_px=1080, width_px=1920, first_s=0.0, constant_rate=True)
OPEN = r"""
import re, sys, time
from pathlib import Path
from crossview.datasets.catalog import Catalog
megabytes = lambda what: int(re.search(what + r":\s*(\d+)", Path("/proc/self/status").read_text())[1]) / 1024
Catalog.load(Path(sys.argv[2]))  # imports what reading takes
before = megabytes("VmRSS")
begun = time.process_time()
catalog = Catalog.load(Path(sys.argv[1]))
print(len(catalog.recordings), time.process_time() - begun, megabytes("VmHWM") - before)
"""


class Taken(Prober):
    """Takes every file for the same video, without opening it."""

    def probe(
        self, root: Path, paths: Iterable[str], images: Mapping[str, Images] | None = None
    ) -> tuple[dict[str, VideoInfo], tuple[Quarantined, ...]]:
        """FACTS for each path."""
        del root, images
        return dict.fromkeys(paths, FACTS), ()


def ntu_names(root: Path) -> int:
    """Empty files under NTU-120's names: actions of setups 1 to 17 are A001 to A060, of the others A061 to A120."""
    count = 0
    for setup in range(1, 33):
        folder = root / f"s{setup:03d}"
        folder.mkdir()
        actions = range(1, 61) if setup <= 17 else range(61, 121)
        people = 10 if setup <= 17 else 11
        for person in range(people):
            for replication in (1, 2):
                for action in actions:
                    for camera in (1, 2, 3):
                        if count == 114_480:
                            return count
                        sample = ntu.Sample(setup, camera, 1 + (setup * 3 + person) % 106, replication, action)
                        (folder / f"{sample.stem}_rgb.avi").touch()
                        count += 1
    return count


def assembly101_files(root: Path) -> int:
    """Empty videos of 350 recordings and 12 cameras, and coarse labels of 680 sequences, 150 lines each."""
    cameras = [name for name in assembly101.SLOTS if name.endswith("rgb")]
    headset = [name for name in assembly101.SLOTS if name.startswith("HMC")][:4]
    base = root / "annotations" / "coarse-annotations"
    for kind in ("coarse_splits", "coarse_labels"):
        (base / kind).mkdir(parents=True)
    classes = "".join(f"{k},0,0,act {k},act,it\n" for k in range(202))
    (base / "actions.csv").write_text("action_id,verb_id,noun_id,action_cls,verb_cls,noun_cls\n" + classes)
    names = [
        f"nusar-2021_action_both_{9011 + k % 48}-a{1 + k % 30:02d}_{9011 + k % 48}_user_id_2021-02-01_{k:06d}"
        for k in range(350)
    ]
    splits = {"train": names[:204], "val": names[204:265], "test": names[265:]}
    sequences = []
    for part, missing in (("assembly", 10), ("disassembly", 10)):
        for split, members in splits.items():
            kept = members[missing if split == "train" else 0 :]
            sequences += [f"{part}_{name}" for name in kept]
            rows = "".join(f"{part}_{name}.txt\t\tnotshared\ta30\tsuv\n" for name in kept)
            (base / "coarse_splits" / f"{split}_coarse_{part}.txt").write_text(rows)
    views = []
    for sequence in sequences:
        lines = "".join(f"{k:06d}\t{k + 1:06d}\tact {k % 202}\n" for k in range(1, 99))
        (base / "coarse_labels" / f"{sequence}.txt").write_text(lines)
        views += [f"{sequence}/{camera}.mp4\n" for camera in (*cameras, *headset)]
    (base / "coarse_seq_views.txt").write_text("".join(views))
    for name in names:
        folder = root / "recordings" / name
        folder.mkdir(parents=True)
        for camera in (*cameras, *headset):
            (folder / f"{camera}.mp4").touch()
    return len(views)


def large(folder: Path, count: int) -> None:
    """A catalog of so many recordings, four cameras a scene, with a labelled segment each."""
    recordings = [
        Recording(
            dataset="large", scene=f"scene{i // 4:06d}", view=f"camera{i % 4}", perspective="exo" if i % 4 else "ego",
            subject=f"P{i // 4 % 100:03d}", action=f"A{i // 4 % 120:03d}", path=f"{i // 4:06d}/camera{i % 4}.mp4",
            kind="video", **FACTS.columns(),
        )
        for i in range(count)
    ]  # fmt: skip
    segments = tuple(Segment(r.id, 0.5, 2.5, "action", r.action) for r in recordings)
    splits = one_protocol((r, "train" if i % 8 < 6 else "test") for i, r in enumerate(recordings))
    Catalog(folder, tuple(recordings), segments, protocols=splits).save(folder)


def main() -> None:
    """Print what each costs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recordings", type=int, default=120_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        (root / "ntu").mkdir()
        count = ntu_names(root / "ntu")
        begun = time.process_time()
        made = ntu.catalog(ntu.Options(root=root / "ntu"), prober=Taken())
        print(f"NTU RGB+D 120: {len(made.recordings):,} of {count:,} names, {time.process_time() - begun:.1f} CPU s")
        views = assembly101_files(root / "assembly101")
        begun = time.process_time()
        asked = assembly101.Options(
            root=root / "assembly101" / "recordings",
            annotations=root / "assembly101" / "annotations",
            labels=("coarse",),
        )
        found = assembly101.catalog(asked, prober=Taken())
        print(
            f"Assembly101: {views:,} views of sequences, {len(found.recordings):,} videos, {len(found.segments):,} "
            f"coarse segments, {time.process_time() - begun:.1f} CPU s"
        )
        large(root / "large", options.recordings)
        large(root / "small", 8)
        said = subprocess.run(
            [sys.executable, "-c", OPEN, root / "large", root / "small"], capture_output=True, text=True, check=True
        )
        opened, seconds, megabytes = said.stdout.split()
        print(f"opening a catalog of {int(opened):,} recordings: {float(seconds):.2f} CPU s, {float(megabytes):.0f} MB")


if __name__ == "__main__":
    main()
