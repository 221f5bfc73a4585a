"""Segmentation with a fixed encoder on two Ray Train workers, on the layout of Assembly101: as in one process."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import evgap_tiny
import pytest

from crossview.datasets import assembly101
from crossview.datasets.catalog.probing import Prober
from crossview.datasets.synthetic import layouts
from crossview.datasets.synthetic.config import WorldConfig
from crossview.datasets.synthetic.world import write
from crossview.methods.recipe import Optim
from crossview.platform.config import Cadence, Compute, Data, Encoder, Experiment, TrainerExperiment, preset
from crossview.platform.train import launcher
from crossview.platform.train.metrics import read_metrics
from crossview.platform.train.resolve import ResolvedRun

WORLD = WorldConfig(
    actions=("strike_peg",), train_takes=2, val_takes=1, test_takes=1, exo_cameras=1, size_px=32, min_frames=24,
    max_frames=28, cut="whole",
)  # fmt: skip


@pytest.mark.long
@pytest.mark.ray
def test_two_workers_train_and_embed_as_one_process(
    tmp_path: Path, ray_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported = layouts.export("assembly101", write(WORLD, tmp_path / "world"), tmp_path / "root")
    options = replace(
        exported, root=None, features=exported.root / "TSM_features", packed=tmp_path / "packed", labels=("coarse",)
    )
    found = assembly101.catalog(options, prober=Prober(tmp_path / "indices"))
    found.save(tmp_path / "catalog")
    data = Data(catalog=tmp_path / "catalog", views=("e1", "v1"))
    small = replace(evgap_tiny.TINY, feature_width=2048, frames=6, fps=30.0)
    made = Experiment(data=data, method=small, optim=Optim(steps=1, batch=1), every=Cadence(log=1))
    encoder = launcher.start(tmp_path / "evgap", "evgap", made, in_process=True)

    embedded = []
    discard = launcher.discard_embeddings

    def discarded(run: ResolvedRun) -> None:
        embedded.append(len(list((run.folder / "embedded").glob("*.steps.npy"))))
        discard(run)

    monkeypatch.setattr(launcher, "discard_embeddings", discarded)
    recipe = preset("segmentation", "debug")
    one = TrainerExperiment(
        data=data,
        method=replace(recipe.method, unit="sequence", classes=len(found.classes["coarse"]), chunk_range=(3, 5)),
        optim=replace(recipe.optim, steps=None, epochs=6, batch=4),
        compute=Compute(device="cpu", threads=1, micro_batch=2),
        every=Cadence(log=1),
        encoder=Encoder(run=encoder),
    )
    two = replace(one, compute=replace(one.compute, workers=2))
    runs = [
        launcher.start(tmp_path / "one", "segmentation", one, in_process=True),
        launcher.start(tmp_path / "two", "segmentation", two, in_process=False),
    ]
    losses = [[row["loss"] for row in read_metrics(run)] for run in runs]
    assert len(losses[0]) > 3
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    drawn = [r for r in found.select("train").recordings if r.view in ("e1", "v1")]
    assert embedded == [len(drawn)] * 2
