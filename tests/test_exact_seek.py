"""Frames read by seeking are those of a sequential decode of the whole file, for every kind of file."""

from __future__ import annotations

import dataclasses
import re
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import clock_videos as clock
import numpy as np
import pytest
import seek_videos

from crossview.datasets.catalog.probing import Prober
from crossview.datasets.sampling.geometry import Geometry
from crossview.datasets.sampling.plan import Plan
from crossview.datasets.sampling.spec import Sampling, View
from crossview.datasets.video import indexing, seeking
from crossview.datasets.video.conversion import yuv420
from crossview.datasets.video.decode import read_clips
from crossview.datasets.video.frame_index import FrameIndex, cached_index
from crossview.datasets.video.frames import UnreadableVideo, sequential
from crossview.datasets.video.framing import Framing
from crossview.datasets.video.indexing import VideoInfo, index_of
from crossview.datasets.video.source import Source, Wanted
from crossview.platform.config import Data
from crossview.platform.data.decoder import Shard
from crossview.platform.data.row_decoder import RowDecoder


@dataclasses.dataclass(frozen=True)
class Decoded:
    """A file, what its index says, and its frames by a sequential decode."""

    source: Source
    info: VideoInfo
    index: FrameIndex
    pictures: np.ndarray
    times_s: np.ndarray


@pytest.fixture(scope="module", params=list(seek_videos.KINDS))
def decoded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Decoded:
    folder = tmp_path_factory.mktemp("kind")
    return whole(seek_videos.KINDS[request.param](folder), folder / "index")


def whole(file: Path, folder: Path) -> Decoded:
    pictures, times_s = [], []
    for frame, _ in sequential(file, 60.0):
        pictures.append(yuv420(frame, Framing()))
        times_s.append(frame.time)
    info = index_of(file, folder, 60.0)
    source = Source(file, index=Path(info.index))
    return Decoded(source, info, FrameIndex.read(Path(info.index)), np.stack(pictures), np.array(times_s))


