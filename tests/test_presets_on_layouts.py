"""Every published preset on the dataset that it names, as that lies on disk: one step of training.

The networks are made small; frames, rates, sizes, geometry, labels, units and pairings are the presets' own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import presets_on_layouts as published
import pytest
import torch

from crossview.datasets.catalog import Catalog
from crossview.datasets.sampling.plan import Clip
from crossview.datasets.synthetic.stand_ins import random_teachers
from crossview.errors import UserError
from crossview.methods.method import Batch
from crossview.methods.recipe import Optim
from crossview.platform import config
from crossview.platform.config import Compute, Data
from crossview.platform.data.loader import Shard, Stream
from crossview.platform.train.resolve import ResolvedRun, check_new
from crossview.platform.train.state import Training, Worker

CASES = [(method, preset) for method, presets in published.PLACES.items() for preset in presets]
CPU = torch.device("cpu")
Place = tuple[str, str | None]


def resolved(
    method: str, preset: str, place: Place, films: Path, rows: int, encoder: Path | None = None, **own: Any
) -> ResolvedRun:
    """A preset's run of one step on `rows` rows of a catalog, with a small network; `own` are options of the method.

    `encoder` is where a classifier's encoder is made.
    """
    recipe = config.preset(method, preset)
    asked = dataclasses.replace(recipe.method, **own)
    folder = published.catalog_of(place[0], films)
    sampling = asked.sampling()
    random_teachers(folder, sampling.scores, boxes=sampling.boxes > 0)
    small = published.small(asked)
    assert small.sampling() == sampling
    optim: Optim = dataclasses.replace(recipe.optim, batch=rows, steps=1, epochs=None)
    parts: dict[str, Any] = {"data": Data(catalog=folder, protocol=place[1]), "method": small, "optim": optim}
    if encoder is not None:
        parts["encoder"] = published.encoder_of(asked, encoder)
    made = config.experiment_class(method)(compute=Compute(device="cpu", threads=1), **parts)
    return check_new(method, made, print)


def first_batch(run: ResolvedRun) -> Batch:
    rows = run.experiment.optim.batch
    shard = Shard(start_step=0, stop_step=1, batch=rows, micro_batch=rows)
    with Stream(run.plan, run.experiment.data, shard, device=CPU, run_dir=None, in_process=True, prefetch=0) as stream:
        (batch,) = stream
    assert not stream.quarantined
    return batch


def clips(run: ResolvedRun) -> Iterator[list[Clip | None]]:
    """Of every sample of the batch, in its order."""
    for i in range(run.experiment.optim.batch):
        yield from map(list, run.plan.row(i).clips)


def train_step(run: ResolvedRun, batch: Batch, folder: Path) -> None:
    """One step of the run's own training; its losses are finite, and every trained parameter moves."""
    training = Training(dataclasses.replace(run, folder=folder), Worker(CPU, in_process=True))
    before = {n: p.detach().clone() for n, p in training.model.named_parameters() if p.requires_grad}
    losses = training.optimise(iter([batch]), training.forward(), passes=1, total=run.total_steps)
    assert all(torch.isfinite(value).all() for value in losses.values()), losses
    now = dict(training.model.named_parameters())
    still = [name for name, values in before.items() if torch.equal(now[name], values)]
    assert before
    assert not still


def shown(catalog: Catalog, clip: Clip, kind: str) -> set[str]:
    """Names of the classes that the catalog says a clip shows."""
    recording = catalog.recordings[clip.recording]
    if kind == "perspective":
        return {recording.perspective}
    if all(segment.name != kind for segment in catalog.segments):
        return {recording.action}
    own = [s for s in catalog.segments if s.name == kind and s.recording == recording.id]
    if clip.segment is not None:
        return {s.label for s in own if (s.start_s, s.end_s) == clip.segment}
    first_s, last_s = catalog.instants(recording, clip.frames[[0, -1]]) - recording.start_offset_s
    end_s = last_s + 1 / recording.fps
    return {s.label for s in own if s.start_s < end_s - 1e-5 and s.end_s > first_s + 1e-5}


def check_labels(run: ResolvedRun, batch: Batch) -> None:
    sampling, catalog = run.plan.sampling, run.plan.catalog
    for kind, count in sampling.labels.items():
        names = ("exo", "ego") if kind == "perspective" else catalog.all_classes()[kind]
        assert len(names) == count
        (slot,) = sampling.views
        found = [{names[k] for k in row.nonzero()[:, 0]} for row in batch[f"{slot}/label/{kind}"]]
        drawn = [clip for (clip,) in clips(run) if clip]
        assert found == [shown(catalog, clip, kind) for clip in drawn]
        assert any(found)


def check_clips(run: ResolvedRun, batch: Batch) -> None:
    """Every clip is of the view, the unit and, with its partner, of the pairing that is asked for."""
    sampling, catalog = run.plan.sampling, run.plan.catalog
    for row in clips(run):
        found = [catalog.recordings[clip.recording] for clip in row if clip]
        for clip in filter(None, row):
            recording = catalog.recordings[clip.recording]
            assert sampling.views[clip.view].perspective in ("any", recording.perspective)
            assert (clip.segment is None) == (sampling.unit == "recording")
            if clip.segment:
                times = catalog.instants(recording, clip.frames) - recording.start_offset_s
                assert clip.segment[0] - 1 / recording.fps <= times[0]
                assert times[-1] <= clip.segment[1]
        assert len({r.id for r in found}) == len(found)
        if sampling.pairing in ("synchronized", "group"):
            assert len({r.scene for r in found}) == 1
        if sampling.pairing == "unpaired":
            assert len({r.action for r in found}) == 1
    for slot, view in sampling.views.items():
        if slot in batch and batch[slot].dtype == torch.uint8:
            assert batch[slot].shape[1:] == (sampling.max_frames(view), 3, view.size_px, view.size_px)
            assert batch[slot].float().std() > 1
    for name, mask in batch.items():
        if name.endswith("/mask") and name != "video/mask":
            assert mask.all(), name


def test_every_published_preset_is_here() -> None:
    for method in (*config.method_names(), "recognition"):
        assert published.PLACES[method].keys() == config.presets(method).keys() - {"debug"}


@pytest.mark.parametrize(("method", "preset"), CASES)
def test_a_preset_trains_on_its_dataset(method: str, preset: str, films: Path, tmp_path: Path) -> None:
    rows = 4 if method in ("mv2mae", "recognition") else 2
    encoder = tmp_path / "encoder" if method == "recognition" else None
    place, fewer = published.PLACES[method][preset], published.FEWER.get(preset, {})
    run = resolved(method, preset, place, films, rows, encoder, **fewer)
    batch = first_batch(run)
    check_clips(run, batch)
    check_labels(run, batch)
    train_step(run, batch, tmp_path)


@pytest.mark.parametrize("preset", ["paper_step1", "paper_step2"])
def test_evgap_trains_on_videos_with_a_base(preset: str, films: Path, tmp_path: Path) -> None:
    run = resolved("evgap", preset, ("assembly101", None), films, 1, input="video")
    batch = first_batch(run)
    check_clips(run, batch)
    train_step(run, batch, tmp_path)


def test_a_preset_for_other_classes_is_refused(films: Path) -> None:
    with pytest.raises(UserError, match=r"'action' have 60 classes .* --method.classes.action is 120"):
        resolved("recognition", "ntu120", ("ntu60", "xsub60"), films, 4)
