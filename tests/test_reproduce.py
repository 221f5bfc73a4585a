from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from scipy import stats

from crossview.datasets.synthetic.config import WorldConfig
from crossview.downstream.paired import SEEDS, Verdict
from crossview.downstream.table import from_arrow
from crossview.errors import UserError
from crossview.methods.base import FrozenViT
from crossview.methods.byov.config import Config, Decoder, Encoder, Weights
from crossview.methods.byov.config import presets as byov_presets
from crossview.methods.byov.studies import studies as find_studies
from crossview.methods.study import BaseTraining, Claim, Study
from crossview.platform import checkpoint
from crossview.platform.config import method_names
from crossview.platform.reproduce import runner
from crossview.platform.reproduce.base import with_base
from crossview.platform.reproduce.tables import Scores, decisions, publish

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
    with pytest.raises(ValueError, match=r"another version of this study, which differs in seeds; "):
        runner._claim_folder(tmp_path, dataclasses.replace(study, seeds=3))


SCORES = {
    "both losses": {CLAIMS[0]: [0.8, 0.9, 0.7, 0.8, 0.85], CLAIMS[1]: [0.6, 0.7, 0.6, 0.8, 0.7]},
    "MSM alone": {CLAIMS[0]: [0.61, 0.7, 0.5, 0.59, 0.65], CLAIMS[1]: [0.5, 0.6, 0.7, 0.6, 0.5]},
    "time only": {CLAIMS[0]: [0.3] * 5, CLAIMS[1]: [0.99] * 5},
}


def five_seeds(**options: Any) -> Study:
    return dataclasses.replace(tiny_study(), seeds=5, **options)


def test_a_claim_holds_over_each_row_or_not_and_the_hardest_is_named() -> None:
    one, other = decisions(five_seeds(), SCORES)
    assert (one.metric, one.variant, one.decision.verdict) == (CLAIMS[0], "both losses", Verdict.HOLDS)
    assert one.decision.hardest.rival == "MSM alone"
    assert other.decision.verdict is Verdict.REVERSED
    assert other.decision.hardest.rival == "time only"
    expected = stats.ttest_rel(*(SCORES[row][CLAIMS[0]] for row in ("both losses", "MSM alone")))
    interval = expected.confidence_interval(1 - 0.05 / 2)  # two claims
    found = one.decision.hardest
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_claims_about_named_rows_and_thresholds() -> None:
    claims = (
        Claim(metric=CLAIMS[1], over=("MSM alone",)),
        Claim(metric=CLAIMS[0], variant="MSM alone", at_least=0.4),
        Claim(metric=CLAIMS[0], at_least=0.4, over=("time only",)),
    )
    found = [one.decision for one in decisions(five_seeds(claims=claims), SCORES)]
    assert [[d.rival for d in one.differences] for one in found] == [
        ["MSM alone"],
        ["the threshold 0.4"],
        ["the threshold 0.4", "time only"],
    ]
    assert [one.verdict for one in found] == [Verdict.NOT_SHOWN, Verdict.HOLDS, Verdict.HOLDS]


def test_what_was_decided_is_told_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = publish("byov:tiny", five_seeds(), SCORES, tmp_path).read_text()
    printed = " ".join(capsys.readouterr().out.split())
    summary = "Of 2 claims decided together, 1 holds, 1 is the other way round."
    for text in (page, printed):
        assert summary in text
        assert "(Student's t, two-sided, Bonferroni's correction for 2 claims)" in text
    said = "phase_f1/ego2exo: the claim of both losses over 2 rows holds: hardest is MSM alone, +0.200 (95 % interval"
    assert said in printed
    assert (
        "map@10/ego2exo: the claim of both losses over 2 rows is the other way round: hardest is time only" in printed
    )
    assert "| phase_f1/ego2exo | both losses | holds | MSM alone | +0.200 |" in page
    assert "| map@10/ego2exo | both losses | **is the other way round** | time only | -0.310 |" in page
    assert page.count("| time only |") == 4  # its scores, the claim that it decides, and its two differences


