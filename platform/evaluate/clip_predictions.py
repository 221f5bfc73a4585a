"""What a classifier of clips predicts of recordings, or of labelled segments in them, from several views of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from crossview.datasets.catalog import Catalog, Recording
from crossview.datasets.catalog.labels import Labels
from crossview.datasets.catalog.probing import indexed
from crossview.datasets.sampling.spec import Sampling, View
from crossview.datasets.sampling.units import Units
from crossview.datasets.video.decode import read_clips
from crossview.datasets.video.source import Wanted
from crossview.downstream.task import Predicted, PredictionPart, Recorded
from crossview.downstream.test_views import Views, clip_frames, to_read
from crossview.downstream.trainer import Trainer
from crossview.downstream.view_scores import view_scores
from crossview.errors import UserError
from crossview.methods.method import Method
from crossview.platform.cluster.map_recordings import Arrays
from crossview.platform.data.cameras import pretraining
from crossview.platform.data.feature_files import read_features
from crossview.platform.data.frame_cache import frame_cache
from crossview.platform.data.video_reader import in_rgb
from crossview.platform.evaluate.embedding_store import RunJob, embedded
from crossview.platform.evaluate.facts import of_views, ordered
from crossview.platform.evaluate.opened import OpenRun

READ_BYTES = 512 * 1024**2
"""Pictures of a recording's segments that are read at once."""


@dataclass(frozen=True, eq=False)
class ClipUnits:
    """What is classified: recordings, or the labelled segments of them, with all their labels."""

    part: Catalog
    units: Units
    labels: Labels
    undrawn: Mapping[str, int]
    """Recordings of each camera that are of another perspective than is trained on; only cameras with some."""

    @staticmethod
    def of(part: Catalog, sampling: Sampling, labelled: Catalog, *, every: bool) -> ClipUnits:
        """Of a part of `labelled`, which numbers the classes; without `every` of the trained perspectives alone."""
        sides = {"any", "ego", "exo"} if every else {view.perspective for view in sampling.views.values()}
        kept = part if "any" in sides else part.keep(lambda r: r.perspective in sides)
        if not kept.recordings:
            raise UserError(
                f"catalog {part.place}: none of its {len(part.recordings)} recordings here is {' or '.join(sides)}, as "
                "those that were trained on; name the cameras to score with the task's option views"
            )
        undrawn = Counter(r.view for r in part.recordings) - Counter(r.view for r in kept.recordings)
        labels = Labels(labelled, sampling.labels, sampling.label_options)
        return ClipUnits(kept, Units.of(kept, sampling.unit), labels, dict(sorted(undrawn.items())))

    def base(self, unit: int) -> Recording:
        """The recording that a unit is, or is a part of."""
        return self.part.recordings[int(self.units.recordings[unit])]

    def targets(self, unit: int) -> dict[str, np.ndarray]:
        """Multi-hot uint8 (C,) by kind: what a segment's own span is labelled with, or all that a recording shows."""
        base, segments = self.base(unit), self.units.segments
        shown_s = self.part.instants(base, np.array([0, base.num_frames - 1])) - base.start_offset_s
        first_s, last_s = shown_s.tolist()
        span = segments[unit] if segments else None
        return {kind: self.labels.of(base, kind, first_s, last_s, span) for kind in self.labels.classes}

    def frames(self, unit: int, view: View, clips: int) -> np.ndarray:
        """Frames of the recording that each clip shows: int64 (K, T).

        Of a view without a rate there is one clip, with frames at even distances over the whole unit.
        """
        facts = self.units.catalog.recordings[unit]
        if view.fps is None:
            found = np.rint(np.linspace(0, facts.num_frames - 1, view.frames))[None].astype(np.int64)
        else:
            found = clip_frames(facts.num_frames, view.frames, facts.fps / view.fps, clips)
            if not facts.constant_rate:
                instants = facts.start_s + found.ravel() / facts.fps
                found = self.units.catalog.frames_at(facts, instants).reshape(found.shape)
        return found + self.units.first_frames[unit]

    def sample(self, unit: int, outputs: Mapping[str, np.ndarray]) -> Predicted:
        """With what is predicted of it."""
        facts, base = self.units.catalog.recordings[unit], self.base(unit)
        first = int(self.units.first_frames[unit])
        alone = f"/{facts.view}" if facts.own_clock else ""  # it shows no instant that another does
        return Predicted(
            unit=unit,
            recordings=(base.id,),
            scene=f"{facts.dataset}/{facts.scene}{alone}",
            views=(base.view,),
            perspectives=(base.perspective,),
            span=(first, first + facts.num_frames),
            chunk=1,
            labels=np.empty(0, np.int64),
            targets=self.targets(unit),
            outputs=outputs,
        )


def clip_predictions(
    run: OpenRun,
    catalog: Catalog,
    split: str,
    row: str | None,
    recordings: tuple[Recorded, ...],
    seen: frozenset[str],
    views: tuple[str, ...] | None = None,
    test: Views | None = None,
) -> PredictionPart:
    """As `predictions.predictions`, of a trainer that classifies clips, or a method with a classifier of its own.

    Outputs are the probabilities of all `test` views, (V, C). The frames of a recording are read once for all of them.
    """
    sampling: Sampling = run.experiment.sampling()
    part = of_views(ordered(catalog.select(split)), views)
    chosen = ClipUnits.of(part, sampling, catalog, every=views is not None)
    units = range(len(chosen.units.recordings))
    outputs: dict[int, Mapping[str, np.ndarray]] = {unit: {} for unit in units}
    if row is not None:
        outputs = _classified(run, row, split, chosen, sampling, test or Views())
    return PredictionPart(
        split=split,
        recordings=recordings,
        seen=seen,
        samples=tuple(chosen.sample(unit, outputs[unit]) for unit in units if unit in outputs),
        classes=dict(chosen.labels.classes),
        left_out=len(units) - len(outputs),
        undrawn=chosen.undrawn,
        several_classes=row is not None and run.network(row).several_classes,
        **pretraining(run.experiment, part),
    )


