"""Downstream scores while a run trains: training is not disturbed, baselines are scored once, the best is kept."""

from __future__ import annotations

import json
import math
import random
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny_run
import torch
from synchronized import SEEN, write_synchronized
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import crossview
from crossview.downstream import results
from crossview.downstream.few_clips.config import Options as FewClips
from crossview.downstream.phases.config import Options as Phases
from crossview.errors import UserError
from crossview.methods.recipe import Optim
from crossview.platform import checkpoint
from crossview.platform.cli.main import main
from crossview.platform.config import Cadence, Compute, Data, Experiment, to_dict
from crossview.platform.evaluate.opened import RANDOM_INIT, TRAINED, OpenRun
from crossview.platform.evaluate.result_store import read_results
from crossview.platform.evaluate.runner import evaluate
from crossview.platform.report.run_report import report
from crossview.platform.train import loop, validation
from crossview.platform.train import metrics as training_metrics
from crossview.platform.train.launcher import resume, start
from crossview.platform.train.metrics import read_metrics
from crossview.platform.train.settings import with_task_options

STEPS, EVERY, METRIC = 6, 2, "phase_f1/regular"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("clips")
    tiny_run.write_catalog(root)
    return root


def experiment(root: Path, *, every: dict[str, Any] | None = None, **data: Any) -> Experiment[Any]:
    cadence = {"log": 1, "checkpoint": 3, "keep": 1} | (every or {})
    return Experiment(
        data=Data(catalog=root / "catalog", **data),
        method=tiny_run.method_config(),
        optim=Optim(lr=1e-2, batch=2, steps=STEPS, ema_decay=0.5),
        compute=Compute(device="cpu", threads=1),
        every=Cadence(**cadence),
        seed=3,
    )


SCORED = {"evaluate": EVERY, "best": METRIC}


@pytest.fixture(scope="module")
def scored(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return start(tmp_path_factory.mktemp("runs") / "scored", "byov", experiment(root, every=SCORED), in_process=True)


@pytest.fixture(scope="module")
def plain(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return start(tmp_path_factory.mktemp("runs") / "plain", "byov", experiment(root), in_process=True)


def lines(run: Path, **values: str) -> list[dict[str, Any]]:
    table = read_results(run)
    assert table is not None
    found: list[dict[str, Any]] = results.select(table, **values).to_pylist()
    return found


def values(run: Path, metric: str = METRIC) -> dict[int, float]:
    """By step, from the metrics."""
    return {int(row["step"]): row[f"val/{metric}"] for row in read_metrics(run) if f"val/{metric}" in row}


def last(run: Path) -> dict[str, Any]:
    """Weights and the rest of the state at the end."""
    folder = checkpoint.folder(run, STEPS)
    return checkpoint.read_weights(folder) | checkpoint.read_train_state(folder, torch.device("cpu"))


def assert_equal(one: Any, other: Any) -> None:
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            assert_equal(one[name], other[name])
    elif isinstance(one, list):
        for a, b in zip(one, other, strict=True):
            assert_equal(a, b)
    else:
        assert one == other


def test_training_is_the_same_bit_for_bit_with_and_without_validation(scored: Path, plain: Path) -> None:
    assert_equal(last(scored), last(plain))
    assert [row["loss"] for row in read_metrics(scored)] == [row["loss"] for row in read_metrics(plain)]


def test_training_time_leaves_validation_out_and_the_end_is_not_scoring(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now_s=0.0)
    scores = validation.Validator._scores

    def takes_long(self: validation.Validator, step: int) -> dict[str, float]:
        clock.now_s += 1000.0
        return scores(self, step)

    monkeypatch.setattr(validation.Validator, "_scores", takes_long)
    for module in (loop, training_metrics, validation):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now_s))
    run = start(tmp_path / "run", "byov", experiment(root, every=SCORED), in_process=True)
    rows = read_metrics(run)
    assert {row["time_s"] for row in rows} == {0.0}
    assert len(values(run)) > 1
    progress = json.loads((run / "progress.json").read_text())
    assert (progress["step"], progress["doing"]) == (STEPS, "")


