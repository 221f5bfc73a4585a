"""The task "measures": what a method's loss claims, measured by the method itself on held-out samples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from crossview.datasets.catalog.labels import Labels
from crossview.datasets.sampling.plan import Plan
from crossview.methods.method import Batch
from crossview.platform import checkpoint
from crossview.platform.cluster.map_recordings import Where
from crossview.platform.data.loader import Shard, Stream
from crossview.platform.evaluate.embedding_store import RANDOM_INIT, TRAINED, device_name, on_features, random_init
from crossview.platform.evaluate.task import Answer, Question, Scores

SAMPLES = 256
SEED = 0
"""Of the plan that draws them, so that every run is measured on the same."""


def measures(question: Question) -> Answer:
    """`Method.measures` on one batch of the evaluated split; raises ValueError where the method measures nothing."""
    device = torch.device(device_name(question.device))
    source = checkpoint.resolve(question.run).resolve()
    batch = held_out_batch(question, source, device)
    trained = checkpoint.load(source, device)
    models = {TRAINED: trained}
    if question.baselines:
        models[RANDOM_INIT] = random_init(question.name, question.experiment, trained)
    rows: Scores = {}
    for row, model in models.items():
        with torch.no_grad():
            found = model.measures(batch)
        rows[row] = {f"measures/{name}": float(value) for name, value in found.items()}
    if not rows[TRAINED]:
        raise ValueError(
            f"tasks name 'measures', but {question.name} measures nothing of its own; leave that task out, or give its "
            "model a `measures`"
        )
    return Answer(rows, [f"Measured on {len(batch['sample'])} samples of split {question.split} from seen cameras."])


def held_out_batch(question: Question, source: Path, device: torch.device) -> Batch:
    """Up to SAMPLES samples from the evaluated split's seen cameras, drawn as in training, decoded in this process."""
    q, data = question, question.experiment.data
    sampling, seen = q.experiment.method.sampling(), q.seen_views()
    part = q.catalog.select(q.split)
    kept = tuple(r for r in part.recordings if r.view in seen and r.action in (data.actions or (r.action,)))
    if not kept:
        raise ValueError(
            f"split {q.split!r} has no recording of the cameras ({', '.join(sorted(seen))}) and actions trained on; "
            "leave the task 'measures' out, or evaluate another split"
        )
    part = replace(part, recordings=kept)
    labels = Labels(q.catalog, sampling.labels)  # of all splits, as in training
    where = Where(q.in_process, q.actors, device.type)
    part = on_features(q.name, q.experiment, part, where, 64, source)
    plan = Plan(part, sampling, SEED, labels)
    rows = max(1, min(SAMPLES // sampling.windows, plan.rows_per_epoch))
    shard = Shard(start_step=0, stop_step=1, batch=rows, micro_batch=rows)
    with Stream(plan, data, shard, device=device, run_dir=None, in_process=True, prefetch=0) as stream:
        return next(iter(stream))
