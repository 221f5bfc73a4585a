"""Recognition as a user trains it, from the synthetic world to scores; exact resume; what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from mv2mae_tiny import TINY
from synchronized import write_synchronized
from torch import Tensor

from crossview.datasets.synthetic.config import WorldConfig
from crossview.datasets.synthetic.world import write
from crossview.downstream import results
from crossview.downstream.recognition.augment_config import NO_AUGMENTATION, Augmentation
from crossview.errors import UserError
from crossview.methods.recipe import Optim
from crossview.platform import checkpoint
from crossview.platform.cli.main import main
from crossview.platform.config import Cadence, Compute, Data, Encoder, Experiment, TrainerExperiment, preset, read
from crossview.platform.evaluate.result_store import read_results
from crossview.platform.train import launcher
from crossview.platform.train.metrics import read_metrics

ON_CPU = Compute(device="cpu", threads=1)


def mv2mae_on(catalog: Path, folder: Path) -> Path:
    """Two steps of MV2MAE's tiny network."""
    made = Experiment(
        data=Data(catalog=catalog), method=TINY, optim=Optim(lr=1e-3, batch=4, steps=2), compute=ON_CPU, every=Cadence()
    )
    return launcher.start(folder, "mv2mae", made, in_process=True)


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("clips")
    write_synchronized(root)
    return root / "catalog"


@pytest.fixture(scope="module")
def encoder(catalog: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mv2mae_on(catalog, tmp_path_factory.mktemp("encoder") / "run")


def experiment(catalog: Path, encoder: Path | None, **changes: Any) -> TrainerExperiment[Any]:
    recipe = preset("recognition", "debug")
    options = {"classes": {"action": 2}, "frames": TINY.frames, "size_px": TINY.size_px, "drop_path": 0.1} | changes
    return TrainerExperiment(
        data=Data(catalog=catalog),
        method=replace(recipe.method, **options),
        optim=replace(recipe.optim, batch=4, steps=4),
        compute=ON_CPU,
        every=Cadence(log=1, checkpoint=4),
        encoder=Encoder(run=encoder),
    )


def weights_of(run: Path) -> dict[str, Tensor]:
    return checkpoint.read_weights(checkpoint.resolve(run))


def test_a_pre_training_run_is_fine_tuned_and_scored_by_commands(tmp_path: Path, monkeypatch: Any) -> None:
    """The debug presets of both, on the synthetic world."""
    monkeypatch.chdir(tmp_path)
    takes = {"train_takes": 1, "val_takes": 1, "test_takes": 0, "min_frames": 24, "max_frames": 24}
    world = WorldConfig(actions=("pour_milk", "strike_peg"), exo_cameras=1, size_px=64, **takes)
    write(world, tmp_path / "world").save(tmp_path / "world" / "catalog")
    here = ["--debug", "--data.catalog", "world/catalog", "--compute.device", "cpu", "--compute.threads", "1"]
    few = ["--optim.batch", "4", "--every.log", "1"]
    main(["train", "mv2mae", "--preset", "debug", "--optim.steps", "2", "--name", "mv", *few, *here])
    tuned = ["--preset", "debug", "--encoder.run", "runs/mv", "--optim.steps", "4", "--name", "tuned"]
    tuned += ["--method.classes.action", "2"]
    main(["train", "recognition", *tuned, *few, *here, "--recognition.test.clips", "2"])
    table = read_results(Path("runs/tuned"))
    assert table is not None
    found = results.scores(results.latest(table))
    assert set(found) == {"trained", "random init", "input features", "majority", "chance"}
    assert found["majority"]["recognition/top1"] == 0.5
    assert {"recognition/top1", "recognition/mean_class", "recognition/consistency"} <= set(found["trained"])
    assert all(0 <= value <= 1 for value in found["trained"].values())
    losses = [row["loss"] for row in read_metrics(Path("runs/tuned")) if "loss" in row]
    assert len(losses) == 4
    assert losses[0] == pytest.approx(torch.tensor(2.0).log().item(), abs=0.05)  # the classifier begins near 0
    before, after = weights_of(Path("runs/mv")), weights_of(Path("runs/tuned"))
    moved = {n for n, value in before.items() if not torch.equal(after.get(f"encoder.method.{n}", value), value)}
    assert {"encoder.embed.weight", "encoder.blocks.3.mlp.0.weight"} <= moved
    assert not [name for name in moved if "decoder" in name]


def test_it_resumes_exactly(catalog: Path, encoder: Path, tmp_path: Path) -> None:
    """With dropped paths, all of the augmentation, and mixed clips."""
    made = experiment(catalog, encoder, augmentation=Augmentation(), dropout=0.5)
    whole = launcher.start(tmp_path / "whole", "recognition", made, in_process=True)
    parts = launcher.start(tmp_path / "parts", "recognition", made, in_process=True, until=3)
    launcher.resume(parts, in_process=True)
    a, b = weights_of(whole), weights_of(parts)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.ray
def test_two_workers_end_with_the_weights_of_one(
    catalog: Path, encoder: Path, tmp_path: Path, ray_cluster: None
) -> None:
    """With SGD: Adam's step of a parameter that hardly has a gradient is decided by its rounding."""
    made = experiment(catalog, encoder, drop_path=0.0, augmentation=NO_AUGMENTATION)
    made = replace(made, optim=Optim(optimizer="sgd", lr=0.3, schedule="constant", batch=4, steps=4))
    split = replace(made, compute=replace(ON_CPU, workers=2))
    one, two = (
        weights_of(launcher.start(tmp_path / name, "recognition", of, in_process=name == "one"))
        for name, of in (("one", made), ("two", split))
    )
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=0, atol=1e-5, msg=lambda said, name=name: f"{name}: {said}")
    before = weights_of(encoder)
    for name in ("encoder.embed.weight", "encoder.blocks.1.mlp.0.weight"):
        assert float((one[f"encoder.method.{name}"] - before[name]).abs().max()) > 1e-3


