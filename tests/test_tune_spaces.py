"""Every space fits the options that it names, every sample is a configuration, and bad ones are refused by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import tiny_run
import torch
from feature_catalog import write_feature_catalog

from crossview.downstream.table import from_arrow
from crossview.methods.method import build
from crossview.platform.config import Data, Experiment, experiment_class, method_names, preset, presets, trainer_names
from crossview.platform.evaluate.preflight import metrics_on_noise
from crossview.platform.evaluate.runner import evaluate
from crossview.platform.evaluate.tasks import make, options_class, options_from
from crossview.platform.tune import space, spec, validate
from crossview.platform.tune.overrides import known_paths, paths_of, with_options
from crossview.platform.tune.settings import Settings, with_task_options

SAMPLES = 200
TRAINED = [*method_names(), *trainer_names()]
SPACES = [(method, name) for method in TRAINED for name in (method, "lr_batch")]


def experiment(method: str, name: str, catalog: Path = Path("catalog")) -> Experiment:
    recipe = preset(method, name)
    return experiment_class(method)(data=Data(catalog=catalog), method=recipe.method, optim=recipe.optim)


def test_every_method_and_trainer_has_a_space() -> None:
    assert set(space.names()) >= {*TRAINED, "lr_batch"}


@pytest.mark.parametrize(("method", "name"), SPACES)
def test_every_sample_of_a_space_is_a_configuration(method: str, name: str) -> None:
    """Of the small preset, each option at the sampled value."""
    found, before = space.load(name, method), experiment(method, "debug")
    for k in range(SAMPLES):
        options = found.sample((0, k))
        after = with_options(method, before, options)
        for key, value in options.items():
            for path in paths_of(key):
                assert value_at(after, path) == value


@pytest.mark.parametrize(("method", "name"), SPACES)
def test_a_space_fits_the_papers_preset(method: str, name: str) -> None:
    """Every path is an option, and some samples are accepted: a preset's other options may refuse the rest."""
    found, before = space.load(name, method), experiment(method, next(iter(presets(method))))
    assert {path for key in found.domains for path in paths_of(key)} <= set(known_paths(method, before))
    space.check(found, method, before, 0)


def value_at(value: object, path: str) -> object:
    for part in path.split("."):
        value = getattr(value, part)
    return value


@pytest.mark.parametrize("method", method_names())
def test_a_sampled_model_builds_and_its_metric_is_reported(method: str) -> None:
    found = space.load(method, method)
    for k in range(2):
        config = with_options(method, experiment(method, "debug"), found.sample((1, k))).method
        assert sum(p.numel() for p in build(method, config).parameters() if p.requires_grad) > 0
    assert found.mode in ("max", "min")
    assert found.metric in {metric for task in found.tasks for metric in options_class(task)().metrics()}


def test_a_space_of_no_single_method_is_scored_as_the_method_is() -> None:
    grid, own = space.load("lr_batch", "evgap"), space.load("evgap", "evgap")
    assert grid.grid
    assert (grid.metric, grid.mode, grid.tasks) == (own.metric, own.mode, own.tasks)
    assert len(list(grid.points())) == 18
    assert not own.grid


def test_the_tasks_report_the_metrics_that_are_told_of_them(tmp_path: Path) -> None:
    tiny_run.write_catalog(tmp_path, actions=("wave", "nod"))
    run = tiny_run.train(tmp_path / "run", tmp_path)
    tasks = ("phases", "retrieval", "action_probe", "few_clips")
    found = from_arrow(evaluate(run, tasks=tasks, baselines=False, in_process=True))["trained"]
    told = {m for task in tasks for m in options_class(task)().metrics() if not m.endswith("held_out")}
    assert set(found) == told


def test_a_sample_depends_on_its_seed_alone() -> None:
    found = space.load("byov", "byov")
    torch.manual_seed(0)
    first = found.sample((0, 5))
    torch.rand(3)
    assert found.sample((0, 5)) == first
    assert found.sample((0, 6)) != first


