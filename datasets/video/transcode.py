"""Prepared copies: small videos that every decoder reads exactly and quickly, with the frame index of their source."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path, PurePosixPath

import av

from crossview import storage
from crossview.datasets.catalog import Catalog, Quarantined, Recording
from crossview.datasets.catalog.catalog import INDICES
from crossview.datasets.catalog.probing import Tick, check_broken
from crossview.datasets.video.conversion import yuv420
from crossview.datasets.video.decode import probe
from crossview.datasets.video.frames import UnreadableVideo, as_unreadable, opened, sequential
from crossview.datasets.video.framing import Framing
from crossview.datasets.video.indexing import index_of
from crossview.datasets.video.orientation import displayed_size
from crossview.errors import UserError


@dataclass(frozen=True)
class Encoding:
    """H.264 with closed groups of pictures, no B-frames, tuned for fast decoding."""

    size_px: int
    """Short side; a smaller source keeps its size."""
    gop: int
    """Frames from one key frame to the next."""
    crf: int
    """x264's constant quality."""


def prepare(
    catalog: Catalog,
    out: Path,
    *,
    size_px: int = 256,
    gop: int = 8,
    crf: int = 20,
    time_limit_s: float = 600.0,
    max_quarantined: float = 0.05,
    tick: Tick | None = None,
) -> Catalog:
    """Copy every video of the catalog to `out`, save the copies' catalog there, and return it.

    Frame k of a copy is frame k of its source, with the source's rotation applied, at a constant rate from 0 s; fps and
    labels stay. A copy is renamed into place once its frames have been counted, so a second call resumes where the
    first one stopped, and redoes a copy whose source or settings changed. Sources that cannot be read or disagree with
    the catalog are left out and listed in quarantine.parquet. Raises ValueError if there are more of them than the
    share `max_quarantined`; OSError where the disk is full.
    """
    encoding = Encoding(size_px, gop, crf)
    if size_px < 16 or size_px % 2 or gop < 1 or not 0 <= crf <= 51:
        raise UserError(f"prepare: {encoding}; size_px must be even and at least 16, gop at least 1, crf in 0..51")
    if out.resolve() == catalog.root.resolve():
        raise UserError(f"prepare: out is {out}, the catalog's own root; name another folder, or sources would be lost")
    sources = {r.path: r for r in catalog.recordings if r.kind == "video"}  # two recordings may share one file
    copies: dict[str, Recording] = {}
    broken: list[Quarantined] = []

    def attempt(source: Recording) -> Recording | Quarantined:
        try:
            return _copy(catalog, source, out, encoding, time_limit_s)
        except UnreadableVideo as error:
            return Quarantined(source.path, str(error))

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:  # both codecs run outside the interpreter's lock
        for done, (path, result) in enumerate(zip(sources, pool.map(attempt, sources.values()), strict=True), 1):
            if isinstance(result, Quarantined):
                broken.append(result)
            else:
                copies[path] = result
            if tick:
                tick(done, len(sources))
    check_broken(catalog.root, broken, len(sources), max_quarantined)
    prepared = _catalog_of(catalog, out, copies, broken)
    return prepared.save(out)


def _catalog_of(catalog: Catalog, out: Path, copies: dict[str, Recording], broken: Sequence[Quarantined]) -> Catalog:
    recordings = []
    for source in catalog.recordings:
        if source.path in copies:
            copy = copies[source.path]
            height, width = copy.height_px, copy.width_px
            recordings.append(replace(source, path=copy.path, index=copy.index, height_px=height, width_px=width))
    ids = {r.id for r in recordings}
    kept = catalog.keep(lambda r: r.id in ids)
    return replace(kept, root=out, recordings=tuple(recordings), quarantined=(*catalog.quarantined, *broken))


def _copy(catalog: Catalog, source: Recording, out: Path, encoding: Encoding, time_limit_s: float) -> Recording:
    """The recording of the verified copy; encodes it unless it is there."""
    file = catalog.file(source)
    relative = PurePosixPath(source.path)
    if relative.is_absolute() or ".." in relative.parts:
        raise UserError(
            f"catalog {catalog.root}: path {source.path!r} leaves the root; make paths relative to the root"
        )
    if relative.suffix != ".mp4":
        relative = relative.with_name(relative.name + ".mp4")
    try:
        size, version = storage.state(file)
    except OSError as error:
        raise UnreadableVideo(f"{file}: {error.strerror}") from error
    made_from = {**vars(encoding), "bytes": size, "mtime_ns": version, "frames": source.num_frames}
    stamp = json.dumps(made_from, sort_keys=True)
    target = out / relative
    if _stamp(target, time_limit_s) != stamp:
        storage.make_folder(target.parent)

        def build(partial: Path) -> None:
            _encode(file, partial, source, encoding, stamp, time_limit_s)
            found = probe(partial).num_frames
            if found != source.num_frames:
                raise UnreadableVideo(f"{file}: its copy has {found} frames instead of {source.num_frames}")

        storage.write(target, build, once=True)
    info = index_of(target, out / INDICES, time_limit_s)
    return replace(source, path=str(relative), height_px=info.height_px, width_px=info.width_px, index=info.index)


def _stamp(target: Path, time_limit_s: float) -> str | None:
    """What an existing copy was made from; None if there is none, or it cannot be read."""
    try:
        with opened(storage.local(target), time_limit_s) as (container, _):
            return container.metadata.get("comment")
    except (UnreadableVideo, OSError):
        return None


def _encode(file: Path, partial: Path, source: Recording, encoding: Encoding, stamp: str, time_limit_s: float) -> None:
    rate = Fraction(source.fps).limit_denominator(1001)
    count, size = 0, None
    options = {"movflags": "faststart"}
    with _encoding_of(file), av.open(str(partial.absolute()), "w", format="mp4", options=options) as container:
        container.metadata["comment"] = stamp
        stream = container.add_stream("libx264", rate=rate)
        stream.codec_context.thread_count = 1
        stream.options = {
            "preset": "veryfast", "tune": "fastdecode", "crf": str(encoding.crf),
            "x264-params": f"keyint={encoding.gop}:min-keyint={encoding.gop}:scenecut=0:bframes=0:open-gop=0",
        }  # fmt: skip
        stream.codec_context.colorspace, stream.codec_context.color_range = 6, 1  # BT.601 (SMPTE 170M), limited
        for frame, _ in sequential(file, time_limit_s):
            with as_unreadable(file):
                if size is None:
                    size = _small(displayed_size(frame), encoding.size_px)
                    stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
                picture = av.VideoFrame.from_ndarray(yuv420(frame, Framing(size=size)), format="yuv420p")
            picture.pts, picture.time_base = count, 1 / rate
            picture.colorspace, picture.color_range = 6, 1
            container.mux(stream.encode(picture))
            count += 1
        container.mux(stream.encode(None))
    if count != source.num_frames:
        raise UnreadableVideo(f"{file}: {count} frames, but the catalog says {source.num_frames}; catalog it again")


@contextmanager
def _encoding_of(file: Path) -> Iterator[None]:
    """Name the file whose frames the encoder refuses, for their shape say; a full disk stays an OSError."""
    try:
        yield
    except OSError:
        raise
    except av.FFmpegError as error:
        raise UnreadableVideo(f"{file}: its copy cannot be encoded: {error.strerror}") from error


def _small(size: tuple[int, int], short_px: int) -> tuple[int, int]:
    """Even height and width with the short side at most `short_px`, the aspect kept."""
    scale = min(1.0, short_px / min(size))
    return max(2, round(size[0] * scale / 2) * 2), max(2, round(size[1] * scale / 2) * 2)
