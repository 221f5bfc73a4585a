"""Videos that are stored as folders of numbered JPEG or PNG images."""

from __future__ import annotations

import contextlib
import hashlib
import io
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from PIL import Image, UnidentifiedImageError

from crossview import storage
from crossview.datasets.video.conversion import Pixels
from crossview.datasets.video.frame_index import FrameIndex, cached_index
from crossview.datasets.video.frames import MAX_PIXELS, Limit, UnreadableVideo, as_unreadable, on_this_node
from crossview.datasets.video.image_listing import Listing, folder_of, listing
from crossview.datasets.video.indexing import VideoInfo
from crossview.datasets.video.orientation import displayed_size
from crossview.datasets.video.placing import placed
from crossview.datasets.video.source import Source, Wanted, frames_in_file
from crossview.errors import UserError

_CODECS = {b"\xff\xd8\xff": "mjpeg", b"\x89PNG\r\n\x1a\n": "png"}
"""By the first bytes of a file: its name's ending may be wrong."""
_ORIENTATION = 0x0112  # in EXIF data
_MIRRORED = (2, 4, 5, 7)
_QUARTER_TURNS = (5, 6, 7, 8)


@dataclass(frozen=True)
class Images:
    """What a folder of images does not say of itself."""

    fps: float
    """Numbers per second, which are images per second if none is missing."""
    first_number: int | None = None
    """Number of the image that is shown at time 0; None is the smallest there is."""


def index_of_folder(path: Path, images: Images, folder: Path) -> VideoInfo:
    """`scan_folder` that keeps the frame index in `folder`, unless it is there; raises UnreadableVideo."""
    found = listing(path)
    state = f"{path.absolute()} {images} {found.names} {_bytes_each(found).tolist()}"
    kept = folder / f"{hashlib.blake2b(state.encode(errors='surrogateescape'), digest_size=12).hexdigest()}.npz"
    if storage.is_file(kept):
        with contextlib.suppress(UserError):  # else it is made again
            return VideoInfo(**FrameIndex.read(kept).facts["info"], index=str(kept))
    info, index = scan_folder(path, images)
    index.write(kept)
    return replace(info, index=str(kept))


def _bytes_each(found: Listing) -> np.ndarray:
    """Size of each image in bytes: uint32 (n,); raises UnreadableVideo."""
    sizes = np.empty(len(found.names), np.uint32)
    for k, name in enumerate(found.names):
        try:
            sizes[k] = (found.folder / name).stat().st_size
        except OSError as error:
            raise UnreadableVideo(f"{found.folder / name}: {error.strerror or error}") from error
    return sizes


def scan_folder(path: Path, images: Images) -> tuple[VideoInfo, FrameIndex]:
    """What is in a folder of frames, by the headers of its images; raises UnreadableVideo.

    The index has the images' times, which are those of their numbers, their sizes in bytes as checks, and their names.
    """
    found = listing(path)
    first = int(found.numbers[0])
    start = first if images.first_number is None else images.first_number
    if start > first:
        raise UnreadableVideo(
            f"{path}: the first image, {found.names[0]}, has number {first}, less than first_number = {start}; "
            "correct first_number"
        )
    size: tuple[int, int] | None = None
    for name in found.names:
        file = found.folder / name
        shown = _displayed_size(file)
        size = size or shown
        if shown != size:
            raise UnreadableVideo(_sizes(file, shown, found.names[0], size))
    assert size is not None
    count, tick = len(found.names), 1 / Fraction(images.fps).limit_denominator(100_000)
    info = VideoInfo(images.fps / found.step, count, *size, float((first - start) * tick), found.gaps() is None)
    facts = {
        "info": {name: value for name, value in asdict(info).items() if name != "index"},
        "names": found.compact(),
        "start": start,
    }
    nothing = np.empty(0, np.int64)  # no frame has to be decoded for another
    index = FrameIndex(found.numbers - start, tick, 0.0, _bytes_each(found), nothing, nothing, "", facts)
    return info, index


def _displayed_size(file: Path) -> tuple[int, int]:
    """Height and width of an image, from its header; raises UnreadableVideo."""
    try:
        with on_this_node(file).open("rb") as stored, warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # MAX_PIXELS is checked here
            with Image.open(stored, formats=("JPEG", "PNG")) as image:
                width, height = image.size
                turned = image.getexif().get(_ORIENTATION) in _QUARTER_TURNS
    except UnidentifiedImageError as error:
        raise UnreadableVideo(f"{file}: it is no JPEG or PNG image") from error
    except Exception as error:  # Pillow raises SyntaxError, struct.error and others for damaged headers
        said = getattr(error, "strerror", None) or f"the image is damaged or cut off ({error}); copy it again"
        raise UnreadableVideo(f"{file}: {said}") from error
    if width * height > MAX_PIXELS:
        raise UnreadableVideo(f"{file}: it has {width} x {height} pixels; at most {MAX_PIXELS} are read")
    return (width, height) if turned else (height, width)


