"""Studies: arms and seeds of a method on the synthetic world beside their controls, resumable at any point."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from rich.box import SIMPLE_HEAD
from rich.table import Table

from crossview.datasets import ae2
from crossview.datasets.catalog import Catalog
from crossview.datasets.synthetic.ae2_layout import export_ae2
from crossview.datasets.synthetic.parts import part_frames
from crossview.datasets.synthetic.world import write
from crossview.downstream.controls import margin
from crossview.downstream.table import cell, from_arrow, markdown, to_arrow
from crossview.methods.recipe import Recipe
from crossview.methods.study import Study
from crossview.platform import runs
from crossview.platform.config import Cadence, Compute, Data, Experiment, method_names
from crossview.platform.prepare import ticking
from crossview.platform.progress import Progress, console

Scores = dict[str, dict[str, list[float]]]


def reproduce(spec: str, out: Path | None, jobs: int | None) -> Path:
    """Run the study METHOD:STUDY in folder `out` and print its table; returns the table's file."""
    method, name, study = find(spec)
    out = (out or Path("runs") / f"{method}-{name}").resolve()
    _claim_folder(out, study)
    catalog = _data(study, out)
    recipes = _with_base(study, out)
    arms = {
        (arm, seed): (out / f"{arm.replace(' ', '-')}-seed{seed}", _experiment(recipe, catalog, study, seed))
        for arm, recipe in recipes.items()
        for seed in range(study.seeds)
    }
    if study.cached:
        _side_by_side(method, study, list(arms.values()), jobs or os.cpu_count() or 1)
    else:
        for run, experiment in arms.values():
            _one(run, method, experiment, study.split, in_process=False)
            _page(run, study.split)
    scores = _collect(study, {key: run for key, (run, _) in arms.items()})
    return _publish(spec, study, scores, out)


def find(spec: str) -> tuple[str, str, Study]:
    """The study that METHOD:STUDY names; raises ValueError with the known ones."""
    known = {f"{m}:{name}": study for m in method_names() for name, study in _studies(m).items()}
    if spec not in known:
        raise ValueError(f"study {spec!r} is unknown; choose from {', '.join(known)}")
    method, name = spec.split(":")
    return method, name, known[spec]


def _studies(method: str) -> dict[str, Study]:
    if importlib.util.find_spec(f"crossview.methods.{method}.studies") is None:
        return {}
    return importlib.import_module(f"crossview.methods.{method}.studies").studies()


def _claim_folder(out: Path, study: Study) -> None:
    """A folder belongs to one study: going on with another's runs would mix two results."""
    out.mkdir(parents=True, exist_ok=True)
    file = out / "study.json"
    content = json.loads(json.dumps(dataclasses.asdict(study), default=str))
    if file.exists() and json.loads(file.read_text()) != content:
        raise ValueError(f"--out {out}: it holds an earlier form of this study; name another folder or remove this one")
    runs.write_json(file, content)


def _data(study: Study, out: Path) -> Path:
    """Render the study's world and catalogue it, an AE2 export as a user's copy of AE2 would be."""
    folder = out / "catalog"
    if (folder / "catalog.json").exists():
        return folder
    with ticking("rendering") as tick:
        if study.layout == "synchronized":
            write(study.world, out / "data", tick).save(folder)
            return folder
        export_ae2(study.world, out / "data", layout="csv", progress=tick)
    ae2.catalog(out / "data", study.world.actions[0]).save(folder)
    return folder


def _with_base(study: Study, out: Path) -> dict[str, Recipe]:
    """The arms' recipes on the base that is trained here, where the study has one."""
    if study.base is None:
        return study.arms
    file = out / "base.safetensors"
    config = next(iter(study.arms.values())).method.base  # type: ignore[attr-defined]
    if not file.exists():
        with ticking("rendering for the base") as tick:
            pixels, coverage = part_frames(
                study.base.world, every=study.base.every, patch_px=config.patch_px or 16, progress=tick
            )
        from crossview.methods.base_training import train_base

        with Progress("training the base", study.base.steps, "steps") as line:
            train_base(
                config,
                torch.from_numpy(pixels),
                torch.from_numpy(coverage),
                file,
                steps=study.base.steps,
                tell=lambda step, loss: line.update(step, f"loss {loss:.3f}"),
            )
    weights = {"base": dataclasses.replace(config, weights=str(file))}
    return {
        arm: dataclasses.replace(recipe, method=dataclasses.replace(recipe.method, **weights))  # type: ignore[type-var]
        for arm, recipe in study.arms.items()
    }


def _experiment(recipe: Recipe, catalog: Path, study: Study, seed: int) -> Experiment[Any]:
    return Experiment(
        data=Data(catalog=catalog, cache_features=study.cached),
        method=recipe.method,
        optim=recipe.optim,
        compute=Compute(device="auto", threads=1 if study.cached else None),
        every=Cadence(log=20, checkpoint=500, keep=1),
        seed=seed,
    )


