"""Northwestern-UCLA Multiview Action3D (N-UCLA): ten trimmed actions, done once for each of three cameras.

Either of its releases, in any folders under ROOT: videos aAA/vVV_sSS_eEE.avi, or frames
view_V/aAA_sSS_eEE/frame_N_tc_T_rgb.jpg. Protocols: xview3 trains on views 1 and 2 and tests on view 3, xview2 and
xview1 test on the view of that number, xsub tests on the subjects that are named. All cameras are exo.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from crossview.datasets.catalog import Catalog, Recording
from crossview.datasets.catalog.found import coverage, dropped, named_files, one_each
from crossview.datasets.catalog.listing import Problems, text_lines
from crossview.datasets.catalog.probing import Prober
from crossview.datasets.catalog.protocols import protocols_of
from crossview.datasets.video.image_folder import Images
from crossview.errors import UserError

PROTOCOLS = ("xview3", "xview2", "xview1", "xsub")
PAIRINGS = ("single", "paired", "unpaired")
ACTIONS = {
    1: "pick up with one hand", 2: "pick up with two hands", 3: "drop trash", 4: "walk around", 5: "sit down",
    6: "stand up", 8: "donning", 9: "doffing", 11: "throw", 12: "carry",
}  # fmt: skip
"""By their numbers in names; labels are 0 to 9 in this order."""
USUAL = {"train": 1020, "test": 464}
"""Videos in the lists of xview3 that skeleton methods use."""
NAME = re.compile(r"v\d+_s\d+_e\d+\.(?:avi|mp4)|frame_\d+_tc_\d+_rgb\.(?:jpe?g|png)", re.IGNORECASE)
VIDEO = re.compile(r"(?:.*/)?a(?P<a>\d\d)/v(?P<v>\d\d)_s(?P<s>\d\d)_e(?P<e>\d\d)\.\w+", re.IGNORECASE)
FRAME = re.compile(r"(?:.*/)?view_(?P<v>\d)/a(?P<a>\d\d)_s(?P<s>\d\d)_e(?P<e>\d\d)/[^/]+", re.IGNORECASE)
LISTED = re.compile(r"a(?P<a>\d\d)_s(?P<s>\d\d)_e(?P<e>\d\d)_v(?P<v>\d\d)")
_PLACES = "a01/v01_s01_e00.avi or view_1/a01_s01_e00/frame_1_tc_90467319_rgb.jpg"


@dataclass(frozen=True, kw_only=True)
class Options:
    """Where the files are, and which of them."""

    root: Path
    """Folder with the videos or the frames, in any folders below it."""
    release: Literal["videos", "frames"] | None = None
    """Which release to read; None is the one that is there."""
    samples: Path | None = None
    """List of the samples that take part, one aAA_sSS_eEE_vVV per line; None is all. Skeleton methods use 1,484."""
    fps: float = 30.0
    """Rate that the numbers of frames count at. It is the sensor's nominal one; the true one may be lower."""
    test_subjects: tuple[int, ...] = ()
    """Subjects that protocol xsub tests on; without any there is no xsub. The dataset has no official list."""


class Sample(NamedTuple):
    """The numbers in a sample's name."""

    action: int
    subject: int
    episode: int
    view: int

    @property
    def name(self) -> str:
        """As lists write it."""
        return "a{:02d}_s{:02d}_e{:02d}_v{:02d}".format(*self)

    @property
    def scene(self) -> str:
        """What the cameras have in common: the same is done, but not at the same time."""
        return self.name[:-4]


def split_of(sample: Sample, protocol: str, test_subjects: Iterable[int] = ()) -> str | None:
    """Split "train" or "test"; None for xsub without subjects."""
    if protocol == "xsub":
        return ("test" if sample.subject in test_subjects else "train") if test_subjects else None
    return "test" if sample.view == int(protocol.removeprefix("xview")) else "train"


def catalog(options: Options, *, prober: Prober | None = None) -> Catalog:
    """A recording per sample: scenes aAA_sSS_eEE, whose views v01 to v03 have clocks of their own.

    Raises UserError for a root without such files or with both releases, for two files of one sample, and for a broken
    list of samples. Samples of other actions or views are left out.
    """
    _check(options)
    found, notes = samples_under(options)
    of_frames = {path: Images(options.fps) for path in found if path.endswith("*_rgb.*")}
    infos, unreadable = (prober or Prober()).probe(options.root, found, of_frames)
    kept = {path: found[path] for path in infos}
    recordings = tuple(
        Recording(
            dataset="nucla", scene=sample.scene, view=f"v{sample.view:02d}", perspective="exo",
            subject=f"s{sample.subject:02d}", action=ACTIONS[sample.action], path=path,
            kind="frames" if path in of_frames else "video", own_clock=True, **infos[path].columns(),
        )
        for path, sample in kept.items()
    )  # fmt: skip
    return Catalog(
        options.root,
        recordings,
        quarantined=unreadable,
        protocols=protocols_of(
            PROTOCOLS, recordings, lambda r, protocol: split_of(kept[r.path], protocol, options.test_subjects)
        ),
        classes={"action": tuple(ACTIONS.values())},
        notes=notes,
    )


