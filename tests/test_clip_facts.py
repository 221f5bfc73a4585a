"""What travels beside a clip's frames: labels, teachers' scores, boxes and true lengths."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_run
import torch
from feature_catalog import TOKENS, WIDTH, write_feature_catalog

from crossview.datasets.catalog import Catalog
from crossview.datasets.catalog.labels import Labels
from crossview.datasets.catalog.recording import Segment
from crossview.datasets.sampling.geometry import SQUASH
from crossview.datasets.sampling.plan import Plan
from crossview.datasets.sampling.spec import Sampling, View
from crossview.datasets.teachers.store import Detections, write_detections, write_scores
from crossview.platform.config import Data
from crossview.platform.data.loader import Shard, Stream

SAMPLING = Sampling(
    views={"clip": View(perspective="any", frames=4, fps=30.0, size_px=32, geometry=SQUASH)},
    pairing="single",
    labels={"action": 2, "perspective": 2},
    scores={"ego": 2},
    boxes=2,
)
SHARD = Shard(start_step=0, stop_step=4, batch=4, micro_batch=4)


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """Teachers know every recording but one; each frame k of the others has a hand at x1 = k / 100."""
    catalog = tiny_run.write_catalog(tmp_path_factory.mktemp("facts"), actions=("wave", "stir"))
    known = catalog.recordings[1:]
    folder = catalog.root / "catalog" / "teachers"
    logits = {r.id: np.array([0.5 * k, -float(k)], np.float32) for k, r in enumerate(known, 1)}
    write_scores(folder, "ego", logits, kind="logits")
    found = {}
    for recording in known:
        k = np.arange(recording.num_frames)
        box = np.stack([k / 100, 0 * k, k / 100 + 0.5, 0 * k + 1], 1)
        found[recording.id] = Detections(k, np.ones_like(k), box, 0.5 + k / 100)
    write_detections(folder, found)
    return catalog


def batches(catalog: Catalog, sampling: Sampling, *, in_process: bool = True) -> dict[str, torch.Tensor]:
    plan = Plan(catalog.select("train"), sampling, 0, Labels(catalog, sampling.labels))
    data = Data(catalog=catalog.root / "catalog")
    stream = Stream(plan, data, SHARD, device=torch.device("cpu"), run_dir=None, in_process=in_process, prefetch=0)
    with stream:
        found = list(stream)
    return {name: torch.cat([batch[name] for batch in found]) for name in found[0]}


def test_facts_are_those_of_the_recording_and_its_frames(catalog: Catalog) -> None:
    batch = batches(catalog, SAMPLING)
    plan = Plan(catalog.select("train"), SAMPLING, 0, Labels(catalog, SAMPLING.labels))
    for row in range(16):
        clip = plan.row(row).clips[0][0]
        assert clip is not None
        recording = plan.catalog.recordings[clip.recording]
        number = catalog.recordings.index(recording)
        assert batch["clip/label/action"][row].tolist() == [recording.action == "stir", recording.action == "wave"]
        assert batch["clip/label/perspective"][row].tolist() == [
            recording.perspective == "exo", recording.perspective == "ego",
        ]  # fmt: skip
        known = number > 0
        assert bool(batch["clip/scores/ego/mask"][row]) is known
        assert bool(batch["clip/boxes/mask"][row]) is known
        assert batch["clip/scores/ego"][row].tolist() == [0.5 * number, -number]
        boxes = batch["clip/boxes"][row]
        if known:
            torch.testing.assert_close(boxes[:, 0, 1], torch.from_numpy(clip.frames / 100).float())
            assert boxes[:, 0, 0].tolist() == [1.0] * 4
        assert not boxes[:, 1].any()
    assert not batch["clip/scores/ego/mask"].all()


@pytest.mark.ray
def test_ray_brings_the_same_facts(catalog: Catalog, ray_cluster: None) -> None:
    here, there = batches(catalog, SAMPLING), batches(catalog, SAMPLING, in_process=False)
    assert here.keys() == there.keys()
    for name, value in here.items():
        assert torch.equal(value, there[name]), name
        assert value.dtype == there[name].dtype


def test_true_lengths_travel(catalog: Catalog) -> None:
    sampling = replace(
        SAMPLING,
        labels={},
        scores={},
        boxes=0,
        window_scale=(0.5, 2.0),
        window_length="true",
        window_stride=2,
        windows=3,
    )
    batch = batches(catalog, sampling)
    assert batch["clip"].shape == (48, 8, 3, 32, 32)
    assert set(batch["clip/length"].tolist()) <= set(range(2, 9))
    assert len(set(batch["clip/length"].tolist())) > 2
    for frames, length in zip(batch["clip/frames"], batch["clip/length"], strict=True):
        assert (frames[length:] == frames[length - 1]).all()


def test_a_missing_camera_of_a_group_of_features_is_zero(tmp_path: Path) -> None:
    found = Catalog.load(write_feature_catalog(tmp_path))
    recordings = found.select("train").recordings[:3]
    scenes = [replace(r, scene=f"s{k // 2}", view=f"v{k}") for k, r in enumerate(recordings)]
    view = View(perspective="any", frames=4, fps=15.0, count=2)
    plan = Plan(
        replace(found, recordings=tuple(scenes), frame_labels={}), Sampling(views={"all": view}, pairing="group"), 0
    )
    shard = Shard(start_step=0, stop_step=1, batch=2, micro_batch=2)
    data = Data(catalog=tmp_path / "catalog")
    with Stream(plan, data, shard, device=torch.device("cpu"), run_dir=None, in_process=True, prefetch=0) as stream:
        batch = next(iter(stream))
    assert batch["video"].dtype == torch.float16
    assert batch["video"].shape == (2, 2, 4, TOKENS, WIDTH)
    assert sorted(batch["video/mask"].sum(1).tolist()) == [1, 2]
    assert torch.equal(batch["video"].abs().flatten(2).sum(2) > 0, batch["video/mask"])


def test_a_teacher_that_is_not_there_or_of_another_width_is_named(catalog: Catalog) -> None:
    with pytest.raises(ValueError, match=r"scores\.parquet: no scores of task 'object'"):
        batches(catalog, replace(SAMPLING, scores={"object": 10}))
    with pytest.raises(ValueError, match=r"2 scores of task 'ego' for .* configured for 3"):
        batches(catalog, replace(SAMPLING, scores={"ego": 3}))


def test_nothing_is_asked_for_that_is_not_declared(tmp_path: Path) -> None:
    bare = tiny_run.write_catalog(tmp_path)
    plain = replace(SAMPLING, labels={}, scores={}, boxes=0)
    assert not any(part in name for name in batches(bare, plain) for part in ("/label", "/scores", "/boxes", "/length"))
    with pytest.raises(ValueError, match=r"detections\.parquet: no detections here"):
        batches(bare, replace(plain, boxes=1))


def test_labels_are_at_the_files_times_wherever_the_scenes_clock_is(tmp_path: Path) -> None:
    """Up to frame 6 each recording shows "cut", and the scene's clock starts 5 s before the files."""
    catalog = tiny_run.write_catalog(tmp_path)
    moved = tuple(replace(r, start_offset_s=5.0) for r in catalog.recordings)
    segments = [
        Segment(r.id, begin / r.fps, end / r.fps, "verb", label)
        for r in moved
        for begin, end, label in ((0, 7, "cut"), (7, 99, "mix"))
    ]
    catalog = replace(catalog, recordings=moved, segments=tuple(segments))
    view = View(perspective="any", frames=1, spread="random", size_px=32, geometry=SQUASH)
    batch = batches(catalog, Sampling(views={"clip": view}, pairing="single", labels={"verb": 2}))
    late = batch["clip/frames"][:, 0] > 6
    assert 0 < late.sum() < len(late)
    assert torch.equal(batch["clip/label/verb"].bool(), torch.stack([~late, late], 1))