@pytest.fixture
def frames_decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Frames that each read through an index has decoded."""
    counts: list[int] = []
    limit = seeking.Limit

    class Counting(limit):  # type: ignore[misc, valid-type]
        def __init__(self, path: Path, seconds: float) -> None:
            super().__init__(path, seconds)
            counts.append(0)

        def frame_read(self) -> None:
            super().frame_read()
            counts[-1] += 1

    monkeypatch.setattr(seeking, "Limit", Counting)
    return counts


def windows(count: int) -> list[np.ndarray]:
    """Random, sparse and single frames, repeats, the first, the last and all of them."""
    rng = np.random.default_rng(count)
    found = [np.sort(rng.choice(count, min(count, 6), replace=False)) for _ in range(6)]
    found += [np.minimum(start + 2 * np.arange(5), count - 1) for start in rng.integers(count, size=4)]
    found += [np.array([k]) for k in rng.integers(count, size=4)]
    return [*found, np.array([0]), np.array([count - 1] * 3), np.arange(count)]


def test_every_frame_is_that_of_a_sequential_decode(decoded: Decoded) -> None:
    clips = windows(len(decoded.pictures))
    for frames in clips:
        (clip,) = read_clips(decoded.source, [Wanted(frames)], pixels="yuv420")
        np.testing.assert_array_equal(clip, decoded.pictures[frames])
        height = decoded.info.height_px
        assert seek_videos.numbers(decoded.source.path, clip[:, :height]) == frames.tolist()
    together = read_clips(decoded.source, [Wanted(frames) for frames in clips], pixels="yuv420")
    for frames, clip in zip(clips, together, strict=True):
        np.testing.assert_array_equal(clip, decoded.pictures[frames])


def test_the_index_has_the_times_of_the_frames(decoded: Decoded) -> None:
    if None in decoded.times_s:  # Matroska's negative times are lost
        assert not decoded.index.pts.any()
        return
    np.testing.assert_allclose(np.diff(decoded.index.times_s), np.diff(decoded.times_s), atol=1e-9)
    assert decoded.info.num_frames == len(decoded.pictures) == len(decoded.index.checks)
    assert decoded.index.times_s[0] == pytest.approx(decoded.info.first_s, abs=1e-9)
    if decoded.info.constant_rate:
        expected = decoded.info.first_s + np.arange(len(decoded.times_s)) / decoded.info.fps
        assert np.abs(decoded.index.times_s - expected).max() <= 1e-3


@pytest.mark.usefixtures("reading_in_process")
def test_late_frames_are_read_without_those_before(
    decoded: Decoded, request: pytest.FixtureRequest, frames_decoded: list[int]
) -> None:
    kind = request.node.callspec.params["decoded"]
    last = len(decoded.pictures) - 1
    read_clips(decoded.source, [Wanted(np.array([last]))])
    if kind in seek_videos.FORWARD:
        assert not len(decoded.index.entry_frames) or decoded.index.entry_frames[-1] == 0
        assert frames_decoded == []
    else:
        (count,) = frames_decoded
        assert count <= 30


def cost(frames: np.ndarray, index: FrameIndex) -> int:
    """Frames that have to be decoded for these, sorted."""
    parts = seeking.passes(np.unique(frames), index)
    return sum(int(part.frames[-1]) + 1 - part.first_frame for part in parts)


LONG = {"closed": (seek_videos.CLOSED, 8), "B-frames": (seek_videos.B_FRAMES, 24), "open": (seek_videos.OPEN, 12)}


@pytest.mark.usefixtures("reading_in_process")
@pytest.mark.parametrize("kind", LONG)
def test_windows_in_the_middle_of_a_long_file_decode_their_groups_alone(
    tmp_path: Path, kind: str, frames_decoded: list[int]
) -> None:
    """Clips of several lengths and sizes, two of which overlap, are read together at the cost of their union."""
    options, group = LONG[kind]
    file = clock.write(tmp_path / "a.mp4", np.arange(900) / 30, show=range(900), options=options)
    _, index = indexing.scan(file, time_limit_s=60.0)
    index.write(tmp_path / "a.npz")
    wanted = [
        Wanted(np.arange(400, 430, 4)),
        Wanted(np.array([410, 411, 411, 415]), Framing(size=(64, 48))),
        Wanted(np.array([700, 702]), Framing(region=(0, 0, 1, 1), size=(128, 128), content=(96, 128))),
    ]
    clips = read_clips(Source(file, index=tmp_path / "a.npz"), wanted)
    assert [clip.shape for clip in clips] == [(8, 96, 144, 3), (4, 64, 48, 3), (2, 128, 128, 3)]
    for clip, w, pixels in zip(clips, wanted, (slice(96), slice(64), slice(16, 112)), strict=True):
        assert [clock.read(picture[pixels]) for picture in clip] == w.frames.tolist()
    expected = (429 - 400 // group * group) + (703 - 700 // group * group)
    assert cost(np.concatenate([w.frames for w in wanted]), index) == expected
    assert frames_decoded == [expected]
    assert len(index.pts) == 900


@pytest.mark.usefixtures("reading_in_process")
def test_a_group_of_cameras_of_mixed_shapes_decodes_what_its_windows_need(
    tmp_path: Path, frames_decoded: list[int]
) -> None:
    """Each camera has its own size, rate and crops, and each window its own length."""
    cameras = {"ego": (96, 144, 30), "exo1": (192, 288, 30), "exo2": (144, 96, 20)}
    lines = ["path,split,scene,view,perspective"]
    for name, (height, width, rate) in cameras.items():
        times_s = np.arange(12 * rate) / rate
        clock.write(
            tmp_path / f"{name}.mp4", times_s, height=height, width=width, rate=rate, options=seek_videos.B_FRAMES
        )
        lines.append(f"{name}.mp4,train,s,{name},{name[:3]}")
    found = clock.catalog(tmp_path, "\n".join(lines))
    ego = View(perspective="ego", frames=4, fps=5.0, size_px=64, geometry=Geometry(crop="resized"))
    views = {"ego": ego, "exo": dataclasses.replace(ego, perspective="exo", count=2)}
    scaled = {"window_scale": (0.5, 2.0), "window_length": "true"}
    plan = Plan(found, Sampling(views=views, pairing="group", windows=3, **scaled), 0)  # type: ignore[arg-type]
    shard = Shard(start_step=0, stop_step=1, batch=1, micro_batch=1)
    for row in range(2):
        frames_decoded.clear()
        out = RowDecoder(plan, Data(catalog=tmp_path), dataclasses.replace(shard, start_step=row, stop_step=row + 1))
        video = out.decode(np.array([0]))["video"][0]
        opened = list(frames_decoded)
        clips = plan.row(row).clips
        of_camera = [[window[k] for window in clips if window[k] is not None] for k in range(3)]
        expected = []
        for k, cut in enumerate(of_camera):
            recording = found.recordings[cut[0].recording]
            index = FrameIndex.read(found.root / recording.index)
            expected.append(cost(np.concatenate([clip.frames for clip in cut]), index))
            for w, clip in enumerate(cut):
                framing = ego.framing(clip.region, recording.height_px, recording.width_px)
                (alone,) = read_clips(Source(found.file(recording)), [Wanted(clip.frames, framing)], pixels="yuv420")
                np.testing.assert_array_equal(video[w, k], alone)
        assert expected == opened
        assert sum(expected) < 0.5 * sum(r.num_frames for r in found.recordings)


def test_times_start_with_the_stream_that_starts_first(tmp_path: Path) -> None:
    first_s = {}
    beside_sound = ("transport stream beside sound", "transport stream beside sound whose clock wraps")
    for kind in ("sound starts earlier", "late start", "transport stream", "negative start", *beside_sound):
        (tmp_path / kind).mkdir()
        first_s[kind] = index_of(seek_videos.KINDS[kind](tmp_path / kind), tmp_path / "index", 60.0).first_s
    assert first_s == {
        "sound starts earlier": pytest.approx(0.5, abs=1e-3),
        "late start": 0,
        "transport stream": 0,
        "negative start": 0,
        **dict.fromkeys(
            beside_sound, pytest.approx(0.5 + 1024 / 16000, abs=1e-3)
        ),  # with what the sound's encoder adds
    }


@pytest.mark.parametrize(
    ("sound_s", "picture_s", "start_s"),
    [(None, 0.5, 0.5), (0.0, 0.5, 0.0), (1.4, 1.4, 1.4), (-0.021, 0.0, 0.0), (-0.021, 0.5, 0.0), (-0.5, -0.2, -0.2)],
)
@pytest.mark.parametrize("container", ["matroska,webm", "mpegts"])
def test_what_an_encoder_puts_before_the_first_sample_is_no_start(
    sound_s: float | None, picture_s: float, start_s: float, container: str
) -> None:
    """AAC begins 1024 samples before 0, which players skip."""
    sounds = [] if sound_s is None else [SimpleNamespace(start_time=round(sound_s * 1000), time_base=Fraction(1, 1000))]
    if container == "mpegts":  # its clock has no such 0
        start_s = min([picture_s, *([] if sound_s is None else [sound_s])])
    format_ = SimpleNamespace(name=container)
    stream = SimpleNamespace(container=SimpleNamespace(format=format_, streams=SimpleNamespace(audio=sounds)))
    assert indexing.clock_start(stream, picture_s) == pytest.approx(start_s)  # type: ignore[arg-type]


def test_rates_are_constant_or_vary(tmp_path: Path) -> None:
    rates = {}
    for kind in ("B-frames", "variable rate", "MPEG-4 in AVI", "open groups in Matroska"):
        (tmp_path / kind).mkdir()
        info = index_of(seek_videos.KINDS[kind](tmp_path / kind), tmp_path / "index", 60.0)
        rates[kind] = (info.constant_rate, pytest.approx(info.fps))
    times_s = seek_videos.bursts()
    assert rates["variable rate"] == (False, 89 / times_s[-1])
    assert all(rate == (True, 30.0) for kind, rate in rates.items() if kind != "variable rate")


CLOSED = "closed groups of 8"


@pytest.fixture
def closed(tmp_path: Path) -> Decoded:
    return whole(seek_videos.KINDS[CLOSED](tmp_path), tmp_path / "index")


def exchanged(checks: np.ndarray, entries: np.ndarray) -> np.ndarray:
    """With those of the last two key frames exchanged."""
    out = checks.copy()
    out[entries[-2:]] = checks[entries[-2:][::-1]]
    return out


HARMLESS = "entries a frame late"
WRONG = {
    HARMLESS: lambda i: {"entry_frames": i.entry_frames + 1},
    "entries a frame early": lambda i: {"entry_frames": np.unique(np.maximum(i.entry_frames - 1, 0))},
    "entries that lead to the next one": lambda i: {"entry_stamps": np.append(i.entry_stamps[1:], i.entry_stamps[-1])},
    "entries that lead to the last one": lambda i: {"entry_stamps": np.full_like(i.entry_stamps, i.entry_stamps[-1])},
    "times of other frames": lambda i: {"pts": i.pts + (i.pts[1] - i.pts[0])},
    "no such times": lambda i: {"pts": i.pts + 1},
    "other pictures": lambda i: {"checks": np.roll(i.checks, 1)},
    "two pictures exchanged": lambda i: {"checks": exchanged(i.checks, i.entry_frames)},
}
SOUGHT = (
    CLOSED, "B-frames", "open groups", "open groups in Matroska", "transport stream", "HEVC", "HEVC with open groups",
    "transport stream beside sound whose clock wraps", "VP9 with hidden frames",
)  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
@pytest.mark.parametrize("decoded", SOUGHT, indirect=True)
def test_a_wrong_index_never_gives_a_wrong_frame(decoded: Decoded, tmp_path: Path, what: str) -> None:
    """Also of the frames on either side of a key frame, which may be decoded without what they refer to."""
    index, said = decoded.index, r"(a\.\w+|sound\.ts): .*; the file is read from its start"
    changed = WRONG[what](index)
    if len(changed.get("entry_frames", index.entry_frames)) < len(index.entry_frames):
        changed["entry_stamps"] = index.entry_stamps[1:]
    dataclasses.replace(index, **changed).write(tmp_path / "wrong.npz")
    source = dataclasses.replace(decoded.source, index=tmp_path / "wrong.npz")
    entry = int(index.entry_frames[-2])
    warned = []
    for frames in ([entry - 1], [entry], [entry + 2], [entry - 7, entry - 6, entry + 9], [entry - 2, entry, entry + 1]):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            (clip,) = read_clips(source, [Wanted(np.array(frames))], pixels="yuv420")
        np.testing.assert_array_equal(clip, decoded.pictures[frames])
        warned += [str(one.message) for one in caught]
    assert bool(warned) != (what == HARMLESS)
    assert all(re.search(said, one) for one in warned)


def test_a_file_that_has_changed_is_refused(closed: Decoded, tmp_path: Path) -> None:
    file = closed.source.path
    good = file.read_bytes()
    clock.write(file, seek_videos.TIMES_S, show=range(90)[::-1], options=seek_videos.CLOSED)
    with pytest.raises(UnreadableVideo, match=r"a\.mp4: it has changed since it was catalogued; make the catalog ag"):
        read_clips(closed.source, [Wanted(np.array([3]))])
    file.write_bytes(good)  # another time of change, the same file
    assert read_clips(closed.source, [Wanted(np.array([3]))])[0].shape[0] == 1
    file.write_bytes(good + b"more")
    with pytest.raises(UnreadableVideo, match="has changed"):
        read_clips(closed.source, [Wanted(np.array([3]))])
    file.unlink()
    with pytest.raises(UnreadableVideo, match=r"a\.mp4: No such file"):
        read_clips(closed.source, [Wanted(np.array([3]))])


def test_a_damaged_index_is_named(closed: Decoded, tmp_path: Path) -> None:
    for content in (b"", b"PK\x03\x04 half", b"x" * 1000):
        file = tmp_path / f"{len(content)}.npz"
        file.write_bytes(content)
        with pytest.raises(
            ValueError, match=rf"{len(content)}\.npz: .*damaged \(it is no archive.*make the catalog again"
        ):
            read_clips(dataclasses.replace(closed.source, index=file), [Wanted(np.array([3]))])
    with pytest.raises(ValueError, match=r"gone\.npz: .*missing; make the catalog again"):
        read_clips(dataclasses.replace(closed.source, index=tmp_path / "gone.npz"), [Wanted(np.array([3]))])


def test_a_frame_beyond_the_file_is_named(closed: Decoded) -> None:
    with pytest.raises(UnreadableVideo, match=r"a\.mp4: frame 90 was asked for, but a sequential decode finds 90"):
        read_clips(closed.source, [Wanted(np.array([90]))])


def test_a_span_counts_from_its_first_frame(closed: Decoded) -> None:
    span = dataclasses.replace(closed.source, first_frame=30)
    (clip,) = read_clips(span, [Wanted(np.array([0, 7, 40]))], pixels="yuv420")
    np.testing.assert_array_equal(clip, closed.pictures[[30, 37, 70]])


def test_passes_seek_if_that_is_cheaper(closed: Decoded) -> None:
    def planned(*frames: int) -> list[tuple[int, list[int]]]:
        found = seeking.passes(np.array(frames), closed.index)
        return [(part.first_frame, part.frames.tolist()) for part in found]

    assert planned(0, 5) == [(0, [0, 5])]
    assert planned(50) == [(48, [50])]
    assert planned(48) == [(48, [48])]
    assert planned(50, 55, 57) == [(48, [50, 55, 57])]  # 56 is decoded on the way
    assert planned(50, 81) == [(48, [50]), (80, [81])]
    assert planned(50, 54, 59) == [(48, [50, 54, 59])]  # a seek to 56 would save one frame
    assert cost(np.array([50, 81]), closed.index) == 3 + 2


def test_what_is_indexed_is_not_decoded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = seek_videos.KINDS[CLOSED](tmp_path)
    first, broken = Prober(tmp_path / "index").probe(tmp_path, ["a.mp4", "a.mp4"])
    assert not broken
    monkeypatch.setattr("crossview.datasets.video.indexing.scan", None)
    again, _ = Prober(tmp_path / "index").probe(tmp_path, ["a.mp4"])
    assert again == first
    assert cached_index(Path(first["a.mp4"].index)).fingerprint.startswith(f"{file.stat().st_size}-")


def test_threads_read_indices_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrays' headers are parsed with `ast`, in which two threads at a time may raise SystemError."""
    file = tmp_path / "index.npz"
    none = np.empty(0, np.int64)
    FrameIndex(np.arange(3), Fraction(1, 30), 0.0, np.arange(3), none, none, "x").write(file)
    load, inside, together = np.load, [], []

    def slow(*given: object, **options: object) -> object:
        inside.append(1)
        time.sleep(0.005)
        together.append(len(inside))
        inside.pop()
        return load(*given, **options)  # type: ignore[call-overload]

    monkeypatch.setattr("crossview.datasets.video.frame_index.np.load", slow)
    with ThreadPoolExecutor(4) as pool:
        assert [index.fingerprint for index in pool.map(FrameIndex.read, [file] * 8)] == ["x"] * 8
    assert together == [1] * 8
