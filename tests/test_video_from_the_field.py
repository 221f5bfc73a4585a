"""Kinds of files that cameras, phones and editors write: read as a player shows them, or named with the reason."""

from __future__ import annotations

import itertools
import os
import struct
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import clock_videos as clock
import numpy as np
import pytest
import videos

from crossview.datasets import folder
from crossview.datasets.catalog import Catalog
from crossview.datasets.video.conversion import Pixels
from crossview.datasets.video.copies import prepare
from crossview.datasets.video.decode import decode, probe
from crossview.datasets.video.frames import UnreadableVideo


def one_file(root: Path, file: Path) -> Catalog:
    return clock.catalog(root, f"path,split,scene,view,perspective\n{file.name},train,s,left,exo\n")


def boxes(data: bytes, start: int, end: int) -> list[tuple[bytes, bytes]]:
    out = []
    while start < end:
        size, kind = struct.unpack(">I4s", data[start : start + 8])
        out.append((kind, data[start : start + size]))
        start += size
    return out


def box(kind: bytes, *content: bytes) -> bytes:
    body = b"".join(content)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def jpeg() -> bytes:
    codec = av.CodecContext.create("mjpeg", "w")
    codec.width, codec.height, codec.pix_fmt, codec.time_base = 144, 96, "yuvj420p", Fraction(1, 30)
    frame = av.VideoFrame.from_ndarray(clock.picture(4095), format="rgb24").reformat(format="yuvj420p")
    frame.pts = 0
    return b"".join(bytes(packet) for packet in [*codec.encode(frame), *codec.encode(None)])


def with_cover_first(root: Path) -> Path:
    """An mp4 whose udta box, with a cover, comes before the track; moov is behind mdat, so that no sample moves."""
    data = clock.write(root / "plain.mp4", np.arange(30) / 30, show=range(30)).read_bytes()
    cover = box(b"covr", box(b"data", struct.pack(">II", 13, 0), jpeg()))
    handler = box(b"hdlr", bytes(8), b"mdirappl", bytes(9))
    udta = box(b"udta", box(b"meta", bytes(4), handler, box(b"ilst", cover)))
    out = []
    for kind, whole in boxes(data, 0, len(data)):
        inner = boxes(whole, 8, len(whole)) if kind == b"moov" else []
        header = [d for k, d in inner if k == b"mvhd"]
        others = [d for k, d in inner if k not in (b"mvhd", b"udta")]
        out.append(box(b"moov", *header, udta, *others) if inner else whole)
    file = root / "cover.mp4"
    file.write_bytes(b"".join(out))
    return file


def test_a_cover_picture_that_is_listed_first_is_not_the_video(tmp_path: Path) -> None:
    file = with_cover_first(tmp_path)
    with av.open(str(file)) as container:
        assert [s.codec_context.name for s in container.streams.video] == ["mjpeg", "h264"]
    info = probe(file)
    assert (info.num_frames, round(info.fps)) == (30, 30)
    assert [clock.read(frame) for frame in decode(file, np.array([0, 7, 29]))] == [0, 7, 29]
    copies = prepare(one_file(tmp_path, file), tmp_path / "copies", size_px=96)
    assert [clock.read(f) for f in decode(copies.file(copies.recordings[0]), np.array([0, 7, 29]))] == [0, 7, 29]
    with pytest.raises(ValueError, match=r"cover\.mp4: .*several video streams"):
        decode(file, np.array([0]), decoder="decord")


@pytest.mark.parametrize("pixels", ["rgb", "yuv420"])
@pytest.mark.parametrize(("what", "across", "down"), [("mirrored", -1, 1), ("flipped", 1, -1)])
def test_a_mirroring_display_matrix_is_applied(
    tmp_path: Path, what: str, across: int, down: int, pixels: Pixels
) -> None:
    file = clock.write(tmp_path / "camera.mp4", np.arange(10) / 30, show=[5 + 64 * (k % 2) for k in range(10)])
    clock.set_display_matrix(file, across, 0, 0, down, 96, 144)
    picture = decode(file, np.array([1]), pixels=pixels)[0]
    picture = picture[:96] if pixels == "yuv420" else picture
    shown = {
        "as stored": picture,
        "mirrored": picture[:, ::-1],
        "flipped": picture[::-1],
        "turned": picture[::-1, ::-1],
    }
    assert [name for name, view in shown.items() if clock.read(view) == 69] == [what]


def displayed(stored: np.ndarray, a: int, b: int, c: int, d: int) -> np.ndarray:
    """Each pixel (x, y) moved to (a x + c y, b x + d y)."""
    y, x = np.mgrid[: stored.shape[0], : stored.shape[1]]
    left, top = a * x + c * y, b * x + d * y
    left, top = left - left.min(), top - top.min()
    out = np.zeros((top.max() + 1, left.max() + 1, *stored.shape[2:]), stored.dtype)
    out[top, left] = stored
    return out


