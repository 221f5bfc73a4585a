"""Spans of files and folders of images beside whole videos: from the CSV to batches and embeddings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import image_folders
import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny_run
import torch
import videos

import crossview
from crossview.datasets.catalog import Catalog
from crossview.datasets.catalog.probing import Prober, check_share
from crossview.datasets.folder import Options, catalog
from crossview.datasets.sampling.mixture import Mixture
from crossview.datasets.sampling.plan import Plan
from crossview.datasets.sampling.spec import Pairing, Sampling, View
from crossview.datasets.teachers.importers import object_arrays
from crossview.datasets.video.source import Source
from crossview.errors import UserError
from crossview.platform.config import Data
from crossview.platform.data.feature_cache import cache
from crossview.platform.data.feature_files import read_features
from crossview.platform.data.frame_cache import frame_cache
from crossview.platform.data.loader import Stream
from crossview.platform.data.row_decoder import RowDecoder, Shard
from crossview.platform.data.video_reader import video
from crossview.platform.evaluate.frame_embeddings import export
from crossview.platform.evaluate.opened import open_run

HEADER = "path,split,scene,view,perspective,start_offset_s,first_frame,num_frames,start_s,end_s,fps,first_number"
LINES = (
    "whole.mp4,train,a,ego,ego,0,,,,,,",
    "long.mp4,train,b,ego,ego,0,40,30,,,,",
    "long.mp4,train,c,ego,ego,0,70,,,,,",
    "long.mp4,val,d,ego,ego,0,0,40,,,,",
    "timed.mp4,train,e,ego,ego,0,,,1.0,2.0,,",
    "timed.mp4,train,f,ego,ego,2.5,,,2.0,,,",
    "images,train,g,ego,ego,0,,,,,30,1",
    "shots/*_rgb.jpg,train,h,ego,ego,0,5,15,,,30,",
    "shots/*_rgb.jpg,train,i,ego,ego,0,20,20,,,30,",
)
FIRST = {"a": 0, "b": 40, "c": 70, "d": 0, "e": 30, "f": 60, "g": 0, "h": 5, "i": 20}
"""The number that the first frame of each scene shows."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("kinds")
    videos.write(root / "whole.mp4", frames=30)
    videos.write(root / "long.mp4", frames=110, b_frames=2)
    videos.write(root / "timed.mp4", frames=90)
    image_folders.write(root / "images", range(1, 31))
    image_folders.write(root / "shots", range(3, 43), name="frame_{}_tc_7_rgb.jpg")
    image_folders.write(root / "shots", range(3, 43), name="frame_{}_tc_7_depth.png")
    return root


def listed(root: Path, *lines: str, header: str = HEADER) -> Catalog:
    """The catalog of a CSV in `root`, with its indices there."""
    csv = root / "kinds.csv"
    csv.write_text("\n".join([header, *lines]) + "\n")
    found = catalog(Options(root=root, csv=csv), prober=Prober(root / "frame_index"))
    return replace(found, folder=root)


@pytest.fixture(scope="module")
def everything(root: Path) -> Catalog:
    return listed(root, *LINES)


def sampling(pairing: Pairing = "single", **views: View) -> Sampling:
    return Sampling(views=views or {"x": View(perspective="ego", frames=4, fps=15, size_px=64)}, pairing=pairing)


def first_frames(batch: torch.Tensor) -> list[int]:
    """What the frames of a batch uint8 (B, T, 3, H, W) show, in order."""
    return [videos.barcode(frame.permute(1, 2, 0).numpy()) for frame in batch.flatten(0, 1)]


def test_the_csv_gives_spans_and_folders(everything: Catalog, root: Path) -> None:
    found = {r.scene: (r.kind, r.first_frame, r.num_frames, r.fps) for r in everything.recordings}
    assert found == {
        "a": ("video", 0, 30, 30),
        "b": ("video", 40, 30, 30),
        "c": ("video", 70, 40, 30),
        "d": ("video", 0, 40, 30),
        "e": ("video", 30, 30, 30),
        "f": ("video", 60, 30, 30),
        "g": ("frames", 0, 30, 30),
        "h": ("frames", 5, 15, 30),
        "i": ("frames", 20, 20, 30),
    }
    assert not everything.quarantined
    by_path: dict[str, set[str]] = {}
    for r in everything.recordings:
        by_path.setdefault(r.path, set()).add(r.index)
    assert all(len(indices) == 1 for indices in by_path.values())
    everything.save(root / "catalog")
    again = Catalog.load(root / "catalog")
    assert again.protocols == everything.protocols
    assert [replace(r, index="") for r in again.recordings] == [replace(r, index="") for r in everything.recordings]