def write_space(folder: Path, body: str) -> str:
    file = folder / "mine.py"
    file.write_text(f'from ray import tune\n{body}\nMETRIC, MODE, TASKS = "phase_f1/ego2exo", "max", ("phases",)\n')
    return str(file)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (
            'SPACE = {"method.msm_ration": tune.uniform(0.2, 0.8)}',
            r"mine.py.*'method.msm_ration'.*did you mean method.msm_ratio",
        ),
        ('SPACE = {"method": tune.uniform(0.2, 0.8)}', r"option path 'method' of the space is unknown"),
        (
            'SPACE = {"method.msm_ratio": tune.uniform(1.5, 2.5)}',
            r"all of 100 samples are invalid for byov.*msm_ratio is",
        ),
        (
            'SPACE = {"optim.batch": tune.choice(["many"])}',
            r"all of 100 samples are invalid.*\"batch\" - should be \"int\"",
        ),
        ('SPACE = {"method.msm_ratio": 0.4}', r"method.msm_ratio is 0.4; it must be a domain of ray.tune"),
        ("SPACE = {}", r"it must define SPACE"),
        ("1 / 0", r"mine.py: the file cannot be run \(ZeroDivisionError"),
        ('SPACE = {"compute.workers": tune.choice([1, 2])}', r"compute.workers cannot vary.*--compute.workers"),
        ('SPACE, SCHEDULER = {"optim.lr": tune.uniform(1e-3, 1)}, "ASHA"', r"SCHEDULER is 'ASHA'; choose from 'asha'"),
        ('SPACE, REDUCTION = {"optim.lr": tune.uniform(1e-3, 1)}, 1', r"REDUCTION is 1"),
    ],
)
def test_a_bad_space_is_refused_by_name(tmp_path: Path, body: str, said: str) -> None:
    catalog = write_feature_catalog(tmp_path)
    settings = Settings(space=write_space(tmp_path, body))
    with pytest.raises(ValueError, match=said):
        validate.settle("byov", experiment("byov", "debug", catalog), settings)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"metric": "phase_f1/egotoexo"},
            r"metric 'phase_f1/egotoexo': no task of phases reports it.*phase_f1/ego2exo",
        ),
        ({"metric": "loss"}, r"metric 'loss': no task of phases reports it"),
        ({"tasks": ("retrieval",)}, r"metric 'phase_f1/ego2exo': no task of retrieval reports it.*retrieval/R@1/seen"),
        ({"tasks": ("retrieval",), "metric": "retrieval/R@1/held_out"}, r"has no held-out camera"),
        ({"space": "nowhere"}, r"--space nowhere: neither a name in tune_spaces/ \(anticipation, byov, egoexo"),
        ({"split": "dev"}, r"split 'dev' holds no recording"),
        ({"scheduler": "pbt", "search": "optuna"}, r"--scheduler pbt with --search optuna"),
        ({"scheduler": "pbt", "evaluations": 1}, r"--evaluations is 1 with --scheduler pbt"),
        ({"scheduler": "pbt", "space": "lr_batch", "search": "random"}, r"and use a space that is not a grid"),
        ({"evaluations": 151}, r"--evaluations is 151, but a trial trains for 150 steps; pass --evaluations 150"),
        ({"tasks": ("phases", "phases")}, r"'phases' is named twice"),
        ({"search": "grid"}, r"method.msm_ratio is uniform\(0.2, 0.8\), which has no list of values"),
    ],
)
def test_a_search_that_cannot_be_is_refused(tmp_path: Path, changes: dict, said: str) -> None:
    catalog = write_feature_catalog(tmp_path)
    with pytest.raises(ValueError, match=said):
        validate.settle("byov", experiment("byov", "debug", catalog), Settings(**changes))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"trials": 0}, "--trials is 0"),
        ({"split": "test"}, "never sees test"),
        ({"fit_split": "val"}, "--fit-split 'val'"),
        ({"confirm": 1}, "--confirm is 1"),
        ({"confirm": 0, "test": True}, "--test is on with --confirm 0"),
    ],
)
def test_settings_that_contradict_are_refused(changes: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Settings(**changes)


def test_a_metric_of_the_method_itself_is_known_from_noise(tmp_path: Path) -> None:
    """`measures` has no fixed metrics: they are what the method names."""
    task = make(("measures",))["measures"]
    names = metrics_on_noise(task, "mv2mae", experiment("mv2mae", "debug"))
    assert "measures/cross_view_gain" in names


def test_options_of_tasks_decide_what_is_searched_by(tmp_path: Path) -> None:
    catalog = write_feature_catalog(tmp_path)
    settings = replace(with_task_options(), metric="map@5/ego2exo", phases=options_from("phases", {"k": 5}))
    search, _ = validate.settle("byov", experiment("byov", "debug", catalog), settings)
    assert search.options == {"phases": {"k": 5, "few_shot": False}}
    spec.write(tmp_path / "search", search)
    assert spec.read(tmp_path / "search").options == search.options
    with pytest.raises(ValueError, match=r"metric 'map@10/ego2exo': no task of phases reports it.*map@5/ego2exo"):
        validate.settle("byov", experiment("byov", "debug", catalog), replace(settings, metric="map@10/ego2exo"))
