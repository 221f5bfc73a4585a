from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from crossview.datasets.catalog import Catalog
from crossview.datasets.catalog.labels import Labels
from crossview.datasets.sampling.plan import Plan
from crossview.datasets.synthetic.config import WorldConfig
from crossview.datasets.synthetic.stand_ins import random_teachers
from crossview.datasets.synthetic.world import write
from crossview.downstream.bench import (
    BUDGET,
    CONTROLS,
    EGOEXO,
    EVGAP,
    HEADLINES,
    METHODS,
    MV2MAE,
    STEP_1,
    SUPERVISED,
    studies,
)
from crossview.errors import UserError
from crossview.methods.method import Batch, Method, build
from crossview.methods.recipe import Recipe
from crossview.methods.study import Study
from crossview.platform.config import Data, name_of
from crossview.platform.data.loader import Shard, Stream
from crossview.platform.reproduce import runner
from crossview.platform.reproduce.own_catalog import fit_to, scored_claims
from crossview.platform.reproduce.runs import train_and_score
from crossview.platform.reproduce.tables import decisions, publish

WORLD = WorldConfig(
    actions=("pour_milk", "strike_peg"),
    cut="cycle",
    size_px=96,
    train_takes=3,
    val_takes=0,
    test_takes=2,
    train_subjects=3,
    test_subjects=2,
    exo_cameras=3,
    min_frames=40,
    max_frames=44,
    held_out_cameras=False,
)
BATCH = 2


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world of the bench's cameras, with what Ego-Exo's teachers would say."""
    folder = tmp_path_factory.mktemp("bench")
    write(WORLD, folder)
    random_teachers(folder, {"ego": 2, "object": 11}, boxes=True)
    return folder


@pytest.fixture(scope="module")
def bench(catalog: Path) -> Study:
    """On that catalog, which has two actions."""
    return fit_to(studies()["synthetic"], catalog, None)[0]


def batch_of(catalog: Path, recipe: Recipe, model: Method) -> Batch:
    """Two samples, on cached features where the method has a frozen part."""
    known, sampling = Catalog.load(catalog), recipe.method.sampling()
    plan = Plan(known.select("train"), sampling, 0, Labels(known, sampling.labels, sampling.label_options))
    shard = Shard(start_step=0, stop_step=1, batch=BATCH, micro_batch=BATCH)
    device = torch.device("cpu")
    with Stream(plan, Data(catalog=catalog), shard, device=device, run_dir=None, in_process=True, prefetch=0) as stream:
        batch = dict(next(iter(stream)))
    for name, value in batch.items():
        if value.dtype == torch.uint8 and value.ndim >= 5:
            lead = value.shape[:-4]
            features = model.frozen_features(value.flatten(0, len(lead) - 1))
            batch[name] = value if features is None else features.unflatten(0, lead)
    return batch


def flops(catalog: Path, recipe: Recipe) -> float:
    """Of a whole training: operations grow with the batch, but for a few of the losses'."""
    model = build(name_of(recipe.method), recipe.method).train()
    batch = batch_of(catalog, recipe, model)
    with FlopCounterMode(display=False) as counter:
        model(batch)["loss"].backward()
    assert recipe.optim.steps is not None
    return counter.get_total_flops() / BATCH * recipe.optim.batch * recipe.optim.steps


def test_all_methods_train_at_equal_compute(catalog: Path, bench: Study) -> None:
    spent = {name: flops(catalog, recipe) for name, recipe in bench.variants.items()}
    spent[EVGAP] += spent.pop(STEP_1)
    assert spent.keys() == {*METHODS, SUPERVISED}
    assert spent == pytest.approx(dict.fromkeys(spent, BUDGET), rel=0.04)


