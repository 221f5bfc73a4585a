"""What is noticed when a file, its index or the time does not allow a seek, and what an index is made of."""

from __future__ import annotations

import dataclasses
import itertools
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import clock_videos as clock
import numpy as np
import pytest
import seek_videos
from PIL import Image

from crossview.datasets.sampling.geometry import SQUASH
from crossview.datasets.sampling.plan import Plan
from crossview.datasets.sampling.spec import Sampling, View
from crossview.datasets.video import indexing
from crossview.datasets.video.consecutive import consecutive
from crossview.datasets.video.conversion import yuv420
from crossview.datasets.video.decode import read_clips
from crossview.datasets.video.frame_index import FrameIndex, fingerprint
from crossview.datasets.video.frames import TooSlow, UnreadableVideo, sequential
from crossview.datasets.video.framing import Framing
from crossview.datasets.video.indexing import index_of
from crossview.datasets.video.source import Source, Wanted
from crossview.platform.config import Data
from crossview.platform.data.decoder import Shard
from crossview.platform.data.row_decoder import RowDecoder

pytestmark = pytest.mark.usefixtures("reading_in_process")


def indexed(root: Path, kind: str = "closed groups of 8") -> Source:
    root.mkdir(exist_ok=True)
    file = seek_videos.KINDS[kind](root)
    return Source(file, index=Path(index_of(file, root / "index", 6e4).index))


