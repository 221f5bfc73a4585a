"""Recordings of every kind, from the plan to batches, caches and embeddings."""

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
from recording_kinds import FIRST, listed

import crossview
from crossview.datasets.catalog import Catalog
from crossview.datasets.sampling.geometry import SQUASH
from crossview.datasets.sampling.mixture import Mixture
from crossview.datasets.sampling.plan import Plan
from crossview.datasets.sampling.spec import Pairing, Sampling, View
from crossview.datasets.teachers.importers import object_arrays
from crossview.datasets.video.framing import Framing
from crossview.datasets.video.source import Source
from crossview.errors import UserError
from crossview.platform.config import Data
from crossview.platform.data.decoder import Shard
from crossview.platform.data.feature_cache import cache
from crossview.platform.data.feature_files import read_features
from crossview.platform.data.frame_cache import frame_cache
from crossview.platform.data.loader import Stream
from crossview.platform.data.row_decoder import RowDecoder
from crossview.platform.data.video_reader import video
from crossview.platform.encoder import Encoder
from crossview.platform.evaluate.frame_embeddings import export
from crossview.platform.evaluate.opened import open_run
from crossview.platform.report.contact_sheet import contact_sheet

SQUASHED = View(perspective="ego", frames=4, fps=15, size_px=64, geometry=SQUASH)


def sampling(pairing: Pairing = "single", **views: View) -> Sampling:
    return Sampling(views=views or {"x": SQUASHED}, pairing=pairing)


def first_frames(batch: torch.Tensor) -> list[int]:
    """What the frames of a batch uint8 (B, T, 3, H, W) show, in order."""
    return [videos.barcode(frame.permute(1, 2, 0).numpy()) for frame in batch.flatten(0, 1)]


