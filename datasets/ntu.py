"""NTU RGB+D 60 and 120 (arXiv 1604.02808, 1905.04757): trimmed actions, each filmed by three synchronous cameras.

The RGB videos, SsssCcccPpppRrrrAaaa_rgb.avi or re-encoded as .mp4, in any folders under ROOT. Videos of setups 1 to 17
and actions 1 to 60 are NTU-60, all are NTU-120. Protocols: xsub60, xview60, xsub120 and xset120. All cameras are exo.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from crossview.datasets.catalog import Catalog, Recording
from crossview.datasets.catalog.found import named_files, one_each
from crossview.datasets.catalog.listing import Problems, text_lines
from crossview.datasets.catalog.probing import Prober
from crossview.datasets.catalog.protocols import protocols_of
from crossview.errors import UserError

PROTOCOLS = ("xsub60", "xview60", "xsub120", "xset120")
PAIRINGS = ("single", "synchronized", "paired", "unpaired", "group")
NAME = re.compile(r"S(\d{3})C(\d{3})P(\d{3})R(\d{3})A(\d{3})(?:_rgb)?\.(?:avi|mp4)", re.IGNORECASE)
TRAIN_60 = frozenset((1, 2, 4, 5, 8, 9, 13, 14, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38))
TRAIN_120 = TRAIN_60 | {
    45, 46, 47, 49, 50, 52, 53, 54, 55, 56, 57, 58, 59, 70, 74, 78, 80, 81, 82, 83, 84, 85, 86, 89, 91, 92, 93, 94, 95,
    97, 98, 100, 103,
}  # fmt: skip
"""Subjects in training of X-Sub."""
ACTIONS = tuple(f"A{number:03d}" for number in range(1, 121))


@dataclass(frozen=True, kw_only=True)
class Options:
    """Where the videos are."""

    root: Path
    """Folder with the videos, in any folders below it."""
    version: Literal[60, 120] | None = None
    """60 leaves out what NTU-120 adds, and has 60 classes and the protocols of NTU-60; 120 has 120 classes and all
    protocols. None is 60 if only videos of NTU-60 are there, else 120."""
    leave_out: Path | None = None
    """List of samples to leave out, one SsssCcccPpppRrrrAaaa per line, such as the official one of bad skeletons, which
    skeleton methods do not use."""


class Sample(NamedTuple):
    """The numbers in a video's name."""

    setup: int
    camera: int
    subject: int
    replication: int
    action: int

    @property
    def in_60(self) -> bool:
        """Whether it belongs to NTU-60 too."""
        return self.setup <= 17 and self.action <= 60

    @property
    def stem(self) -> str:
        """The name without its ending."""
        return "S{:03d}C{:03d}P{:03d}R{:03d}A{:03d}".format(*self)


_IN_TRAINING: dict[str, Callable[[Sample], bool]] = {
    "xsub60": lambda sample: sample.subject in TRAIN_60,
    "xview60": lambda sample: sample.camera in (2, 3),
    "xsub120": lambda sample: sample.subject in TRAIN_120,
    "xset120": lambda sample: sample.setup % 2 == 0,
}


def split_of(sample: Sample, protocol: str) -> str | None:
    """Split "train" or "test"; None where the sample takes no part."""
    if protocol.endswith("60") and not sample.in_60:
        return None
    return "train" if _IN_TRAINING[protocol](sample) else "test"


def catalog(options: Options, *, prober: Prober | None = None) -> Catalog:
    """A recording per video: scenes SsssPpppRrrrAaaa, views C001 to C003, actions A001 to A120 with ids 0 to 119.

    Raises UserError for a root without such videos, and for two videos of one name.
    """
    here, said = _samples(options)
    version = options.version or (60 if all(sample.in_60 for sample in here.values()) else 120)
    samples = {path: sample for path, sample in here.items() if version == 120 or sample.in_60}
    if not samples:
        raise UserError(f"{options.root}: it holds no video of NTU-60; pass --version 120")
    infos, unreadable = (prober or Prober()).probe(options.root, samples)
    recordings = [_recording(samples[path], path, info.columns()) for path, info in infos.items()]
    protocols = [name for name in PROTOCOLS if version == 120 or name.endswith("60")]
    groups: dict[str, set[int]] = {}
    for sample in samples.values():
        groups.setdefault(_scene(sample), set()).add(sample.camera)
    whole = sum(cameras == {1, 2, 3} for cameras in groups.values())
    of_60 = sum(sample.in_60 for sample in here.values())
    return Catalog(
        options.root,
        tuple(recordings),
        quarantined=unreadable,
        protocols=protocols_of(protocols, recordings, lambda r, name: split_of(samples[r.path], name)),
        classes={"action": ACTIONS[:version]},
        notes=(
            f"NTU-60: {of_60:,} of 56,880 videos are here; NTU-120: {len(here):,} of 114,480",
            f"the catalog is of NTU-{version}, with {len(samples):,} videos; --version chooses",
            f"groups of three cameras: {whole:,} of the {len(groups):,} that are here in part",
            *said,
        ),
    )


def _samples(options: Options) -> tuple[dict[str, Sample], list[str]]:
    """By path, in order of names, without those that are left out; and how many these are."""
    listed = {line.strip().removesuffix(".skeleton") for _, line in text_lines(options.leave_out)} \
        if options.leave_out else set()  # fmt: skip
    found = named_files(options.root, NAME, "NTU RGB+D's RGB videos are, such as S001C001P001R001A001_rgb.avi")
    problems = Problems()
    samples = {path: Sample(*map(int, match.groups())) for path, match in found.items()}
    for path, sample in samples.items():
        if not (1 <= sample.action <= 120 and 1 <= sample.camera <= 3):
            problems.add(
                f"{options.root / path}: actions are 1 to 120 and cameras 1 to 3; correct its name, or remove it"
            )
    problems.refuse()
    first = one_each(options.root, samples.items(), "sample")
    kept = {path: sample for sample, path in first.items() if sample.stem not in listed}
    if not kept:
        raise UserError(f"{options.leave_out}: it leaves out every video under {options.root}; correct the list")
    said = f"left out: {len(first) - len(kept):,} videos, of {len(listed):,} that {options.leave_out} lists"
    return kept, [said] if options.leave_out else []


def _scene(sample: Sample) -> str:
    return f"S{sample.setup:03d}P{sample.subject:03d}R{sample.replication:03d}A{sample.action:03d}"


def _recording(sample: Sample, path: str, facts: dict[str, object]) -> Recording:
    return Recording(
        dataset="ntu", scene=_scene(sample), view=f"C{sample.camera:03d}", perspective="exo",
        subject=f"P{sample.subject:03d}", action=f"A{sample.action:03d}", path=path, kind="video", **facts,  # type: ignore[arg-type]
    )  # fmt: skip
