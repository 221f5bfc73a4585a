"""Downstream trainers: found by their folder, trained as methods are, resumed exactly, scored beside their controls."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from feature_catalog import write_feature_catalog

import crossview.downstream
from crossview.downstream import results
from crossview.errors import UserError
from crossview.platform import checkpoint
from crossview.platform.cli.options import parse_train
from crossview.platform.config import Cadence, Data, Encoder, TrainerExperiment, preset, read, trainer_names
from crossview.platform.evaluate.result_store import read_results
from crossview.platform.evaluate.runner import evaluate
from crossview.platform.train import launcher
from crossview.platform.train.metrics import read_metrics
from crossview.platform.train.settings import Validation

FOLDER = str(Path(__file__).parent / "trainers")


@pytest.fixture(scope="module", autouse=True)
def _found() -> Iterator[None]:
    """The trainers of the tests' own folder, beside those of Crossview."""
    path = crossview.downstream.__path__
    saved = list(path)
    crossview.downstream.__path__ = [*saved, FOLDER]  # type: ignore[assignment]
    yield
    crossview.downstream.__path__ = saved  # type: ignore[assignment]


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_feature_catalog(tmp_path_factory.mktemp("features"))


def experiment(catalog: Path, name: str = "debug", **changes: Any) -> TrainerExperiment[Any]:
    recipe = preset("step_probe", name)
    every = Cadence(log=5, checkpoint=10, keep=3)
    return TrainerExperiment(
        data=Data(catalog=catalog), method=recipe.method, optim=recipe.optim, every=every, **changes
    )


def scored() -> Validation:
    """As `crossview train step_probe` scores a run."""
    return parse_train(["step_probe", "--data.catalog", "any"])[1].validation


def test_a_trainer_is_found_by_its_folder() -> None:
    assert "step_probe" in trainer_names()
    assert scored().tasks == ("step_probe",)
    assert parse_train(["evgap", "--data.catalog", "any"])[1].validation.tasks is None


def test_it_learns_and_is_scored_by_its_own_task(catalog: Path, tmp_path: Path) -> None:
    run = launcher.start(tmp_path / "run", "step_probe", experiment(catalog), in_process=True, validation=scored())
    table = read_results(run)
    assert table is not None
    scores = results.scores(table)
    assert scores["trained"]["step_probe/accuracy"] > 0.9 > scores["majority"]["step_probe/accuracy"]
    assert set(table["split"].to_pylist()) == {"val"}
    assert [row for row in read_metrics(run) if "loss" in row]


def test_it_resumes_exactly(catalog: Path, tmp_path: Path) -> None:
    whole = launcher.start(tmp_path / "whole", "step_probe", experiment(catalog), in_process=True, validation=scored())
    parts = launcher.start(
        tmp_path / "parts", "step_probe", experiment(catalog), in_process=True, validation=scored(), until=13
    )
    launcher.resume(parts, in_process=True)
    a, b = (checkpoint.read_weights(checkpoint.resolve(run)) for run in (whole, parts))
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def method_run(catalog: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of EVGAP on these features."""
    from crossview.methods.recipe import Optim
    from crossview.platform.config import Experiment

    recipe = preset("evgap", "debug")
    method = replace(recipe.method, input="features", feature_width=9 * 96, step="pairs")
    made = Experiment(data=Data(catalog=catalog), method=method, optim=Optim(steps=2, batch=8), every=Cadence(log=1))
    pairs = catalog.parent / "synchronized"
    _one_scene_each(catalog, pairs)
    made = replace(made, data=Data(catalog=pairs))
    folder = tmp_path_factory.mktemp("method") / "run"
    return launcher.start(folder, "evgap", made, in_process=True)


def _one_scene_each(catalog: Path, out: Path) -> None:
    """The same recordings, with ego and exo k in one scene."""
    from crossview.datasets.catalog import Catalog, one_protocol

    old = Catalog.load(catalog)
    new = [
        replace(r, scene=r.scene.replace("_ego", "").replace("_exo", ""), num_frames=r.num_frames)
        for r in old.recordings
    ]
    splits = [(r, str(old.split_of(o))) for r, o in zip(new, old.recordings, strict=True)]
    Catalog(old.root, tuple(new), protocols=one_protocol(splits)).save(out)


def test_an_encoder_is_kept_in_the_run_and_its_control_is_trained(
    catalog: Path, method_run: Path, tmp_path: Path
) -> None:
    made = experiment(catalog, "clips", encoder=Encoder(run=method_run))
    run = launcher.start(tmp_path / "run", "step_probe", made, in_process=True, validation=scored(), controls=True)
    name, saved = read(run)
    assert (name, saved.encoder.saved["name"]) == ("step_probe", "evgap")
    table = read_results(run)
    assert table is not None
    assert set(results.scores(table)) == {"trained", "random init", "majority"}
    method = checkpoint.read_weights(checkpoint.resolve(method_run))
    trained = checkpoint.read_weights(checkpoint.resolve(run))
    control = checkpoint.read_weights(checkpoint.resolve(run / "controls" / "random-init"))
    key = next(n for n in method if n.startswith("encoder.") and method[n].ndim == 2 and "position" not in n)
    assert torch.equal(trained[f"encoder.method.{key}"], method[key])
    assert not torch.equal(control[f"encoder.method.{key}"], method[key])


def test_a_method_refuses_the_task_of_a_trainer(method_run: Path) -> None:
    with pytest.raises(UserError, match="scores runs of the downstream trainer 'step_probe'"):
        evaluate(method_run, tasks=["step_probe"], in_process=True)


def test_a_trainer_refuses_tasks_of_embeddings(catalog: Path, tmp_path: Path) -> None:
    run = launcher.start(
        tmp_path / "run", "step_probe", experiment(catalog), in_process=True, validation=scored(), until=1
    )
    with pytest.raises(UserError, match="scores embeddings of a method"):
        evaluate(run, tasks=["phases"], in_process=True)


def test_held_out_cameras_are_scored_alone_and_said_to_be_held_out(catalog: Path, tmp_path: Path) -> None:
    from crossview.platform.evaluate.result_store import read_texts
    from crossview.platform.evaluate.tasks import options_from

    made = experiment(catalog)
    made = replace(made, data=replace(made.data, views=("exo",)))
    run = launcher.start(tmp_path / "run", "step_probe", made, in_process=True, validation=scored())
    lines = evaluate(
        run,
        tasks=["step_probe"],
        options={"step_probe": options_from("step_probe", {"views": ["ego"]})},
        in_process=True,
    )
    assert set(lines["views"].to_pylist()) == {"ego"}
    table = read_results(run)
    assert table is not None
    scores = results.scores(results.latest(table))["trained"]
    assert set(scores) == {"step_probe/accuracy", "step_probe/accuracy [ego]"}
    assert set(results.select(table, row="trained", views="ego")["n"].to_pylist()) < set(table["n"].to_pylist())
    assert read_texts(run, "val")["step_probe"].notes == [
        "Held-out cameras, on which nothing was trained downstream: ego."
    ]
    with pytest.raises(UserError, match="the evaluated split has the cameras ego, exo"):
        evaluate(run, options={"step_probe": options_from("step_probe", {"views": ["top"]})}, in_process=True)
