"""What a trainer predicts of every sample of a split, as evaluated."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crossview.datasets.catalog import Catalog
from crossview.datasets.catalog.labels import Labels
from crossview.datasets.sampling.feature_plan import FeaturePlan, SequenceRow
from crossview.datasets.sampling.sequence_plan import SequencePlan
from crossview.datasets.sampling.spec import Sampling
from crossview.downstream.task import Predicted, PredictionPart, Recorded
from crossview.downstream.test_views import Views
from crossview.downstream.trainer import Trainer
from crossview.errors import UserError
from crossview.platform.data.cameras import pretraining
from crossview.platform.data.decoder import Arrays, Shard
from crossview.platform.data.plan_builder import feature_plan
from crossview.platform.data.sequence_reader import SequenceReader
from crossview.platform.data.unreadable import Quarantine
from crossview.platform.evaluate.clip_predictions import clip_predictions
from crossview.platform.evaluate.facts import of_views, ordered
from crossview.platform.evaluate.opened import OpenRun

BATCH = 4
"""Samples per pass; changes no prediction."""


def predictions(
    run: OpenRun,
    catalog: Catalog,
    split: str,
    row: str | None,
    recordings: tuple[Recorded, ...],
    seen: frozenset[str],
    views: tuple[str, ...] | None = None,
    test: Views | None = None,
) -> PredictionPart:
    """The samples of a split with what the run's model of `row` predicts of them, or with None their targets alone.

    `catalog` has all splits of the run's protocol; `views` are the cameras that are predicted, all by default, and
    `test` is how many clips and crops a classifier of clips gets. Samples of recordings that cannot be read are left
    out and counted; raises ValueError if too many are.
    """
    spec, data = run.experiment.sampling(), run.experiment.data
    if isinstance(spec, Sampling):
        return clip_predictions(run, catalog, split, row, recordings, seen, views, test)
    part = of_views(ordered(catalog.select(split)), views)
    plan = feature_plan(part, spec, 0, catalog, data, test=True)
    rows = [plan.row(i) for i in range(plan.rows_per_epoch)]
    outputs: list[Mapping[str, np.ndarray] | None] = [{} for _ in rows]
    if row is not None:
        model = run.network(row)
        assert isinstance(model, Trainer)
        outputs = _predicted(run, plan, rows, model)
    samples = [_sample(plan, row, found) for row, found in zip(rows, outputs, strict=True) if found is not None]
    if not samples:
        raise UserError(f"split {split!r}: none of its {len(rows)} samples can be read")
    return PredictionPart(
        split=split,
        recordings=recordings,
        seen=seen,
        samples=tuple(samples),
        classes=_names(plan.labels),
        left_out=sum(found is None for found in outputs),
        undrawn=plan.undrawn,
        **pretraining(run.experiment, part),
    )


def _predicted(
    run: OpenRun, plan: FeaturePlan, rows: list[SequenceRow], model: Trainer
) -> list[Mapping[str, np.ndarray] | None]:
    """Of each row; None where a file cannot be read."""
    data = run.experiment.data
    reader = SequenceReader(plan, data, Shard(start_step=0, stop_step=0, batch=1, micro_batch=1))
    quarantine = Quarantine(None, len(plan.catalog.recordings), data.max_quarantined)
    found: list[Mapping[str, np.ndarray] | None] = [None] * len(rows)
    for batch in _batches(reader, rows, quarantine):
        places = list(batch)
        tensors = _stacked([batch[place] for place in places], run.device)
        with torch.inference_mode():
            outputs = model.predict(tensors)
        for k, place in enumerate(places):
            steps = len(rows[place].count) if isinstance(plan, SequencePlan) else None
            found[place] = {name: of[k][:steps].float().cpu().numpy() for name, of in outputs.items()}
    return found


def _batches(reader: SequenceReader, rows: list[SequenceRow], quarantine: Quarantine) -> Iterator[dict[int, Arrays]]:
    """Rows by place, those of alike length together, since the shorter ones are padded."""
    batch: dict[int, Arrays] = {}
    for place in sorted(range(len(rows)), key=lambda i: len(rows[i].count)):
        reports: list[dict[str, Any]] = []
        row = reader.read(rows[place], reports)
        quarantine.add([json.dumps(reports)])
        if row is not None:
            batch[place] = row
        if len(batch) == BATCH:
            yield batch
            batch = {}
    if batch:
        yield batch


def _stacked(rows: list[Arrays], device: torch.device) -> dict[str, Tensor]:
    """A batch as `Stream` yields it."""
    joined = {name: np.concatenate([row[name] for row in rows])[:, 0] for name in rows[0]}
    tensors = {name: torch.from_numpy(array).to(device) for name, array in joined.items()}
    return tensors | {"features/mask": tensors["features/mask"].bool()}


def _sample(plan: FeaturePlan, row: SequenceRow, outputs: Mapping[str, np.ndarray]) -> Predicted:
    recordings = [plan.catalog.recordings[i] for i in row.recordings]
    labels = plan.frame_labels(row) if isinstance(plan, SequencePlan) else np.empty(0, np.int64)
    event = plan.units.catalog.recordings[row.unit]
    return Predicted(
        unit=row.unit,
        recordings=tuple(r.id for r in recordings),
        scene=f"{event.dataset}/{event.scene}",
        views=tuple(r.view for r in recordings),
        perspectives=tuple(r.perspective for r in recordings),
        span=row.span,
        chunk=row.frames.shape[2],
        labels=labels,
        annotated=plan.annotated(row) if isinstance(plan, SequencePlan) else 0,
        targets=row.targets,
        outputs=outputs,
    )


def _names(labels: Labels | None) -> dict[str, tuple[str, ...]]:
    return dict(labels.classes) if labels is not None else {}