def test_generators_that_a_task_draws_from_are_put_back(
    root: Path, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that draws from every global generator, and one that trains a network."""
    real = validation.record

    def draws(*args: Any) -> Any:
        torch.manual_seed(0)
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002 - as libraries do
        return real(*args)

    monkeypatch.setattr(validation, "record", draws)
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    run = start(tmp_path / "run", "byov", experiment(root, every={"evaluate": 2}), in_process=True)
    assert_equal(last(run), last(plain))
    mine = random.random(), np.random.rand()  # noqa: NPY002
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    assert mine == (random.random(), np.random.rand())  # noqa: NPY002


def test_scores_are_in_results_metrics_and_tensorboard(scored: Path) -> None:
    found = lines(scored, row=TRAINED, metric=METRIC)
    assert [line["checkpoint"] for line in found] == [f"step-{step:08d}" for step in (2, 4, 6)]
    assert {line["split"] for line in found} == {"val"}
    assert values(scored) == {step: line["value"] for step, line in zip((2, 4, 6), found, strict=True)}
    assert all("loss" in row for row in read_metrics(scored))
    events = EventAccumulator(str(scored / "tensorboard"))
    events.Reload()
    told = {event.step: event.value for event in events.Scalars(f"val/{METRIC}")}
    assert told == pytest.approx(values(scored))
    assert "val.md" in {file.name for file in (scored / "evaluations").iterdir()}
    assert report(scored).is_file()


def test_the_weights_that_are_scored_are_the_averaged_ones_of_the_checkpoint(scored: Path) -> None:
    at_the_end = results.scores(evaluate(scored, checkpoint="6", in_process=True))[TRAINED]
    assert at_the_end[METRIC] == values(scored)[6]


def test_baselines_that_do_not_change_are_computed_once_and_later_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = write_synchronized(tmp_path / "clips").root
    asked: list[str] = []
    real = OpenRun.random_init.func  # type: ignore[attr-defined]

    def random_init(self: OpenRun) -> Any:
        asked.append(self.checkpoint.name)
        return real(self)

    monkeypatch.setattr(OpenRun, "random_init", property(random_init))
    options = {"few_clips": FewClips(per_action=1, draws=1)}
    settings = replace(with_task_options(), tasks=("few_clips", "retrieval"), **options)  # type: ignore[arg-type]
    of = experiment(clips, every={"evaluate": 2}, views=SEEN)
    run = start(tmp_path / "run", "byov", of, in_process=True, validation=settings, until=4)
    resume(run, in_process=True)
    assert set(asked) == {"step-00000002"}  # at the first time only
    fixed = {"few_clips": [RANDOM_INIT], "retrieval": ["frozen features", "frozen mean", RANDOM_INIT, "chance"]}
    for task, rows in fixed.items():
        assert {line["row"] for line in lines(run, task=task)} == {TRAINED, *rows}
        for row in rows:
            found = lines(run, task=task, row=row)
            assert {line["checkpoint"] for line in found} == {f"step-{step:08d}" for step in (2, 4, 6)}
            assert len({(line["metric"], line["value"]) for line in found}) == len(found) // 3
    table = evaluate(run, tasks=tuple(fixed), options=options, in_process=True)
    assert set(asked) == {"step-00000002"}
    assert list(results.scores(results.select(table, task="few_clips"))) == [TRAINED, RANDOM_INIT, "frozen head only"]
    assert "no time code" in results.scores(results.select(table, task="retrieval"))


def test_kept_baselines_equal_those_of_an_evaluation_alone(scored: Path, plain: Path) -> None:
    kept, alone = (results.scores(evaluate(run, in_process=True)) for run in (scored, plain))
    assert kept.keys() == alone.keys()
    assert kept == alone
    assert list(kept) == [TRAINED, "no time code", "frozen features", "frozen mean", RANDOM_INIT, "time only"]


def test_kept_baselines_are_of_this_data_and_these_options(plain: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(plain, tmp_path / "run"))
    evaluate(run, in_process=True)
    file = run / "evaluations" / "val-phases-fixed.json"
    kept = json.loads(file.read_text())
    kept["rows"][RANDOM_INIT]["scores"][METRIC] = 7.0
    file.write_text(json.dumps(kept))
    assert results.scores(evaluate(run, in_process=True))[RANDOM_INIT][METRIC] == 7.0
    other = evaluate(run, options={"phases": Phases(k=5)}, in_process=True)
    assert results.scores(other)[RANDOM_INIT][METRIC] != 7.0
    assert results.scores(evaluate(run, split="test", in_process=True))[RANDOM_INIT][METRIC] != 7.0


def test_the_best_checkpoint_is_never_deleted(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = iter((0.2, 0.9, math.nan))
    monkeypatch.setattr(validation.Validator, "_trained", lambda self, lines: {METRIC: next(told)})
    run = start(tmp_path / "run", "byov", experiment(root, every=SCORED), in_process=True)
    assert [path.name for path in checkpoint.all_of(run)] == ["step-00000004", "step-00000006"]  # keep is 1
    assert checkpoint.best(run) == {"step": 4, "metric": METRIC, "mode": "max", "value": 0.9}
    assert checkpoint.resolve(run, "best").name == "step-00000004"
    assert checkpoint.resolve(run).name == checkpoint.resolve(run, "6").name == "step-00000006"
    best = crossview.load(run, checkpoint="best").model.state_dict()
    assert all(torch.equal(best[n], w) for n, w in checkpoint.read_weights(run / "checkpoints/step-00000004").items())
    assert any(not torch.equal(best[n], w) for n, w in checkpoint.read_weights(checkpoint.resolve(run)).items())
    main(["evaluate", str(run), "--checkpoint", "best", "--debug", "--device", "cpu"])
    assert {line["checkpoint"] for line in lines(run)} >= {"step-00000004"}
    assert lines(run)[-1]["checkpoint"] == "step-00000004"


@pytest.mark.parametrize(("mode", "step"), [("max", 3), ("min", 1)])
def test_the_best_is_by_the_direction_of_the_metric(tmp_path: Path, mode: str, step: int) -> None:
    """Of equal ones the first; NaN is never it."""
    for k, value in enumerate((math.nan, 0.5, 0.5, 0.7)):
        checkpoint.note_best(tmp_path, k, "m", mode, value)
    found = checkpoint.best(tmp_path)
    assert found is not None
    assert found["step"] == step


def test_other_checkpoints_are_refused_by_name(plain: Path) -> None:
    for which, said in (
        ("best", r"checkpoint 'best', but this run has not noted one.*choose latest or a step"),
        ("5", r"checkpoint '5' is not there; its steps: 6"),
        ("newest", r"checkpoint is 'newest'; it must be latest, best or the number of a step"),
    ):
        with pytest.raises(UserError, match=said):
            crossview.load(plain, checkpoint=which)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"checkpoint 'best': .*step-00000006 is one checkpoint"):
        crossview.load(checkpoint.resolve(plain), checkpoint="best")


def test_an_interrupted_validation_is_made_up_for(
    root: Path, scored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once in the middle and once at the end of the run, after the checkpoint had been written."""
    run, real = tmp_path / "run", validation.record
    interrupted = iter((False, True, False, True, False))

    def record(*args: Any) -> Any:
        if next(interrupted):
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(validation, "record", record)
    with pytest.raises(KeyboardInterrupt):
        start(run, "byov", experiment(root, every=SCORED), in_process=True)
    assert list(values(run)) == [2]
    with pytest.raises(KeyboardInterrupt):
        resume(run, in_process=True)
    assert list(values(run)) == [2, 4]
    resume(run, in_process=True)
    assert values(run) == values(scored)
    assert checkpoint.best(run) == checkpoint.best(scored)
    assert_equal(last(run), last(scored))
    resume(run, in_process=True)  # and once is enough
    assert len(lines(run, row=TRAINED, metric=METRIC)) == 3


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (UserError("videos cannot be read"), "but could not be scored: videos cannot be read. Once that is put right"),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to"),
            "CUDA out of memory in scoring the checkpoint of step",
        ),
    ],
)
def test_scores_that_cannot_be_computed_end_the_run_after_its_checkpoint(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    def fails(*args: object) -> None:
        raise error

    monkeypatch.setattr(validation, "record", fails)
    with pytest.raises(UserError, match=f"run: .*{message}.*`crossview (resume|train)") as refused:
        start(tmp_path / "run", "byov", experiment(root, every={"evaluate": 2}), in_process=True)
    assert refused.value.__cause__ is error
    assert [path.name for path in checkpoint.all_of(tmp_path / "run")] == ["step-00000002"]


def test_tasks_alone_score_the_end_of_a_run(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["train", "byov", "--from", _saved(root, tmp_path), "--runs", str(tmp_path), "--debug"]
    main([*args, "--name", "run", "--tasks", "phases", "--phases.k", "5"])
    printed = capsys.readouterr().out
    assert "run, split val" in printed
    assert list(values(tmp_path / "run")) == [STEPS]
    assert "val/map@5/regular" in read_metrics(tmp_path / "run")[-1]
    assert json.loads((tmp_path / "run" / "run.json").read_text())["validation"]["options"]["phases"]["k"] == 5
    main(["train", "byov", "--from", str(tmp_path / "run"), "--runs", str(tmp_path), "--debug", "--name", "again"])
    assert "val/map@5/regular" in read_metrics(tmp_path / "again")[-1]


def _saved(root: Path, folder: Path) -> str:
    file = folder / "config.json"
    file.write_text(json.dumps(to_dict("byov", experiment(root))))
    return str(file)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--tasks phases --split test", "--split is test; a run is never scored on test while it trains"),
        ("--tasks phases --fit-split val", "--split is 'val' and --fit-split 'val'"),
        ("--tasks dance", "tasks is dance; name some of action_probe"),
        ("--every.best kendall_tau", "every.best is kendall_tau, but every.evaluate is None"),
        ("--every.evaluate -1", "every.evaluate is -1; it must be a number of steps, or 0"),
        ("--every.evaluate 2 --every.best loss", "metric 'loss': no task of phases reports it"),
        ("--every.evaluate 2 --tasks action_probe", "to fit on show the action 'wave'"),
        ("--tasks phases --split dev", "split 'dev' holds no recording"),
    ],
)
def test_what_cannot_score_a_run_is_refused_before_it_begins(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: str, said: str
) -> None:
    args = ["train", "byov", "--from", _saved(root, tmp_path), "--runs", str(tmp_path), "--debug", "--name", "run"]
    with pytest.raises(SystemExit) as end:
        main([*args, *options.split()])
    assert end.value.code == 2
    assert said in " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert not (tmp_path / "run").exists()


