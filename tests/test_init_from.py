from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import tiny_run
import torch
from feature_run import experiment, losses, weights

from crossview.platform import checkpoint
from crossview.platform.config import read
from crossview.platform.train.launcher import resume, start


def test_bad_weights_are_refused_before_the_name_is_spent(straight: Path, features: Path, tmp_path: Path) -> None:
    """Even where Ray would run the training: nothing of it is started."""
    import ray

    running = ray.is_initialized()
    method = experiment(features).method
    missing = dataclasses.replace(method, base=dataclasses.replace(method.base, weights="nowhere.pt"))
    with pytest.raises(ValueError, match=r"nowhere\.pt"):
        start(tmp_path / "new", "byov", experiment(features, method=missing), in_process=False)
    wider = dataclasses.replace(method, encoder=dataclasses.replace(method.encoder, width=128))
    other = experiment(features, method=wider, init_from=straight)
    with pytest.raises(ValueError, match=r"init_from is .*straight.*do not fit this configuration of byov"):
        start(tmp_path / "new", "byov", other, in_process=False)
    assert not (tmp_path / "new").exists()
    assert ray.is_initialized() == running


def test_init_from_starts_from_that_runs_weights(straight: Path, features: Path, tmp_path: Path) -> None:
    still = experiment(features, optim__steps=1, optim__lr=1e-12, optim__weight_decay=0.0, init_from=straight)
    run = start(tmp_path / "next", "byov", still, in_process=True)
    source, found = weights(straight), weights(run)
    assert all(torch.allclose(found[name], value, atol=1e-9) for name, value in source.items())
    _, saved = read(run)
    assert saved.init_from == checkpoint.latest(straight)


def test_init_from_decides_the_cached_features_too(tmp_path: Path) -> None:
    """The model takes the frozen base of `init_from`, and so must the features that it trains on."""
    tiny_run.write_catalog(tmp_path)
    first = tiny_run.train(tmp_path / "first", tmp_path)
    name, before = read(first)
    other = dataclasses.replace(before.method, base=dataclasses.replace(before.method.base, seed=7))
    begun = dataclasses.replace(before, method=other, init_from=first)
    cached = dataclasses.replace(begun, data=dataclasses.replace(begun.data, cache_features=True))
    on_video = start(tmp_path / "video", name, begun, in_process=True)
    on_features = start(tmp_path / "features", name, cached, in_process=True)
    assert losses(on_features) == pytest.approx(losses(on_video), rel=1e-2)
    folders = [folder for folder in (tmp_path / "catalog" / "features").iterdir() if folder.is_dir()]
    assert resume(on_features, in_process=True) == on_features
    assert [f for f in (tmp_path / "catalog" / "features").iterdir() if f.is_dir()] == folders