EIGHT = [(a, 0, 0, d) for a, d in itertools.product((1, -1), (1, -1))]
EIGHT += [(0, b, c, 0) for b, c in itertools.product((1, -1), (1, -1))]


@pytest.mark.parametrize("matrix", EIGHT)
def test_all_eight_orientations(tmp_path: Path, matrix: tuple[int, int, int, int]) -> None:
    file = videos.write(tmp_path / "x.mp4", frames=3)
    planes, rgb = decode(file, np.array([2]), pixels="yuv420")[0], decode(file, np.array([2]))[0]
    clock.set_display_matrix(file, *matrix, 64, 96)
    expected = displayed(rgb, *matrix)
    info = probe(file)
    assert (info.height_px, info.width_px) == expected.shape[:2]
    np.testing.assert_array_equal(decode(file, np.array([2]))[0], expected)
    found = decode(file, np.array([2]), pixels="yuv420")[0].reshape(-1)
    chroma = planes[64:].reshape(2, 32, 48)
    wanted = [displayed(plane, *matrix) for plane in (planes[:64], *chroma)]
    np.testing.assert_array_equal(found, np.concatenate([plane.reshape(-1) for plane in wanted]))


def test_copies_apply_a_mirrored_quarter_turn_and_decord_refuses_it(tmp_path: Path) -> None:
    file = videos.write(tmp_path / "x.mp4", frames=4)
    matrix = (0, 1, 1, 0)
    clock.set_display_matrix(file, *matrix, 64, 96)
    for k, allowed in enumerate((matrix, (-1, 0, 0, 1), (1, 0, 0, -1))):
        turned = videos.write(tmp_path / f"{k}.mp4", frames=2)
        clock.set_display_matrix(turned, *allowed, 64, 96)
        with pytest.raises(ValueError, match=rf"{k}\.mp4: .*a rotation or mirroring"):
            decode(turned, np.array([0]), decoder="decord")
    copies = prepare(one_file(tmp_path, file), tmp_path / "copies", size_px=64)
    copy = copies.recordings[0]
    assert (copy.height_px, copy.width_px) == (96, 64)
    upright = displayed(decode(copies.file(copy), np.array([3]))[0], *matrix)  # this one undoes itself
    assert videos.barcode(upright) == 3


def test_a_display_matrix_that_maps_to_a_line_is_ignored(tmp_path: Path) -> None:
    file = videos.write(tmp_path / "x.mp4", frames=2)
    upright = decode(file, np.array([1]))
    for matrix in ((0, 0, 0, 0), (0, 1, 0, 1)):
        clock.set_display_matrix(file, *matrix, 64, 96)
        np.testing.assert_array_equal(decode(file, np.array([1])), upright)


NAMES = ["12:30:05.mp4", "take:1.mp4", "-rotate.mp4", "50%d.mp4", "a#b?c=d.mp4", "file:x.mp4", "pipe:0.mp4"]


def test_names_that_look_like_urls_and_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for k, name in enumerate(NAMES):
        clock.write(tmp_path / name, np.arange(10) / 30, show=range(k, k + 10))
    rows = [f"{name},train,s{k},left,exo" for k, name in enumerate(NAMES)]
    Path("v.csv").write_text("\n".join(["path,split,scene,view,perspective", *rows]))
    for root in (Path(), tmp_path):
        found = folder.catalog(folder.Options(root=root, csv=Path("v.csv")))
        assert not found.quarantined
        assert [r.num_frames for r in found.recordings] == [10] * len(NAMES)
    copies = prepare(folder.catalog(folder.Options(root=Path(), csv=Path("v.csv"))), Path("copies"), size_px=96)
    for k, name in enumerate(NAMES):
        assert clock.read(decode(Path(name), np.array([4]))[0]) == k + 4
    for k, copy in enumerate(copies.recordings):
        for decoder in ("pyav", "decord"):
            assert clock.read(decode(copies.file(copy), np.array([4]), decoder=decoder)[0]) == k + 4  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["ts", "mkv"])
def test_where_a_files_whole_clock_starts_is_no_offset(tmp_path: Path, kind: str) -> None:
    clock.write(tmp_path / "ego.mp4", np.arange(150) / 30)
    first_s, ticks = (1.4, 90000) if kind == "ts" else (95443.7, 1000)
    clock.write(tmp_path / f"exo.{kind}", np.arange(150) / 30, first_pts_s=first_s, ticks=ticks)
    found = clock.catalog(tmp_path, clock.PAIR.format(exo=f"exo.{kind}"))
    assert clock.apart_s(clock.clips(found, tmp_path)) <= 0.05