def test_the_best_checkpoint_of_a_remote_run_is_never_deleted(plain: Path, s3: Path) -> None:
    run, source = s3 / "run", checkpoint.folder(plain, STEPS)
    model, info = checkpoint.load(source), json.loads((source / "run.json").read_text())
    weights, state = checkpoint.read_weights(source), checkpoint.read_train_state(source, torch.device("cpu"))
    for step, value in ((1, 0.3), (2, 0.5), (3, 0.4), (4, 0.1)):
        checkpoint.save(checkpoint.folder(run, step), model, weights, state | {"step": step}, info, keep=1)
        checkpoint.note_best(run, step, METRIC, "max", value)
    assert [path.name for path in checkpoint.all_of(run)] == ["step-00000002", "step-00000004"]
    assert checkpoint.resolve(run, "best").name == "step-00000002"


@pytest.mark.ray
def test_workers_wait_for_the_scores_of_rank_0(root: Path, scored: Path, tmp_path: Path, ray_cluster: None) -> None:
    of = experiment(root, every=SCORED)
    run = start(tmp_path / "run", "byov", replace(of, compute=replace(of.compute, workers=2)), in_process=False)
    assert values(run) == pytest.approx(values(scored), abs=0.05)
    assert list(values(run)) == [2, 4, 6]
    assert checkpoint.best(run) is not None
