"""torchcodec, an optional package, gives the frames that a sequential decode gives."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import clock_videos as clock
import numpy as np
import pytest
import seek_videos
import videos
from other_decoders import check_framings, check_kind

from crossview.datasets.video.decode import decode, read_clips
from crossview.datasets.video.frames import UnreadableVideo
from crossview.datasets.video.indexing import scan
from crossview.datasets.video.source import Source, Wanted
from crossview.datasets.video.torchcodec_decoder import TorchCodec
from crossview.errors import UserError

KINDS: dict[str, dict[str, object]] = {
    "plain.mp4": {},
    "b_frames.mp4": {"b_frames": 3},
    "open_gop.mkv": {"b_frames": 3, "x264": "open-gop=1"},
    "late_start.mp4": {"start_s": 0.3, "b_frames": 2},
    "variable_rate.mkv": {"variable": True, "b_frames": 3},
    "rotated.mp4": {"rotation": 90},
}

REFUSED = (
    "negative start",
    "MPEG-4 in AVI",
    *(kind for kind in seek_videos.KINDS if kind.startswith("transport stream")),
)
"""Of seek_videos.KINDS."""


@pytest.fixture(scope="session")
def torchcodec(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skips where it cannot be used, and says why."""
    file = videos.write(tmp_path_factory.mktemp("torchcodec") / "x.mp4", frames=2)
    try:
        decode(file, np.array([0]), decoder="torchcodec")
    except UserError as error:
        if "decoder 'torchcodec' needs" not in str(error):
            raise
        pytest.skip(str(error))


@pytest.mark.usefixtures("torchcodec")
@pytest.mark.parametrize("indexed", [True, False])
@pytest.mark.parametrize("name", KINDS)
def test_frames_are_those_of_a_sequential_decode(tmp_path: Path, name: str, indexed: bool) -> None:
    file = videos.write(tmp_path / name, frames=60, **KINDS[name])  # type: ignore[arg-type]
    source = Source(file)
    if indexed:
        scan(file, time_limit_s=60.0)[1].write(tmp_path / "index.npz")
        source = replace(source, index=tmp_path / "index.npz")
    wanted = [Wanted(np.array(frames)) for frames in ([40, 41, 41, 58], [3, 17, 59], [0])]
    found = read_clips(source, wanted, decoder="torchcodec")
    for clip, w, expected in zip(found, wanted, read_clips(Source(file), wanted), strict=True):
        upright = np.rot90(clip, -1, axes=(1, 2)) if name == "rotated.mp4" else clip
        assert [videos.barcode(frame) for frame in upright] == w.frames.tolist()
        assert np.abs(clip.astype(int) - expected).mean() < 2  # two conversions to RGB


@pytest.mark.usefixtures("torchcodec")
@pytest.mark.parametrize(
    "matrix", [(a, 0, 0, d) for a in (1, -1) for d in (1, -1)] + [(0, b, c, 0) for b in (1, -1) for c in (1, -1)]
)
def test_turned_files_are_read_and_mirrored_ones_refused(tmp_path: Path, matrix: tuple[int, int, int, int]) -> None:
    file = videos.write(tmp_path / "x.mp4", frames=3)
    clock.set_display_matrix(file, *matrix, 64, 96)
    if matrix[0] * matrix[3] - matrix[1] * matrix[2] < 0:
        with pytest.raises(UserError, match=r"x\.mp4: decoder 'torchcodec' does not mirror"):
            decode(file, np.array([2]), decoder="torchcodec")
        return
    found, expected = (decode(file, np.array([2]), decoder=name)[0] for name in ("torchcodec", "pyav"))
    assert np.abs(found.astype(int) - expected).mean() < 2


@pytest.mark.usefixtures("torchcodec")
@pytest.mark.parametrize("kind", seek_videos.KINDS)
def test_every_kind_of_file_is_read_exactly_or_refused(tmp_path: Path, kind: str) -> None:
    refusal = "decoder 'torchcodec' returns a wrong frame here" if kind in REFUSED else None
    check_kind("torchcodec", kind, tmp_path, refusal, 5, unindexed=False)


@pytest.mark.usefixtures("torchcodec")
def test_clips_of_several_framings_and_a_later_first_frame(tmp_path: Path) -> None:
    check_framings("torchcodec", tmp_path)


@pytest.mark.usefixtures("torchcodec")
def test_another_time_stamp_than_the_indexs_is_refused(tmp_path: Path) -> None:
    file = videos.write(tmp_path / "x.mp4")
    index = scan(file, time_limit_s=60.0)[1]
    replace(index, pts=index.pts + (np.arange(30) >= 20) * 20).write(tmp_path / "index.npz")
    source = Source(file, index=tmp_path / "index.npz")
    assert len(read_clips(source, [Wanted(np.array([19]))], decoder="torchcodec")) == 1
    with pytest.raises(UserError, match=r"x\.mp4: decoder 'torchcodec' returns a wrong frame here \(frame 20 from "):
        read_clips(source, [Wanted(np.array([20]))], decoder="torchcodec")


@pytest.mark.usefixtures("torchcodec")
def test_damaged_and_short_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("not a video" * 50)
    with pytest.raises(UnreadableVideo, match=r"text\.mp4: "):
        decode(tmp_path / "text.mp4", np.array([0]), decoder="torchcodec")
    with pytest.raises(UnreadableVideo, match=r"short\.mp4: frame 12 was asked for, but torchcodec finds 10 frames"):
        decode(videos.write(tmp_path / "short.mp4", frames=10), np.array([12]), decoder="torchcodec")


def test_without_the_package_the_fix_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    with pytest.raises(UserError, match=r"needs the package torchcodec .*pip install 'crossview\[torchcodec\]'"):
        TorchCodec().read(
            Source(videos.write(tmp_path / "x.mp4", frames=2)), [Wanted(np.array([0]))], pixels="rgb", time_limit_s=60.0
        )