def shown(source: Source, *frames: int) -> list[int]:
    (clip,) = read_clips(source, [Wanted(np.array(frames))])
    return [clock.read(picture) for picture in clip]


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every look at the clock takes a second."""
    ticks = itertools.count()
    monkeypatch.setattr("crossview.datasets.video.frames.time", SimpleNamespace(monotonic=lambda: float(next(ticks))))


def test_an_index_of_more_frames_than_the_file_has_gives_no_picture(tmp_path: Path) -> None:
    source = indexed(tmp_path)
    assert source.index is not None
    index = FrameIndex.read(source.index)
    later = index.pts[-1] + 3000 * np.arange(1, 4)
    longer = dataclasses.replace(
        index, pts=np.append(index.pts, later), checks=np.append(index.checks, index.checks[:3])
    )
    longer.write(tmp_path / "longer.npz")
    wrong = dataclasses.replace(source, index=tmp_path / "longer.npz")
    with (
        pytest.warns(UserWarning, match=r"a\.mp4: seeking gives other pictures"),
        pytest.raises(UnreadableVideo, match=r"a\.mp4: frame 91 was asked for, but a sequential decode finds 90"),
    ):
        shown(wrong, 88, 91)


def test_a_frame_beyond_the_index_is_named_without_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = indexed(tmp_path)
    monkeypatch.setattr("crossview.datasets.video.seeking.sequential", None)
    with pytest.raises(UnreadableVideo, match=r"a\.mp4: frame 90 was asked for, but a sequential decode finds 90"):
        shown(source, 89, 90)


def damaged_in_the_middle(root: Path) -> Source:
    """An indexed transport stream of 180 frames that says of one packet between its ends that it is damaged."""
    file = clock.write(root / "a.ts", np.arange(180) / 30, show=range(180), options=seek_videos.CLOSED)
    source = Source(file, index=Path(index_of(file, root / "index", 60.0).index))
    data = bytearray(file.read_bytes())
    data[len(data) // 188 // 2 * 188 + 1] |= 0x80  # transport_error_indicator
    before = fingerprint(file)
    file.write_bytes(data)
    assert fingerprint(file) == before
    return source


def test_damage_that_the_container_states_is_noticed_by_a_seek(tmp_path: Path) -> None:
    """In a transport stream: the flag of one packet between the ends, which the index does not know of."""
    source = damaged_in_the_middle(tmp_path)
    assert shown(source, 3, 170) == [3, 170]
    with pytest.warns(UserWarning, match="seeking gives"), pytest.raises(UnreadableVideo, match="damaged in packet"):
        shown(source, *range(60, 120))


@pytest.mark.filterwarnings("ignore:.*the file is read from its start")
def test_rows_that_a_seek_leads_past_the_damage_are_not_replaced(tmp_path: Path) -> None:
    """Whatever has failed before."""
    lines = "path,split,scene,view,perspective\na.ts,train,a,left,exo\nb.mp4,train,b,left,exo\n"
    clock.write(tmp_path / "a.ts", np.arange(180) / 30, show=range(180), options=seek_videos.CLOSED)
    clock.write(tmp_path / "b.mp4", np.arange(180) / 30, show=range(180), options=seek_videos.CLOSED)
    catalog = clock.catalog(tmp_path, lines)
    damaged = damaged_in_the_middle(tmp_path)
    view = View(perspective="exo", frames=12, fps=15.0, size_px=96, geometry=SQUASH)
    plan = Plan(catalog, Sampling(views={"x": view}, pairing="single"), 0)
    rows = [plan.row(i).clips[0][0] for i in range(60)]
    shard = Shard(start_step=0, stop_step=60, batch=1, micro_batch=1)
    out = RowDecoder(plan, Data(catalog=tmp_path, max_quarantined=1.0), shard).decode(np.arange(60))
    failed: list[int] = []
    later = 0
    for k, clip in enumerate(rows):
        assert clip is not None
        own = out["x/frames"][k, 0].tolist() == clip.frames.tolist()
        if catalog.recordings[clip.recording].scene == "b":
            assert own
            continue
        try:
            read_clips(damaged, [Wanted(clip.frames)])
        except UnreadableVideo:
            failed.append(int(clip.frames[-1]))
            assert not own
        else:
            later += any(clip.frames[-1] >= last for last in failed)
            assert own
    assert failed
    assert later


@pytest.mark.parametrize("way", ["cataloguing", "forward", "seeking", "images"])
def test_reading_reports_that_it_advances(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """Or else a file that takes longer than the limit of one call would be taken for one that hangs."""
    source = indexed(tmp_path)
    for k in range(40):
        Image.new("RGB", (64, 48)).save(tmp_path / f"{k}.png")
    reports: list[int] = []
    monkeypatch.setattr("crossview.datasets.video.frames.progressed", lambda: reports.append(1))
    if way == "cataloguing":
        indexing.scan(source.path, time_limit_s=60.0)
    elif way == "images":
        read_clips(Source(tmp_path / "*.png", "frames"), [Wanted(np.arange(40))])
    else:
        source = source if way == "seeking" else dataclasses.replace(source, index=None)
        read_clips(source, [Wanted(np.arange(50, 90))])
    assert len(reports) >= 40


@pytest.mark.usefixtures("slow")
def test_the_time_of_frames_that_are_passed_over_counts_once(tmp_path: Path) -> None:
    source = indexed(tmp_path)
    (clip,) = read_clips(source, [Wanted(np.array([47]))], time_limit_s=30.0)  # 8 frames of at most 3 s
    assert clock.read(clip[0]) == 47
    with pytest.raises(TooSlow):
        read_clips(source, [Wanted(np.array([47]))], time_limit_s=15.0)


@pytest.mark.usefixtures("slow")
def test_what_is_too_slow_is_not_read_from_its_start(tmp_path: Path) -> None:
    source = dataclasses.replace(indexed(tmp_path), first_frame=40)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(TooSlow):
            read_clips(source, [Wanted(np.array([7]))], time_limit_s=5.0)
        with pytest.raises(TooSlow):
            list(consecutive(source, 20, 5.0))


def test_a_changed_file_is_not_read_consecutively(tmp_path: Path) -> None:
    source = indexed(tmp_path)
    source.path.write_bytes(source.path.read_bytes() + b"more")
    for first in (0, 40):
        with pytest.raises(UnreadableVideo, match=r"a\.mp4: it has changed since it was catalogued"):
            next(consecutive(dataclasses.replace(source, first_frame=first), 5, 60.0))


@pytest.mark.parametrize(("place", "noticed"), [(10, True), (-10, True), (50_000, False)])
def test_a_fingerprint_is_of_both_ends(tmp_path: Path, place: int, *, noticed: bool) -> None:
    data = bytearray(100_000)
    (tmp_path / "a").write_bytes(data)
    before = fingerprint(tmp_path / "a")
    data[place] = 1
    (tmp_path / "a").write_bytes(data)
    assert (fingerprint(tmp_path / "a") != before) == noticed


def test_a_file_that_changes_while_it_is_read_is_not_indexed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = seek_videos.KINDS["closed groups of 8"](tmp_path)

    def growing(*arguments: object) -> Iterator[object]:
        yield from sequential(*arguments)  # type: ignore[arg-type]
        file.write_bytes(file.read_bytes() + b"more")

    monkeypatch.setattr(indexing, "sequential", growing)
    with pytest.raises(UnreadableVideo, match=r"a\.mp4: it changed while it was read; try again"):
        index_of(file, tmp_path / "index", 60.0)
    assert not list(tmp_path.glob("index/*"))


def test_a_file_that_was_written_anew_is_indexed_anew(tmp_path: Path) -> None:
    file = clock.write(tmp_path / "a.mp4", np.arange(30) / 30)
    first = index_of(file, tmp_path / "index", 60.0)
    clock.write(file, np.arange(40) / 30)
    again = index_of(file, tmp_path / "index", 60.0)
    assert (first.num_frames, again.num_frames) == (30, 40)
    assert first.index != again.index


def test_key_frames_that_an_edit_list_hides_are_no_entries(tmp_path: Path) -> None:
    whole = clock.write(tmp_path / "w.mp4", seek_videos.TIMES_S, show=range(90), options=seek_videos.CLOSED)
    file = seek_videos._remuxed(whole, tmp_path / "hidden.mp4", -20 / 30)
    source = Source(file, index=Path(index_of(file, tmp_path / "index", 60.0).index))
    every = [yuv420(frame, Framing()) for frame, _ in sequential(file, 60.0)]
    (clip,) = read_clips(source, [Wanted(np.arange(len(every)))], pixels="yuv420")
    np.testing.assert_array_equal(clip, every)
    assert source.index is not None
    assert FrameIndex.read(source.index).entry_frames[-1] == len(every) - 2  # frame 88 of 90


def test_times_that_are_some_milliseconds_off_are_a_rate_that_varies(tmp_path: Path) -> None:
    file = clock.write(tmp_path / "a.mp4", np.arange(60) / 30 + 0.004 * (np.arange(60) % 2))
    assert not index_of(file, tmp_path / "index", 60.0).constant_rate


@pytest.mark.parametrize("dropped", [[], [40], [10, 40, 70]])
def test_a_frame_that_is_dropped_is_a_rate_that_varies_however_long_a_tick_is(
    tmp_path: Path, dropped: list[int]
) -> None:
    """AVI counts time in frames."""
    times_s = np.delete(np.arange(90), dropped) / 30
    file = clock.write(tmp_path / "a.avi", times_s, codec="mpeg4", options={"g": "12", "q:v": "2"}, ticks=30)
    info, index = indexing.scan(file, time_limit_s=60.0)
    assert float(index.time_base) == pytest.approx(1 / 30)
    np.testing.assert_allclose(index.times_s, times_s, atol=1e-6)
    assert info.constant_rate == (not dropped)


def test_time_stamps_that_do_not_rise_are_not_used() -> None:
    assert indexing._stamps([0, 1, 2]) is not None
    assert indexing._stamps([0, 1, 1, 2]) is None
    assert indexing._stamps([0, None, 2]) is None


@pytest.mark.usefixtures("slow")
def test_a_file_that_is_slow_to_open_is_not_called_damaged(tmp_path: Path) -> None:
    """What the time limit cuts off looks the same to the library as a file that ends there."""
    (tmp_path / "x.mp4").write_bytes(b"no video")
    with pytest.raises(TooSlow, match=r"x\.mp4: decoding took longer than the limit of 0\.5 s"):
        next(sequential(tmp_path / "x.mp4", 0.5))
    with pytest.raises(UnreadableVideo, match=r"x\.mp4: it is no video file"):
        next(sequential(tmp_path / "x.mp4", 60.0))