@pytest.mark.parametrize("cached", [False, True])
def test_frames_of_every_kind_are_read_by_their_own_numbers(everything: Catalog, tmp_path: Path, cached: bool) -> None:
    plan = Plan(everything, sampling(), seed=3)
    rows = 2 * plan.rows_per_epoch
    decoder = RowDecoder(
        plan,
        Data(catalog=tmp_path, cache_frames=cached),
        Shard(start_step=0, stop_step=1, batch=rows, micro_batch=rows),
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


def test_a_mixture_draws_spans_and_folders_of_another_root(everything: Catalog, tmp_path: Path) -> None:
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
        parts = list(video(everything.source(recording), recording.num_frames, SQUASHED, data, chunk))
        first = FIRST[recording.scene]
        assert first_frames(torch.cat(parts)[:, None]) == list(range(first, first + recording.num_frames))


def test_a_span_is_sought_and_not_decoded_up_to(everything: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(*_: object) -> None:
        raise AssertionError("the file was read from its start")

    monkeypatch.setattr("crossview.datasets.video.seeking.sequential", forward)
    (recording,) = (r for r in everything.recordings if r.scene == "c")
    parts = list(video(everything.source(recording), recording.num_frames, SQUASHED, Data(catalog=Path("unused")), 64))
    assert first_frames(torch.cat(parts)[:, None]) == list(range(70, 110))


def test_a_span_is_read_from_the_start_if_seeking_fails_on_the_way(
    everything: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    from crossview.datasets.video import seeking

    pictures = seeking.pictures

    def failing(*arguments: object) -> object:
        for number, frame in pictures(*arguments):  # type: ignore[arg-type]
            if number == 80:
                raise seeking.Misplaced(Path("long.mp4"))
            yield number, frame

    monkeypatch.setattr(seeking, "pictures", failing)
    (recording,) = (r for r in everything.recordings if r.scene == "c")
    with pytest.warns(UserWarning, match="the file is read from its start"):
        parts = list(
            video(everything.source(recording), recording.num_frames, SQUASHED, Data(catalog=Path("unused")), 64)
        )
    assert first_frames(torch.cat(parts)[:, None]) == list(range(70, 110))


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
    assert contact_sheet(found, found.recordings, tmp_path / "sheet.png").is_file()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    tiny_run.write_catalog(folder / "data")
    return tiny_run.train(folder / "run", folder / "data")


def view_of(encoder: Encoder) -> View:
    return encoder.experiment.method.sampling().view_for("ego")


def test_embedding_reads_every_recording_as_its_own(everything: Catalog, run: Path, tmp_path: Path) -> None:
    table = pq.read_table(export(open_run(run, in_process=True), everything, tmp_path / "all.parquet"))
    found: dict[str, list[list[float]]] = {}
    for name, vector in zip(table["video"].to_pylist(), table["vector"].to_pylist(), strict=True):
        found.setdefault(name, []).append(vector)
    assert {name: len(rows) for name, rows in found.items()} == {r.id: r.num_frames for r in everything.recordings}
    encoder = crossview.load(run)
    for recording in everything.recordings:
        source, view = everything.source(recording), view_of(encoder)
        frames = torch.cat(list(video(source, recording.num_frames, view, Data(catalog=everything.root), 64)))
        assert np.allclose(found[recording.id], encoder.embed(frames, "ego").numpy(), atol=1e-5)


def test_a_folder_of_images_is_embedded_by_its_path(everything: Catalog, run: Path) -> None:
    encoder, root = crossview.load(run), everything.root
    for path, scene in ((root / "images", "g"), (str(root / "shots" / "*_rgb.jpg"), None)):
        found = encoder.embed(path, "ego")
        source, frames = (Source(Path(path), "frames"), 40 if scene is None else 30)
        pictures = torch.cat(list(video(source, frames, view_of(encoder), Data(catalog=root), 64)))
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
            frames = frame_cache(found.source(recording), recording, Framing(size=(64, 64)), "rgb", data)
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


def test_features_of_all_kinds_go_through_the_plan(everything: Catalog, tmp_path: Path) -> None:
    features = cache("byov", tiny_run.method_config(), everything, tmp_path, in_process=True)
    plan = Plan(features, sampling(), seed=3)
    rows = plan.rows_per_epoch
    shard = Shard(start_step=0, stop_step=1, batch=rows, micro_batch=rows)
    out = RowDecoder(plan, Data(catalog=tmp_path), shard).decode(np.arange(rows))
    pictures = Plan(everything, sampling(), seed=3)
    for i in range(rows):
        (((clip,),)) = plan.row(i).clips
        (((shown,),)) = pictures.row(i).clips
        assert clip.frames.tolist() == shown.frames.tolist()
        recording = features.recordings[clip.recording]
        assert np.array_equal(out["x"][i, 0], read_features(features.file(recording), recording)[clip.frames])


def test_two_spans_of_a_file_are_a_pair_and_a_span_with_itself_is_none(tmp_path: Path) -> None:
    videos.write(tmp_path / "v.mp4", frames=40)
    first, second = "v.mp4,train,a,x,ego,0,0,20,,,,", "v.mp4,train,b,y,exo,0,20,20,,,,"
    views = {"ego": View(perspective="ego", frames=2), "exo": View(perspective="exo", frames=2)}
    ((row,),) = {Plan(listed(tmp_path, first, second), sampling("unpaired", **views), 0).row(0).clips}
    assert [clip.recording for clip in row if clip] == [0, 1]
    twin = first.replace(",a,x,ego,", ",b,y,exo,")
    with pytest.raises(UserError, match="no two different files to pair"):
        Plan(listed(tmp_path, first, twin), sampling("unpaired", **views), 0)


def test_cached_features_of_images_written_anew_are_computed_anew(tmp_path: Path) -> None:
    files = image_folders.write(tmp_path / "images", range(4))
    line = "images,train,a,x,ego,0,,,,,30,"
    (before,) = cache("byov", tiny_run.method_config(), listed(tmp_path, line), tmp_path, in_process=True).recordings
    image_folders.save(files[1], videos.picture(99))
    (after,) = cache("byov", tiny_run.method_config(), listed(tmp_path, line), tmp_path, in_process=True).recordings
    assert before.path != after.path


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


def test_a_damaged_image_is_replaced_and_named(tmp_path: Path) -> None:
    image_folders.write(tmp_path / "good", range(8))
    files = image_folders.write(tmp_path / "bad", range(8))
    found = listed(tmp_path, "good,train,a,x,ego,0,,,,,30,", "bad,train,b,x,ego,0,,,,,30,")
    files[5].write_bytes(files[5].read_bytes()[:-40] + bytes(40))
    plan = Plan(found, sampling(x=View(perspective="ego", frames=8, fps=30, size_px=64, geometry=SQUASH)), seed=0)
    shard = Shard(start_step=0, stop_step=1, batch=2, micro_batch=2)
    out = RowDecoder(plan, Data(catalog=tmp_path, max_quarantined=0.5), shard).decode(np.arange(2))
    reports = "".join(out["quarantine"])
    assert "frame_5.jpg" in reports
    assert '"kinds/b/x"' in reports
    assert [videos.barcode(frame[:64]) for frame in out["x"][1, 0]] == list(range(8))
