"""Small videos that show, as a barcode of 12 bits, the instant of the scene's clock in 1/100 s, and clips of them."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from crossview.datasets import folder
from crossview.datasets.catalog import Catalog
from crossview.datasets.sampling.geometry import SQUASH
from crossview.datasets.sampling.plan import Plan
from crossview.datasets.sampling.spec import Sampling, View
from crossview.platform.config import Data
from crossview.platform.data.decoder import Shard
from crossview.platform.data.row_decoder import RowDecoder

BITS = 12
PAIR = "path,split,scene,view,perspective,start_offset_s\nego.mp4,train,s,head,ego,0\n{exo},train,s,left,exo,0\n"  # CSV


def picture(value: int, height: int = 96, width: int = 144) -> np.ndarray:
    """uint8 (H, W, 3): the number as black and white columns over the upper half, grey 110 below."""
    image = np.full((height, width, 3), 110, np.uint8)
    for bit in range(BITS):
        image[: height // 2, bit * width // BITS : (bit + 1) * width // BITS] = 235 if value >> bit & 1 else 16
    return image


def read(plane: np.ndarray) -> int:
    """The number shown: uint8 (H, W) or (H, W, 3)."""
    plane = plane if plane.ndim == 2 else plane.mean(-1)
    row = plane[plane.shape[0] // 4]
    return sum((int(row[(2 * b + 1) * len(row) // (2 * BITS)]) > 120) << b for b in range(BITS))


def write(
    path: Path,
    times_s: Iterable[float],
    *,
    scene_start_s: float = 0.0,
    first_pts_s: float = 0.0,
    show: Sequence[int] | None = None,
    rate: int = 30,
    ticks: int = 90000,
    height: int = 96,
    width: int = 144,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Encode a frame per entry of `times_s`, its time in the file; it shows `scene_start_s` + that time, or `show`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width, stream.pix_fmt = height, width, pix_fmt
        stream.codec_context.time_base = Fraction(1, ticks)
        stream.codec_context.thread_count = 1
        stream.options = {"crf": "14", "preset": "veryfast", "bf": "0", "g": "12"} if options is None else options
        for k, time_s in enumerate(times_s):
            value = round((scene_start_s + time_s) * 100) if show is None else show[k]
            frame = av.VideoFrame.from_ndarray(picture(value, height, width), format="rgb24").reformat(format=pix_fmt)
            frame.pts, frame.time_base = round((first_pts_s + time_s) * ticks), Fraction(1, ticks)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_of_two_sizes(root: Path) -> Path:
    """40 frames that show their numbers, of 96 x 144 and from frame 20 on of 192 x 288.

    Annex B keeps each part's own parameter sets before its key frames.
    """
    raw = b""
    for part, (height, width) in enumerate(((96, 144), (192, 288))):
        numbers = list(range(20 * part, 20 * part + 20))
        raw += write(root / f"{part}.h264", np.arange(20) / 30, show=numbers, height=height, width=width).read_bytes()
    (root / "both.h264").write_bytes(raw)
    file = root / "both.mkv"
    with (
        av.open(str(root / "both.h264"), options={"framerate": "30"}) as source,
        av.open(str(file), "w") as out,
    ):
        stream = out.add_stream_from_template(source.streams.video[0])
        for k, packet in enumerate(p for p in source.demux(video=0) if p.size):
            packet.stream, packet.time_base = stream, source.streams.video[0].time_base
            packet.pts = packet.dts = round(k / 30 / packet.time_base)
            out.mux(packet)
    return file


def set_display_matrix(file: Path, a: int, b: int, c: int, d: int, height: int, width: int) -> None:
    """Overwrite the matrix of an mp4's first track, for a stored picture of this size."""
    data = bytearray(file.read_bytes())
    at = data.find(b"tkhd") + 4
    at += 4 + (32 if data[at] else 20) + 16
    x, y = (max(0, -(p * width)) + max(0, -(q * height)) for p, q in ((a, c), (b, d)))
    one = 1 << 16
    data[at : at + 36] = struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, x * one, y * one, 1 << 30)
    file.write_bytes(data)


def catalog(root: Path, rows: str) -> Catalog:
    """The catalog of a folder by its CSV; an unreadable file raises."""
    (root / "videos.csv").write_text(rows)
    found = folder.catalog(folder.Options(root=root, csv=root / "videos.csv"))
    assert not found.quarantined
    return found


def batch(found: Catalog, root: Path, rows: int = 40) -> dict[str, np.ndarray]:
    """What training steps get of synchronized clips: under ego and exo planes (rows, 1, 6, 144, 96), frames beside."""
    found.save(root / "catalog")
    ego, exo = (
        View(perspective=p, frames=6, fps=5.0, size_px=96, geometry=SQUASH)  # type: ignore[arg-type]
        for p in ("ego", "exo")
    )
    plan = Plan(found, Sampling(views={"ego": ego, "exo": exo}, pairing="synchronized"), 0)
    shard = Shard(start_step=0, stop_step=rows, batch=1, micro_batch=1)
    out = RowDecoder(plan, Data(catalog=root / "catalog", max_quarantined=0.0), shard).decode(np.arange(rows))
    assert not any(out["quarantine"]), out["quarantine"]
    return out


def clips(found: Catalog, root: Path, rows: int = 40) -> list[tuple[list[int], list[int]]]:
    """Per row of `batch`, the numbers shown by the ego and by the exo clip."""
    return shown(batch(found, root, rows))


def shown(out: dict[str, np.ndarray]) -> list[tuple[list[int], list[int]]]:
    """The numbers in a batch."""
    pairs = zip(out["ego"][:, 0], out["exo"][:, 0], strict=True)
    return [([read(f[:96]) for f in ego], [read(f[:96]) for f in exo]) for ego, exo in pairs]


def apart_s(pairs: list[tuple[list[int], list[int]]]) -> float:
    """Largest difference in s between what the two cameras show at one place of a clip."""
    return max(abs(a - b) for ego, exo in pairs for a, b in zip(ego, exo, strict=True)) / 100
