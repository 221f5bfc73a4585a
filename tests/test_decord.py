"""decord reads only what it numbers rightly, in one warm child process."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import seek_videos
import videos
from other_decoders import check_framings, check_kind, indexed

from crossview.datasets.video import decord_decoder
from crossview.datasets.video.child import call
from crossview.datasets.video.decode import decode, read_clips
from crossview.datasets.video.source import Wanted
from crossview.errors import UserError


def test_clips_of_several_framings_and_a_later_first_frame(tmp_path: Path) -> None:
    check_framings("decord", tmp_path)


READ = ("closed groups of 8", "key frames only", "a single frame")
"""Of seek_videos.KINDS; the others are refused."""
NO_ENTRIES = {"entry_frames": np.empty(0, np.int64), "entry_stamps": np.empty(0, np.int64)}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"pts": np.arange(59) * 512, "checks": np.zeros(59, np.uint32), **NO_ENTRIES}, r"60 frames, not 59"),
        ({"pts": np.arange(60) * 700}, r"other time stamps"),
        ({"entry_frames": np.array([0, 13]), "entry_stamps": np.array([0, 13 * 512])}, r"other key frames"),
    ],
)
def test_what_differs_from_the_index_is_refused(tmp_path: Path, changes: dict[str, np.ndarray], reason: str) -> None:
    source = indexed(tmp_path, **changes)
    with pytest.raises(UserError, match=rf"x\.mp4: decoder 'decord' may return wrong frames here \({reason}.*prepare"):
        read_clips(source, [Wanted(np.array([3, 40]))], decoder="decord")


@pytest.mark.parametrize("kind", seek_videos.KINDS)
def test_every_kind_of_file_is_read_exactly_or_refused(tmp_path: Path, kind: str) -> None:
    refusal = None if kind in READ else "decoder 'decord' may return wrong frames here"
    check_kind("decord", kind, tmp_path, refusal, 3, unindexed=True)


@pytest.mark.usefixtures("reading_in_process")
def test_the_verdict_on_a_file_is_kept_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, opened = videos.write(tmp_path / "x.mp4"), []

    def counted(*arguments: object) -> object:
        opened.append(arguments)
        return original(*arguments)  # type: ignore[arg-type]

    original = decord_decoder.opened
    monkeypatch.setattr(decord_decoder, "opened", counted)
    for _ in range(3):
        decode(file, np.array([7]), decoder="decord")
    assert len(opened) == 1
    videos.write(file, b_frames=3)
    with pytest.raises(UserError, match="B-frames"):
        decode(file, np.array([7]), decoder="decord")


def test_clips_are_read_by_one_process(tmp_path: Path) -> None:
    file = videos.write(tmp_path / "x.mp4")
    before = call(file, [], 60.0, os.getpid)
    for k in range(3):
        decode(file, np.array([k]), decoder="decord")
    assert call(file, [], 60.0, os.getpid) == before
