"""Odd and damaged video files: whatever is wrong, the error is UnreadableVideo and names the file and the reason."""

from __future__ import annotations

import importlib.util
import itertools
import os
import struct
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import ModuleType, SimpleNamespace

import av
import clock_videos as clock
import numpy as np
import pytest
import videos
from PIL import Image

from crossview.datasets.catalog import Catalog, Recording
from crossview.datasets.catalog.probing import Prober
from crossview.datasets.sampling.spec import View
from crossview.datasets.video import frames as reading
from crossview.datasets.video.conversion import CONVERT
from crossview.datasets.video.copies import prepare
from crossview.datasets.video.decode import decode, probe, read_clips
from crossview.datasets.video.frames import UnreadableVideo
from crossview.datasets.video.indexing import scan
from crossview.datasets.video.source import Source, Wanted


def fuzzing() -> ModuleType:
    """benchmarks/fuzz_video.py as a module."""
    file = Path(__file__).parents[1] / "benchmarks" / "fuzz_video.py"
    spec = importlib.util.spec_from_file_location("fuzz_video", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fuzz_video"] = module
    spec.loader.exec_module(module)
    return module


def test_nothing_but_unreadable_video_escapes_from_randomly_damaged_files(tmp_path: Path) -> None:
    fuzz = fuzzing()
    found = list(fuzz.outcomes(fuzz.write_damaged(tmp_path, 40, 2)))
    assert {o.file.suffix for o in found} == {".mp4", ".mkv", ".ts", ".avi"}
    assert [f"{o.file.name} {o.what}: {o.said}" for o in found if fuzz.faulty(o)] == []
    assert {o.what for o in found} == {"read", "unreadable"}


def test_damaged_files_follow_from_the_seed(tmp_path: Path) -> None:
    write = fuzzing().write_damaged
    first, second, other = ([file.read_bytes() for file in write(tmp_path, 8, seed)] for seed in (0, 0, 1))
    assert first == second != other
    assert len(set(first)) == 8


def test_the_fuzz_test_sees_crashes_and_hangs(tmp_path: Path) -> None:
    """A child that reads the first file, dies at the second and, started again, hangs at the third."""
    said = """if True:
        import os, sys, time
        for name in sys.stdin.read().split():
            if name == "crash":
                os.abort()
            if name == "hang":
                time.sleep(600)
            print('{"what": "read"}', flush=True)
    """
    files = [Path(name) for name in ("a", "crash", "b", "hang", "c")]
    found = list(fuzzing().outcomes(files, 3.0, [sys.executable, "-S", "-c", said]))
    assert [o.what for o in found] == ["read", "crashed", "read", "hung", "read"]
    assert found[1].said == "SIGABRT"


def with_codec(tmp_path: Path) -> Path:
    file = videos.write(tmp_path / "x.mp4", frames=5)
    file.write_bytes(file.read_bytes().replace(b"avc1", b"zzzz"))
    return file


def with_ticks(tmp_path: Path) -> Path:
    file = videos.write(tmp_path / "x.mp4", frames=5)
    data = bytearray(file.read_bytes())
    at = data.find(b"mdhd") + 16
    data[at : at + 4] = struct.pack(">I", 2**31 - 1)
    file.write_bytes(data)
    return file


def without_packets(tmp_path: Path) -> Path:
    with av.open(str(tmp_path / "x.mkv"), "w") as container:
        stream = container.add_stream("mpeg4", rate=30)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        container.start_encoding()
    return tmp_path / "x.mkv"


def with_too_many_pixels(tmp_path: Path) -> Path:
    """A PNG in QuickTime; both say 12,000 x 12,000 in a few bytes."""
    file = tmp_path / "x.mov"
    with av.open(str(file), "w") as container:
        stream = container.add_stream("png", rate=30)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "gray"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((16, 16), np.uint8), format="gray")))
        container.mux(stream.encode(None))
    data = bytearray(file.read_bytes())
    at = data.find(b"IHDR") + 4
    data[at : at + 8] = struct.pack(">II", 12000, 12000)
    at = data.find(b"png ") + 28
    data[at : at + 4] = struct.pack(">HH", 12000, 12000)
    file.write_bytes(data)
    return file


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (with_codec, r"there is no decoder for its codec"),
        (with_ticks, r"its frame rate is [\d.e+]+ per s, not 0.001 to 100000"),
        (without_packets, r"."),
        (with_too_many_pixels, r"its pictures have 12000 x 12000 pixels; at most 134217728 are read"),
    ],
)
def test_the_error_names_file_and_reason(tmp_path: Path, make: Callable[[Path], Path], reason: str) -> None:
    file = make(tmp_path)
    with pytest.raises(UnreadableVideo, match=rf"x\.\w+: {reason}"):
        probe(file)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty; copy it again"),
        (b"not a video\n" * 50, "it is no video file, or cut off or damaged; copy it again"),
        (bytes(4096), "it is no video file, or cut off or damaged; copy it again"),
    ],
)
def test_a_file_that_is_no_video_is_said_to_be_none(tmp_path: Path, content: bytes, reason: str) -> None:
    file = tmp_path / "x.mp4"
    file.write_bytes(content)
    with pytest.raises(UnreadableVideo) as raised:
        probe(file)
    assert str(raised.value) == f"{file}: {reason}"