def _check(options: Options) -> None:
    if not 0 < options.fps < math.inf:
        raise UserError(f"--fps is {options.fps:g}; frames are numbered at a rate above 0: pass one such as 30")
    if unknown := [subject for subject in options.test_subjects if not 1 <= subject <= 10]:
        raise UserError(f"--test-subjects has {unknown[0]}; subjects are 1 to 10: pass numbers of these")


def samples_under(options: Options) -> tuple[dict[str, Sample], tuple[str, ...]]:
    """Samples that take part, by path, in order of their names; and what is to be said of them. Raises UserError."""
    files = named_files(options.root, NAME, f"N-UCLA's videos or colour frames are, such as {_PLACES}")
    by_release = {"videos": _placed(files, VIDEO), "frames": _placed(files, FRAME)}
    here = [name for name, found in by_release.items() if found]
    if not here:
        raise UserError(
            f"{options.root}: {next(iter(files))} is in no folder that names its action and view; keep the folders of "
            f"the dataset, as in {_PLACES}"
        )
    if options.release is None and len(here) == 2:
        raise UserError(f"{options.root}: both releases are here; choose one with --release videos or --release frames")
    release = options.release or here[0]
    if release not in here:
        raise UserError(f"{options.root}: --release {release} is not here, but {here[0]} are; pass --release {here[0]}")
    found = by_release[release]
    known = {path: sample for path, sample in found.items() if sample.action in ACTIONS and sample.view in (1, 2, 3)}
    left_out = {"samples of other actions or views than the dataset's": [path for path in found if path not in known]}
    first = one_each(options.root, known.items(), "sample")
    if not first:
        raise UserError(
            f"{options.root}: {next(iter(found))} is of another action or view than the dataset's, as are all; actions "
            f"are {', '.join(map(str, ACTIONS))} and views 1 to 3: pass the folder of N-UCLA"
        )
    kept = {path: sample for sample, path in sorted(first.items())}
    notes = [_counts(kept), *dropped(left_out)]
    if options.samples:
        listed = _listed(options.samples)
        notes.append(coverage(f"samples of {options.samples.name}", listed, [s.name for s in kept.values()]))
        kept = {path: sample for path, sample in kept.items() if sample.name in listed}
    if not kept:
        raise UserError(f"{options.samples}: it lists none of the {len(found)} samples that are here; correct it")
    return kept, tuple(notes)


def _placed(files: Iterable[str], grammar: re.Pattern[str]) -> dict[str, Sample]:
    """Samples by path: a video, or the pattern of a folder's colour frames."""
    found: dict[str, Sample] = {}
    for file in files:
        if match := grammar.fullmatch(file):
            path = file if grammar is VIDEO else f"{file.rpartition('/')[0]}/*_rgb.*"
            found[path] = Sample(*(int(match[part]) for part in "asev"))
    return found


def _counts(samples: Mapping[str, Sample]) -> str:
    views = Counter(sample.view for sample in samples.values())
    groups = Counter(sample.scene for sample in samples.values())
    whole = sum(count == 3 for count in groups.values())
    return (
        f"samples: {len(samples):,} are here, of views 1, 2 and 3: {views[1]}, {views[2]}, {views[3]}; the lists of "
        f"skeleton methods have {USUAL['train']:,} of views 1 and 2, and {USUAL['test']} of view 3. Scenes with all "
        f"three views, which are not synchronous: {whole} of {len(groups)}"
    )


def _listed(file: Path) -> frozenset[str]:
    """Names in a list of samples; raises UserError with file and line."""
    problems, names = Problems(), set[str]()
    for number, line in text_lines(file):
        name = line.strip().partition(".")[0]
        if LISTED.fullmatch(name):
            names.add(name)
        else:
            problems.add(f"{file}, line {number}: {name[:80]!r} is no sample; write one as a05_s04_e02_v03")
    problems.refuse()
    return frozenset(names)
