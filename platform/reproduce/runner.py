"""Studies: variants of a method, or of all, with several seeds beside their baselines, resumable at any point."""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from crossview import storage
from crossview.datasets.catalog.catalog import INDICES
from crossview.datasets.catalog.probing import Prober
from crossview.datasets.synthetic.ae2_layout import export_ae2, exported_catalog
from crossview.datasets.synthetic.world import write
from crossview.downstream import bench
from crossview.errors import UserError
from crossview.methods.method import Method
from crossview.methods.recipe import Recipe
from crossview.methods.study import Study
from crossview.platform import run_folder
from crossview.platform.config import Cadence, Compute, Data, Experiment, experiment_class, method_names, name_of
from crossview.platform.evaluate.opened import RANDOM_INIT, TRAINED
from crossview.platform.evaluate.result_store import latest_scores
from crossview.platform.evaluate.tasks import make
from crossview.platform.models import build_model
from crossview.platform.progress import console, ticking
from crossview.platform.reproduce.base import has_base, with_base
from crossview.platform.reproduce.own_catalog import fit_to, scored_claims
from crossview.platform.reproduce.paper_list import tables
from crossview.platform.reproduce.runs import Embeddings, Planned, cache_features, folder_of, side_by_side
from crossview.platform.reproduce.synthetic_teachers import teach
from crossview.platform.reproduce.tables import Scores, publish

BENCH = "bench"


def reproduce(
    spec: str,
    out: Path | None,
    jobs: int | None,
    *,
    train_base: bool = False,
    catalog: Path | None = None,
    protocol: str | None = None,
) -> Path:
    """Run the study METHOD:STUDY or the bench in folder `out` and print its table; returns the table's file.

    `train_base` trains the base even if the study ships its weights. The bench takes a `catalog` of the user's, under a
    `protocol`, in place of its world.
    """
    study = find(spec)
    if jobs is not None and jobs < 1:
        raise UserError(f"--jobs is {jobs}; it must be at least 1")
    out = (out or Path("runs") / spec.replace(":", "-")).resolve()
    notes: list[str] = []
    own = catalog is not None
    if catalog is not None:
        study, notes = fit_to(study, catalog, protocol)
    _claim_folder(out, study, catalog, protocol)
    recipes = with_base(study, out, train=train_base)
    if catalog is None:
        catalog = _data(study, out)
        if study.teachers is not None:
            teach(study.teachers, catalog, out)
    planned = plan(study, recipes, Data(catalog=catalog, protocol=protocol), out)
    for one in planned:
        if one.experiment.data.cache_features and one.experiment.seed == 0:
            cache_features(one)
    side_by_side(planned, jobs, f"crossview reproduce {spec} --out {out}")
    scores = _collect(study, planned)
    if own:
        study = dataclasses.replace(study, claims=scored_claims(study, scores))
    table = publish(spec, study, scores, out, notes)
    _page(planned[0].run, study.split)
    return table


def find(spec: str) -> Study:
    """The study that METHOD:STUDY names, or the bench; raises ValueError with the known ones."""
    known = {f"{of}:{name}": study for of in (*method_names(), BENCH) for name, study in _studies(of).items()}
    if spec not in known:
        raise UserError(f"study {spec!r} is unknown; choose from {', '.join((*known, *tables()))}")
    return known[spec]


def _studies(of: str) -> dict[str, Study]:
    """By name, of a method or of the bench."""
    if of == BENCH:
        return bench.studies()
    if importlib.util.find_spec(f"crossview.methods.{of}.studies") is None:
        return {}
    return importlib.import_module(f"crossview.methods.{of}.studies").studies()


def _claim_folder(out: Path, study: Study, catalog: Path | None = None, protocol: str | None = None) -> None:
    """A folder belongs to one study on the same data: resuming another's runs would mix two results."""
    out.mkdir(parents=True, exist_ok=True)
    file = out / "study.json"
    own = {} if catalog is None else {"catalog": catalog, "protocol": protocol}
    content = json.loads(json.dumps(dataclasses.asdict(study) | own, default=str))
    if file.exists():
        held = storage.read_json(file, "choose another folder, or delete this one")
        if other := sorted(key for key in held.keys() | content.keys() if held.get(key) != content.get(key)):
            raise UserError(
                f"--out {out}: it holds another version of this study, which differs in {', '.join(other)}; choose "
                "another folder or delete it"
            )
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