def without_its_index(file: Path) -> Path:
    """MP4 of a camera that lost power: it writes the index last."""
    data = videos.write(file, frames=10).read_bytes()
    at = data.index(b"moov") - 4
    size = int.from_bytes(data[at : at + 4])
    file.write_bytes(data[:at] + data[at + size :])
    return file


def test_files_that_are_cut_off_or_damaged_are_all_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(UnreadableVideo, match=r"it is no video file, or cut off or damaged; copy it again"):
        probe(without_its_index(tmp_path / "no_index.mp4"))
    with pytest.raises(UnreadableVideo, match=r"it is no video file, or cut off or damaged; copy it again"):
        probe(videos.truncate(videos.write(tmp_path / "header.mp4"), 0.05))
    with pytest.raises(UnreadableVideo, match=r"it is cut off or damaged in packet 15; copy it again"):
        probe(videos.truncate(videos.write(tmp_path / "tail.mp4"), 0.6))
    with pytest.raises(UnreadableVideo, match=r"it is cut off or damaged at 0\.40 s; copy it again"):
        probe(videos.corrupt(videos.write(tmp_path / "middle.mp4")))


def packets_of(file: Path) -> list[av.Packet]:
    with av.open(str(file)) as container:
        return [packet for packet in container.demux(video=0) if packet.size]


def test_a_file_that_ends_between_two_packets_lacks_the_last(tmp_path: Path) -> None:
    """Its last packet, whole by its own marks, is one less than its index lists."""
    file = videos.write(tmp_path / "x.mp4")
    packets = packets_of(file)
    assert packets[-1].pos == max(packet.pos for packet in packets)
    file.write_bytes(file.read_bytes()[: packets[-1].pos])
    assert len(packets_of(file)) == 29
    with pytest.raises(UnreadableVideo, match=r"it is cut off or damaged: its index lists 30 packets, 29 are there"):
        probe(file)


