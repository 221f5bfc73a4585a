"""Frame exactness: what comes back for an index is what a sequential decode shows there."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import videos

from crossview.datasets.catalog import Catalog, Recording
from crossview.datasets.video.conversion import Pixels, rgb
from crossview.datasets.video.copies import prepare
from crossview.datasets.video.decode import decode, probe
from crossview.datasets.video.frames import Limit, UnreadableVideo
from crossview.datasets.video.framing import Framing

ASKED = np.array([0, 3, 4, 11, 13, 28, 29])
KINDS: dict[str, dict[str, object]] = {
    "plain.mp4": {},
    "b_frames.mp4": {"b_frames": 3},
    "open_gop.mkv": {"b_frames": 3, "x264": "open-gop=1"},
    "late_start.mp4": {"b_frames": 3, "start_s": 2.0},
    "late_start.ts": {"b_frames": 3, "start_s": 2.0},
    "variable_rate.mp4": {"b_frames": 3, "variable": True},
    "variable_rate.mkv": {"b_frames": 3, "variable": True},
}


def sequential(path: Path, pixel_format: str) -> np.ndarray:
    """Every frame, by the plainest use of PyAV."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format=pixel_format) for frame in container.decode(video=0)])


@pytest.mark.parametrize("name", KINDS)
def test_pyav_equals_a_sequential_decode(tmp_path: Path, name: str) -> None:
    path = videos.write(tmp_path / name, **KINDS[name])  # type: ignore[arg-type]
    whole = sequential(path, "yuv420p")
    assert [videos.barcode(planes[:64]) for planes in whole] == list(range(30))
    np.testing.assert_array_equal(decode(path, ASKED, pixels="yuv420"), whole[ASKED])
    rgb = decode(path, ASKED)
    assert [videos.barcode(frame) for frame in rgb] == ASKED.tolist()
    for size_px, pixels in ((48, "rgb"), (None, "rgb"), (48, "yuv420")):
        every = decode(path, np.arange(30), size_px=size_px, pixels=pixels)  # type: ignore[arg-type]
        np.testing.assert_array_equal(decode(path, ASKED, size_px=size_px, pixels=pixels), every[ASKED])  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["open_gop.mkv", "late_start.ts", "variable_rate.mkv", "rotated.mp4"])
def test_prepared_copies_are_exact_for_both_decoders(tmp_path: Path, name: str) -> None:
    options = KINDS.get(name, {"rotation": 90})
    info = probe(videos.write(tmp_path / "from" / name, **options))  # type: ignore[arg-type]
    recording = Recording(
        dataset="d", scene="s", view="v", perspective="exo", subject="", action="", path=name,
        kind="video", fps=info.fps, num_frames=info.num_frames, height_px=info.height_px, width_px=info.width_px,
    )  # fmt: skip
    catalog = prepare(Catalog(tmp_path / "from", (recording,)), tmp_path / "to", size_px=48)
    copy = catalog.file(catalog.recordings[0])
    whole = sequential(copy, "rgb24")
    assert len(whole) == probe(copy).num_frames == 30
    assert min(whole.shape[1:3]) == 48
    turned = np.rot90(whole, -1, axes=(1, 2)) if name == "rotated.mp4" else whole
    assert [videos.barcode(frame) for frame in turned] == list(range(30))
    for decoder in ("pyav", "decord"):
        found = decode(copy, ASKED, decoder=decoder)  # type: ignore[arg-type]
        np.testing.assert_allclose(found.astype(int), whole[ASKED], atol=2)  # two versions of swscale
        every = decode(copy, np.arange(30), size_px=32, decoder=decoder)  # type: ignore[arg-type]
        assert every.shape == (30, 32, 32, 3)
        np.testing.assert_array_equal(decode(copy, ASKED, size_px=32, decoder=decoder), every[ASKED])  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["b_frames.mp4", "late_start.mp4", "variable_rate.mkv"])
def test_decord_refuses_files_that_it_may_misnumber(tmp_path: Path, name: str) -> None:
    path = videos.write(tmp_path / name, **KINDS[name])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"may return wrong frames here .*B-frames.*crossview prepare"):
        decode(path, ASKED, decoder="decord")


