"""What the chosen tasks need and the catalog lacks is listed at once, before anything is embedded or trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_run
from synchronized import SEEN, write_synchronized

from crossview.datasets.catalog import Catalog, Recording, Segment
from crossview.downstream.task import Facts
from crossview.errors import UserError
from crossview.methods.recipe import Optim
from crossview.platform.config import Cadence, Compute, Data, Experiment, is_trainer, preset
from crossview.platform.evaluate.preflight import modes, preflight
from crossview.platform.evaluate.tasks import make, task_names
from crossview.platform.train import launcher
from crossview.platform.train.settings import Validation
from crossview.platform.tune import validate
from crossview.platform.tune.settings import Settings


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """Two actions, an ego and an exo camera, three phases."""
    return tiny_run.write_catalog(tmp_path_factory.mktemp("labelled"), actions=("wave", "nod"))


@pytest.fixture(scope="module")
def synchronized(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    return write_synchronized(tmp_path_factory.mktemp("synchronized"))


def experiment(catalog: Catalog, **data: Any) -> Experiment[Any]:
    return Experiment(
        data=Data(catalog=catalog.root / "catalog", **data),
        method=tiny_run.method_config(),
        optim=Optim(lr=1e-2, batch=2, steps=4),
        compute=Compute(device="cpu", threads=1),
    )


def checked(catalog: Catalog, *tasks: str, kept: Catalog | None = None, **data: Any) -> Facts:
    of = kept or catalog
    return preflight(make(tasks), "byov", experiment(catalog, **data), of, "val", "train")


def without(catalog: Catalog, unwanted: Callable[[Recording, str | None], bool]) -> Catalog:
    return catalog.keep(lambda r: not unwanted(r, catalog.split_of(r)))


def relabelled(catalog: Catalog, change: Callable[[np.ndarray, str | None], np.ndarray]) -> Catalog:
    phases = catalog.frame_labels["phase"]
    new = {r.id: change(phases[r.id], catalog.split_of(r)) for r in catalog.recordings}
    return replace(catalog, frame_labels={"phase": new})


def test_what_is_complete_passes(labelled: Catalog, synchronized: Catalog) -> None:
    assert {r.action for r in checked(labelled, "phases").test} == {"wave", "nod"}
    assert len(checked(synchronized, "retrieval", "action_probe", "few_clips", views=SEEN).test) == 12


def test_phases_need_both_perspectives_of_every_action(labelled: Catalog) -> None:
    kept = without(labelled, lambda r, split: (split, r.action, r.view) == ("val", "nod", "ego"))
    with pytest.raises(UserError, match="split 'val' shows the action 'nod' from exo cameras only"):
        checked(labelled, "phases", kept=kept)


def test_phases_need_every_evaluated_action_to_fit_on(labelled: Catalog) -> None:
    kept = without(labelled, lambda r, split: (split, r.action) == ("train", "nod"))
    with pytest.raises(UserError, match=r"action 'nod' is evaluated, but the split .*that split holds wave"):
        checked(labelled, "phases", kept=kept)


def test_phases_count_from_zero(labelled: Catalog) -> None:
    kept = relabelled(labelled, lambda phases, split: phases - (split == "val"))
    with pytest.raises(UserError, match=r"8 of 8 recordings of split 'val' .* have frames labelled -1; phases count"):
        checked(labelled, "phases", kept=kept)


def test_phases_need_one_that_both_splits_show(labelled: Catalog) -> None:
    kept = relabelled(labelled, lambda phases, split: phases + 3 * (split == "val"))
    with pytest.raises(UserError) as refused:
        checked(labelled, "phases", kept=kept)
    for action in ("wave", "nod"):
        said = f"the videos of action {action!r} show the phases 0, 1, 2 in split 'train' and 3, 4, 5 in split 'val'"
        assert said in str(refused.value)
    checked(labelled, "phases", kept=relabelled(labelled, lambda phases, split: phases + 2 * (split == "val")))


def test_every_action_that_is_evaluated_and_not_fitted_on_is_named(synchronized: Catalog) -> None:
    names = {"val": ("bow", "clap"), "train": ("nod", "wave")}

    def renamed(r: Recording) -> Recording:
        return replace(r, action=names[str(synchronized.split_of(r))][r.action == "wave"])

    kept = replace(synchronized, recordings=tuple(map(renamed, synchronized.recordings)))
    for task in ("action_probe", "few_clips"):
        with pytest.raises(UserError) as refused:
            checked(synchronized, task, kept=kept, views=SEEN)
        said = str(refused.value)
        assert "1. " in said
        assert "action 'bow' is evaluated" in said
        assert "action 'clap' is evaluated" in said
        assert said.count("shows it; those show nod, wave") == 2


def test_the_problems_of_all_tasks_are_listed_at_once(labelled: Catalog) -> None:
    """Unlabelled, one action, one person, no synchronized cameras, and a method that measures nothing."""
    kept = without(replace(labelled, frame_labels={}), lambda r, split: r.action == "nod" or r.scene.endswith("1"))
    exo = without(kept, lambda r, split: split == "val" and r.view == "ego")
    with pytest.raises(UserError) as refused:
        checked(labelled, *(name for name in task_names() if not is_trainer(name)), kept=exo)
    lines = str(refused.value).splitlines()
    assert lines[0] == f"{len(lines) - 1} things are missing for this evaluation:"
    said = [
        "action probe: all 2 recordings to fit on show the action 'wave'",
        "action probe: all 2 recordings to fit on are of subject '0'",
        "few_clips: split 'val' has no ego recording of the cameras ego, exo",
        "few_clips: all ego recordings to tune on show the action 'wave'",
        "tasks name 'measures', but byov measures nothing of its own",
        "phases: 2 of 2 recordings of split 'val' (first 'clips/wave2/exo')",
        "phases: split 'val' shows the action 'wave' from exo cameras only",
        "phases: 2 of 2 recordings of split 'train'",
        "retrieval: no instant of split 'val' is shown by two cameras of a scene (cameras: exo (exo))",
    ]
    assert len(lines) == len(said) + 1
    for k, (line, start) in enumerate(zip(lines[1:], said, strict=True), 1):
        assert line.startswith(f"{k}. {start}"), line


def test_scenes_of_two_datasets_are_not_one_because_of_their_names(synchronized: Catalog) -> None:
    """Each camera's files are of a dataset of their own."""
    apart = tuple(replace(r, dataset=r.view) for r in synchronized.recordings)
    splits = {new.id: synchronized.split_of(r) for r, new in zip(synchronized.recordings, apart, strict=True)}
    kept = Catalog(synchronized.root, apart, protocols={"default": splits})  # type: ignore[dict-item]
    with pytest.raises(UserError, match="no instant of split 'val' is shown by two cameras of a scene"):
        checked(synchronized, "retrieval", kept=kept)


