"""Prepared copies of a catalog's videos: which there are, making those that are missing, and their catalog."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from crossview import storage
from crossview.datasets.catalog import Catalog, Quarantined, Recording
from crossview.datasets.catalog.catalog import INDICES
from crossview.datasets.catalog.probing import Tick, check_broken
from crossview.datasets.video.frame_index import FrameIndex, fingerprint
from crossview.datasets.video.frames import UnreadableVideo, opened
from crossview.datasets.video.source import Source
from crossview.datasets.video.transcode import Encoding, transcode
from crossview.errors import UserError

FORMAT = 2
"""Of copies; those of an earlier format are made again. Format 1 had a constant rate."""


@dataclass(frozen=True)
class Job:
    """One file, or folder of images, to copy: all of it, whatever the recordings are spans of."""

    source: Source
    copy: Path
    path: str
    """The source, relative to its catalog's root."""
    copy_path: str
    """The copy, relative to `out`."""
    frames: int
    """Of the recording."""
    fps: float

    def frames_in_file(self) -> int:
        """Frames of the whole source, of which recordings may be spans; raises UnreadableVideo if it has changed."""
        if self.source.index is None:
            return self.frames
        index = FrameIndex.read(self.source.index)
        if self.source.kind == "video":  # images are compared with the index as they are read
            index.check_current(self.source.path)
        return len(index.pts)

    def state(self) -> tuple[int, Any]:
        """Size of the source in bytes, and another value once it is another; raises UnreadableVideo."""
        if self.source.kind == "frames" and self.source.index is not None:
            return int(FrameIndex.read(self.source.index).checks.sum()), self.source.index.name
        try:
            size, version = storage.state(self.source.path)
        except OSError as error:
            raise UnreadableVideo(f"{self.source.path}: {error.strerror or error}") from error
        return size, version


@dataclass(frozen=True)
class Made:
    """A copy that is in place and verified."""

    index: str
    """Its frame index, relative to `out`."""
    height_px: int
    width_px: int
    source_bytes: int
    copy_bytes: int


@dataclass(frozen=True)
class Work:
    """What every process needs in order to make the same copies."""

    jobs: tuple[Job, ...]
    out: Path
    encoding: Encoding
    time_limit_s: float = 600.0

    def find(self, job: Job) -> Made | None:
        """The copy, if it is in place and was made from this source with these settings."""
        try:
            index = self._index(job)
            found = FrameIndex.read(self.out / index)
            size, _ = storage.state(job.copy)
            # The ends of a remote copy are not fetched: its upload is whole or not at all.
            of_file = fingerprint(job.copy) if storage.is_local(job.copy) else found.fingerprint
        except (OSError, UserError):
            return None
        if of_file != found.fingerprint or size != found.facts["copy_bytes"]:
            return None
        if job.source.index is None and len(found.pts) != job.frames:
            return None  # the source is quarantined once it is read
        return Made(index, **found.facts)

    def make(self, job: Job) -> Made:
        """Encode and verify the copy, then move it into place; raises UnreadableVideo, OSError if the disk is full."""
        made: list[Made] = []
        name = self._index(job)

        def build(partial: Path) -> None:
            frames = job.frames_in_file()
            index = transcode(
                job.source, partial, self.encoding, frames=frames, fps=job.fps, time_limit_s=self.time_limit_s
            )
            size, _ = job.state()
            facts = {**index.facts, "source_bytes": size, "copy_bytes": partial.stat().st_size}
            replace(index, facts=facts).write(self.out / name)  # before the copy: one that is in place has its index
            made.append(Made(name, **facts))

        storage.make_folder(job.copy.parent)
        storage.write(job.copy, build, once=True)
        return made[-1]

    def _index(self, job: Job) -> str:
        """Path of the frame index, which differs if the source or a setting does; raises UnreadableVideo."""
        made_from = {**asdict(self.encoding), "format": FORMAT, "source": job.state(), "copy": job.copy_path}
        text = json.dumps(made_from, sort_keys=True)
        return f"{INDICES}/{hashlib.blake2b(text.encode(), digest_size=12).hexdigest()}.npz"


def plan(catalog: Catalog, out: Path, encoding: Encoding, *, time_limit_s: float = 600.0) -> Work:
    """The files to copy, each once; raises UserError for an `out` or paths that cannot hold the copies."""
    if out.resolve() == catalog.root.resolve():
        raise UserError(f"out is {out}, the catalog's own root; name another folder, or sources would be lost")
    if catalog.folder is not None and out.resolve() == catalog.folder.resolve():
        raise UserError(f"out is {out}, the catalog's own folder; name another, or this catalog would be lost")
    jobs: dict[str, Job] = {}
    for recording in catalog.recordings:
        if recording.has_pixels and recording.path not in jobs:
            jobs[recording.path] = _job(catalog, recording, out)
    if not jobs:
        raise UserError(f"catalog {catalog.place}: it has no video to copy; name a catalog of videos")
    sources: dict[str, str] = {}
    for job in jobs.values():
        other = sources.setdefault(job.copy_path, job.path)
        if other != job.path:
            raise UserError(
                f"catalog {catalog.place}: the copies of {other} and {job.path} would both be {job.copy_path}; rename "
                "one"
            )
    return Work(tuple(jobs.values()), out, encoding, time_limit_s)


def _job(catalog: Catalog, recording: Recording, out: Path) -> Job:
    relative = PurePosixPath(recording.path)
    if relative.is_absolute() or ".." in relative.parts:
        raise UserError(
            f"catalog {catalog.place}: path {recording.path!r} leaves the root; make paths relative to the root"
        )
    if recording.kind == "frames" or relative.suffix != ".mp4":
        relative = relative.with_name(relative.name.replace("*", "_") + ".mp4")
    source = replace(catalog.source(recording), first_frame=0)
    return Job(source, out / relative, recording.path, str(relative), recording.num_frames, recording.fps)