@pytest.mark.parametrize("turn", [90, 180, -90])
@pytest.mark.parametrize("pixels", ["rgb", "yuv420"])
def test_rotation_is_applied(tmp_path: Path, turn: int, pixels: Pixels) -> None:
    """A display matrix turns the picture counter-clockwise, as players do."""
    path = videos.write(tmp_path / "x.mp4", rotation=turn, frames=5)
    height, width = (64, 96) if turn == 180 else (96, 64)
    assert (probe(path).height_px, probe(path).width_px) == (height, width)
    found = decode(path, np.array([0, 3]), pixels=pixels)[1]
    found = found if pixels == "rgb" else found[:height]
    assert videos.barcode(np.rot90(found, -turn // 90)) == 3


def test_colour_matrix_and_range_of_the_file_are_used(tmp_path: Path) -> None:
    expected = videos.picture(7).astype(int)
    for bt709 in (False, True):
        path = videos.write(tmp_path / f"{bt709}.mp4", bt709=bt709)
        rgb = decode(path, np.array([7]))[0].astype(int)
        assert abs(rgb - expected).mean() < 4
        planes = decode(path, np.array([7]), pixels="yuv420")[0]
        again = av.VideoFrame.from_ndarray(planes, format="yuv420p").to_ndarray(format="rgb24", src_colorspace=5)
        assert abs(again.astype(int) - expected).mean() < 4  # always BT.601, whatever the file has


def test_sizes(tmp_path: Path) -> None:
    path = videos.write(tmp_path / "x.mkv", height=66, width=98)
    frames = np.array([1])
    assert decode(path, frames).shape == (1, 66, 98, 3)
    assert decode(path, frames, size_px=33).shape == (1, 33, 33, 3)
    assert decode(path, frames, pixels="yuv420").shape == (1, 99, 98)
    assert decode(path, frames, pixels="yuv420", size_px=32).shape == (1, 48, 32)
    with pytest.raises(ValueError, match=r"size_px is 33; it must be even"):
        decode(path, frames, pixels="yuv420", size_px=33)


@pytest.mark.parametrize("frames", [[], [3, 3], [4, 1], [-1, 2]])
def test_indices_must_be_sorted_and_unique(tmp_path: Path, frames: list[int]) -> None:
    with pytest.raises(ValueError, match=r"must be one or more sorted unique indices"):
        decode(tmp_path / "x.mp4", np.array(frames, np.int64))


def test_unknown_decoder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"decoder is 'gstreamer'; choose from pyav, decord"):
        decode(tmp_path / "x.mp4", np.array([0]), decoder="gstreamer")  # type: ignore[arg-type]


@pytest.mark.parametrize("decoder", ["pyav", "decord"])
def test_missing_frame_names_file_frame_and_count(tmp_path: Path, decoder: str) -> None:
    path = videos.write(tmp_path / "short.mp4", frames=10)
    with pytest.raises(UnreadableVideo, match=r"short\.mp4: .*frame 12 was asked for, but .* finds 10 frames"):
        decode(path, np.array([2, 12]), decoder=decoder)  # type: ignore[arg-type]


@pytest.mark.parametrize("damage", ["truncated", "corrupt", "empty", "text", "absent", "audio"])
def test_damaged_files_are_named(tmp_path: Path, damage: str) -> None:
    path = tmp_path / f"{damage}.mp4"
    if damage == "truncated":
        videos.truncate(videos.write(path, frames=40))
    elif damage == "corrupt":
        videos.corrupt(videos.write(path, frames=60))
    elif damage in ("empty", "text"):
        path.write_text("" if damage == "empty" else "not a video" * 50)
    elif damage == "audio":
        with av.open(str(path), "w") as container:
            sound = container.add_stream("aac", rate=48000)
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate = 48000
            container.mux([*sound.encode(frame), *sound.encode(None)])
    for attempt in (lambda: probe(path), lambda: decode(path, np.array([39]))):
        with pytest.raises(UnreadableVideo, match=rf"{damage}\.mp4: "):
            attempt()
    with pytest.raises(ValueError, match=rf"{damage}\.mp4: "):
        decode(path, np.array([39]), decoder="decord")


def test_truncation_between_packets_is_found(tmp_path: Path) -> None:
    path = videos.write(tmp_path / "x.mp4", frames=40)
    with av.open(str(path)) as container:
        cut = container.streams.video[0].index_entries[25].pos
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(UnreadableVideo, match=r"x\.mp4: "):
        probe(path)


def test_time_limit_pyav(tmp_path: Path) -> None:
    path = videos.write(tmp_path / "x.mp4")
    with pytest.raises(UnreadableVideo, match=r"x\.mp4: decoding took longer than the limit of 0 s"):
        decode(path, np.array([20]), time_limit_s=0.0)


@pytest.mark.usefixtures("reading_in_process")
def test_the_time_limit_is_on_all_frames_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, ticks = videos.write(tmp_path / "x.mp4", frames=24), itertools.count()
    clock = SimpleNamespace(monotonic=lambda: 0.1 * next(ticks))
    monkeypatch.setattr("crossview.datasets.video.frames.time", clock)
    with pytest.raises(UnreadableVideo, match=r"x\.mp4: decoding took longer than the limit of 1 s"):
        decode(path, np.array([20]), time_limit_s=1.0)


def test_time_limit_kills_a_hanging_decord(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = videos.write(tmp_path / "x.mp4")
    (tmp_path / "decord.py").write_text("import time\ntime.sleep(600)\n")  # the child imports this in decord's place
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("crossview.datasets.video.child._idle", [])  # the next one has this path
    start = time.monotonic()
    with pytest.raises(UnreadableVideo, match=r"x\.mp4: reading it did not advance for the limit of 2 s"):
        decode(path, np.array([20]), decoder="decord", time_limit_s=2.0)
    assert time.monotonic() - start < 300  # it did not wait for the child to end by itself


def test_real_footage_streams_exactly() -> None:
    root = Path(__file__).parents[2] / "shared" / "data" / "single_person"
    files = sorted(root.glob("*.mp4"))
    if not files:
        pytest.skip("the footage is not here")
    info = probe(files[0])
    assert (info.num_frames, info.fps) == (100, 60.0)
    every = decode(files[0], np.arange(40), size_px=64)
    np.testing.assert_array_equal(decode(files[0], np.array([0, 17, 39]), size_px=64), every[[0, 17, 39]])


def test_a_long_file_may_take_longer_in_proportion(monkeypatch: pytest.MonkeyPatch) -> None:
    """60 s for 1800 frames: 0.03 s per frame is within the limit however many follow, 0.034 s is not."""
    now = 0.0
    monkeypatch.setattr("crossview.datasets.video.frames.time.monotonic", lambda: now)

    def frames_within(seconds_each: float, frames: int) -> int:
        nonlocal now
        limit = Limit(Path("long.mp4"), 60.0)
        for count in range(frames):
            now += seconds_each
            try:
                limit.frame_read()
            except UnreadableVideo:
                return count
            now += 5.0  # what the caller does with a frame does not count
            limit.resume()
        return frames

    assert frames_within(0.03, 20_000) == 20_000
    assert frames_within(0.034, 20_000) == 1764  # 60 s are used up


@pytest.mark.parametrize(
    ("space", "red", "blue"), [(1, 0.2126, 0.0722), (9, 0.2627, 0.0593), (10, 0.2627, 0.0593), (2, 0.299, 0.114)]
)
def test_the_matrix_that_a_file_states_is_used(space: int, red: float, blue: float) -> None:
    """BT.709, BT.2020 and, for none stated, BT.601: by the weights of red and blue in luma, in limited range."""
    frame = av.VideoFrame(16, 16, "yuv420p")
    frame.colorspace, frame.color_range = space, 1
    for plane, value in zip(frame.planes, (120, 90, 180), strict=True):
        plane.update(bytes([value]) * plane.buffer_size)
    luma, b, r = (120 - 16) / 219, (90 - 128) / 224, (180 - 128) / 224
    r, b = luma + 2 * (1 - red) * r, luma + 2 * (1 - blue) * b
    g = (luma - red * r - blue * b) / (1 - red - blue)
    assert np.abs(rgb(frame, Framing())[8, 8] - 255 * np.array([r, g, b])).max() <= 2


def test_a_picture_that_shrinks_is_the_mean_of_its_areas() -> None:
    values = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    frame = av.VideoFrame.from_ndarray(np.stack([values] * 3, -1), format="rgb24")
    small = rgb(frame, Framing(size=(16, 16)))[..., 0]
    assert np.abs(small - values.reshape(16, 4, 16, 4).mean((1, 3))).max() < 3
