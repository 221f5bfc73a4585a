from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny_run
import torch

from crossview.datasets.catalog import Catalog
from crossview.datasets.sampling.geometry import SQUASH
from crossview.datasets.sampling.spec import View
from crossview.methods.backbone import Pooled
from crossview.platform.cli.main import main
from crossview.platform.cluster.map_recordings import Where
from crossview.platform.config import Data
from crossview.platform.data.backbone_features import backbone, write_features
from crossview.platform.data.video_reader import video

SQUARE = View(perspective="any", frames=1, size_px=64, geometry=SQUASH)


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    root = tmp_path_factory.mktemp("videos")
    return tiny_run.write_catalog(root)


@pytest.fixture(scope="module")
def features(catalog: Catalog, tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    out = tmp_path_factory.mktemp("features") / "resnet"
    base = backbone("resnet10t", "random", 64, chunk=5)
    return write_features(base, catalog, out, Where(in_process=True), Data(catalog=catalog.root / "catalog"))


def test_features_are_the_backbones_of_every_frame(catalog: Catalog, features: Catalog) -> None:
    recording, kept = catalog.recordings[3], features.recordings[3]
    data = Data(catalog=catalog.root / "catalog")
    base = backbone("resnet10t", "random", 64)
    frames = torch.cat(list(video(catalog.source(recording), recording.num_frames, SQUARE, data, 7)))
    with torch.inference_mode():
        expected = Pooled(base)(frames[None])[0]
    found = np.load(features.file(kept))
    assert found.dtype == np.float16
    assert found.shape == (recording.num_frames, 1, 512)
    np.testing.assert_allclose(found, expected.numpy(), rtol=2e-3, atol=2e-3)


def test_the_catalog_of_features_has_the_videos_facts(catalog: Catalog, features: Catalog) -> None:
    loaded = Catalog.load(features.root)
    assert [r.id for r in loaded.recordings] == [r.id for r in catalog.recordings]
    assert {r.kind for r in loaded.recordings} == {"features"}
    assert loaded.frame_labels.keys() == catalog.frame_labels.keys()


def test_a_stopped_command_goes_on_and_a_cut_file_is_made_anew(catalog: Catalog, features: Catalog) -> None:
    files = [features.file(r) for r in features.recordings]
    before = [f.stat().st_mtime_ns for f in files]
    files[0].unlink()
    whole = files[1].read_bytes()
    files[1].write_bytes(whole[:200])
    base = backbone("resnet10t", "random", 64, chunk=5)
    write_features(base, catalog, features.root, Where(in_process=True), Data(catalog=catalog.root / "catalog"))
    assert [f.stat().st_mtime_ns == old for f, old in zip(files, before, strict=True)][2:] == [True] * len(files[2:])
    assert files[0].exists()
    assert files[1].read_bytes() == whole


def test_bad_requests_name_the_fix(
    catalog: Catalog, features: Catalog, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    other = backbone("resnet10t", "random", 96)
    with pytest.raises(ValueError, match=r"holds features made with size_px=64, asked for is 96.*--out"):
        write_features(other, catalog, features.root, Where(in_process=True), Data(catalog=catalog.root))
    for args, message in (
        (["timm:resnet99"], "--catalog CATALOG --out FOLDER"),
        (["timm:resnet99", "--catalog", str(catalog.root / "catalog"), "--out", str(tmp_path / "f")], "no such model"),
        ([str(tmp_path), "--weights", "random"], "a run has its own"),
    ):
        with pytest.raises(SystemExit):
            main(["embed", *args])
        assert message in capsys.readouterr().err
