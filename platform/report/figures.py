"""The figures of a run, drawn from the files in its folder."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from matplotlib.figure import Figure

from crossview import storage
from crossview.datasets.catalog import Catalog, Recording
from crossview.downstream.frame_table import FrameTable
from crossview.downstream.projection import nearest_across_views, tsne
from crossview.errors import UserError
from crossview.methods.method import Batch, Method
from crossview.platform import checkpoint
from crossview.platform.config import read
from crossview.platform.data.loader import Shard, Stream
from crossview.platform.data.plan_builder import load_catalog, plan_for
from crossview.platform.evaluate.opened import RANDOM_INIT, TRAINED
from crossview.platform.progress import Progress, console
from crossview.platform.report import plots
from crossview.platform.report.contact_sheet import contact_sheet, thumbnails
from crossview.platform.run_folder import require, write_json
from crossview.platform.train.metrics import read_metrics
from crossview.storage.tables import read_table

BEFORE = ("frozen features", RANDOM_INIT)
"""Rows that a map shows beside the trained one, if available."""
QUERIES, NEIGHBOURS = 2, 5
"""Of each direction in the retrieval figure."""
POOL = 400
"""Nearest frames among which the nearest one of each further video is looked for."""


def draw(run: Path, *, split: str = "val") -> list[Path]:
    """Draw all figures that the run's files allow to `run/figures`, with captions (captions.json); returns the files.

    A figure that cannot be drawn, e.g. for a damaged video, is left out, and omitted.json says why.
    Losses need metrics.parquet; maps and retrieval need `crossview evaluate` or `embed --baselines` on `split`.
    """
    run = require(run)
    _, experiment = read(run)
    catalog = load_catalog(experiment.data)
    folder = run / "figures"
    storage.make_folder(folder)
    steps: dict[str, Callable[[], dict[str, str]]] = {
        "losses": lambda: _losses(run, folder),
        "maps": lambda: _maps(run / "embeddings" / split, folder, catalog, split),
        "nearest frames": lambda: _retrieval(run / "embeddings" / split, folder, catalog, split),
        "contact sheet": lambda: _sheet(catalog, folder, split),
        "figures of the method": lambda: _of_method(run, folder),
    }
    captions: dict[str, str] = {}
    omitted: dict[str, str] = {}
    with Progress("figures", len(steps), "kinds") as line:
        for name, step in steps.items():
            try:
                captions |= step()
            except UserError as error:  # one damaged file must not prevent the other figures and the report
                omitted[name] = str(error)
            line.advance()
    for name, reason in omitted.items():
        console.print(f"not drawn: {name}: {reason}", highlight=False, markup=False)
    write_json(folder / "captions.json", captions)
    write_json(folder / "omitted.json", omitted)
    return [folder / name for name in captions]


def _losses(run: Path, folder: Path) -> dict[str, str]:
    rows = read_metrics(run)
    if not rows:
        return {}
    plots.save(plots.loss_curves(rows), folder / "losses.png")
    return {"losses.png": f"Losses over {rows[-1]['step']} optimiser steps, with the gradient norm and learning rate."}


def one_action(file: Path) -> tuple[str, FrameTable]:
    """The first action of a table and its frames: phases of different actions have nothing in common."""
    table = read_table(file)
    action = sorted(pc.unique(table["action"]).to_pylist())[0]
    part: pa.Table = table.filter(pc.equal(table["action"], action))
    return action, FrameTable.from_table(part)


def _labelled(folder: Path, row: str) -> Path | None:
    """A row's table, if it is there and every frame has a phase."""
    index = folder / "rows.json"
    fix = "delete it and embed the split again"
    files = storage.read_json(index, fix)["rows"] if index.exists() else {}
    if row not in files or read_table(folder / files[row], columns=["label"])["label"].null_count:
        return None
    return folder / files[row]


def _phases(catalog: Catalog, action: str, count: int) -> list[str]:
    """Names of the first phases of an action, as far as the catalog knows them."""
    known = catalog.classes.get(f"phase/{action}", ())
    return [*known[:count], *(f"phase {k}" for k in range(len(known), count))]


def _maps(embeddings: Path, folder: Path, catalog: Catalog, split: str) -> dict[str, str]:
    rows = {row: file for row in (*BEFORE, TRAINED) if (file := _labelled(embeddings, row))}
    if TRAINED not in rows or len(rows) < 2:
        return {}
    panels = []
    for row, file in rows.items():
        action, e = one_action(file)
        found = tsne(e, frames=600)
        title = f"after training ({row})" if row == TRAINED else f"before ({row})"
        panels.append(plots.Map(title, found.points, e.labels[found.rows], e.is_ego[found.rows]))
    count = int(e.labels.max()) + 1
    plots.save(plots.maps(panels, _phases(catalog, action, count)), folder / "tsne.png")
    return {
        "tsne.png": f"t-SNE of {len(found.rows)} frames of {action!r} (split {split}), the same frames in each "
        "panel. In a view-invariant embedding, discs and triangles of one colour cluster; distances mean little."
    }


