"""The segmentation trainer from features to scores: each architecture, its encoder, two cameras, and bad input."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from segmentation_toys import CLASSES, WIDTH, evgap_config, experiment, train_evgap, write_toys

from crossview.datasets.catalog import Catalog
from crossview.datasets.sampling.sequence_plan import SequencePlan
from crossview.downstream import results
from crossview.downstream.encoder import ClipEncoder
from crossview.downstream.segmentation.config import Config, Options
from crossview.downstream.segmentation.model import Model
from crossview.downstream.segmentation.task import Task, Video, consistency
from crossview.downstream.task import Predicted, PredictionPart
from crossview.errors import UserError
from crossview.methods.method import build
from crossview.methods.recipe import Optim
from crossview.platform import checkpoint
from crossview.platform.config import Encoder, presets
from crossview.platform.evaluate.predictions import _sample
from crossview.platform.evaluate.result_store import read_results
from crossview.platform.evaluate.runner import evaluate
from crossview.platform.evaluate.tasks import options_from
from crossview.platform.train import launcher
from crossview.platform.train.settings import Validation

SCORED = Validation(tasks=("segmentation",))
"""As `crossview train segmentation` scores a run."""


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toys(tmp_path_factory.mktemp("toys"))


def scores_of(run: Path) -> dict[str, dict[str, float]]:
    table = read_results(run)
    assert table is not None
    return results.scores(results.latest(table))


@pytest.mark.parametrize(("model", "steps"), [("c2f-tcn", 12), ("asformer", 40), ("ltcontext", 40)])
def test_each_architecture_learns(toys: Path, tmp_path: Path, model: Any, steps: int) -> None:
    made = experiment(toys, model=model, steps=steps)
    run = launcher.start(tmp_path / "run", "segmentation", made, in_process=True, validation=SCORED)
    scores = scores_of(run)
    metrics = ("accuracy", "edit", "f1@10", "f1@25", "f1@50", "mean")
    expected = {f"segmentation/{part}{name}" for part in ("", "per_video/") for name in metrics}
    assert set(scores["trained"]) == expected | {"segmentation/consistency"}
    assert scores["trained"]["segmentation/accuracy"] > 80
    assert scores["majority"]["segmentation/accuracy"] < 40
    assert scores["majority"]["segmentation/consistency"] == 100


def test_two_cameras_are_read_together_and_a_novel_view_alone(toys: Path, tmp_path: Path) -> None:
    both = experiment(toys, steps=2, views=("ego", "exo"), test_views=("e1", "v1"))
    run = launcher.start(tmp_path / "both", "segmentation", both, in_process=True, validation=SCORED)
    table = read_results(run)
    assert table is not None
    assert set(table["n"].to_pylist()) == {3}  # a pair per scene
    assert "segmentation/consistency" not in scores_of(run)["trained"]
    single = experiment(toys, steps=2)
    single = replace(single, data=replace(single.data, views=("v1",)))
    run = launcher.start(tmp_path / "single", "segmentation", single, in_process=True, validation=SCORED)
    drawn = checkpoint.read_weights(checkpoint.resolve(run))
    assert drawn
    evaluate(run, options={"segmentation": options_from("segmentation", {"views": ["e1"]})}, in_process=True)
    assert "segmentation/edit [e1]" in scores_of(run)["trained"]


@pytest.fixture(scope="module")
def evgap(toys: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_evgap(toys, tmp_path_factory.mktemp("evgap") / "run")


def test_a_frozen_encoder_stays_as_it_is_and_its_controls_are_rows(toys: Path, evgap: Path, tmp_path: Path) -> None:
    made = experiment(toys, steps=3, encoder=Encoder(run=evgap))
    run = launcher.start(tmp_path / "run", "segmentation", made, in_process=True, validation=SCORED, controls=True)
    assert set(scores_of(run)) == {"trained", "input features", "random init", "majority"}
    before = checkpoint.read_weights(checkpoint.resolve(evgap))
    after = checkpoint.read_weights(checkpoint.resolve(run))
    for name, value in before.items():
        assert torch.equal(after[f"encoder.method.{name}"], value)


def test_a_tuned_encoder_changes_at_its_own_rate(toys: Path, evgap: Path, tmp_path: Path) -> None:
    made = experiment(toys, steps=2, encoder=Encoder(run=evgap), encoder_lr=0.1, beside=True)
    run = launcher.start(tmp_path / "run", "segmentation", made, in_process=True, validation=SCORED)
    before = checkpoint.read_weights(checkpoint.resolve(evgap))
    after = checkpoint.read_weights(checkpoint.resolve(run))
    moved = [n for n, value in before.items() if not torch.equal(after[f"encoder.method.{n}"], value)]
    assert any(name.startswith("encoder.") for name in moved)
    model = Model(made.method, ClipEncoder(build("evgap", evgap_config())))
    rates = [group.get("lr_scale", 1.0) for group in model.parameter_groups(0.1)]
    assert rates == [1.0, 0.1]


def test_the_encoder_embeds_the_frames_of_each_step_alone() -> None:
    torch.manual_seed(0)
    config = Config(width=WIDTH, classes=CLASSES, chunk=4)
    model = Model(config, ClipEncoder(build("evgap", evgap_config()))).eval()
    features = torch.randn(2, 1, 3, 4, WIDTH)
    count = torch.tensor([[4, 4, 2], [4, 3, 0]])
    features[0, 0, 2, 2:], features[1, 0, 1, 3:] = features[0, 0, 2, 1], features[1, 0, 1, 2]
    batch = {"features": features.half(), "features/mask": count > 0, "features/count": count}
    steps, mask = model._steps(batch)
    assert mask.tolist() == [[True, True, True], [True, True, False]]
    assert model.encoder is not None
    short = model.encoder(features.half().float()[0, 0, 2:3, :2, None])
    assert torch.allclose(steps[0, 2], short[0], atol=1e-5)
    assert bool((steps[1, 2] == 0).all())
    model.train()
    assert not model.encoder.training


def test_bad_input_is_told_with_its_fix(toys: Path, tmp_path: Path) -> None:
    def fails(made: Any, match: str) -> None:
        with pytest.raises(UserError, match=match):
            launcher.start(tmp_path / "no", "segmentation", made, in_process=True, validation=SCORED)
        assert not (tmp_path / "no").exists()

    fails(experiment(toys, kind="fine"), "no labels of kind 'fine'")
    wrong = experiment(toys)
    fails(replace(wrong, method=replace(wrong.method, classes=3)), "pass --method.classes 4")
    fails(experiment(toys, beside=True), "beside is True .* but there is no encoder")
    fails(experiment(toys, encoder=Encoder(run=tmp_path / "nowhere")), "no checkpoint here")
    one = experiment(toys, views=("ego", "exo"))
    fails(replace(one, data=replace(one.data, views=("v1",))), "ego")


def test_features_of_another_width_name_the_option(toys: Path, tmp_path: Path) -> None:
    made = experiment(toys)
    with pytest.raises(UserError, match=r"pass --method\.width 24"):
        launcher.start(
            tmp_path / "run",
            "segmentation",
            replace(made, method=replace(made.method, width=32)),
            in_process=True,
            validation=SCORED,
        )


def split_of(labels: list[int], probability: float = 0.5, split: str = "val") -> PredictionPart:
    """A sequence of one camera in steps of one frame, which is taken for class 1."""
    outputs = {"probabilities": np.tile([1 - probability, probability], (len(labels), 1))}
    sample = Predicted(
        unit=0, recordings=("d/toy/v1",), scene="d/toy", views=("v1",), perspectives=("exo",), span=(0, len(labels)),
        chunk=1, labels=np.array(labels), targets={"coarse": np.array(labels)}, outputs=outputs,
    )  # fmt: skip
    return PredictionPart(
        split=split, recordings=(), seen=frozenset({"v1"}), samples=(sample,), classes={"coarse": ("a", "b", "c")},
        left_out=0, encoder_seen=None, encoded=False,
    )  # fmt: skip


def test_what_cannot_be_scored_is_an_error_that_says_why() -> None:
    task = Task(Options())
    with pytest.raises(UserError, match=r"d/toy/v1, frames 0 to 3: the predicted probabilities are not finite"):
        task.predict(None, split_of([0, 0, 1], float("nan")))
    silent = split_of([-100, -100], 0.9, "test")
    with pytest.raises(UserError, match="split 'test': none of the frames of its 1 videos has a label"):
        task.score(task.predict(None, silent), silent)
    with pytest.raises(UserError, match="split 'test': none of the frames of its 1 sequences has a label"):
        task.baselines()["majority"].fit(silent)


def test_one_class_and_a_class_that_training_lacks_have_scores_and_are_said() -> None:
    task, train, test = Task(Options()), split_of([1, 1]), split_of([2, 2, 2, 1], 0.9)
    notes = task.notes(task.predict(None, test), train, test)[1:]
    assert notes == [
        "All that is fitted on is of one coarse class, b: there is nothing to tell apart.",
        "1 of 2 scored coarse classes never occur in training (c), and have 75.0% of the labels: these cannot be right "
        "but by chance.",
    ]
    single = split_of([1, 1, -100], 0.9)
    found = task.score(task.predict(None, single), single)
    assert found["segmentation/mean"] == found["segmentation/per_video/edit"] == 100
    assert task.notes(task.predict(None, single), test, single)[1:] == [
        "All that is scored is of one coarse class, b: always predicting it is right."
    ]


def test_agreement_of_cameras_is_over_frames_of_one_event() -> None:
    def video(view: str, labels: list[int], scene: str = "d/toy#0") -> Video:
        return Video((view,), scene, (view,), 0, np.array(labels), np.array(labels), len(labels))

    videos = [video("v1", [0, 0, 1, 1]), video("v2", [0, 1, 1]), video("v1", [3], "d/other")]
    assert consistency(videos) == {"consistency": pytest.approx(100 * 2 / 3)}
    assert consistency(videos[1:]) == {}


def test_frames_after_a_truncated_view_has_ended_lower_its_coverage(tmp_path: Path) -> None:
    """The benchmark's code cuts the truth to the prediction, and says nothing of it."""
    made = Catalog.load(write_toys(tmp_path)).select("val")
    cut = next(r for r in made.recordings if r.view == "v1")
    segments = [replace(s, end_s=min(s.end_s, 1.0)) if s.recording == cut.id else s for s in made.segments]
    shorter = tuple(replace(r, num_frames=30) if r is cut else r for r in made.recordings)
    made = replace(made, recordings=shorter, segments=tuple(s for s in segments if s.start_s < s.end_s))
    plan = SequencePlan(made, Config(classes=CLASSES).sampling(), seed=0, test=True)
    rows = [plan.row(i) for i in range(plan.rows_per_epoch)]
    test = replace(
        split_of([0]),
        samples=tuple(_sample(plan, row, {"probabilities": np.ones((len(row.count), CLASSES))}) for row in rows),
    )
    task = Task(Options())
    predictions = task.predict(None, test)
    videos = task.details(predictions, test)["videos"]
    coverage = {line["video"]: line["coverage"] for line in videos}
    assert coverage.pop(cut.id) == pytest.approx(30 / cut.num_frames)
    assert set(coverage.values()) == {1.0}
    assert f"; {cut.num_frames - 30} more are annotated" in task.notes(predictions, None, test)[0]


def test_presets_are_the_authors_recipes() -> None:
    made = {name: make() for name, make in presets("segmentation").items()}
    assert made["c2f-tcn"].optim == Optim(
        optimizer="adam", lr=1e-4, weight_decay=1e-4, schedule="constant", batch=20, epochs=200
    )
    from crossview.platform.train.lr_schedule import learning_rate

    rates = [learning_rate(made["ltcontext"].optim, epoch, 120) for epoch in (0, 14, 60, 119)]
    assert rates == pytest.approx([2.5e-4, 2.5e-4, 1.72e-4, 0.50e-4], rel=0.01)
    assert made["asformer-two-views"].method.views == ("ego", "exo")