def _sizes(file: Path, size: tuple[int, int], first: str, first_size: tuple[int, int]) -> str:
    return (
        f"{file}: its size is {size[1]} x {size[0]}, and that of {first} {first_size[1]} x {first_size[0]}; a video's "
        "images have one size"
    )


class ImageFolder:
    """Decodes exactly the images that are wanted."""

    def read(
        self, source: Source, wanted: Sequence[Wanted], *, pixels: Pixels, time_limit_s: float
    ) -> list[np.ndarray]:
        """See `read_clips`."""
        return placed(source, wanted, pixels, images(source, frames_in_file(source, wanted), time_limit_s))


def images(source: Source, frames: np.ndarray, time_limit_s: float) -> Iterator[tuple[int, VideoFrame]]:
    """Frames of the folder, int64 (n,) sorted and unique, with their numbers; raises UnreadableVideo.

    With an index they are the images that were catalogued, or an error says which has changed; none is listed.
    """
    folder = folder_of(source.path)
    index = None if source.index is None else cached_index(source.index)
    names = listing(source.path).names if index is None else index.facts["names"]
    count = len(names) if index is None else len(index.pts)
    if frames[-1] >= count:
        raise UnreadableVideo(f"{source.path}: frame {frames[-1]} was asked for, but the folder holds {count} images")
    limit, first = Limit(source.path, time_limit_s), None
    for k in frames.tolist():
        if index is None:
            file = folder / names[k]
            frame = picture(file, _content(file))
        else:
            number = int(index.pts[k]) + index.facts["start"]
            file = folder / (names.format(number) if isinstance(names, str) else names[k])
            frame = picture(file, _catalogued(file, int(index.checks[k])))
            frame.pts, frame.time_base = int(index.pts[k]), index.time_base
        first = first or (file.name, displayed_size(frame))
        if displayed_size(frame) != first[1]:
            raise UnreadableVideo(_sizes(file, displayed_size(frame), *first))
        limit.frame_read()
        yield k, frame
        limit.resume()


def _content(file: Path) -> bytes:
    here = on_this_node(file)
    try:
        return here.read_bytes()
    except OSError as error:
        raise UnreadableVideo(f"{file}: {error.strerror or error}") from error


def _catalogued(file: Path, size_bytes: int) -> bytes:
    """An image's content; raises UnreadableVideo if it is gone, or of another size than it was catalogued with."""
    try:
        data = _content(file)
        found = f"it has {len(data)} bytes"
    except UnreadableVideo as error:
        data, found = b"", str(error).removeprefix(f"{file}: ")
    if len(data) != size_bytes:
        raise UnreadableVideo(
            f"{file}: {found}, and had {size_bytes} bytes when it was catalogued; put the old image back, or make the "
            "catalog again with `crossview prepare`"
        )
    return data


def picture(file: Path, data: bytes) -> VideoFrame:
    """An image's content as a decoded frame; raises UnreadableVideo if it is damaged or cut off."""
    codec = next((name for start, name in _CODECS.items() if data.startswith(start)), None)
    if codec is None:
        raise UnreadableVideo(f"{file}: it is {'no JPEG or PNG image' if data else 'empty'}")
    if codec == "mjpeg" and data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda"):  # end of image, start of scan
        raise UnreadableVideo(f"{file}: the image is cut off")
    _refuse_mirrored(file, data)
    with as_unreadable(file):
        context = av.CodecContext.create(codec, "r")
        assert isinstance(context, VideoCodecContext)
        context.thread_count = 1
        context.options = {"err_detect": "explode+crccheck", "max_pixels": str(MAX_PIXELS)}
        try:
            shown = [*context.decode(av.Packet(data)), *context.decode(None)]
        except av.error.InvalidDataError as error:
            raise UnreadableVideo(f"{file}: the image is damaged or cut off") from error
    if not shown or shown[0].is_corrupt:
        raise UnreadableVideo(f"{file}: the image is damaged or cut off")
    return shown[0]


def _refuse_mirrored(file: Path, data: bytes) -> None:
    """Raise UnreadableVideo for an image that its EXIF data mirrors, which a decoded frame does not show."""
    if b"Exif\0\0" not in data[:1024] and b"eXIf" not in data:
        return
    with as_unreadable(file), Image.open(io.BytesIO(data)) as image:
        turned = image.getexif().get(_ORIENTATION)
    if turned in _MIRRORED:
        raise UnreadableVideo(f"{file}: its EXIF orientation ({turned}) mirrors it; store it upright, without one")