def queries(e: FrameTable, count: int, seed: int = 0) -> np.ndarray:
    """Rows of `count` ego and `count` exo frames: phases in turn, the frame drawn at random, not chosen."""
    rng = np.random.default_rng(seed)
    labels = np.unique(e.labels)
    rows = []
    for is_ego in (True, False):
        for k in np.linspace(0, len(labels) - 1, min(count, len(labels))).round().astype(int):
            candidates = np.flatnonzero((e.is_ego == is_ego) & (e.labels == labels[k]))
            if len(candidates):
                rows.append(int(rng.choice(candidates)))
    return np.array(rows, dtype=np.int64)


def _retrieval(embeddings: Path, folder: Path, catalog: Catalog, split: str) -> dict[str, str]:
    file = _labelled(embeddings, TRAINED)
    if file is None:
        return {}
    action, e = one_action(file)
    by_id = {r.id: r for r in catalog.recordings if r.has_pixels}
    if e.is_ego.all() or not e.is_ego.any() or not set(e.videos) <= by_id.keys():
        return {}
    asked = queries(e, QUERIES)
    found = [_of_different_videos(e, row) for row in nearest_across_views(e, asked, k=min(POOL, len(e) - 1))]
    names = _phases(catalog, action, int(e.labels.max()) + 1)
    shots = _shots(e, {int(r) for rows in [asked, *found] for r in rows}, catalog, by_id, names)
    figure = plots.retrieval([shots[int(r)] for r in asked], [[shots[int(r)] for r in rows] for rows in found])
    plots.save(figure, folder / "retrieval.png")
    nearest = [(int(q), int(rows[0])) for q, rows in zip(asked, found, strict=True)]
    hits = sum(e.labels[a] == e.labels[b] for a, b in nearest)
    scene = [by_id[video].scene for video in e.videos]
    own = sum(scene[e.video[a]] == scene[e.video[b]] for a, b in nearest)
    return {
        "retrieval.png": f"Nearest frames across views, action {action!r} (split {split}). Left: an ego or exo query, "
        f"then the nearest frame of the other view and the nearest ones of {NEIGHBOURS - 1} further videos. Green: the "
        "query's phase, red: another. Queries are drawn at random; the nearest frame has the right phase for "
        f"{hits} of {len(asked)}; "
        f"for {own} it is from the query's own scene, filmed at the same time."
    }


def _of_different_videos(e: FrameTable, rows: np.ndarray) -> np.ndarray:
    """The nearest frame of each of the nearest videos."""
    rows = rows[rows >= 0]
    _, first = np.unique(e.video[rows], return_index=True)
    return rows[np.sort(first)][:NEIGHBOURS]


def _shots(
    e: FrameTable, rows: set[int], catalog: Catalog, by_id: dict[str, Recording], phases: list[str]
) -> dict[int, plots.Shot]:
    """Pictures with captions of some rows; every file is opened once."""
    out: dict[int, plots.Shot] = {}
    for video in sorted({int(e.video[r]) for r in rows}):
        of_video = [r for r in sorted(rows) if e.video[r] == video]
        recording = by_id[e.videos[video]]
        pictures = thumbnails(catalog.source(recording), e.frame[of_video].astype(np.int64))
        seconds = catalog.instants(recording, e.frame[of_video].astype(np.int64)) - recording.start_offset_s
        for row, picture, second in zip(of_video, pictures, seconds, strict=True):
            caption = f"{recording.perspective}, {phases[e.labels[row]]}\n{recording.subject}, {second:.1f} s"
            out[row] = plots.Shot(picture, caption, int(e.labels[row]))
    return out


def _sheet(catalog: Catalog, folder: Path, split: str) -> dict[str, str]:
    """The scene with the most cameras; nothing if no scene has two."""
    scenes: dict[tuple[str, bool, str], list[Recording]] = {}
    for recording in catalog.recordings:
        if recording.has_pixels and catalog.split_of(recording) == split:
            scenes.setdefault(recording.take, []).append(recording)
    most = max(scenes.values(), key=len, default=[])
    if len(most) < 2:
        return {}
    contact_sheet(catalog, most, folder / "views.png")
    return {"views.png": f"The {len(most)} cameras of scene {most[0].scene!r} at common instants."}


def _of_method(run: Path, folder: Path) -> dict[str, str]:
    """What the method itself draws of one training sample."""
    name, experiment = read(run)
    data = replace(experiment.data, decode_actors=1)
    plan = plan_for(experiment)
    shard = Shard(start_step=0, stop_step=1, batch=1, micro_batch=1)
    stream = Stream(plan, data, shard, device=torch.device("cpu"), run_dir=None, in_process=True, prefetch=0)
    with stream:
        batch = next(iter(stream))
    captions: dict[str, str] = {}
    for title, figure in method_figures(name, checkpoint.load(run), batch).items():
        plots.save(figure, folder / f"method-{title}.png")
        captions[f"method-{title}.png"] = (
            f"Drawn by the method on the first training sample: {title.replace('_', ' ')}."
        )
    return captions


def method_figures(name: str, model: Method, batch: Batch) -> dict[str, Figure]:
    """What `draw(model, batch)` of `methods/<name>/figures.py` draws, by title; nothing if there is no such file."""
    module = f"crossview.methods.{name}.figures"
    if importlib.util.find_spec(module) is None:
        return {}
    drawn: dict[str, Figure] = importlib.import_module(module).draw(model, batch)
    return drawn