def _classified(
    run: OpenRun, row: str, split: str, chosen: ClipUnits, sampling: Sampling, test: Views
) -> dict[int, Mapping[str, np.ndarray]]:
    """By unit, without those of recordings that cannot be read."""
    of: dict[int, list[int]] = {}
    for unit, recording in enumerate(chosen.units.recordings.tolist()):
        of.setdefault(recording, []).append(unit)
    kept = replace(chosen.part, recordings=tuple(chosen.part.recordings[i] for i in of))
    views = [sampling.view_for(r.perspective) for r in kept.recordings]
    clips = [
        tuple(chosen.frames(unit, view, test.clips) for unit in units)
        for units, view in zip(of.values(), views, strict=True)
    ]
    job = _Job(kept, run.experiment.data, 0, run.where.device, run, (row,), tuple(views), tuple(clips), test.crops)
    arrays = embedded(job, _Classifier, run.path / "embeddings" / split / "predictions", run.where, "classifying clips")
    found: dict[int, Mapping[str, np.ndarray]] = {}
    for place, units in enumerate(of.values()):
        for k, unit in enumerate(units if place in arrays else ()):
            found[unit] = {kind: scores[k] for kind, scores in arrays[place].items()}
    return found


@dataclass(frozen=True)
class _Job(RunJob):
    views: tuple[View, ...]
    """By recording."""
    clips: tuple[tuple[np.ndarray, ...], ...]
    """By recording, of each of its units int64 (K, T)."""
    crops: int


class _Classifier:
    """The scores of all units of one recording: (units, V, C) by kind."""

    def __init__(self, job: _Job) -> None:
        self.job, self.device = job, torch.device(job.device)
        self.classify = _classifier(job.run, *job.rows)

    @torch.inference_mode()
    def __call__(self, index: int) -> Arrays:
        job, found = self.job, dict[str, list[np.ndarray]]()
        for frames, places in self._units(index):
            pictures = frames.unsqueeze(0).to(self.device)
            size_px = job.views[index].size_px
            scores = view_scores(self.classify, pictures, places, size_px=size_px, crops=job.crops)
            for kind, of in scores.items():
                found.setdefault(kind, []).append(of[0].float().cpu().numpy())
        return {kind: np.stack(of) for kind, of in found.items()}

    def _units(self, index: int) -> Iterator[tuple[Tensor, np.ndarray]]:
        """The frames of each unit, (M, 3, H, W) or (M, N, D), and the places of its clips' frames among them."""
        job, recording = self.job, self.job.catalog.recordings[index]
        wanted = [to_read(clips) for clips in job.clips[index]]
        if recording.kind == "features":
            array = read_features(job.catalog.file(recording), recording)
            yield from ((torch.from_numpy(array[needed]), places) for needed, places in wanted)
            return
        pixels = job.data.pixels(job.views[index])
        pictures = self._pictures(index, [needed for needed, _ in wanted])
        for frames, (_, places) in zip(pictures, wanted, strict=True):
            yield in_rgb(frames, pixels), places

    def _pictures(self, index: int, wanted: list[np.ndarray]) -> Iterator[np.ndarray]:
        """Of each unit as `read_clips` gives them; the file is opened once for as many units as READ_BYTES allow."""
        job, recording = self.job, self.job.catalog.recordings[index]
        source, data, view = job.catalog.source(recording), job.data, job.views[index]
        pixels, framing = data.pixels(view), view.band(recording.height_px, recording.width_px)
        if data.cache_frames:
            cached = frame_cache(source, recording, framing, pixels, data)
            yield from (cached[needed] for needed in wanted)
            return
        assert framing.size is not None
        groups = _groups(wanted, max(1, READ_BYTES // (3 * framing.size[0] * framing.size[1])))
        if len(groups) > 1 and data.decoder == "pyav" and source.index is None:
            source = indexed(source, data.time_limit_s)  # to seek, instead of reading from the first frame each time
        for group in groups:
            clips = [Wanted(needed, framing) for needed in group]
            yield from read_clips(source, clips, pixels=pixels, decoder=data.decoder, time_limit_s=data.time_limit_s)


def _groups(wanted: list[np.ndarray], most: int) -> list[list[np.ndarray]]:
    """Neighbours with at most so many frames together, or one alone that has more."""
    groups: list[list[np.ndarray]] = []
    total = 0
    for needed in wanted:
        if not groups or total + len(needed) > most:
            groups.append([])
            total = 0
        groups[-1].append(needed)
        total += len(needed)
    return groups


def _classifier(run: OpenRun, row: str) -> Callable[[Tensor], Mapping[str, Tensor]]:
    """Clips (B, T, ...) to probabilities (B, C) by kind."""
    model = run.network(row)
    if isinstance(model, Method):
        return model.class_scores
    assert isinstance(model, Trainer)
    (name,) = run.experiment.sampling().views
    return lambda clips: model.predict({name: clips})
