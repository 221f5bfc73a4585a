from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny_run
import videos

from crossview.datasets.catalog import Catalog
from crossview.datasets.sampling.geometry import SQUASH
from crossview.datasets.sampling.plan import Plan
from crossview.datasets.sampling.spec import Sampling, View
from crossview.platform.config import Data
from crossview.platform.data.decoder import Shard
from crossview.platform.data.row_decoder import RowDecoder

EGO = View(perspective="ego", frames=5, fps=10.0, size_px=32, geometry=SQUASH)
SAMPLING = Sampling(views={"ego": EGO}, pairing="single")
SHARD = Shard(start_step=0, stop_step=4, batch=2, micro_batch=2)


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return tiny_run.write_catalog(tmp_path)


def decoded(catalog: Catalog, **options: bool) -> dict[str, np.ndarray]:
    data = Data(catalog=catalog.root / "catalog", max_quarantined=1.0, **options)  # type: ignore[arg-type]
    return RowDecoder(Plan(catalog.select("train"), SAMPLING, 0), data, SHARD).decode(np.arange(8))


def test_cached_frames_are_the_decoded_ones(catalog: Catalog) -> None:
    plain, first, again = decoded(catalog), decoded(catalog, cache_frames=True), decoded(catalog, cache_frames=True)
    for name, array in plain.items():
        assert np.array_equal(array, first[name])
        assert np.array_equal(array, again[name])
    files = list((catalog.root / "catalog" / "frames" / "pyav-32").glob("*.npy"))
    assert len(files) == 2
    assert {np.load(f).shape for f in files} == {(14, 48, 32), (15, 48, 32)}


def test_a_changed_video_is_decoded_anew(catalog: Catalog) -> None:
    before = decoded(catalog, cache_frames=True)
    ego = [r for r in catalog.select("train").recordings if r.perspective == "ego"]
    for recording in ego:
        videos.write(catalog.file(recording), frames=recording.num_frames, width=48)
    after = decoded(catalog, cache_frames=True)
    assert not np.array_equal(before["ego"], after["ego"])
    assert np.array_equal(after["ego"], decoded(catalog)["ego"])


def test_a_truncated_video_is_not_cached_and_is_quarantined(catalog: Catalog) -> None:
    broken = next(r for r in catalog.select("train").recordings if r.perspective == "ego")
    file = catalog.file(broken)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 3])
    out = decoded(catalog, cache_frames=True)
    assert any(broken.id in report for report in out["quarantine"])
    assert not list((catalog.root / "catalog" / "frames" / "pyav-32").glob(f"*{broken.scene}*"))
