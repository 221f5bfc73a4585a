from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from crossview.datasets.synthetic.config import WorldConfig
from crossview.downstream.table import from_arrow
from crossview.errors import UserError
from crossview.methods.base import FrozenViT
from crossview.methods.byov.config import Config, Decoder, Encoder, Weights
from crossview.methods.byov.config import presets as byov_presets
from crossview.methods.byov.studies import studies as find_studies
from crossview.methods.study import BaseTraining, Claim, Study
from crossview.platform import checkpoint
from crossview.platform.reproduce import runner
from crossview.platform.reproduce.base import with_base
from crossview.platform.reproduce.tables import verdicts

CLAIMS = ("phase_f1/ego2exo", "map@10/ego2exo")


def tiny_study() -> Study:
    world = WorldConfig(
        actions=("pour_milk",),
        train_takes=2,
        val_takes=1,
        test_takes=2,
        size_px=64,
        min_frames=16,
        max_frames=20,
        train_subjects=2,
        val_subjects=1,
        test_subjects=1,
        cut="cycle",
    )
    recipe = byov_presets()["debug"]()
    assert isinstance(recipe.method, Config)
    method = dataclasses.replace(
        recipe.method,
        base=dataclasses.replace(recipe.method.base, size_px=64),
        encoder=Encoder(width=32, depth=1, heads=2),
        decoder=Decoder(width=32, depth=1, heads=2),
        frames=8,
    )
    full = dataclasses.replace(
        recipe, method=method, optim=dataclasses.replace(recipe.optim, steps=4, batch=2, warmup_steps=1)
    )
    msm = dataclasses.replace(full, method=dataclasses.replace(method, weights=Weights(mcm_ego=0, mcm_exo=0)))
    return Study(
        world=world,
        base=BaseTraining(world=dataclasses.replace(world, seed=5, train_takes=1), every=8, steps=2),
        variants={"both losses": full, "MSM alone": msm},
        seeds=2,
        claims=tuple(Claim(metric=metric) for metric in CLAIMS),
    )


@pytest.mark.ray
def test_a_study_trains_scores_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ray_cluster: None) -> None:
    monkeypatch.setattr(runner, "_studies", lambda method: {"tiny": tiny_study()} if method == "byov" else {})
    out = tmp_path / "study"
    table = runner.reproduce("byov:tiny", out, 2)
    scores = from_arrow(pq.read_table(out / "table.parquet"))
    assert list(scores)[:2] == ["both losses", "MSM alone"]
    assert set(scores) == {
        *list(scores)[:2],
        "frozen features",
        "frozen mean",
        "no time code",
        "random init",
        "time only",
    }
    assert all(len(values) == 2 for row in scores.values() for values in row.values())
    assert "both losses" in table.read_text()
    runs = sorted(p.name for p in out.glob("*-seed*"))
    assert runs == ["MSM-alone-seed0", "MSM-alone-seed1", "both-losses-seed0", "both-losses-seed1"]
    info = json.loads((out / runs[0] / "run.json").read_text())
    assert info["experiment"]["method"]["base"]["weights"] == str(out / "base.safetensors")
    assert info["command"] == f"crossview train byov --from {out / runs[0]}"  # not that of Ray's worker process

    before = {p: p.stat().st_mtime_ns for p in out.glob("*/checkpoints/*/model.safetensors")}
    (out / "MSM-alone-seed1" / "results.parquet").unlink()
    runner.reproduce("byov:tiny", out, 1)
    assert {p: p.stat().st_mtime_ns for p in out.glob("*/checkpoints/*/model.safetensors")} == before
    assert from_arrow(pq.read_table(out / "table.parquet")) == scores
    assert checkpoint.latest(out / "MSM-alone-seed1") is not None


def test_another_study_does_not_mix_with_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = tiny_study()
    runner._claim_folder(tmp_path, study)
    runner._claim_folder(tmp_path, study)
    with pytest.raises(ValueError, match=r"another version of this study"):
        runner._claim_folder(tmp_path, dataclasses.replace(study, seeds=3))


def test_a_claim_holds_only_beyond_its_spread() -> None:
    study = tiny_study()
    scores = {
        "both losses": {CLAIMS[0]: [0.8, 0.9], CLAIMS[1]: [0.5, 0.9]},
        "MSM alone": {CLAIMS[0]: [0.6, 0.7], CLAIMS[1]: [0.5, 0.5]},
        "time only": {CLAIMS[0]: [0.3, 0.3], CLAIMS[1]: [0.9, 0.9]},
    }
    found = {(v.metric, v.rival): (v.mean, v.holds) for v in verdicts(study, scores)}
    assert found[CLAIMS[0], "MSM alone"] == (pytest.approx(0.2), True)
    assert found[CLAIMS[0], "time only"] == (pytest.approx(0.55), True)
    assert found[CLAIMS[1], "MSM alone"] == (pytest.approx(0.2), False)
    assert found[CLAIMS[1], "time only"] == (pytest.approx(-0.2), False)


def test_an_unknown_study_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"byov:quickstart"):
        runner.find("byov:nonsense")


def test_the_quickstarts_base_fits_and_is_not_trained_again(tmp_path: Path) -> None:
    study = find_studies()["quickstart"]
    recipes = with_base(study, tmp_path)
    assert list(tmp_path.iterdir()) == []
    base = recipes["byov"].method.base  # type: ignore[attr-defined]
    shipped, random = FrozenViT(base), FrozenViT(dataclasses.replace(base, weights="random"))
    assert Path(base.weights).stat().st_size < 5_000_000
    assert not torch.equal(shipped.vit.patch_embed.proj.weight, random.vit.patch_embed.proj.weight)


def test_a_shipped_base_that_is_missing_is_named_with_the_way_out(tmp_path: Path) -> None:
    study = tiny_study()
    assert study.base is not None
    lost = dataclasses.replace(study, base=dataclasses.replace(study.base, shipped="byov/lost.safetensors"))
    with pytest.raises(UserError, match=r"byov/lost\.safetensors: .*--train-base"):
        with_base(lost, tmp_path)
    recipes = with_base(lost, tmp_path, train=True)
    assert {r.method.base.weights for r in recipes.values()} == {str(tmp_path / "base.safetensors")}  # type: ignore[attr-defined]


def test_a_base_from_the_studys_own_world_is_refused() -> None:
    study = tiny_study()
    assert study.base is not None
    same = dataclasses.replace(study.base, world=dataclasses.replace(study.base.world, seed=study.world.seed))
    with pytest.raises(ValueError, match=r"seed"):
        dataclasses.replace(study, base=same)