def test_every_method_has_a_claim_over_its_own_controls_in_every_task() -> None:
    study = studies()["synthetic"]
    for name in METHODS:
        mine = [claim for claim in study.claims if claim.variant == name]
        tasks = {claim.metric.partition("/")[0] for claim in mine}
        assert tasks == {"phase_f1", "retrieval", "segmentation", "action_probe", "few_clips"}
        for claim in mine:
            assert claim.over is not None
            assert f"{name}: random init" in claim.over
    assert studies()["synthetic"].starts == {EVGAP: STEP_1}


def test_a_catalog_of_ones_own_decides_classes_signals_tasks_and_cameras(catalog: Path, tmp_path: Path) -> None:
    known = Catalog.load(catalog)
    bare = tmp_path / "bare"
    replace(known, segments=(), frame_labels={}).save(bare)
    study, notes = fit_to(studies()["synthetic"], bare, None)
    egoexo = study.variants[EGOEXO].method
    assert egoexo.classes == {"action": 2}
    assert (egoexo.weights.ego, egoexo.weights.object, egoexo.weights.maps) == (0, 0, False)
    assert study.tasks == ("retrieval", "action_probe", "few_clips")
    assert not study.trainers
    assert study.train_views is None
    said = "\n".join(notes)
    assert "Ego-Exo is trained without the signals ego, object, hand_map, object_map" in said
    assert "phases is left out" in said
    assert "segmentation is left out: the catalog has no segments of kind 'phase'" in said
    whole, none = fit_to(studies()["synthetic"], catalog, None)
    assert none == []
    assert whole.variants[EGOEXO].method.weights == studies()["synthetic"].variants[EGOEXO].method.weights


def test_a_catalog_of_features_is_refused(catalog: Path, tmp_path: Path) -> None:
    known = Catalog.load(catalog)
    recordings = tuple(replace(r, kind="features", path=f"{r.file_stem}.npy") for r in known.recordings)
    replace(known, recordings=recordings).save(tmp_path)
    with pytest.raises(UserError, match=r"holds features; the bench trains on videos"):
        fit_to(studies()["synthetic"], tmp_path, None)


@pytest.mark.long
def test_a_method_is_trained_scored_and_segmented_beside_its_controls(
    catalog: Path, bench: Study, tmp_path: Path
) -> None:
    def short(recipe: Recipe) -> Recipe:
        return replace(recipe, optim=replace(recipe.optim, steps=2, batch=2))

    study = replace(
        bench,
        base=None,
        variants={MV2MAE: short(bench.variants[MV2MAE])},
        starts={},
        controlled=(MV2MAE,),
        claims=tuple(claim for claim in bench.claims if claim.variant == MV2MAE),
        trainers={name: short(recipe) for name, recipe in bench.trainers.items()},
        seeds=1,
    )
    planned = runner.plan(study, study.variants, Data(catalog=catalog), tmp_path)
    for one in planned:
        train_and_score(one)
    scores = runner._collect(study, planned)
    assert {"phase_f1/regular", "retrieval/R@1/seen", "segmentation/f1@50", "few_clips/accuracy/ego"} <= scores[
        MV2MAE
    ].keys()
    for row in CONTROLS[MV2MAE][:2]:
        assert {"phase_f1/regular", "segmentation/f1@50"} <= scores[f"{MV2MAE}: {row}"].keys()
    assert {"time only", "chance", "majority"} <= scores.keys()
    assert all(len(values) == 1 for of in scores.values() for values in of.values())
    made = Catalog.load(tmp_path / "embedded" / "MV2MAE-seed0")
    assert {made.split_of(r) for r in made.recordings} == {"train", "test"}
    assert all(np.load(made.file(r)).shape[0] == r.num_frames for r in made.recordings)
    study = replace(study, claims=scored_claims(study, scores))
    assert "| MV2MAE |" in publish("bench:tiny", study, scores, tmp_path).read_text()
    found = [one.decision for one in decisions(study, scores)]
    assert len(found) == len([metric for metric in HEADLINES if not metric.endswith("held_out")])
    assert {d.pairs for one in found for d in one.differences} == {1}  # no row of a claim lacks its metric