def test_all_splits_that_hold_nothing_are_named(labelled: Catalog) -> None:
    for_phases, of = make(("phases",)), experiment(labelled)
    with pytest.raises(UserError, match=r"2 things(.|\n)*split 'dev' holds no recording(.|\n)*split 'extra' holds no"):
        preflight(for_phases, "byov", of, labelled, "dev", "extra")
    with pytest.raises(UserError, match=r"--split is 'val' and --fit-split 'val';.*: pass --fit-split train$"):
        preflight(for_phases, "byov", of, labelled, "val", "val")
    assert preflight(make(("retrieval",)), "byov", of, labelled, "val", "extra").train == ()  # it fits nothing


def test_samples_that_cannot_be_drawn_are_found_before(synchronized: Catalog) -> None:
    """MV2MAE measures on pairs of cameras that run at the same time."""
    recipe, tasks = preset("mv2mae", "debug"), make(("measures",))
    of = replace(experiment(synchronized), method=recipe.method, optim=recipe.optim)
    preflight(tasks, "mv2mae", of, synchronized, "val", "train")
    alone = without(synchronized, lambda r, split: split == "val" and r.view != "ego")
    with pytest.raises(UserError, match="no samples can be drawn from split 'val' as in training: "):
        preflight(tasks, "mv2mae", of, alone, "val", "train")


def test_classes_are_those_of_all_splits(synchronized: Catalog) -> None:
    """Segments of train alone name actions; recordings of val, which have none, are not taken for labels then."""
    recipe, tasks = preset("egoexo", "debug"), make(("measures",))
    of = replace(experiment(synchronized), method=recipe.method, optim=recipe.optim)
    train = [r for r in synchronized.recordings if synchronized.split_of(r) == "train"]
    segments = tuple(
        Segment(recording=r.id, name="action", start_s=0.0, end_s=1.0, label="abcd"[k % 4]) for k, r in enumerate(train)
    )
    preflight(tasks, "egoexo", of, replace(synchronized, segments=segments), "val", "train")


def test_a_metric_must_be_one_that_the_tasks_report_of_this_split(synchronized: Catalog) -> None:
    tasks, held_out, both = make(("retrieval",)), experiment(synchronized, views=SEEN), experiment(synchronized)

    def refused(metric: str, of: Experiment[Any]) -> str:
        with pytest.raises(UserError) as found:
            preflight(tasks, "byov", of, synchronized, "val", "train", metric)
        return str(found.value)

    preflight(tasks, "byov", held_out, synchronized, "val", "train", "retrieval/R@1/held_out")
    assert "metric 'loss': no task of retrieval reports it; they report retrieval/R@1/s" in refused("loss", held_out)
    assert "split 'val' has no held-out camera; hold one out with --data.views" in refused(
        "retrieval/R@1/held_out", both
    )
    only = without(synchronized, lambda r, split: split == "val" and r.view in SEEN)
    with pytest.raises(UserError, match=r"2 things(.|\n)*no camera that was trained on(.|\n)*no instant"):
        preflight(tasks, "byov", held_out, only, "val", "train", "retrieval/R@1/seen")
    assert modes("retrieval/R@1/seen", tasks, "byov", both)["retrieval/R@1/seen"] == "max"


def test_training_and_searches_are_refused_before_they_begin(synchronized: Catalog, tmp_path: Path) -> None:
    tasks = ("phases", "measures")
    said = r"3 things(.|\n)*no frame labels named 'phase'(.|\n)*no frame labels(.|\n)*byov measures nothing of its own"
    with pytest.raises(UserError, match=said):
        launcher.start(
            tmp_path / "run", "byov", experiment(synchronized), in_process=True, validation=Validation(tasks=tasks)
        )
    with pytest.raises(UserError, match=r"metric 'loss': no task of retrieval reports it"):
        launcher.start(
            tmp_path / "run",
            "byov",
            replace(experiment(synchronized), every=Cadence(evaluate=2, best="loss")),
            in_process=True,
            validation=Validation(tasks=("retrieval",)),
        )
    with pytest.raises(UserError, match=said):
        validate.settle("byov", experiment(synchronized), Settings(tasks=tasks, metric="kendall_tau", evaluations=2))
    with pytest.raises(UserError, match=r"a search scores its trials itself .*: pass --every.evaluate 0"):
        validate.settle("byov", replace(experiment(synchronized), every=Cadence(evaluate=2)), Settings())
    assert not list(tmp_path.iterdir())
