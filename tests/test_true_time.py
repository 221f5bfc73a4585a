"""Cameras of different and variable rates, with late starts and gaps, show the same instants."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import clock_videos as clock
import numpy as np
import pytest
import seek_videos

from crossview.datasets.catalog import Catalog, Recording
from crossview.datasets.catalog.labels import Labels
from crossview.datasets.catalog.recording import Segment
from crossview.datasets.sampling.evaluation_clips import evaluation_clips
from crossview.datasets.sampling.plan import Plan
from crossview.datasets.sampling.spec import Sampling, View
from crossview.datasets.sampling.windows import Cut, Starts, common_frames, common_instants, proportional
from crossview.datasets.video.copies import prepare
from crossview.datasets.video.decode import read_clips
from crossview.datasets.video.source import Wanted

LENGTH_S = 6.0
EGO_S = 0.4 + np.arange(140) / 25
EXO = {
    "25 per s, 0.4 s late": (0.4 + np.arange(140) / 25, 0.02),
    "30000 / 1001 per s": (np.arange(0, LENGTH_S, 1001 / 30000), 0.02),
    "60 per s": (np.arange(0, LENGTH_S, 1 / 60), 0.02),
    "30, then 20 per s": (np.concatenate([np.arange(0, 3, 1 / 30), np.arange(3, 6, 1 / 20)]), 0.02),
    "a second missing": (np.concatenate([np.arange(0, 2, 1 / 30), np.arange(3, 6, 1 / 30)]), 0.02),
    "two seconds missing at 60 per s": (np.concatenate([np.arange(0, 2, 1 / 60), np.arange(4, 6, 1 / 60)]), 0.02),
    "jitter": (np.arange(0, LENGTH_S, 1 / 30) + 0.008 * np.sin(np.arange(180)), 0.02),
}
"""Times of the other camera's frames on the scene's clock, and half a frame of the slower camera in s."""


def two_cameras(root: Path, exo_s: np.ndarray, offset_s: float = 0.0) -> Catalog:
    """Each picture shows its instant in 1/100 s; the exo file's own clock is `offset_s` behind the scene's."""
    clock.write(root / "ego.mp4", EGO_S - 0.4, scene_start_s=0.4, rate=25)
    clock.write(root / "exo.mp4", exo_s - offset_s, scene_start_s=offset_s)
    header = "path,split,scene,view,perspective,start_offset_s\n"
    rows = f"{header}ego.mp4,train,s,head,ego,0.4\nexo.mp4,train,s,left,exo,{exo_s[0]}\n"
    return clock.catalog(root, rows)


@pytest.mark.parametrize("kind", EXO)
def test_synchronized_clips_show_the_same_instants(tmp_path: Path, kind: str) -> None:
    exo_s, half_s = EXO[kind]
    found = two_cameras(tmp_path, exo_s)
    assert clock.apart_s(clock.clips(found, tmp_path)) <= half_s + 0.011  # pictures show whole hundredths


def test_cameras_with_gaps_at_different_times_show_the_instants_that_both_have(tmp_path: Path) -> None:
    ego_s = np.delete(np.arange(150) / 25, np.arange(25, 50))  # the second from 1 s is missing
    exo_s = np.delete(np.arange(180) / 30, np.arange(90, 120))  # that from 3 s
    clock.write(tmp_path / "ego.mp4", ego_s, rate=25)
    clock.write(tmp_path / "exo.mp4", exo_s)
    found = clock.catalog(tmp_path, clock.PAIR.format(exo="exo.mp4"))
    assert not any(recording.constant_rate for recording in found.recordings)
    pairs = clock.clips(found, tmp_path)
    assert clock.apart_s(pairs) <= 0.75 * 6 / 150 + 0.011  # pictures show whole hundredths
    starts = [ego[0] for ego, _ in pairs]
    assert min(starts) < 100  # both sides of the gaps are drawn
    assert max(max(ego) for ego, _ in pairs) > 450
    at_s = common_instants(found, list(found.recordings), 40)
    assert not np.any((at_s > 1.03) & (at_s < 1.97) | (at_s > 3.03) & (at_s < 3.97))


def test_a_catalog_that_was_saved_and_moved_keeps_the_times(tmp_path: Path) -> None:
    found = two_cameras(tmp_path / "a", EXO["30, then 20 per s"][0])
    found.save(tmp_path / "a" / "catalog")
    (tmp_path / "a").rename(tmp_path / "b")
    moved = Catalog.load(tmp_path / "b" / "catalog", tmp_path / "b")
    assert clock.apart_s(clock.clips(moved, tmp_path)) <= 0.031


@pytest.mark.parametrize("kind", ["30, then 20 per s", "a second missing", "in a stream"])
def test_copies_give_the_synchronized_clips_of_their_originals(tmp_path: Path, kind: str) -> None:
    """In a stream, the picture begins 0.564 s after the sound and the clock wraps."""
    if kind == "in a stream":
        exo = seek_videos.KINDS["transport stream beside sound whose clock wraps"](tmp_path)
        clock.write(tmp_path / "ego.mp4", EGO_S - 0.4, scene_start_s=0.4, rate=25)
        found = clock.catalog(tmp_path, clock.PAIR.format(exo=exo.name))
    else:
        found = two_cameras(tmp_path, EXO[kind][0])
    prepared = prepare(found, tmp_path / "copies", size_px=96)
    of_files, of_copies = (clock.batch(c, c.root, rows=15) for c in (found, prepared))
    assert of_files.keys() == of_copies.keys()
    for name in of_files.keys() - {"ego", "exo"}:
        np.testing.assert_array_equal(of_files[name], of_copies[name])
    for a, b in zip(found.recordings, prepared.recordings, strict=True):
        every = np.arange(a.num_frames)
        np.testing.assert_allclose(prepared.instants(b, every), found.instants(a, every), atol=1e-6)
    assert clock.shown(of_copies) == clock.shown(of_files)
    for name in ("ego", "exo"):
        apart = np.abs(of_files[name].astype(int) - of_copies[name])
        assert 0 < apart.max() <= 8  # copies are encoded once more


def shown(catalog: Catalog, recording: Recording, frames: np.ndarray) -> np.ndarray:
    """Instants in s that the pictures show."""
    (clip,) = read_clips(catalog.source(recording), [Wanted(frames)])
    return np.array([clock.read(frame) for frame in clip]) / 100


@pytest.mark.parametrize("kind", ["30, then 20 per s", "a second missing"])
def test_a_window_has_the_frames_nearest_to_its_instants(tmp_path: Path, kind: str) -> None:
    exo_s = EXO[kind][0]
    catalog = two_cameras(tmp_path, exo_s)
    view = View(perspective="exo", frames=8, fps=5.0, size_px=96)
    plan = Plan(catalog, Sampling(views={"exo": view}, pairing="single"), 0)
    for i in range(20):
        ((clip,),) = plan.row(i).clips
        assert clip is not None
        wanted_s = exo_s[clip.frames[0]] + np.arange(8) / 5
        nearest_s = np.abs(exo_s[None] - wanted_s[:, None]).min(1)
        np.testing.assert_allclose(np.abs(exo_s[clip.frames] - wanted_s), nearest_s, atol=1e-6)
        np.testing.assert_allclose(shown(catalog, catalog.recordings[1], clip.frames), exo_s[clip.frames], atol=0.006)


def test_instants_and_frames_are_each_others_inverse(tmp_path: Path) -> None:
    catalog = two_cameras(tmp_path, EXO["a second missing"][0])
    for recording in catalog.recordings:
        every = np.arange(recording.num_frames)
        instants = catalog.instants(recording, every)
        np.testing.assert_array_equal(catalog.frames_at(recording, instants), every)
        np.testing.assert_array_equal(catalog.frames_at(recording, np.array([-9.0, 99.0])), [0, every[-1]])
    exo = catalog.recordings[1]
    assert not exo.constant_rate
    np.testing.assert_array_equal(catalog.frames_at(exo, np.array([2.1, 2.4, 2.6, 2.97])), [59, 59, 60, 60])
    assert exo.end_s == pytest.approx(catalog.instants(exo, np.array([exo.num_frames - 1]))[0])


def test_a_recording_of_one_frame_has_its_instant(tmp_path: Path) -> None:
    clock.write(tmp_path / "one.mp4", [0.0])
    catalog = clock.catalog(tmp_path, "path,split,scene,view,perspective\none.mp4,train,s,left,exo\n")
    one = catalog.recordings[0]
    varied = dataclasses.replace(one, constant_rate=False)
    for recording in (one, varied):
        np.testing.assert_array_equal(catalog.frames_at(recording, np.array([-1.0, 0.0, 7.0])), [0, 0, 0])


def test_evaluation_clips_start_at_common_instants(tmp_path: Path) -> None:
    catalog = two_cameras(tmp_path, EXO["30, then 20 per s"][0])
    view = View(perspective="any", frames=4, fps=5.0, size_px=96)
    ego, exo = evaluation_clips(catalog, {"ego": view, "exo": view}, 3)
    for k in range(3):
        pair = [shown(catalog, r, w.frames[k]) for r, w in zip(catalog.recordings, (ego, exo), strict=True)]
        assert np.abs(pair[0] - pair[1]).max() <= 0.05  # each within half a frame of the instant


def test_paired_clips_are_at_the_same_share_of_the_time(tmp_path: Path) -> None:
    """The exo camera makes two thirds of its frames in the first half of its time."""
    exo_s = np.concatenate([np.arange(0, 2, 1 / 40), np.arange(2, 4, 1 / 20)])
    catalog = two_cameras(tmp_path, exo_s)
    views = {p: View(perspective=p, frames=5, spread="even", size_px=96) for p in ("ego", "exo")}  # type: ignore[arg-type]
    ((ego, exo),) = Plan(catalog, Sampling(views=views, pairing="paired"), 0).row(0).clips
    assert ego is not None
    assert exo is not None
    np.testing.assert_allclose(exo_s[exo.frames] / exo_s[-1], (EGO_S[ego.frames] - 0.4) / (EGO_S[-1] - 0.4), atol=0.02)


def test_labels_are_those_of_the_times_that_a_player_shows(tmp_path: Path) -> None:
    """The picture starts half a second after the sound, and annotations count from the sound's start."""
    file = seek_videos.KINDS["sound starts earlier"](tmp_path)
    catalog = clock.catalog(tmp_path, f"path,split,scene,view,perspective\n{file.name},train,s,left,exo\n")
    (recording,) = catalog.recordings
    assert recording.first_s == pytest.approx(0.5, abs=1e-3)
    segments = tuple(Segment(recording.id, a, b, "verb", name) for a, b, name in ((0.0, 1.0, "cut"), (1.0, 3.0, "mix")))
    labels = Labels(dataclasses.replace(catalog, segments=segments), {"verb": 2})
    first_s, last_s = catalog.instants(recording, np.array([0, 14])) - recording.start_offset_s
    assert labels.of(recording, "verb", first_s, last_s - 1e-3).tolist() == [1, 0]
    first_s, last_s = catalog.instants(recording, np.array([15, 20])) - recording.start_offset_s
    assert labels.of(recording, "verb", first_s + 1e-3, last_s).tolist() == [0, 1]


