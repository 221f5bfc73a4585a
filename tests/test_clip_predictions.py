"""Classifiers of clips are given every view of a recording or segment, whose frames are read once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import videos
from egoexo_tiny import PLAIN
from synchronized import SEEN, camera

from crossview.datasets.catalog import Catalog, Segment, one_protocol
from crossview.datasets.video.decode import read_clips
from crossview.datasets.video.framing import Framing
from crossview.datasets.video.source import Wanted
from crossview.downstream import results
from crossview.downstream.task import PredictionPart
from crossview.downstream.test_views import Views
from crossview.errors import UserError
from crossview.methods.egoexo.model import Model
from crossview.methods.method import Method
from crossview.methods.recipe import Optim
from crossview.platform.config import Cadence, Compute, Data, Experiment
from crossview.platform.data.color import yuv420_to_rgb
from crossview.platform.evaluate import clip_predictions as module
from crossview.platform.evaluate.opened import RANDOM_INIT, TRAINED, OpenRun, open_run
from crossview.platform.evaluate.predictions import predictions
from crossview.platform.evaluate.result_store import read_results, read_texts
from crossview.platform.evaluate.runner import evaluate
from crossview.platform.evaluate.tasks import options_from
from crossview.platform.train.launcher import start

ACTIONS = ("nod", "wave")
SMALL = {"crops": 3, "clips": 2}


def write_catalog(root: Path) -> Path:
    """Two actions of two people per split, from three cameras; labelled segments in each."""
    members, segments = [], []
    for split in ("train", "val"):
        for action in ACTIONS:
            for k in range(2):
                for view in ("ego", "exo1", "exo2"):
                    path = f"{split}/{action}{k}_{view}.mp4"
                    videos.write(root / path, frames=20 + k)
                    facts: dict[str, Any] = {"scene": f"{split}{action}{k}", "subject": f"{split}{k}", "path": path}
                    recording = camera(view, action=action, num_frames=20 + k, **facts)
                    members.append((recording, split))
                    spans = ((0.0, 0.2, "reach"), (0.3, 0.5, "grasp"), (0.4, 0.6, "reach"))
                    segments += [Segment(recording.id, *span[:2], "step", span[2]) for span in spans]
    recordings = tuple(r for r, _ in members)
    Catalog(root, recordings, tuple(segments), protocols=one_protocol(members)).save(root / "catalog")
    return root / "catalog"


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_catalog(tmp_path_factory.mktemp("clips"))


def experiment(catalog: Path, **method: Any) -> Experiment[Any]:
    config = replace(PLAIN, classes={"action": 2}, fps=15.0, **method)
    return Experiment(
        data=Data(catalog=catalog, views=SEEN, decoder="pyav"),
        method=config,
        optim=Optim(lr=1e-3, batch=2, steps=1),
        compute=Compute(device="cpu", threads=1),
        every=Cadence(log=1),
    )


def trained(catalog: Path, folder: Path, **method: Any) -> Path:
    return start(folder, "egoexo", experiment(catalog, **method), in_process=True)


@pytest.fixture(scope="module")
def run(catalog: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of actions, trained on two of three cameras."""
    return trained(catalog, tmp_path_factory.mktemp("run") / "actions")


def predicted(of: OpenRun, split: str = "val", test: Views | None = None, **given: Any) -> PredictionPart:
    row = given.pop("row", TRAINED)
    return predictions(of, of.catalog, split, row, (), of.seen, given.pop("views", None), test)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which file is opened, each time that one is."""
    opened: list[str] = []

    def reading(source: Any, *args: Any, **options: Any) -> Any:
        opened.append(source.path.name)
        return read_clips(source, *args, **options)

    monkeypatch.setattr(module, "read_clips", reading)
    return opened


def by_hand(
    opened: OpenRun, name: str, frames: np.ndarray, left: int, model: Method | None = None
) -> dict[str, np.ndarray]:
    """Scores of one clip of 64 x 64 pixels, from all of the recording's frames."""
    recording = next(r for r in opened.catalog.recordings if r.id == name)
    whole = [Wanted(np.arange(recording.num_frames), Framing(size=(64, 96)))]
    (planes,) = read_clips(opened.catalog.source(recording), whole, pixels="yuv420")
    clip = yuv420_to_rgb(torch.from_numpy(np.array(planes)))[frames][None, ..., left : left + 64]
    with torch.inference_mode():
        return {kind: scores[0].numpy() for kind, scores in (model or opened.trained).class_scores(clip).items()}