def test_a_linear_probe_and_training_from_scratch(catalog: Path, encoder: Path, tmp_path: Path) -> None:
    probe = experiment(catalog, encoder, encoder_lr=None, drop_path=0.0)
    run = launcher.start(tmp_path / "probe", "recognition", probe, in_process=True)
    trained, before = weights_of(run), weights_of(encoder)
    assert all(torch.equal(trained[f"encoder.method.{name}"], value) for name, value in before.items())
    scratch = experiment(catalog, encoder)
    scratch = replace(scratch, encoder=replace(scratch.encoder, weights="random"), optim=Optim(lr=1e-9, steps=1))
    run = launcher.start(tmp_path / "scratch", "recognition", scratch, in_process=True, controls=True)
    drawn = weights_of(run)["encoder.method.encoder.embed.weight"]
    assert not torch.allclose(drawn, before["encoder.embed.weight"], atol=1e-3)
    assert not (run / "controls").exists()
    assert read(run)[1].encoder.weights == "random"


def test_an_encoder_without_baselines_has_no_control_on_its_input(catalog: Path, tmp_path: Path) -> None:
    from egoexo_tiny import PLAIN

    method = replace(PLAIN, classes={"action": 2})
    made = Experiment(data=Data(catalog=catalog), method=method, optim=Optim(batch=2, steps=1), compute=ON_CPU)
    run = launcher.start(tmp_path / "egoexo", "egoexo", made, in_process=True)
    view = next(iter(method.sampling().views.values()))
    tuned = experiment(catalog, run, frames=view.frames, size_px=view.size_px, drop_path=0.0)
    tuned = replace(tuned, optim=replace(tuned.optim, steps=1))
    run = launcher.start(tmp_path / "tuned", "recognition", tuned, in_process=True, controls=True)
    assert [folder.name for folder in (run / "controls").iterdir()] == ["random-init"]


def test_a_probe_trains_on_its_encoders_cached_features(tmp_path: Path) -> None:
    """BYOV's base sees each recording once; the classifier learns what it learns on video."""
    import tiny_run

    tiny_run.write_catalog(tmp_path, actions=("nod", "wave"))
    run = tiny_run.train(tmp_path / "byov", tmp_path)
    probe = preset("recognition", "charades_ego_probe")
    method = replace(probe.method, classes={"action": 2}, frames=6, size_px=tiny_run.SIZE)
    made = TrainerExperiment(
        data=Data(catalog=tmp_path / "catalog"),
        method=method,
        optim=replace(probe.optim, lr=1e-2, batch=4, epochs=None, steps=3),
        compute=ON_CPU,
        every=Cadence(log=1, checkpoint=3),
        encoder=Encoder(run=run),
    )
    cached = replace(made, data=replace(made.data, cache_features=True))
    found = {
        name: launcher.start(tmp_path / name, "recognition", of, in_process=True)
        for name, of in (("video", made), ("features", cached))
    }
    losses = [[row["loss"] for row in read_metrics(of) if "loss" in row] for of in found.values()]
    assert losses[0] == pytest.approx(losses[1], rel=2e-3)
    a, b = (weights_of(of)["heads.linears.action.weight"] for of in found.values())
    torch.testing.assert_close(a, b, rtol=0.05, atol=2e-3)
    assert list((tmp_path / "catalog" / "features").glob("byov-*/*.npy"))
    for changed, message in (
        ({"augmentation": Augmentation()}, r"cropped or augmented by chance"),
        ({"geometry": replace(method.geometry, via_px=None)}, r"set method.size-px and method.geometry to the encod"),
    ):
        other = replace(cached, method=replace(method, **changed))
        with pytest.raises(UserError, match=message):
            launcher.start(tmp_path / "no", "recognition", other, in_process=True)


def test_what_cannot_be_is_refused_before_a_run_is_written(catalog: Path, encoder: Path, tmp_path: Path) -> None:
    for made, message in (
        (experiment(catalog, None), r"pass --encoder.run RUN"),
        (experiment(catalog, encoder, frames=8), r"pass --method.frames 4 --method.size-px 32"),
        (experiment(catalog, encoder, classes={"action": 3}), r"--method.classes.action"),
        (experiment(catalog, encoder, unit="step"), r"step"),
    ):
        with pytest.raises(UserError, match=message):
            launcher.start(tmp_path / "no", "recognition", made, in_process=True)
        assert not (tmp_path / "no").exists()