def test_a_file_is_probed_once_for_all_its_spans(root: Path, tmp_path: Path) -> None:
    (tmp_path / "kinds.csv").write_text("\n".join([HEADER, *LINES]))
    ticks: list[tuple[int, int]] = []
    prober = Prober(tmp_path, lambda done, total: ticks.append((done, total)))
    catalog(Options(root=root, csv=tmp_path / "kinds.csv"), prober=prober)
    assert ticks == [(k, 5) for k in range(1, 6)]


def test_frames_of_every_kind_are_read_by_their_own_numbers(everything: Catalog) -> None:
    plan = Plan(everything, sampling(), seed=3)
    rows = 2 * plan.rows_per_epoch
    decoder = RowDecoder(
        plan, Data(catalog=Path("unused")), Shard(start_step=0, stop_step=1, batch=rows, micro_batch=rows)
    )
    out = decoder.decode(np.arange(rows))
    assert set(out["quarantine"]) == {""}
    seen = set()
    for i in range(rows):
        (((clip,),)) = plan.row(i).clips
        recording = everything.recordings[clip.recording]
        shown = [videos.barcode(frame) for frame in out["x"][i, 0][:, :64]]
        assert shown == (clip.frames + FIRST[recording.scene]).tolist()
        seen.add(recording.scene)
    assert seen == set(FIRST)


@pytest.mark.parametrize("decoder", ["pyav", "decord"])
def test_a_stream_gives_the_same_batches_each_time(everything: Catalog, decoder: str) -> None:
    if decoder == "decord":  # which refuses files with B-frames
        everything = everything.keep(lambda r: r.path != "long.mp4")
    plan = Plan(everything, sampling(), seed=1)
    rows = plan.rows_per_epoch

    def batches() -> dict[str, torch.Tensor]:
        shard = Shard(start_step=0, stop_step=1, batch=rows, micro_batch=rows)
        data = Data(catalog=everything.root, decoder=decoder)  # type: ignore[arg-type]
        with Stream(plan, data, shard, device=torch.device("cpu"), run_dir=None, in_process=True, prefetch=0) as made:
            (batch,) = made
        return batch

    one, two = batches(), batches()
    assert torch.equal(one["x"], two["x"])
    expected = []
    for i in range(rows):
        (((clip,),)) = plan.row(i).clips
        expected += (clip.frames + FIRST[everything.recordings[clip.recording].scene]).tolist()
    assert first_frames(one["x"]) == expected


def test_a_mixture_draws_spans_and_folders_of_another_root(root: Path, everything: Catalog, tmp_path: Path) -> None:
    videos.write(tmp_path / "v.mp4", frames=20)
    other = listed(tmp_path, "v.mp4,train,z,ego,ego,0,,,,,,")
    mix = Mixture([Plan(other, sampling(), 0), Plan(everything, sampling(), 1)], [0.5, 0.5], 0)
    shard = Shard(start_step=0, stop_step=1, batch=24, micro_batch=24)
    out = RowDecoder(mix, Data(catalog=Path("unused")), shard).decode(np.arange(24))
    assert set(out["quarantine"]) == {""}
    scenes = set()
    for i in range(24):
        (((clip,),)) = mix.row(i).clips
        scene = mix.catalog.recordings[clip.recording].scene
        scenes.add(scene)
        shown = [videos.barcode(frame) for frame in out["x"][i, 0][:, :64]]
        assert shown == (clip.frames + {**FIRST, "z": 0}[scene]).tolist()
    assert scenes == {*FIRST, "z"}


@pytest.mark.parametrize("chunk", [7, 64])
def test_whole_recordings_are_read_from_their_first_frame_to_their_last(everything: Catalog, chunk: int) -> None:
    for recording in everything.recordings:
        data = Data(catalog=Path("unused"))
        parts = list(video(everything.source(recording), recording.num_frames, 64, data, chunk))
        first = FIRST[recording.scene]
        assert first_frames(torch.cat(parts)[:, None]) == list(range(first, first + recording.num_frames))


