"""Read videos that were damaged at random, each in a child process; print per container what became of them.

Each is catalogued and read, also through its frame index; then it, its index, or both are damaged behind the catalog
and read again.

A file may be read or be refused as unreadable. Any other exception has escaped, and a child that dies or does not
answer has crashed or hung: each of these is a fault, which is listed, and makes the exit status 1. Run as
`python benchmarks/fuzz_video.py --files 600 --seed 0`; `--keep FOLDER` keeps the faulty files.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import numpy as np
from av.audio.stream import AudioStream
from av.video.stream import VideoStream

from crossview.datasets.catalog import Catalog, Recording
from crossview.datasets.video import child
from crossview.datasets.video.copies import prepare
from crossview.datasets.video.decode import decode, probe, read_clips
from crossview.datasets.video.frames import UnreadableVideo
from crossview.datasets.video.framing import Framing
from crossview.datasets.video.indexing import scan
from crossview.datasets.video.source import Source, Wanted

TITLE = b"a title to be found"
CODECS = {"mp4": "libx264", "mkv": "libx264", "ts": "libx264", "avi": "mpeg4"}
OUTCOMES = ("read", "unreadable", "escaped", "crashed", "hung")
TIME_LIMIT_S = 5.0
"""For one reading of a file; a child that says nothing for HUNG_S has hung."""
HUNG_S = 60.0
MEMORY_BYTES = 6 * 1024**3
"""Address space of a child."""
Mutation = Callable[[bytearray, np.random.Generator], bytes | bytearray]


@cache
def original(kind: str) -> bytes:
    """A small file with pictures, sound and a title, the same for all files of a process."""
    with tempfile.TemporaryDirectory() as folder:
        return _encoded(Path(folder) / f"original.{kind}")


def _encoded(path: Path) -> bytes:
    y, x = np.mgrid[:64, :96]
    with av.open(str(path), "w", options={"fflags": "bitexact"}) as container:  # no random identifiers
        container.metadata["title"] = TITLE.decode()
        picture, sound = container.add_stream(CODECS[path.suffix[1:]], rate=30), container.add_stream("mp2", rate=48000)
        assert isinstance(picture, VideoStream)
        assert isinstance(sound, AudioStream)
        picture.height, picture.width, picture.pix_fmt = 64, 96, "yuv420p"
        picture.codec_context.thread_count = 1
        picture.options = {"g": "8", "bf": "2", "preset": "veryfast"}
        for k in range(24):
            image = np.stack([x * 2 + k, y * 3, x + y + 5 * k], axis=-1).astype(np.uint8)
            container.mux(picture.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(picture.encode(None))
        for k in range(30):
            tone = (8000 * np.sin(np.arange(1152) * 0.05)).astype(np.int16)[None]
            frame = av.AudioFrame.from_ndarray(tone, format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 48000, 1152 * k, Fraction(1, 48000)
            container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    return path.read_bytes()


def _span(data: bytearray, rng: np.random.Generator, longest: int = 512) -> slice:
    start = int(rng.integers(len(data)))
    return slice(start, start + int(rng.integers(1, longest)))


def flip_bits(data: bytearray, rng: np.random.Generator) -> bytearray:
    for at in rng.integers(len(data), size=int(rng.integers(1, 40))):
        data[at] ^= 1 << int(rng.integers(8))
    return data


def edit_header(data: bytearray, rng: np.random.Generator) -> bytearray:
    """A few bytes near the start or the end, as containers keep what describes the rest there."""
    for _ in range(int(rng.integers(1, 6))):
        near = int(rng.integers(min(2048, len(data))))
        data[near if rng.random() < 0.5 else -1 - near] = int(
            rng.choice([0, 1, 0x7F, 0x80, 0xFF, int(rng.integers(256))])
        )
    return data


def edit_sizes(data: bytearray, rng: np.random.Generator) -> bytearray:
    """The number before or after a four-letter name, as in boxes and chunks, becomes extreme."""
    names = [match.start() for match in re.finditer(rb"[a-zA-Z0-9]{3}[a-zA-Z0-9 ]", data)]
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.choice(names)) + int(rng.choice([-4, 4, 8, 12])) if names else 0
        value = int(rng.choice([0, 1, 7, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, int(rng.integers(2**32))]))
        if 0 <= at <= len(data) - 4:
            data[at : at + 4] = value.to_bytes(4, "big" if rng.random() < 0.5 else "little")
    return data


def invalid_text(data: bytearray, rng: np.random.Generator) -> bytes:
    return bytes(data).replace(TITLE, bytes(rng.integers(0x80, 0x100, len(TITLE), dtype=np.uint8)))


def truncate(data: bytearray, rng: np.random.Generator) -> bytearray:
    return data[: int(rng.integers(len(data)))]


def zero_span(data: bytearray, rng: np.random.Generator) -> bytearray:
    span = _span(data, rng)
    data[span] = bytes(len(data[span]))
    return data


def duplicate_block(data: bytearray, rng: np.random.Generator) -> bytearray:
    block, at = data[_span(data, rng)], int(rng.integers(len(data)))
    return data[:at] + block + data[at:]


def swap_blocks(data: bytearray, rng: np.random.Generator) -> bytearray:
    size = int(rng.integers(1, 512))
    one, other = (int(at) for at in rng.integers(max(1, len(data) - size), size=2))
    data[one : one + size], data[other : other + size] = data[other : other + size], data[one : one + size]
    return data


MUTATIONS: tuple[Mutation, ...] = (
    flip_bits, edit_header, edit_header, edit_sizes, edit_sizes, invalid_text, truncate, zero_span, duplicate_block,
    swap_blocks,
)  # fmt: skip


def write_damaged(folder: Path, files: int, seed: int) -> list[Path]:
    """Damaged files of all containers in turn; the k-th depends on `seed` and k alone."""
    sources = {kind: original(kind) for kind in CODECS}
    written = []
    for k in range(files):
        rng = np.random.default_rng((seed, k))
        kind = list(CODECS)[k % len(CODECS)]
        data = bytearray(sources[kind])
        for _ in range(int(rng.integers(1, 4))):
            data = bytearray(MUTATIONS[int(rng.integers(len(MUTATIONS)))](data, rng)) or bytearray(1)
        written.append(folder / f"{k}.{kind}")
        written[-1].write_bytes(data)
    return written


@dataclass(frozen=True)
class Outcome:
    """What became of one file."""

    file: Path
    what: str
    """One of OUTCOMES."""
    said: str = ""


def outcomes(files: Sequence[Path], limit_s: float = HUNG_S, command: Sequence[str] = ()) -> Iterator[Outcome]:
    """Every file's outcome, in order: one child reads them all until it dies or says nothing for `limit_s`."""
    waiting = list(files)
    while waiting:
        child = subprocess.Popen(
            command or [sys.executable, __file__, "--child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write("\n".join(map(str, waiting)).encode())
        child.stdin.close()
        said = b""
        while ready := select.select([child.stdout], [], [], limit_s)[0]:
            part = os.read(child.stdout.fileno(), 65536)
            if not part:
                break
            *lines, said = (said + part).split(b"\n")
            for line in lines:
                yield Outcome(waiting.pop(0), **json.loads(line))
        if not ready:
            child.kill()
        status = child.wait()
        child.stdout.close()
        if waiting:
            why = signal.Signals(-status).name if status < 0 else f"exit status {status}"
            yield Outcome(waiting.pop(0), "crashed" if ready else "hung", why if ready else "")


def read_all(files: Sequence[Path]) -> None:
    """In the child: a line of JSON for each file, once it is read."""
    child.inside = True  # this is a child process already, whose crash is seen
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    for file in files:
        print(json.dumps(_read(file)), flush=True)


def _read(file: Path) -> dict[str, str]:
    try:
        info = probe(file, time_limit_s=TIME_LIMIT_S)
        recording = Recording(
            dataset="d", scene=file.stem, view="v", perspective="exo", subject="", action="", path=file.name,
            kind="video", fps=info.fps, num_frames=info.num_frames, height_px=info.height_px, width_px=info.width_px,
        )  # fmt: skip
        frames = np.unique([0, info.num_frames // 2, info.num_frames - 1])
        decode(file, frames, size_px=32, time_limit_s=TIME_LIMIT_S)
        decode(file, frames[:1], pixels="yuv420", time_limit_s=TIME_LIMIT_S)
        with tempfile.TemporaryDirectory() as copies:
            catalog = Catalog(file.parent, (recording,))
            left_out = prepare(catalog, Path(copies), size_px=32, time_limit_s=TIME_LIMIT_S, max_quarantined=1.0)
        _read_through_index(file, info.num_frames)
        if left_out.quarantined:
            return {"what": "unreadable", "said": left_out.quarantined[0].reason}
    except UnreadableVideo as error:
        return {"what": "unreadable" if str(file) in str(error) else "escaped", "said": str(error)}
    except Exception as error:
        return {"what": "escaped", "said": f"{type(error).__name__}: {error}"}
    return {"what": "read"}


def _read_through_index(file: Path, num_frames: int) -> None:
    """With the index of the file as it is, and with damage since then to the file or the index."""
    rng = np.random.default_rng(zlib.crc32(file.read_bytes()))
    wanted = [Wanted(np.unique(rng.integers(num_frames, size=4)), Framing(size=(32, 32))) for _ in range(2)]
    with tempfile.TemporaryDirectory() as name:
        index, video = Path(name) / "index.npz", Path(name) / file.name
        shutil.copy(file, video)
        scan(video, time_limit_s=TIME_LIMIT_S)[1].write(index)
        before = read_clips(Source(video), wanted, time_limit_s=TIME_LIMIT_S)
        found = read_clips(Source(video, index=index), wanted, time_limit_s=TIME_LIMIT_S)
        if any(not np.array_equal(one, other) for one, other in zip(before, found, strict=True)):
            raise AssertionError("other pictures are read through the index")
        for k, damaged in enumerate(((index,), (video,), (index, video))):
            copies = {path: path.with_name(f"{k}-{path.name}") for path in (index, video)}
            for path, copy in copies.items():
                data = bytearray(path.read_bytes())
                copy.write_bytes(MUTATIONS[int(rng.integers(len(MUTATIONS)))](data, rng) if path in damaged else data)
            try:
                again = read_clips(Source(copies[video], index=copies[index]), wanted, time_limit_s=TIME_LIMIT_S)
            except UnreadableVideo as error:
                if not any(str(copy) in str(error) for copy in copies.values()):
                    raise AssertionError(f"no file is named: {error}") from error
                continue
            if damaged == (index,) and any(not np.array_equal(*pair) for pair in zip(before, again, strict=True)):
                raise AssertionError("other pictures are read through a damaged index")


def report(found: Sequence[Outcome]) -> str:
    """A table with a row per container, and the faults."""
    counts = Counter((outcome.file.suffix[1:], outcome.what) for outcome in found)
    lines = [f"{'':6}" + "".join(f"{what:>12}" for what in OUTCOMES)]
    lines += [f"{kind:6}" + "".join(f"{counts[kind, what]:12}" for what in OUTCOMES) for kind in CODECS]
    lines += ["all   " + "".join(f"{sum(counts[kind, what] for kind in CODECS):12}" for what in OUTCOMES)]
    lines += [f"{outcome.file.name} {outcome.what}: {outcome.said}" for outcome in found if faulty(outcome)]
    return "\n".join(lines)


def faulty(outcome: Outcome) -> bool:
    """Whether the file was neither read nor refused."""
    return outcome.what not in ("read", "unreadable")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder that faulty files are copied to")
    parser.add_argument("--child", action="store_true", help="read the files on stdin; the script's own use")
    options = parser.parse_args()
    if options.child:
        read_all([Path(line) for line in sys.stdin.read().splitlines()])
        return
    with tempfile.TemporaryDirectory() as folder:
        found = list(outcomes(write_damaged(Path(folder), options.files, options.seed)))
        faults = [outcome for outcome in found if faulty(outcome)]
        if options.keep:
            options.keep.mkdir(parents=True, exist_ok=True)
            for outcome in faults:
                shutil.copy2(outcome.file, options.keep)
    print(report(found))
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