def test_a_transport_stream_that_says_where_it_lost_data_is_damaged(tmp_path: Path) -> None:
    file = videos.write(tmp_path / "x.ts")
    data = bytearray(file.read_bytes())
    of_video = [at for at in range(0, len(data), 188) if int.from_bytes(data[at + 1 : at + 3]) & 0x1FFF == 0x100]
    data[of_video[len(of_video) // 2] + 1] |= 0x80  # transport_error_indicator
    file.write_bytes(data)
    assert any(packet.is_corrupt for packet in packets_of(file))
    with pytest.raises(UnreadableVideo, match=r"it is cut off or damaged in packet \d+"):
        probe(file)


@pytest.mark.usefixtures("reading_in_process")
def test_pictures_that_become_too_large_in_the_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = clock.write_of_two_sizes(tmp_path)
    monkeypatch.setattr(reading, "MAX_PIXELS", 20_000)
    assert clock.read(decode(file, np.array([19]), size_px=96)[0]) == 19
    with pytest.raises(UnreadableVideo, match=r"both\.mkv: "):
        decode(file, np.array([39]), size_px=96)


def test_text_that_is_not_utf8_does_not_matter(tmp_path: Path) -> None:
    fuzz = fuzzing()
    for kind in ("mp4", "mkv", "avi"):
        file = tmp_path / f"x.{kind}"
        file.write_bytes(fuzz.original(file.suffix[1:]).replace(fuzz.TITLE, b"\xff\xfe\xe9" + fuzz.TITLE[3:]))
        with av.open(str(file), metadata_errors="replace") as container:
            assert "\ufffd" in str(container.metadata)
        assert probe(file).num_frames == 24
        assert len(decode(file, np.array([0, 23]))) == 2


def test_frames_without_times_are_counted(tmp_path: Path) -> None:
    info = probe(videos.write(tmp_path / "x.h264", frames=7))
    assert (info.num_frames, info.first_s) == (7, 0.0)
    assert 1 <= info.fps <= 100


def test_side_data_that_the_library_does_not_know_leaves_the_turn(tmp_path: Path) -> None:
    """EXIF in MJPEG, which also says that the picture is to be turned."""
    picture = Image.fromarray(videos.picture(3))
    exif = picture.getexif()
    exif[0x0112] = 6  # turned by 90 degrees clockwise
    picture.save(tmp_path / "x.jpg", exif=exif, quality=95)
    with av.open(str(tmp_path / "x.mkv"), "w") as container:
        stream = container.add_stream("mjpeg", rate=30)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuvj420p"
        container.start_encoding()
        for k in range(3):
            packet = av.Packet((tmp_path / "x.jpg").read_bytes())
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, k, k, Fraction(1, 30)
            container.mux(packet)
    info = probe(tmp_path / "x.mkv")
    assert (info.num_frames, info.height_px, info.width_px) == (3, 96, 64)
    assert videos.barcode(np.rot90(decode(tmp_path / "x.mkv", np.array([2]))[0])) == 3


def without_pictures(file: Path, packets: int) -> Path:
    """MPEG-4 whose packets after the first, up to this many, say that nothing is coded in them."""
    with av.open(str(file.with_suffix(".avi")), "w") as container:
        stream = container.add_stream("mpeg4", rate=30)
        stream.width, stream.height, stream.pix_fmt, stream.options = 96, 64, "yuv420p", {"bf": "0"}
        first = [
            packet
            for k in range(3)
            for packet in stream.encode(av.VideoFrame.from_ndarray(videos.picture(k), format="rgb24"))
        ]
        container.mux(first[0])
        third = bytearray(bytes(first[2])[:7])
        third[5] &= ~0x20  # vop_coded, after type (2 bits), marker and time increment (7 bits)
        for k in range(1, packets):
            packet = av.Packet(bytes(third))
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, k, k, Fraction(1, 30)
            container.mux(packet)
    return file.with_suffix(".avi")


@pytest.mark.usefixtures("reading_in_process")
def test_the_time_limit_acts_on_packets_without_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, ticks = without_pictures(tmp_path / "x", 300), itertools.count()
    with pytest.raises(UnreadableVideo, match=r"a sequential decode finds 2 frames"):
        decode(file, np.array([20]))
    monkeypatch.setattr("crossview.datasets.video.frames.time", SimpleNamespace(monotonic=lambda: 0.1 * next(ticks)))
    with pytest.raises(UnreadableVideo, match=r"x\.avi: decoding took longer than the limit of 5 s"):
        decode(file, np.array([20]), time_limit_s=5.0)


def test_the_time_limit_ends_reading_within_a_call(tmp_path: Path) -> None:
    """The library itself looks at the limit whenever it reads; opening a file is one call."""
    file = videos.write(tmp_path / "x.mp4", frames=3)
    with (
        pytest.raises(UnreadableVideo, match=r"x\.mp4: decoding took longer than the limit of 0 s"),
        reading.opened(file, 0.0),
    ):
        pass


@pytest.mark.usefixtures("reading_in_process")
def test_what_conversion_raises_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = videos.write(tmp_path / "x.mp4", frames=3)
    for error in (ValueError("no such format"), AttributeError("gone"), MemoryError()):

        def fails(*_: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setitem(CONVERT, "rgb", fails)
        with pytest.raises(UnreadableVideo, match=rf"x\.mp4: {type(error).__name__}: {error}"):
            decode(file, np.array([0]))


def rewritten(file: Path, **arrays: np.ndarray) -> None:
    with np.load(file) as stored:
        content = dict(stored)
    with file.open("wb") as out:
        np.savez(out, **(content | arrays))  # type: ignore[arg-type]


INDEX_DAMAGE: dict[str, Callable[[Path], object]] = {
    "empty": lambda file: file.write_bytes(b""),
    "text": lambda file: file.write_text("not an index" * 50),
    "cut off": lambda file: file.write_bytes(file.read_bytes()[:-200]),
    "changed bytes": lambda file: file.write_bytes(file.read_bytes().replace(b"steps.npy", b"stops.npy")),
    "pickled objects": lambda file: rewritten(file, steps=np.array([print, None])),
    "text for numbers": lambda file: rewritten(file, entry_steps=np.array(["a", "b"])),
    "no metadata": lambda file: rewritten(file, meta=np.zeros(3, np.uint8)),
    "fewer checks": lambda file: rewritten(file, checks=np.zeros(3, np.uint32)),
    "entries after the end": lambda file: rewritten(
        file, entry_steps=np.array([0, 500]), entry_stamp_steps=np.zeros(2, int)
    ),
    "gone": Path.unlink,
}


@pytest.mark.parametrize("damage", INDEX_DAMAGE)
def test_a_damaged_frame_index_is_named(tmp_path: Path, damage: str) -> None:
    file, index = videos.write(tmp_path / "x.mp4", frames=24), tmp_path / "x.npz"
    scan(file, time_limit_s=60.0)[1].write(index)
    INDEX_DAMAGE[damage](index)
    with pytest.raises(UnreadableVideo, match=r"x\.npz: this frame index .*; make the catalog again"):
        read_clips(Source(file, index=index), [Wanted(np.array([20]))])


def test_pictures_that_are_not_the_indexed_ones_are_read_from_the_start(tmp_path: Path) -> None:
    file, index = videos.write(tmp_path / "x.mp4", frames=60), tmp_path / "x.npz"
    scan(file, time_limit_s=60.0)[1].write(index)
    rewritten(index, checks=np.zeros(60, np.uint32))
    with pytest.warns(UserWarning, match=r"x\.mp4: seeking gives other pictures than .* read from its start"):
        (clip,) = read_clips(Source(file, index=index), [Wanted(np.array([50, 59]))])
    assert [videos.barcode(picture) for picture in clip] == [50, 59]


def test_a_file_that_has_changed_since_it_was_indexed_is_named(tmp_path: Path) -> None:
    file, index = videos.write(tmp_path / "x.mp4", frames=24), tmp_path / "x.npz"
    scan(file, time_limit_s=60.0)[1].write(index)
    videos.corrupt(file)
    for decoder in ("pyav", "decord"):
        with pytest.raises(UnreadableVideo, match=r"x\.mp4: it has changed since it was catalogued"):
            read_clips(Source(file, index=index), [Wanted(np.array([20]))], decoder=decoder)


def recording(file: Path, **facts: object) -> Recording:
    known: dict[str, object] = {"fps": 30.0, "num_frames": 3, "height_px": 64, "width_px": 96}
    return Recording(
        dataset="d", scene="s", view="v", perspective="exo", subject="", action="", path=file.name, kind="video",
        **(known | facts),  # type: ignore[arg-type]
    )  # fmt: skip


def test_a_copy_that_the_encoder_refuses_names_the_source(tmp_path: Path) -> None:
    file = tmp_path / "x.mkv"
    with av.open(str(file), "w") as container:
        stream = container.add_stream("ffv1", rate=30)
        stream.width, stream.height, stream.pix_fmt = 40000, 2, "gray"  # wider than H.264 can be
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((2, 40000), np.uint8), format="gray")))
        container.mux(stream.encode(None))
    catalog = Catalog(tmp_path, (recording(file),))
    (left_out,) = prepare(catalog, tmp_path / "copies", max_quarantined=1.0).quarantined
    assert "x.mkv: its copy cannot be encoded" in left_out.reason


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    good = videos.write(tmp_path / "good.mp4", frames=3)
    name = os.fsdecode(b"caf\xe9.mp4")
    (tmp_path / name).write_bytes(good.read_bytes())
    assert len(decode(tmp_path / name, np.array([0, 2]))) == 2
    with pytest.raises(UnreadableVideo, match=r"frame 7 was asked for") as raised:
        decode(tmp_path / name, np.array([7]))
    assert str(raised.value).encode().startswith(f"{tmp_path}/caf\\udce9.mp4".encode())  # can be printed
    with pytest.raises(ValueError, match=r"a name that is not UTF-8"):
        decode(tmp_path / name, np.array([0]), decoder="decord")
    found, (broken,) = Prober().probe(tmp_path, ["good.mp4", name])
    assert list(found) == ["good.mp4"]
    assert "its name is not UTF-8" in broken.reason
    Catalog(tmp_path, (recording(good),), quarantined=(broken,)).save(tmp_path / "catalog")
    assert Catalog.load(tmp_path / "catalog").quarantined == (broken,)
    with pytest.raises(ValueError, match=r"rot\\udce9: the folder's name is not UTF-8") as refused:
        Prober().probe(Path(os.fsdecode(b"rot\xe9")), ["good.mp4"])
    assert str(refused.value).isascii()


@pytest.mark.parametrize("damage", ["text", "codec"])
def test_contact_sheets_and_encoders_name_an_unreadable_file(tmp_path: Path, damage: str) -> None:
    from crossview.platform.config import Data
    from crossview.platform.data.video_reader import video
    from crossview.platform.report.contact_sheet import contact_sheet

    file = with_codec(tmp_path)
    if damage == "text":
        file.write_text("not a video" * 50)
    with pytest.raises(UnreadableVideo, match=r"x\.mp4: "):
        contact_sheet(Catalog(tmp_path, (recording(file),)), [recording(file)], tmp_path / "sheet.png")
    with pytest.raises(UnreadableVideo, match=r"x\.mp4: "):
        list(video(Source(file), 3, View(perspective="any", frames=1, size_px=32), Data(catalog=tmp_path), 8))