def test_a_variable_rate_without_an_index_is_refused(tmp_path: Path) -> None:
    catalog = two_cameras(tmp_path, EXO["a second missing"][0])
    lost = dataclasses.replace(catalog.recordings[1], index="")
    with pytest.raises(ValueError, match=r"exo\.mp4: its rate varies, and the catalog has no frame index of it"):
        catalog.instants(lost, np.array([3]))


def test_shares_of_the_time_are_those_of_the_file_whenever_it_starts(tmp_path: Path) -> None:
    exo_s = np.concatenate([np.arange(0, 2, 1 / 40), np.arange(2, 4, 1 / 20)])
    catalog = two_cameras(tmp_path, exo_s)
    ego, exo = catalog.recordings
    late = dataclasses.replace(exo, start_offset_s=2.0)
    assert not late.constant_rate
    frames = np.array([0, 60, 119])
    expected = proportional(catalog, frames, exo, ego, 3)
    np.testing.assert_array_equal(proportional(catalog, frames, late, ego, 3), expected)
    np.testing.assert_allclose(exo_s[frames] / exo_s[-1], expected / 139, atol=0.02)
    back = proportional(catalog, expected, ego, late, 3)
    np.testing.assert_allclose(exo_s[back], exo_s[frames], atol=0.05)