def _one(run: Path, method: str, experiment: Experiment[Any], split: str, *, in_process: bool) -> None:
    """Train one run to its end and score it, or what is left of that."""
    from crossview.platform import evaluate, train

    if (run / "run.json").exists():
        train.resume(run, in_process=in_process)
    else:
        train.start(run, method, experiment, in_process=in_process)
    if not (run / "evaluations" / f"{split}.parquet").exists():
        evaluate.evaluate(run, split=split, in_process=in_process)


def _page(run: Path, split: str) -> None:
    from crossview.platform.figures import draw
    from crossview.platform.report import report

    if not (run / "report.html").exists():
        draw(run, split=split)
        report(run)
    console.print(f"The page with its figures lies in {run / 'report.html'}", highlight=False)


def _side_by_side(method: str, study: Study, arms: list[tuple[Path, Experiment[Any]]], jobs: int) -> None:
    """Train the runs as Ray tasks, `jobs` at a time, on features that are computed once before."""
    from crossview.platform.cluster import connect
    from crossview.platform.features import cache

    connect()
    import ray

    first = arms[0][1]
    features = first.data.catalog / "features"
    cache(method, first.method, Catalog.load(first.data.catalog), features, data=first.data)
    remote: Any = ray.remote(num_cpus=1, max_retries=2)
    task = remote(_one)
    waiting = list(arms)
    running: list[Any] = []
    steps = sum(experiment.optim.steps or 0 for _, experiment in arms)
    with Progress(f"{len(arms)} runs", steps, "steps", _steps_done(arms)) as line:
        while waiting or running:
            while waiting and len(running) < jobs:
                run, experiment = waiting.pop(0)
                running.append(task.remote(run, method, experiment, study.split, in_process=True))
            done, running = ray.wait(running, timeout=1.0)
            ray.get(done)
            finished = len(arms) - len(waiting) - len(running)
            line.update(_steps_done(arms), f"{finished} of {len(arms)} trained and scored")


def _steps_done(arms: list[tuple[Path, Experiment[Any]]]) -> int:
    files = [run / "progress.json" for run, _ in arms]
    return sum(json.loads(file.read_text())["step"] for file in files if file.exists())


def _collect(study: Study, folders: dict[tuple[str, int], Path]) -> Scores:
    """Scores by row over seeds: the arms' trained rows, then the first arm's controls."""
    scores: Scores = {}
    method_arm = next(iter(study.arms))
    controls: Scores = {}
    for (arm, _), run in folders.items():
        for row, values in from_arrow(pq.read_table(run / "evaluations" / f"{study.split}.parquet")).items():
            if row == "trained":
                _append(scores, arm, values)
            elif arm == method_arm:
                _append(controls, row, values)
    return scores | controls


def _append(scores: Scores, row: str, values: dict[str, list[float]]) -> None:
    for metric, value in values.items():
        scores.setdefault(row, {}).setdefault(metric, []).extend(value)


def verdicts(study: Study, scores: Scores) -> list[tuple[str, str, float, float, bool]]:
    """(metric, rival row, mean margin, its spread, whether the margin exceeds it) for each claimed metric."""
    best = next(iter(study.arms))
    found = []
    for metric in study.claims if study.seeds > 1 else ():
        for rival in (row for row in scores if row != best):
            pair = {best: {metric: scores[best][metric]}, rival: {metric: scores[rival][metric]}}
            m = margin(pair, trained=best)[metric]
            found.append((metric, rival, m.mean, m.spread, m.holds))
    return found


def _publish(spec: str, study: Study, scores: Scores, out: Path) -> Path:
    """Print and store the scores of every row, and of the claims what they are worth."""
    best = next(iter(study.arms))
    file = out / "table.md"
    seeds = f"{study.seeds} seed{'s' if study.seeds > 1 else ''}"
    title = f"`crossview reproduce {spec}`: {study.split} split, mean ± standard deviation over {seeds}."
    found = verdicts(study, scores)
    text = [title, "", markdown(scores)]
    if found:
        text += [f"Margin of **{best}** over each rival, paired by seed; it holds where it exceeds its spread.", ""]
        text += ["| metric | rival | margin | spread | holds |", "|---|---|---:|---:|---|"]
        text += [
            f"| {m} | {r} | {mean:+.3f} | {sd:.3f} | {'yes' if ok else '**no**'} |" for m, r, mean, sd, ok in found
        ]
    file.write_text("\n".join(text) + "\n")
    pq.write_table(to_arrow(scores), out / "table.parquet")
    if found:
        console.print(_terminal(study, scores))
        kept = sum(ok for *_, ok in found)
        console.print(f"{best} beats its rivals by more than the spread in {kept} of {len(found)} comparisons.")
        for metric, rival, mean, sd, ok in found:
            if not ok:
                console.print(f"  not shown: {metric} against {rival}: {mean:+.3f}, spread {sd:.3f}", highlight=False)
    console.print(f"The table lies in {file}", highlight=False)
    return file


def _terminal(study: Study, scores: Scores) -> Table:
    """The claimed metrics, a line per row."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("row")
    for metric in study.claims:
        table.add_column(metric.replace("/", "\n"), justify="right")
    for row, values in scores.items():
        style = "bold" if row in study.arms else ""
        table.add_row(row, *(cell(values[metric]) for metric in study.claims), style=style)
    return table