def _found(work: Work) -> list[Made | None]:
    """For each job the copy that an earlier call has made; what a killed call has left half is removed."""
    storage.remove_partial(job.copy for job in work.jobs)
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(work.find, work.jobs))


def _check_place(work: Work, missing: Sequence[int]) -> None:
    """Raise UserError if a copy would replace a file that no call has made, such as the original of a copied copy."""
    folder = work.out / INDICES
    for index in folder.iterdir() if folder.is_dir() else ():
        with contextlib.suppress(UnreadableVideo):
            if "copy_bytes" in FrameIndex.read(index).facts:
                return
    with ThreadPoolExecutor(8) as pool:
        copies = [work.jobs[number].copy for number in missing]
        for copy, there in zip(copies, pool.map(storage.is_file, copies), strict=True):
            if there and not _of_format_1(copy):
                raise UserError(
                    f"{copy}: this file is in the way of a copy, and was not made by `crossview prepare copies`; name "
                    "another folder as out, or remove it"
                )


def _of_format_1(file: Path) -> bool:
    """Whether a file is a copy of an earlier version, which had a comment with its settings and no frame index."""
    with contextlib.suppress(UnreadableVideo), opened(file, 60.0) as (container, _):
        return '"gop": ' in container.metadata.get("comment", "")
    return False


Outcome = tuple[int, Made | str]
"""Number of a job, and its copy or the reason why its source cannot be read."""
Maker = Callable[[Work, Sequence[int]], Iterator[Outcome]]
"""Makes the copies of the jobs with these numbers, in any order."""


def in_threads(work: Work, numbers: Sequence[int]) -> Iterator[Outcome]:
    """Make copies in threads of this process."""

    def attempt(number: int) -> Outcome:
        try:
            return number, work.make(work.jobs[number])
        except UnreadableVideo as error:
            return number, str(error)

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:  # both codecs run outside the interpreter's lock
        try:
            for begun in as_completed([pool.submit(attempt, number) for number in numbers]):
                yield begun.result()
        finally:
            pool.shutdown(cancel_futures=True)  # after an error or an interrupt, no other copy is begun


@dataclass(frozen=True)
class Result:
    """The copies of a catalog."""

    catalog: Catalog
    files: int
    found: int
    """Copies that an earlier call had made."""
    quarantined: int
    """Sources that cannot be read."""
    source_bytes: int
    """Of the sources that have copies."""
    copy_bytes: int
    left_out: int
    """Recordings without pictures, which are not copied."""


def copy_all(
    catalog: Catalog,
    out: Path,
    encoding: Encoding,
    *,
    maker: Maker = in_threads,
    time_limit_s: float = 600.0,
    max_quarantined: float = 0.05,
    tick: Tick | None = None,
) -> Result:
    """Copy every video of the catalog to `out` and save the copies' catalog there.

    A copy is renamed into place once it is verified (see `transcode`), so a second call makes what is missing, and
    makes again what has another source or other settings. Sources that cannot be read or disagree with the catalog are
    left out and listed in quarantine.parquet. Raises UserError if there are more of them than the share
    `max_quarantined`, or if a copy would replace a file that is none; OSError where the disk is full. `tick` is first
    called with the copies that are there.
    """
    out = out.resolve()  # another process may have another working directory
    work = plan(catalog, out, encoding, time_limit_s=time_limit_s)
    made: dict[int, Made] = {number: copy for number, copy in enumerate(_found(work)) if copy}
    broken: dict[int, str] = {}
    there = len(made)
    missing = [number for number in range(len(work.jobs)) if number not in made]
    _check_place(work, missing)
    if tick:
        tick(there, len(work.jobs))
    for number, outcome in maker(work, missing) if missing else ():
        if isinstance(outcome, str):
            broken[number] = outcome
        else:
            made[number] = outcome
        if tick:
            tick(len(made) + len(broken), len(work.jobs))
    storage.remove_partial(job.copy for job in work.jobs)
    lost = tuple(Quarantined(work.jobs[number].path, broken[number]) for number in sorted(broken))
    check_broken(catalog.root, lost, len(work.jobs), max_quarantined)
    prepared = _catalog_of(catalog, work, made, lost)
    prepared = prepared.save(out)
    sources, copies = (sum(getattr(m, name) for m in made.values()) for name in ("source_bytes", "copy_bytes"))
    left_out = sum(not recording.has_pixels for recording in catalog.recordings)
    return Result(prepared, len(work.jobs), there, len(lost), sources, copies, left_out)


def _catalog_of(catalog: Catalog, work: Work, made: dict[int, Made], lost: tuple[Quarantined, ...]) -> Catalog:
    copies = {work.jobs[number].path: (work.jobs[number].copy_path, copy) for number, copy in made.items()}
    recordings = []
    for source in catalog.recordings:
        if source.path in copies:
            path, copy = copies[source.path]
            height_px, width_px = copy.height_px, copy.width_px
            recordings.append(
                replace(source, path=path, kind="video", index=copy.index, height_px=height_px, width_px=width_px)
            )
    ids = {r.id for r in recordings}
    kept = catalog.keep(lambda r: r.id in ids)
    quarantined = (*catalog.quarantined, *lost)
    return replace(kept, root=work.out, folder=work.out, recordings=tuple(recordings), quarantined=quarantined)


def prepare(catalog: Catalog, out: Path, *, size_px: int = 256, gop: int = 8, crf: int = 20, **options: Any) -> Catalog:
    """The catalog of `copy_all`, with its options."""
    return copy_all(catalog, out, Encoding(size_px, gop, crf), **options).catalog