def test_a_window_longer_than_what_all_cameras_show_ends_with_it(tmp_path: Path) -> None:
    """The exo camera varies, so that instants are its frames', and runs 2 s longer."""
    clock.write(tmp_path / "ego.mp4", np.arange(100) / 25, rate=25)
    clock.write(tmp_path / "exo.mp4", EXO["30, then 20 per s"][0])
    catalog = clock.catalog(tmp_path, clock.PAIR.format(exo="exo.mp4"))
    view, rng = View(perspective="any", frames=10, fps=1.0, size_px=96), np.random.default_rng(0)
    cut = Cut(Starts(None, rng))
    clips = common_frames(catalog, list(catalog.recordings), view, cut, 10)
    instants = [catalog.instants(r, frames) for r, frames in zip(catalog.recordings, clips, strict=True)]
    assert max(instants[1]) <= 99 / 25 + 0.03
    assert np.abs(instants[0] - instants[1]).max() <= 0.03


def test_a_start_that_rounding_moves_past_a_frame_is_that_frames(tmp_path: Path) -> None:
    """0.1 + 0.2 s is 3.0000000000000004 frames of 10 per s."""
    clock.write(tmp_path / "ego.mp4", np.arange(20) / 10, rate=10)
    clock.write(tmp_path / "exo.mp4", np.arange(40) / 20, rate=20)
    catalog = clock.catalog(tmp_path, clock.PAIR.format(exo="exo.mp4"))
    ego, exo = catalog.recordings
    cameras = [ego, dataclasses.replace(exo, start_offset_s=0.1 + 0.2)]
    assert common_instants(catalog, cameras, 2)[0] == pytest.approx(0.3)