def test_one_seed_decides_nothing_and_few_are_called_few(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def first(seeds: int) -> dict[str, dict[str, list[float]]]:
        return {row: {metric: of[:seeds] for metric, of in values.items()} for row, values in SCORES.items()}

    study = five_seeds()
    page = publish("byov:tiny", dataclasses.replace(study, seeds=1), first(1), tmp_path).read_text()
    printed = " ".join(capsys.readouterr().out.split())
    for text in (page, printed):
        assert "1 seed: nothing is decided. The 2 claims take differences over 5 seeds." in text
        assert "hold" not in text
    page = publish("byov:tiny", dataclasses.replace(study, seeds=2), first(2), tmp_path).read_text()
    assert "2 claims are NOT shown. 2 seeds are few: a study takes 5." in page.replace("together, 2", "2 claims")


def test_scores_that_are_missing_or_undefined_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nan = float("nan")
    scores = {row: {metric: list(of) for metric, of in values.items()} for row, values in SCORES.items()}
    scores["MSM alone"][CLAIMS[0]][1] = nan
    scores["time only"][CLAIMS[1]] = [nan] * 5
    del scores["MSM alone"][CLAIMS[1]]
    page = publish("byov:tiny", five_seeds(), scores, tmp_path).read_text()
    printed = " ".join(capsys.readouterr().out.split())
    assert "holds: hardest is MSM alone" in printed
    assert "4 of 5 seeds)" in printed
    assert "cannot be decided: time only, no seed has a score of both (of 5)" not in printed
    assert "the claim of both losses over time only cannot be decided: no seed has a score of both (of 5)" in printed
    assert "| **cannot be decided** | time only | - | - | - | 0 of 5 |" in page
    assert " ± 0.063 (4 of 5) |" in page
    assert "undefined" in page


@pytest.mark.parametrize(
    ("claim", "said"),
    [
        (
            Claim(metric=CLAIMS[0], over=("MCM alone",)),
            r"row 'MCM alone', which has no scores; the rows are both losses, ",
        ),
        (Claim(metric="tau"), r"'tau', which no row has; the metrics are phase_f1/ego2exo, map@10/ego2exo"),
        (Claim(metric="f1", over=("MSM alone",)), r"'f1', which no row has; the metrics are"),
        (Claim(metric="tau", variant="MSM alone", at_least=0.1), r"'tau', which no row has"),
    ],
)
def test_a_claim_about_what_nobody_scored_is_an_error_after_the_scores_are_saved(
    tmp_path: Path, claim: Claim, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        publish("byov:tiny", five_seeds(claims=(claim,)), SCORES, tmp_path)
    assert from_arrow(pq.read_table(tmp_path / "table.parquet")) == SCORES


def test_a_claim_without_a_rival_is_an_error() -> None:
    alone = {"both losses": SCORES["both losses"]}
    with pytest.raises(UserError, match=r"no row but 'both losses' has 'phase_f1/ego2exo'"):
        decisions(five_seeds(), alone)


def test_each_score_keeps_the_place_of_its_seed() -> None:
    scores: Scores = {}
    runner._append(scores, "time only", {"f1": 0.2}, 0, 3)
    runner._append(scores, "time only", {"f1": 0.4}, 2, 3)
    runner._append(scores, "time only", {"f1": 0.9}, 2, 3)  # what runs of a seed share is taken once
    assert scores["time only"]["f1"] == pytest.approx([0.2, float("nan"), 0.4], nan_ok=True)


def test_a_folder_of_an_older_form_is_told(tmp_path: Path) -> None:
    (tmp_path / "study.json").write_text('{"seeds": 3}')
    with pytest.raises(UserError, match=r"another version of this study, which differs in .*claims.*seeds.*; choose"):
        runner._claim_folder(tmp_path, five_seeds())


def test_studies_take_five_seeds_but_the_quickstart() -> None:
    names = (*method_names(), runner.BENCH)
    found = {f"{of}:{name}": study.seeds for of in names for name, study in runner._studies(of).items()}
    assert found.pop("byov:quickstart") == 2
    assert len(found) == 5
    assert set(found.values()) == {SEEDS}


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