FORMATS: dict[str, tuple[str, str, dict[str, str] | None, str]] = {
    "gray 8": ("ffv1", "gray", {}, "mkv"),
    "gray 10 bit": ("ffv1", "gray10le", {}, "mkv"),
    "gray PNG": ("png", "gray", {}, "mov"),
    "H.264 10 bit": ("libx264", "yuv420p10le", None, "mp4"),
    "H.264 4:4:4": ("libx264", "yuv444p", None, "mp4"),
    "H.264 4:2:2": ("libx264", "yuv422p", None, "mp4"),
    "H.264 RGB": ("libx264rgb", "rgb24", {"crf": "10"}, "mp4"),
    "H.264 B-frames": ("libx264", "yuv420p", {"bf": "3", "g": "12", "crf": "14"}, "mp4"),
    "HEVC 10 bit": ("libx265", "yuv420p10le", {"x265-params": "log-level=none"}, "mp4"),
    "AV1": ("libsvtav1", "yuv420p", {"preset": "10", "svtav1-params": "lp=1"}, "mp4"),
    "VP9": ("libvpx-vp9", "yuv420p", {"cpu-used": "8", "deadline": "realtime"}, "webm"),
    "MJPEG full range": ("mjpeg", "yuvj420p", {"q:v": "2"}, "avi"),
    "alpha": ("ffv1", "yuva420p", {}, "mkv"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_pixel_formats_and_codecs(tmp_path: Path, name: str) -> None:
    codec, pixels, options, ending = FORMATS[name]
    file = tmp_path / f"x.{ending}"
    clock.write(file, np.arange(20) / 30, show=range(20), codec=codec, pix_fmt=pixels, options=options)
    rgb, planes = decode(file, np.arange(20)), decode(file, np.arange(20), pixels="yuv420")
    assert probe(file).num_frames == 20
    assert [clock.read(frame) for frame in rgb] == list(range(20))
    assert [clock.read(frame[:96]) for frame in planes] == list(range(20))
    patch, luma, chroma = rgb[:, 65:85, 40:100].reshape(-1, 3).mean(0), planes[:, 65:85, 40:100], planes[:, 96:]
    assert abs(patch - 110).max() <= 5
    assert abs(luma.mean() - 110) <= 4
    assert abs(chroma.mean() - 128) <= 2


def test_a_picture_size_that_changes_in_the_middle(tmp_path: Path) -> None:
    file = clock.write_of_two_sizes(tmp_path)
    assert [clock.read(frame) for frame in decode(file, np.arange(40), size_px=96)] == list(range(40))
    with pytest.raises(UnreadableVideo, match=r"both\.mkv: the picture's size changes at frame 30"):
        decode(file, np.array([0, 30]))
    copies = prepare(one_file(tmp_path, file), tmp_path / "copies", size_px=96)
    copied = decode(copies.file(copies.recordings[0]), np.arange(40))
    assert [clock.read(frame) for frame in copied] == list(range(40))


@pytest.mark.parametrize("b_frames", [0, 3])
def test_a_clip_cut_without_encoding_has_only_the_frames_that_it_shows(tmp_path: Path, b_frames: int) -> None:
    """30 samples from the key frame on, of which an edit list hides the first 15."""
    options = {"bf": str(b_frames), "g": "250", "crf": "14"}
    whole = clock.write(tmp_path / "whole.mp4", np.arange(30) / 30, show=range(30), options=options)
    file = tmp_path / "cut.mp4"
    with av.open(str(whole)) as source, av.open(str(file), "w") as out:
        picture = source.streams.video[0]
        stream = out.add_stream_from_template(picture)
        shift = round(0.5 / picture.time_base)  # what is shown before 0 s is hidden
        for packet in source.demux(picture):
            if packet.size:
                packet.stream, packet.pts, packet.dts = stream, packet.pts - shift, packet.dts - shift
                out.mux(packet)
    with av.open(str(file)) as container:
        assert container.streams.video[0].frames == 30
    assert [clock.read(f) for f in decode(file, np.arange(probe(file).num_frames))] == list(range(15, 30))


def test_truncated_files_among_good_ones_are_named_and_left_out(tmp_path: Path) -> None:
    rows = "path,split,scene,view,perspective\n"
    for k in range(40):
        options = {"movflags": "faststart"} if k == 7 else {}
        file = clock.write(
            tmp_path / f"{k}.mp4", np.arange(10) / 30, container_options=options, height=48, width=72
        )  # without faststart, the cut takes the moov box
        if k in (3, 7):
            videos.truncate(file)
        rows += f"{k}.mp4,train,{k // 2},{('head', 'left')[k % 2]},{('ego', 'exo')[k % 2]}\n"
    (tmp_path / "v.csv").write_text(rows)
    found = folder.catalog(folder.Options(root=tmp_path, csv=tmp_path / "v.csv"))
    assert len(found.recordings) == 38
    assert {q.path for q in found.quarantined} == {"3.mp4", "7.mp4"}
    assert all(q.path in q.reason for q in found.quarantined)


def command(*arguments: object, cwd: Path) -> tuple[int, str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    start = "from crossview.platform.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", start, *map(str, arguments)], cwd=cwd, env=environment, capture_output=True, text=True
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.long
def test_a_run_with_a_video_of_one_frame_can_be_evaluated(tmp_path: Path) -> None:
    rows = "path,split,scene,view,perspective,action,labels\n"
    (tmp_path / "l24.txt").write_text("\n".join(str(k // 8) for k in range(24)))
    (tmp_path / "l1.txt").write_text("0")
    (tmp_path / "l3.txt").write_text("0 0 0")
    for split, scene, (view, perspective) in itertools.product(
        ("train", "val"), range(2), (("head", "ego"), ("left", "exo"))
    ):
        name = f"{split}{scene}_{view}.mp4"
        clock.write(tmp_path / name, np.arange(24) / 20, rate=20)
        rows += f"{name},{split},{split}{scene},{view},{perspective},tea,l24.txt\n"
    clock.write(tmp_path / "one.mp4", [0.0], rate=20)
    clock.write(tmp_path / "three.mp4", np.arange(3) / 20, rate=20)
    rows += "one.mp4,train,9,head,ego,tea,l1.txt\nthree.mp4,train,9,left,exo,tea,l3.txt\n"
    (tmp_path / "v.csv").write_text(rows)
    small = ["--optim.steps", 1, "--optim.batch", 8, "--optim.warmup-steps", 0, "--compute.device", "cpu", "--debug"]
    for arguments in (
        ["prepare", "folder", "--root", tmp_path, "--csv", "v.csv", "--out", "cat"],
        ["train", "byov", "--preset", "debug", "--data.catalog", "cat", *small, "--name", "r"],
        ["evaluate", "runs/r", "--device", "cpu", "--debug"],
    ):
        status, said = command(*arguments, cwd=tmp_path)
        assert status == 0, said


def test_a_variable_rate_shows_the_same_instants(tmp_path: Path) -> None:
    clock.write(tmp_path / "ego.mp4", np.arange(300) / 30)
    clock.write(tmp_path / "exo.mp4", np.concatenate([np.arange(0, 5, 1 / 30), np.arange(5, 10, 1 / 20)]))
    found = clock.catalog(tmp_path, clock.PAIR.format(exo="exo.mp4"))
    assert clock.apart_s(clock.clips(found, tmp_path)) <= 0.05


def test_a_picture_that_starts_after_the_sound_shows_the_same_instants(tmp_path: Path) -> None:
    times_s = np.arange(300) / 30
    clock.write(tmp_path / "ego.mp4", times_s)
    silent = clock.write(tmp_path / "silent.mp4", times_s[:-15], scene_start_s=0.5, first_pts_s=0.5)
    with av.open(str(silent)) as source, av.open(str(tmp_path / "exo.mp4"), "w") as out:
        sound = out.add_stream("aac", rate=16000)
        picture = out.add_stream_from_template(source.streams.video[0])
        for k in range(0, 160000, 1024):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16000, k
            out.mux(sound.encode(frame))
        out.mux(sound.encode(None))
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = picture
                out.mux(packet)
    with av.open(str(tmp_path / "exo.mp4")) as container:
        first = next(container.decode(video=0))
        assert abs(first.time - 0.5) < 0.01  # as the input has to be
    found = clock.catalog(tmp_path, clock.PAIR.format(exo="exo.mp4"))
    assert clock.apart_s(clock.clips(found, tmp_path)) <= 0.05


def test_a_file_that_was_encoded_anew_behind_the_catalog_is_noticed(tmp_path: Path) -> None:
    clock.write(tmp_path / "ego.mp4", np.arange(300) / 30)
    clock.write(tmp_path / "exo.mp4", np.arange(300) / 30)
    found = clock.catalog(tmp_path, clock.PAIR.format(exo="exo.mp4"))
    clock.write(tmp_path / "exo.mp4", np.arange(600) / 60, rate=60)
    try:
        apart_s = clock.apart_s(clock.clips(found, tmp_path))
    except (ValueError, AssertionError) as error:  # refused, or quarantined
        assert "exo.mp4" in str(error)  # noqa: PT017
    else:
        assert apart_s <= 0.05