def test_every_view_is_what_the_classifier_gives_of_it(run: Path, reads: list[str]) -> None:
    """Of 96 x 64 pixels: squares of 64 at the left, in the middle and at the right, of clips at both ends."""
    opened = open_run(run, in_process=True, device="cpu")
    found = predicted(opened, test=Views(clips=2, crops=3))
    assert len(found.samples) == 12
    assert len(reads) == len(set(reads)) == 12
    one = found.samples[-1]
    last = one.span[1] - 1
    places = [(first + np.arange(8) * 2, left) for first in (0, last - 14) for left in (0, 16, 32)]
    expected = [by_hand(opened, one.recordings[0], frames, left)["action"] for frames, left in places]
    np.testing.assert_allclose(one.outputs["action"], expected, rtol=1e-4, atol=1e-6)
    assert one.targets["action"].tolist() == [0, 1]
    assert one.span == (0, 21)
    assert not found.several_classes
    assert found.classes == {"action": ACTIONS}


@pytest.mark.ray
def test_actors_give_what_one_process_gives(run: Path, ray_cluster: None) -> None:
    test = Views(clips=1, crops=3)
    for row in (TRAINED, RANDOM_INIT):
        here = predicted(open_run(run, in_process=True, device="cpu"), test=test, row=row)
        there = predicted(open_run(run, actors=2, device="cpu"), test=test, row=row)
        for a, b in zip(here.samples, there.samples, strict=True):
            assert a.recordings == b.recordings
            np.testing.assert_allclose(a.outputs["action"], b.outputs["action"], rtol=1e-4, atol=1e-6)


def test_targets_alone_read_nothing(run: Path, reads: list[str]) -> None:
    found = predicted(open_run(run, in_process=True, device="cpu"), "train", row=None)
    assert not reads
    assert all(sample.outputs == {} for sample in found.samples)
    assert sum(sample.targets["action"] for sample in found.samples).tolist() == [6, 6]


def test_before_training_the_same_classifier_gives_the_control(run: Path) -> None:
    """All of it, network and classifiers, as it is drawn for the run's seed."""
    opened = open_run(run, in_process=True, device="cpu")
    with torch.random.fork_rng():
        torch.manual_seed(opened.experiment.seed)
        drawn = Model(opened.experiment.method).eval()
    one, after = (predicted(opened, test=Views(clips=1, crops=1), row=row).samples[0] for row in (RANDOM_INIT, TRAINED))
    assert one.recordings == after.recordings
    frames = (one.span[1] - 15) // 2 + np.arange(8) * 2
    expected = by_hand(opened, one.recordings[0], frames, 16, drawn)["action"]
    np.testing.assert_allclose(one.outputs["action"], [expected], rtol=1e-4, atol=1e-6)
    assert np.abs(after.outputs["action"] - expected).max() > 1e-3


def test_it_is_scored_with_its_cameras_and_baselines(run: Path, reads: list[str]) -> None:
    options = {"recognition": options_from("recognition", {"test": SMALL, "unseen": "subject"})}
    lines = evaluate(run, tasks=["recognition"], options=options, in_process=True, device="cpu")
    scores = results.scores(lines)
    assert list(scores) == ["trained", "random init", "majority", "chance"]
    assert scores["random init"].keys() == scores["trained"].keys()
    assert len(reads) == 24
    assert scores["majority"]["recognition/top1"] == scores["chance"]["recognition/top1"] == 0.5
    assert {"recognition/top1/held_out", "recognition/top1/fused", "recognition/top1/unseen"} <= set(scores["trained"])
    notes = read_texts(run, "val")["recognition"].notes
    assert notes[0].startswith("Recognition in 12 recordings or segments, from 6 views of each, fused by their mean")
    assert notes[-1] == "Held-out cameras, on which nothing was trained downstream: exo2."
    assert (run / "evaluations" / "val-recognition-cameras.parquet").exists()
    table = read_results(run)
    assert table is not None
    assert set(table["task"].to_pylist()) == {"recognition"}
    reads.clear()
    again = results.scores(evaluate(run, tasks=["recognition"], options=options, in_process=True, device="cpu"))
    assert len(reads) == 12  # the control is that of every checkpoint
    assert again == scores
    alone = evaluate(run, tasks=["recognition"], options=options, baselines=False, in_process=True, device="cpu")
    assert "random init" not in results.scores(alone)


