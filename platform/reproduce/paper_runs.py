"""A paper's table: its stages with all seeds as resumable runs in one folder, and our numbers beside the paper's."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from crossview import storage
from crossview.errors import UserError
from crossview.methods.paper_table import TRAINED, Column, PaperTable, Row, Stage
from crossview.platform import run_folder
from crossview.platform.config import (
    Cadence,
    Compute,
    Data,
    Encoder,
    Experiment,
    Source,
    experiment_class,
    method_names,
    trainer_names,
)
from crossview.platform.evaluate.result_store import latest_scores
from crossview.platform.progress import marked
from crossview.platform.reproduce import paper_data
from crossview.platform.reproduce.paper_result import MARK, Line, Result, publish
from crossview.platform.reproduce.runs import Planned, cache_features, folder_of, side_by_side
from crossview.platform.reproduce.stage_recipes import Scale, recipe_of
from crossview.storage import Location


@dataclass(frozen=True, kw_only=True)
class Request:
    """How a table is to be run."""

    out: Path
    synthetic: bool = False
    catalogs: tuple[str, ...] = ()
    protocols: tuple[str, ...] = ()
    seeds: int | None = None
    """None takes the table's own, or 1 on synthetic exports."""
    jobs: int | None = None
    compute: Compute = field(default_factory=Compute)


def run_table(spec: str, table: PaperTable, request: Request) -> Path:
    """Run a table and print it; returns the folder with its four forms.

    Raises ValueError, before anything is trained, for everything that its stages lack.
    """
    with marked(MARK if request.synthetic else ""):
        planned = plan(spec, table, request)
        paper_data.check(planned[: len(table.stages)])  # one seed; the others differ in nothing that is checked
        _claim(request, table)
        for one in planned:
            if one.experiment.data.cache_features:
                cache_features(one)
        side_by_side(planned, request.jobs, command(spec, request))
        return publish(collect(spec, table, planned, request), request.out)


def plan(spec: str, table: PaperTable, request: Request) -> list[Planned]:
    """All runs, seed by seed, each after the one that it needs; makes the stand-ins of a synthetic run."""
    seeds = request.seeds or (1 if request.synthetic else table.seeds)
    if seeds < 1:
        raise UserError(f"--seeds is {seeds}; it must be at least 1")
    _check_trainers(spec, table)
    if request.synthetic and (request.catalogs or request.protocols):
        raise UserError("--synthetic makes its own catalogs; leave --catalog and --data.protocol out")
    protocols = paper_data.by_dataset(table, "data.protocol", request.protocols)
    if request.synthetic:
        catalogs = paper_data.stand_ins(table, request.out.parent / "stand-ins")
    else:
        catalogs = paper_data.own_catalogs(spec, table, request.catalogs)
    scale: Scale = "synthetic" if request.synthetic else "paper"
    asked = {row.stage for row in table.rows if row.of != TRAINED}  # whose baselines are rows of the table
    return [
        _planned(name, stage, seed, scale, catalogs, protocols, request, baselines=scale == "paper" or name in asked)
        for seed in range(seeds)
        for name, stage in table.stages.items()
    ]


def _check_trainers(spec: str, table: PaperTable) -> None:
    unknown = sorted({stage.trains for stage in table.stages.values()} - {*method_names(), *trainer_names()})
    if unknown:
        raise UserError(f"{spec}: nothing here trains {', '.join(unknown)} yet; this table can only be listed")


def _planned(
    name: str,
    stage: Stage,
    seed: int,
    scale: Scale,
    catalogs: Mapping[str, Location],
    protocols: Mapping[str, str],
    request: Request,
    *,
    baselines: bool,
) -> Planned:
    recipe = recipe_of(stage, scale)
    before = folder_of(request.out, stage.after, seed) if stage.after else None
    steps = recipe.optim.steps
    begun = experiment_class(stage.trains)
    experiment: Experiment[Any] = begun(
        data=Data(
            catalog=catalogs[stage.data],
            protocol=protocols.get(stage.data, stage.protocol),
            views=stage.views,
            mix=tuple(
                Source(catalog=catalogs[m.data], share=m.share, pairing=m.pairing, protocol=protocols.get(m.data))
                for m in stage.mix
            ),
            cache_features=stage.cache_features and scale == "paper",
        ),
        method=recipe.method,
        optim=recipe.optim,
        compute=dataclasses.replace(request.compute, threads=request.compute.threads or 1),
        every=Cadence(log=20, checkpoint=min(500, steps or 500), keep=1),
        seed=seed,
        init_from=before if stage.start else None,
        encoder=Encoder(run=before, weights=stage.encoder_weights) if stage.encoder else Encoder(),
    )
    return Planned(
        name,
        folder_of(request.out, name, seed),
        stage.trains,
        experiment,
        tasks=stage.tasks,
        split=stage.split,
        baselines=baselines,
        after=before,
    )


def command(spec: str, request: Request) -> str:
    """What was typed, as far as it decides the result, and what goes on after an interruption."""
    words = ["crossview", "reproduce", spec, *(["--synthetic"] if request.synthetic else [])]
    for option, values in (("--catalog", request.catalogs), ("--data.protocol", request.protocols)):
        words += [option, *values] if values else []
    words += ["--seeds", str(request.seeds)] if request.seeds else []
    return " ".join([*words, "--out", str(request.out)])


def _claim(request: Request, table: PaperTable) -> None:
    """A folder belongs to one version of one table on the same data."""
    request.out.mkdir(parents=True, exist_ok=True)
    file = request.out / "table.json"
    facts = {
        "stages": {name: dataclasses.asdict(stage) for name, stage in table.stages.items()},
        "synthetic": request.synthetic,
        "catalogs": request.catalogs,
        "protocols": request.protocols,
    }
    content = json.loads(json.dumps(facts, default=str))
    if file.exists() and storage.read_json(file, "choose another folder, or delete this one") != content:
        raise UserError(
            f"--out {request.out}: it holds another table, or this one on other data; choose another folder or "
            "delete it"
        )
    run_folder.write_json(file, content)


def collect(spec: str, table: PaperTable, planned: list[Planned], request: Request) -> Result:
    """Our scores of every row and column, one per seed, on the paper's scale."""
    scores = {one.run: latest_scores(one.run, split=one.split) for one in planned if one.tasks}
    runs: dict[str, list[Planned]] = {}
    for one in planned:
        runs.setdefault(one.name, []).append(one)

    def cell(row: Row, column: Column) -> tuple[float, ...]:
        found = []
        for one in runs[row.stage] if row.stage else ():
            of = scores[one.run].get(row.of, {})
            values = [of[name] for name in column.names(row.part) if name in of]
            if len(values) == len(column.metrics):
                found.append(float(np.mean(values)) * column.factor)
        return tuple(found)

    lines = tuple(Line(row, tuple(cell(row, column) for column in table.columns)) for row in table.rows)
    seeds = len(planned) // len(table.stages)
    return Result(spec, table, lines, seeds, command(spec, request), synthetic=request.synthetic)
