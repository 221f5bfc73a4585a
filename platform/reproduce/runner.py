"""Studies: variants and seeds of a method on the synthetic world beside their baselines, resumable at any point."""

from __future__ import annotations

import dataclasses
import importlib
import json
from pathlib import Path
from typing import Any

from crossview import storage
from crossview.datasets.catalog.catalog import INDICES
from crossview.datasets.catalog.probing import Prober
from crossview.datasets.synthetic.ae2_layout import export_ae2, exported_catalog
from crossview.datasets.synthetic.world import write
from crossview.errors import UserError
from crossview.methods.recipe import Recipe
from crossview.methods.study import Study
from crossview.platform import run_folder
from crossview.platform.config import Cadence, Compute, Data, Experiment, method_names
from crossview.platform.evaluate.opened import TRAINED
from crossview.platform.evaluate.result_store import latest_scores
from crossview.platform.progress import console, ticking
from crossview.platform.reproduce.base import with_base
from crossview.platform.reproduce.paper_list import tables
from crossview.platform.reproduce.runs import Planned, cache_features, folder_of, side_by_side
from crossview.platform.reproduce.synthetic_teachers import teach
from crossview.platform.reproduce.tables import Scores, publish


def reproduce(spec: str, out: Path | None, jobs: int | None, *, train_base: bool = False) -> Path:
    """Run the study METHOD:STUDY in folder `out` and print its table; returns the table's file.

    `train_base` trains the base even if the study ships its weights.
    """
    method, name, study = find(spec)
    if jobs is not None and jobs < 1:
        raise UserError(f"--jobs is {jobs}; it must be at least 1")
    out = (out or Path("runs") / f"{method}-{name}").resolve()
    _claim_folder(out, study)
    catalog = _data(study, out)
    if study.teachers is not None:
        teach(study.teachers, method, catalog, out)
    recipes = with_base(study, out, train=train_base)
    planned = [
        _planned(study, method, variant, seed, recipe, catalog, out)
        for seed in range(study.seeds)
        for variant, recipe in recipes.items()
    ]
    if study.cache == "features":
        cache_features(planned[0])
    side_by_side(planned, jobs, f"crossview reproduce {spec} --out {out}")
    table = publish(spec, study, _collect(study, planned), out)
    _page(planned[0].run, study.split)
    return table


def find(spec: str) -> tuple[str, str, Study]:
    """The study that METHOD:STUDY names; raises ValueError with the known ones."""
    known = {f"{m}:{name}": study for m in method_names() for name, study in _studies(m).items()}
    if spec not in known:
        raise UserError(f"study {spec!r} is unknown; choose from {', '.join((*known, *tables()))}")
    method, name = spec.split(":")
    return method, name, known[spec]


def _studies(method: str) -> dict[str, Study]:
    if importlib.util.find_spec(f"crossview.methods.{method}.studies") is None:
        return {}
    return importlib.import_module(f"crossview.methods.{method}.studies").studies()


def _claim_folder(out: Path, study: Study) -> None:
    """A folder belongs to one study: resuming another study's runs would mix two results."""
    out.mkdir(parents=True, exist_ok=True)
    file = out / "study.json"
    content = json.loads(json.dumps(dataclasses.asdict(study), default=str))
    if file.exists() and storage.read_json(file, "choose another folder, or delete this one") != content:
        raise UserError(f"--out {out}: it holds another version of this study; choose another folder or delete it")
    run_folder.write_json(file, content)


def _data(study: Study, out: Path) -> Path:
    """Render the study's world and catalog it; an AE2 export is cataloged as a user's copy of AE2 would be."""
    folder = out / "catalog"
    if (folder / "catalog.json").exists():
        return folder
    with ticking("rendering") as tick:
        if study.layout == "synchronized":
            write(study.world, out / "data", tick).save(folder)
            return folder
        export_ae2(study.world, out / "data", layout="csv", progress=tick)
    exported_catalog(out / "data", study.world.actions[0], Prober(folder / INDICES)).save(folder)
    return folder


def _planned(study: Study, method: str, variant: str, seed: int, recipe: Recipe, catalog: Path, out: Path) -> Planned:
    """A run; those of the first variant are scored beside their baselines."""
    start = study.starts.get(variant)
    before = folder_of(out, start, seed) if start else None
    experiment: Experiment[Any] = Experiment(
        data=Data(
            catalog=catalog,
            views=study.train_views,
            actions=study.train_actions,
            cache_features=study.cache == "features",
            cache_frames=study.cache == "frames",
        ),
        method=recipe.method,
        optim=recipe.optim,
        compute=Compute(device="auto", threads=1),
        every=Cadence(log=20, checkpoint=500, keep=1),
        seed=seed,
        init_from=before,
    )
    return Planned(
        variant,
        folder_of(out, variant, seed),
        method,
        experiment,
        tasks={task: {} for task in study.tasks},
        split=study.split,
        baselines=variant == next(iter(study.variants)),
        after=before,
    )


def _page(run: Path, split: str) -> None:
    from crossview.platform.report.figures import draw
    from crossview.platform.report.run_report import report

    if not (run / "report.html").exists():
        draw(run, split=split)
        report(run)
    console.print(f"The report with its figures is saved to {run / 'report.html'}", highlight=False)


def _collect(study: Study, planned: list[Planned]) -> Scores:
    """Scores by row over seeds: the variants' trained rows, then the first variant's baselines."""
    scores: Scores = {variant: {} for variant in study.variants}
    method_variant = next(iter(study.variants))
    baselines: Scores = {}
    for one in planned:
        for row, values in latest_scores(one.run, split=study.split).items():
            if row == TRAINED:
                _append(scores, one.name, values)
            elif one.name == method_variant:
                _append(baselines, row, values)
    return scores | baselines


def _append(scores: Scores, row: str, values: dict[str, float]) -> None:
    for metric, value in values.items():
        scores.setdefault(row, {}).setdefault(metric, []).append(value)