def test_segments_are_cut_from_their_recording_in_one_reading(
    catalog: Path, tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    method = {"classes": {"step": 2}, "unit": "step"}
    folder = start(tmp_path / "run", "egoexo", _of(experiment(catalog), **method), in_process=True)
    opened = open_run(folder, in_process=True, device="cpu")
    found = predicted(opened, test=Views(clips=2, crops=1))
    assert len(found.samples) == 36
    assert len(reads) == len(set(reads)) == 12
    first = found.samples[:3]
    assert [s.span for s in first] == [(0, 6), (9, 15), (12, 18)]
    assert [found.classes["step"][int(s.targets["step"].argmax())] for s in first] == ["reach", "grasp", "reach"]
    assert len({s.scene for s in found.samples}) == 12  # three cameras share each event
    shown = by_hand(opened, first[1].recordings[0], np.array([9, 11, 13, 14, 14, 14, 14, 14]), 16)["step"]
    np.testing.assert_allclose(first[1].outputs["step"], [shown, shown], rtol=1e-4, atol=1e-6)
    reads.clear()
    monkeypatch.setattr(module, "READ_BYTES", 1)
    monkeypatch.setattr(module, "indexed", lambda source, limit_s: source)
    again = predicted(opened, test=Views(clips=2, crops=1))
    assert len(reads) == 36
    for a, b in zip(found.samples, again.samples, strict=True):
        np.testing.assert_array_equal(a.outputs["step"], b.outputs["step"])


def _of(experiment: Experiment[Any], **method: Any) -> Experiment[Any]:
    return replace(experiment, method=replace(experiment.method, **method))


def test_cameras_of_another_perspective_are_scored_by_name_alone(catalog: Path, tmp_path: Path) -> None:
    made = _of(experiment(catalog), perspective="ego")
    folder = start(tmp_path / "run", "egoexo", replace(made, data=Data(catalog=catalog)), in_process=True)
    opened = open_run(folder, in_process=True, device="cpu")
    found = predicted(opened, test=Views(clips=1, crops=1))
    assert {s.views for s in found.samples} == {("ego",)}
    assert found.undrawn == {"exo1": 4, "exo2": 4}
    assert opened.seen == {"ego"}
    named = predicted(opened, test=Views(clips=1, crops=1), views=("ego", "exo2"))
    assert {s.views for s in named.samples} == {("ego",), ("exo2",)}
    assert named.held_out() == ["Held-out cameras, on which nothing was trained downstream: exo2."]
    exo = Catalog.load(catalog).keep(lambda r: r.view != "ego")
    with pytest.raises(UserError, match="none of its 8 recordings here is ego"):
        module.ClipUnits.of(exo.select("val"), made.method.sampling(), exo, every=False)


def test_the_cameras_of_what_it_started_from_are_told(catalog: Path, run: Path, tmp_path: Path) -> None:
    """The first run saw ego and exo1, the others ego alone."""
    begin = run
    for name in ("second", "third"):
        made = replace(experiment(catalog), data=Data(catalog=catalog, views=("ego",)), init_from=begin)
        begin = start(tmp_path / name, "egoexo", made, in_process=True)
        said = predicted(open_run(begin, in_process=True, device="cpu"), test=Views(clips=1, crops=1)).held_out()
        assert said == ["Held-out cameras, on which nothing was trained downstream: exo1, exo2; pre-training saw exo1."]


def test_a_damaged_file_is_counted_and_its_samples_left_out(run: Path, tmp_path: Path) -> None:
    root = tmp_path / "damaged"
    catalog = Catalog.load(write_catalog(root))
    broken = catalog.select("val").recordings[0]
    (root / broken.path).write_bytes(b"no video")
    opened = open_run(run, in_process=True, device="cpu")
    opened.catalog = catalog  # type: ignore[misc]
    opened.experiment = replace(opened.experiment, data=replace(opened.experiment.data, max_quarantined=0.5))
    found = predicted(opened, test=Views(clips=1, crops=1))
    assert (len(found.samples), found.left_out) == (11, 1)
    assert broken.id not in {s.recordings[0] for s in found.samples}
    assert (run / "embeddings" / "val" / "predictions" / "quarantine.parquet").exists()


def test_a_method_without_a_classifier_is_told_what_to_train(straight: Path) -> None:
    with pytest.raises(UserError, match=r"this run of 'byov' has none; train one with `crossview train recognition`"):
        evaluate(straight, tasks=["recognition"], in_process=True)


def test_a_view_without_a_rate_has_one_clip_over_the_whole(catalog: Path) -> None:
    made = Catalog.load(catalog)
    sampling = experiment(catalog).sampling()
    units = module.ClipUnits.of(made.select("val"), sampling, made, every=False)
    view = replace(sampling.views["clip"], fps=None)
    assert units.frames(0, view, 5).tolist() == [np.rint(np.linspace(0, 19, 8)).astype(int).tolist()]