def test_a_span_is_sought_and_not_decoded_up_to(everything: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(*_: object) -> None:
        raise AssertionError("the file was read from its start")

    monkeypatch.setattr("crossview.datasets.video.consecutive.sequential", forward)
    (recording,) = (r for r in everything.recordings if r.scene == "c")
    parts = list(video(everything.source(recording), recording.num_frames, 64, Data(catalog=Path("unused")), 64))
    assert first_frames(torch.cat(parts)[:, None]) == list(range(70, 110))


def test_a_span_is_read_from_the_start_if_seeking_fails_on_the_way(
    everything: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    from crossview.datasets.video import consecutive, seeking

    def failing(*arguments: object) -> object:
        for number, frame in seeking.pictures(*arguments):  # type: ignore[arg-type]
            if number == 80:
                raise seeking.Misplaced(Path("long.mp4"), number)
            yield number, frame

    monkeypatch.setattr(consecutive, "pictures", failing)
    (recording,) = (r for r in everything.recordings if r.scene == "c")
    with pytest.warns(UserWarning, match="the file is read from its start"):
        parts = list(video(everything.source(recording), recording.num_frames, 64, Data(catalog=Path("unused")), 64))
    assert first_frames(torch.cat(parts)[:, None]) == list(range(70, 110))


def test_the_clock_of_a_span_starts_with_it(everything: Catalog) -> None:
    by_scene = {r.scene: r for r in everything.recordings}
    assert everything.instants(by_scene["c"], np.array([0, 30])) == pytest.approx([0, 1])
    assert everything.instants(by_scene["f"], np.array([0, 15])) == pytest.approx([2.5, 3])


def test_the_clock_of_a_span_of_a_variable_rate_starts_with_it(tmp_path: Path) -> None:
    videos.write(tmp_path / "v.mp4", frames=30, variable=True)  # frames 0, 3, 6, ... last two thirtieths
    (span,) = listed(tmp_path, "v.mp4,train,a,ego,ego,1,9,6,,,,").recordings
    assert not span.constant_rate
    found = listed(tmp_path, "v.mp4,train,a,ego,ego,1,9,6,,,,")
    assert found.instants(span, np.arange(4)) == pytest.approx([1, 1 + 2 / 30, 1 + 3 / 30, 1 + 4 / 30], abs=2e-3)
    (timed,) = listed(tmp_path, "v.mp4,train,b,ego,ego,0,,,0.8,1.2,,").recordings
    assert (timed.first_frame, timed.num_frames) == (18, 9)


def test_cameras_of_all_kinds_show_the_same_instants(tmp_path: Path) -> None:
    videos.write(tmp_path / "head.mp4", frames=60)
    videos.write(tmp_path / "left.mp4", frames=90)
    image_folders.write(tmp_path / "right", [n for n in range(5, 65) if n not in (20, 21, 22)])
    with pytest.warns(UserWarning, match="3 numbers are missing"):
        found = listed(
            tmp_path,
            "head.mp4,train,a,head,ego,0,,,,,,",
            "left.mp4,train,a,left,exo,0,30,,,,,",
            "right,train,a,right,exo,0,,,,,30,5",
        )
    views = {
        "ego": View(perspective="ego", frames=4, fps=15),
        "exo": View(perspective="exo", frames=4, fps=15, count=2),
    }
    plan = Plan(found, sampling("group", **views), seed=0)
    for i in range(20):
        ((head, left, right),) = plan.row(i).clips
        assert head
        assert left
        assert right
        instants = [found.instants(found.recordings[c.recording], c.frames) for c in (head, left, right)]
        assert np.abs(instants[0] - instants[1]).max() < 1e-6
        assert np.abs(instants[0] - instants[2]).max() < 1e-6


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    tiny_run.write_catalog(folder / "data")
    return tiny_run.train(folder / "run", folder / "data")


def test_embedding_reads_every_recording_as_its_own(everything: Catalog, run: Path, tmp_path: Path) -> None:
    table = pq.read_table(export(open_run(run, in_process=True), everything, tmp_path / "all.parquet"))
    found: dict[str, list[list[float]]] = {}
    for name, vector in zip(table["video"].to_pylist(), table["vector"].to_pylist(), strict=True):
        found.setdefault(name, []).append(vector)
    assert {name: len(rows) for name, rows in found.items()} == {r.id: r.num_frames for r in everything.recordings}
    encoder = crossview.load(run)
    for recording in everything.recordings:
        source, size = everything.source(recording), encoder.size_px("ego")
        frames = torch.cat(list(video(source, recording.num_frames, size, Data(catalog=everything.root), 64)))
        assert np.allclose(found[recording.id], encoder.embed(frames, "ego").numpy(), atol=1e-5)


def test_a_folder_of_images_is_embedded_by_its_path(everything: Catalog, run: Path) -> None:
    encoder, root = crossview.load(run), everything.root
    for path, scene in ((root / "images", "g"), (str(root / "shots" / "*_rgb.jpg"), None)):
        found = encoder.embed(path, "ego")
        source, frames = (Source(Path(path), "frames"), 40 if scene is None else 30)
        pictures = torch.cat(list(video(source, frames, encoder.size_px("ego"), Data(catalog=root), 64)))
        assert first_frames(pictures[:, None]) == list(range(frames))
        assert torch.equal(found, encoder.embed(pictures, "ego"))


def moved(found: Catalog) -> Catalog:
    """The spans of long.mp4, each one frame earlier."""
    spans = found.keep(lambda r: r.path == "long.mp4" and r.first_frame > 0)
    earlier = tuple(replace(r, first_frame=r.first_frame - 1) for r in spans.recordings)
    return replace(spans, recordings=earlier)


def test_cached_frames_are_those_of_the_span(everything: Catalog, tmp_path: Path) -> None:
    data = Data(catalog=tmp_path)
    for found, first in ((everything, 0), (moved(everything), -1), (everything, 0)):
        for recording in found.recordings:
            frames = frame_cache(found.source(recording), recording, 64, "rgb", data)
            assert videos.barcode(frames[0]) == FIRST[recording.scene] + first
            assert len(frames) == recording.num_frames


def test_cached_features_are_those_of_the_span(everything: Catalog, tmp_path: Path) -> None:
    kept = {
        r.id: r.path for r in cache("byov", tiny_run.method_config(), everything, tmp_path, in_process=True).recordings
    }
    assert len(set(kept.values())) == len(everything.recordings)
    other = cache("byov", tiny_run.method_config(), moved(everything), tmp_path, in_process=True)
    for recording in other.recordings:
        assert recording.path != kept[recording.id]
        features = read_features(other.file(recording), recording)
        assert len(features) == recording.num_frames
        before = np.load(other.root / kept[recording.id])
        assert np.allclose(features[1:], before[:-1], atol=1e-3)
        assert not np.allclose(features, before, atol=1e-3)


def test_cached_features_of_images_written_anew_are_computed_anew(tmp_path: Path) -> None:
    files = image_folders.write(tmp_path / "images", range(4))
    line = "images,train,a,x,ego,0,,,,,30,"
    (before,) = cache("byov", tiny_run.method_config(), listed(tmp_path, line), tmp_path, in_process=True).recordings
    image_folders.save(files[1], videos.picture(99))
    (after,) = cache("byov", tiny_run.method_config(), listed(tmp_path, line), tmp_path, in_process=True).recordings
    assert before.path != after.path


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["long.mp4,train,a,x,ego,0,4,,1,,,"], "line 2, column 'first_frame': it is 4, but the line has start_s"),
        (["long.mp4,train,a,x,ego,0,-1,,,,,"], "line 2, column 'first_frame': '-1' is not a whole number from 0 on"),
        (["long.mp4,train,a,x,ego,0,,0,,,,"], "line 2, column 'num_frames': '0' is not a whole number from 1 on"),
        (["long.mp4,train,a,x,ego,0,,,2,1,,"], "line 2, column 'end_s': 1 is not after start_s = 2"),
        (["long.mp4,train,a,x,ego,0,,,-2,1,,"], "line 2, column 'start_s': -2 is before the file's start"),
        (["long.mp4,train,a,x,ego,0,,,,,30,"], "line 2, column 'fps': it is 30, but path names a file"),
        (["images,train,a,x,ego,0,,,,,,"], "line 2, column 'fps': it is empty; a folder of images needs its rate"),
        (["images,train,a,x,ego,0,,,,,0,"], "line 2, column 'fps': 0; a folder of images needs its rate"),
        (["images,train,a,x,ego,0,,,,,30,x"], "line 2, column 'first_number': 'x' is not a whole number"),
        (["gone,train,a,x,ego,0,,,,,30,"], "line 2, column 'path': gone is missing"),
        (
            ["long.mp4,train,a,x,ego,0,0,50,,,,", "long.mp4,val,b,x,ego,0,49,5,,,,"],
            "line 3: long.mp4 is in split 'val' and in split 'train'.*spans of one file in different splits",
        ),
        (
            ["long.mp4,train,a,x,ego,0,0,50,,,,", "long.mp4,train,a,y,exo,0,49,5,,,,"],
            "line 3: long.mp4 is in line 2 already as view 'x' of this scene",
        ),
        (
            ["long.mp4,train,a,x,ego,0,0,50,,,,", "long.mp4,train,b,x,ego,0,,,2,3,,"],
            "line 3: long.mp4 has a span in seconds, and in line 2 one in frames",
        ),
        (
            ["images,train,a,x,ego,0,0,5,,,30,", "images,train,b,x,ego,0,5,5,,,25,"],
            "line 3: images has another fps or first_number than in line 2",
        ),
    ],
)
def test_what_the_csv_may_not_say(root: Path, lines: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        listed(root, *lines)


def test_spans_that_end_after_their_file_are_set_aside(root: Path) -> None:
    found = listed(
        root,
        "long.mp4,train,a,x,ego,0,100,10,,,,",
        "long.mp4,train,b,x,ego,0,100,11,,,,",
        "timed.mp4,train,c,x,ego,0,,,2.5,3.0,,",
        "timed.mp4,train,d,x,ego,0,,,2.5,3.1,,",
        "images,train,e,x,ego,0,30,,,,30,",
    )
    assert [r.scene for r in found.recordings] == ["a", "c"]
    reasons = [q.reason for q in found.quarantined]
    assert "line 3, column 'num_frames': the span ends after frame 110, but long.mp4 has 110 frames" in reasons[0]
    assert "line 5, column 'end_s': the span ends after frame 92, but timed.mp4 has 90 frames" in reasons[1]
    assert "line 6, column 'num_frames': no frame is in the span; images has 30 frames" in reasons[2]
    check_share(found, 0.6)
    with pytest.raises(UserError, match="3 of 5 videos cannot be used"):
        check_share(found, 0.59)


def test_labels_are_counted_per_span(root: Path) -> None:
    (root / "ten.txt").write_text("0 " * 10)
    header = f"{HEADER},labels"
    found = listed(
        root,
        "long.mp4,train,a,x,ego,0,100,10,,,,,ten.txt",
        "long.mp4,train,b,x,ego,0,0,11,,,,,ten.txt",
        header=header,
    )
    assert list(found.frame_labels["phase"]) == ["kinds/a/x"]
    assert "ten.txt" in found.quarantined[0].reason


def test_detections_are_those_of_the_spans_frames(everything: Catalog, tmp_path: Path) -> None:
    entries = np.empty((110, 2), object)
    for k in range(110):
        entries[k, 0] = np.array([[0, 0, 48, 32, k / 110, 0]])
    np.save(tmp_path / "long.npy", entries, allow_pickle=True)
    spans = everything.keep(lambda r: r.path == "long.mp4")
    found = object_arrays(tmp_path, spans, coordinates="pixel")
    for recording in spans.recordings:
        detections = found[recording.id]
        assert detections.frame.tolist() == list(range(recording.num_frames))
        numbers = np.arange(recording.first_frame, recording.first_frame + recording.num_frames)
        assert detections.score == pytest.approx(numbers / 110)


def test_spans_that_touch_may_be_in_different_splits(root: Path) -> None:
    found = listed(root, "long.mp4,train,a,x,ego,0,0,50,,,,", "long.mp4,val,b,x,ego,0,50,5,,,,")
    assert set(found.protocols["default"].values()) == {"train", "val"}


def test_unreadable_folders_are_set_aside(tmp_path: Path) -> None:
    image_folders.write(tmp_path / "good", range(5))
    (image_folders.write(tmp_path / "bad", range(5))[2]).write_bytes(b"")
    found = listed(tmp_path, "good,train,a,x,ego,0,,,,,30,", "bad,train,b,x,ego,0,,,,,30,")
    assert [r.scene for r in found.recordings] == ["a"]
    assert found.quarantined[0].path == "bad"
    assert "frame_2.jpg" in found.quarantined[0].reason


def test_a_damaged_image_is_replaced_and_named(tmp_path: Path) -> None:
    image_folders.write(tmp_path / "good", range(8))
    files = image_folders.write(tmp_path / "bad", range(8))
    found = listed(tmp_path, "good,train,a,x,ego,0,,,,,30,", "bad,train,b,x,ego,0,,,,,30,")
    files[5].write_bytes(files[5].read_bytes()[:-40] + bytes(40))
    plan = Plan(found, sampling(x=View(perspective="ego", frames=8, fps=30, size_px=64)), seed=0)
    shard = Shard(start_step=0, stop_step=1, batch=2, micro_batch=2)
    out = RowDecoder(plan, Data(catalog=tmp_path, max_quarantined=0.5), shard).decode(np.arange(2))
    reports = "".join(out["quarantine"])
    assert "frame_5.jpg" in reports
    assert '"kinds/b/x"' in reports
    assert [videos.barcode(frame[:64]) for frame in out["x"][1, 0]] == list(range(8))