def plan(study: Study, recipes: Mapping[str, Recipe], data: Data, out: Path) -> list[Planned]:
    """The runs of a study on the catalog of `data`, seed by seed, each after the one that it needs."""
    planned: list[Planned] = []
    for seed in range(study.seeds):
        runs = {name: _planned(study, name, seed, recipe, data, out) for name, recipe in recipes.items()}
        planned += runs.values()
        for name, one in runs.items():
            if name not in study.starts.values():
                planned += _on_embeddings(study, one, out)
    return planned


def _planned(study: Study, variant: str, seed: int, recipe: Recipe, data: Data, out: Path) -> Planned:
    """A run of a variant, scored beside its baselines where it is controlled."""
    start = study.starts.get(variant)
    before = folder_of(out, start, seed) if start else None
    features = study.cache == "features" and has_base(recipe)
    experiment: Experiment[Any] = Experiment(
        data=dataclasses.replace(
            data,
            views=study.train_views,
            actions=study.train_actions,
            cache_features=features,
            cache_frames=not features,
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
        name_of(recipe.method),
        experiment,
        tasks={task: {} for task in study.tasks},
        split=study.split,
        baselines=variant in _controlled(study),
        after=before,
    )


def _controlled(study: Study) -> tuple[str, ...]:
    return study.controlled or (next(iter(study.variants)),)


def _on_embeddings(study: Study, one: Planned, out: Path) -> Iterator[Planned]:
    """Downstream trainers on a run's embeddings, and on those of its random init and its first baseline."""
    rows = [TRAINED]
    if study.trainers and one.name in _controlled(study):
        model = build_model(one.method, one.experiment)
        assert isinstance(model, Method)
        rows += [RANDOM_INIT, *list(model.baselines())[:1]]
    for trainer, recipe in study.trainers.items():
        for row in rows:
            label = _label(study, one.name, row)
            seed = one.experiment.seed
            embedded = folder_of(out / "embedded", label, seed)
            experiment: Experiment[Any] = experiment_class(trainer)(
                data=Data(catalog=embedded, protocol=one.experiment.data.protocol, views=study.train_views),
                method=recipe.method,
                optim=recipe.optim,
                compute=one.experiment.compute,
                every=one.experiment.every,
                seed=seed,
            )
            yield Planned(
                label,
                folder_of(out, f"{trainer}-{label}", seed),
                trainer,
                experiment,
                tasks={trainer: {}},
                split=study.split,
                baselines=True,
                after=one.run,
                reads=Embeddings(one.run, row, study.split),
            )


def _page(run: Path, split: str) -> None:
    from crossview.platform.report.figures import draw
    from crossview.platform.report.run_report import report

    if not (run / "report.html").exists():
        draw(run, split=split)
        report(run)
    console.print(f"The report with its figures is saved to {run / 'report.html'}", highlight=False)


def _collect(study: Study, planned: list[Planned]) -> Scores:
    """Scores by row over seeds: the variants' trained rows, then baselines."""
    scores: Scores = {variant: {} for variant in study.variants}
    baselines: Scores = {}
    shared = _shared(study)
    for one in planned:
        for row, values in latest_scores(one.run, split=study.split).items():
            if row in shared:
                _append(baselines, row, values, one.experiment.seed, study.seeds)
            elif one.reads is not None:
                _append(scores if one.name in scores else baselines, one.name, values, one.experiment.seed, study.seeds)
            elif row == TRAINED or one.name in _controlled(study):
                label = _label(study, one.name, row)
                _append(scores if row == TRAINED else baselines, label, values, one.experiment.seed, study.seeds)
    return scores | baselines


def _shared(study: Study) -> set[str]:
    """Baselines of the tasks that no run changes: with several controlled variants they are one row for all."""
    tasks = make((*study.tasks, *study.trainers)).values() if study.controlled else ()
    return {row for task in tasks for row, of in task.baselines().items() if of.fixed}


def _label(study: Study, variant: str, row: str) -> str:
    """What a row of a variant's result is called."""
    if row == TRAINED:
        return variant
    return f"{variant}: {row}" if study.controlled else row


def _append(scores: Scores, row: str, metrics: dict[str, float], seed: int, seeds: int) -> None:
    """One value per metric and seed: what several runs of a seed share is taken once."""
    for metric, value in metrics.items():
        of = scores.setdefault(row, {}).setdefault(metric, [math.nan] * seeds)
        if math.isnan(of[seed]):
            of[seed] = value
