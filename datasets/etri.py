"""ETRI-Activity3D (arXiv 2003.01920): trimmed daily actions, each filmed by up to eight synchronous cameras.

The RGB videos, AaaaPpppGgggCccc as A001_P001_G001_C001.mp4, in any folders under ROOT. Protocols: xsub, whose list of
test subjects is a file or our default, and xview, if test cameras are named. All cameras are exo.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from crossview.datasets.catalog import Catalog, Recording
from crossview.datasets.catalog.found import dropped, named_files, one_each
from crossview.datasets.catalog.listing import Problems, text_lines
from crossview.datasets.catalog.probing import Prober
from crossview.datasets.catalog.protocols import protocols_of
from crossview.errors import UserError

PROTOCOLS = ("xsub", "xview")
PAIRINGS = ("single", "synchronized", "paired", "unpaired", "group")
NAME = re.compile(r"A(\d{3})_P(\d{3})_G(\d{3})_C(\d{3})\.mp4", re.IGNORECASE)
SUBJECTS, CAMERAS = range(1, 101), range(1, 9)
DEFAULT_TEST_SUBJECTS = frozenset(range(3, 100, 3))
"""Those divisible by 3; the official list could not be read."""
ACTIONS = tuple(f"A{number:03d}" for number in range(1, 56))
SAMPLES = 112_620


@dataclass(frozen=True, kw_only=True)
class Options:
    """Where the videos are, and what is tested on."""

    root: Path
    """Folder with the videos, in any folders below it."""
    test_subjects: Path | None = None
    """List of the subjects that xsub tests on, such as 3 or P003, with spaces, commas or line ends between them. None
    takes those divisible by 3, which may not be the official list."""
    test_cameras: tuple[int, ...] = ()
    """Cameras that xview tests on; without any there is no xview. No official list is known."""


class Sample(NamedTuple):
    """The numbers in a video's name."""

    action: int
    subject: int
    group: int
    camera: int

    @property
    def scene(self) -> str:
        """What cameras filmed at once."""
        return f"A{self.action:03d}_P{self.subject:03d}_G{self.group:03d}"


def catalog(options: Options, *, prober: Prober | None = None) -> Catalog:
    """A recording per video: scenes A001_P001_G001, views C001 to C008, actions A001 to A055 with ids 0 to 54.

    Raises UserError for a root without such videos, two videos of one name, and a broken list of subjects. Videos of
    other actions, subjects or cameras are left out.
    """
    if unknown := [camera for camera in options.test_cameras if camera not in CAMERAS]:
        raise UserError(f"--test-cameras has {unknown[0]}; cameras are 1 to 8: pass numbers of these")
    subjects = read_subjects(options.test_subjects) if options.test_subjects else DEFAULT_TEST_SUBJECTS
    samples, notes = samples_under(options.root)
    infos, unreadable = (prober or Prober()).probe(options.root, samples)
    recordings = tuple(
        Recording(
            dataset="etri", scene=samples[path].scene, view=f"C{samples[path].camera:03d}", perspective="exo",
            subject=f"P{samples[path].subject:03d}", action=f"A{samples[path].action:03d}", path=path, kind="video",
            **info.columns(),
        )
        for path, info in infos.items()
    )  # fmt: skip
    protocols = PROTOCOLS if options.test_cameras else ("xsub",)
    if not options.test_subjects:
        notes += (
            "xsub: it tests on subjects divisible by 3, which may not be the official list; give that as "
            "--test-subjects before you compare with published numbers",
        )
    return Catalog(
        options.root,
        recordings,
        quarantined=unreadable,
        protocols=protocols_of(
            protocols, recordings, lambda r, name: split_of(samples[r.path], name, subjects, options.test_cameras)
        ),
        classes={"action": ACTIONS},
        notes=notes,
    )


def split_of(
    sample: Sample,
    protocol: str,
    subjects: Collection[int] = DEFAULT_TEST_SUBJECTS,
    cameras: Collection[int] = (),
) -> str:
    """Split "train" or "test" for these test subjects and test cameras."""
    tested = sample.camera in cameras if protocol == "xview" else sample.subject in subjects
    return "test" if tested else "train"


def samples_under(root: Path) -> tuple[dict[str, Sample], tuple[str, ...]]:
    """Samples by path, in the order of their names, and what is to be said of them; raises UserError as `catalog`."""
    found = named_files(root, NAME, "ETRI-Activity3D's videos are, such as A001_P001_G001_C001.mp4")
    samples = {path: Sample(*map(int, match.groups())) for path, match in found.items()}
    known = {
        path: sample
        for path, sample in samples.items()
        if 1 <= sample.action <= 55 and sample.subject in SUBJECTS and sample.camera in CAMERAS
    }
    first = one_each(root, known.items(), "sample")
    other = [path for path in samples if path not in known]
    left_out = {"videos of other actions, subjects or cameras than the dataset's": other}
    if not first:
        raise UserError(
            f"{root}: its videos are of other actions, subjects or cameras than 1 to 55, 1 to 100 and 1 to 8; pass the "
            "folder of ETRI-Activity3D"
        )
    return {path: sample for sample, path in sorted(first.items())}, (_counts(first), *dropped(left_out))


def _counts(samples: Iterable[Sample]) -> str:
    cameras = Counter(sample.scene for sample in samples)
    whole = sum(count == len(CAMERAS) for count in cameras.values())
    return (
        f"videos: {sum(cameras.values()):,} of {SAMPLES:,} are here; groups with all eight cameras: {whole:,} of "
        f"{len(cameras):,}"
    )


def read_subjects(file: Path) -> frozenset[int]:
    """The subjects in a list; raises UserError with file and line for anything else, and for all or none of them."""
    problems, found = Problems(), set[int]()
    for number, line in text_lines(file):
        for text in re.split(r"[\s,;]+", line.strip(" \t,;")):
            match = re.fullmatch(r"P?0*(\d{1,3})", text, re.IGNORECASE)
            if match and int(match[1]) in SUBJECTS:
                found.add(int(match[1]))
            else:
                problems.add(f"{file}, line {number}: {text[:80]!r} is no subject; write a number from 1 to 100")
    problems.refuse()
    if not 0 < len(found) < len(SUBJECTS):
        raise UserError(f"{file}: it has {len(found)} subjects; list those to test on, and leave some for training")
    return frozenset(found)
