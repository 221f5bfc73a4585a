"""A file over which the codec library ends its process is set aside by name, and everything else goes on."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import videos

from crossview.datasets.catalog import Catalog, Recording
from crossview.datasets.catalog.probing import Prober
from crossview.datasets.sampling.plan import Plan
from crossview.datasets.sampling.spec import Sampling, View
from crossview.datasets.video import decode, indexing
from crossview.datasets.video.source import Source
from crossview.platform.config import Data
from crossview.platform.data.decoder import Shard
from crossview.platform.data.row_decoder import RowDecoder

_read, _scan = decode._read, indexing._scan


def crashing_read(source: Source, *arguments: Any) -> list[np.ndarray]:
    """What is called in the child process."""
    if source.path.name == "bad.mp4":
        os.abort()
    return _read(source, *arguments)


def crashing_scan(path: Path, *arguments: Any) -> Any:
    """What is called in the child process."""
    if path.name == "bad.mp4":
        os.abort()
    return _scan(path, *arguments)


def test_cataloguing_lists_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexing, "_scan", crashing_scan)
    names = ["a.mp4", "bad.mp4", "b.mp4"]
    for name in names:
        videos.write(tmp_path / name, frames=5)
    found, (broken,) = Prober(tmp_path / "indices").probe(tmp_path, names)
    assert list(found) == ["a.mp4", "b.mp4"]
    assert broken.path == "bad.mp4"
    assert broken.reason.startswith(f"{tmp_path}/bad.mp4: reading it crashed its process (SIGABRT")


def test_decoding_replaces_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "_read", crashing_read)
    recordings = tuple(
        Recording(
            dataset="d", scene=name, view="left", perspective="exo", subject="", action="", path=f"{name}.mp4",
            kind="video", fps=30.0, num_frames=20, height_px=64, width_px=96,
        )
        for name in ("a", "bad", "b")
    )  # fmt: skip
    for recording in recordings:
        videos.write(tmp_path / recording.path, frames=20)
    sampling = Sampling(views={"clip": View(perspective="exo", frames=2, size_px=32)}, pairing="single")
    plan = Plan(Catalog(tmp_path, recordings), sampling, seed=0)
    shard = Shard(start_step=0, stop_step=3, batch=1, micro_batch=1)
    data = Data(catalog=tmp_path, max_quarantined=0.5)
    rows = RowDecoder(plan, data, shard).decode(np.arange(3))
    (report,) = [found for row in rows["quarantine"] if row for found in json.loads(row)]
    assert report["recording"] == "d/bad/left"
    assert "bad.mp4: reading it crashed its process (SIGABRT" in report["reason"]
    assert (rows["clip"].reshape(3, -1).max(axis=1) > 0).all()  # every row has pictures


def test_nothing_of_a_row_that_cannot_be_read_stays_in_the_one_in_its_place(tmp_path: Path) -> None:
    names = ("a_left.mp4", "a_middle.mp4", "a_right.mp4", "b_left.mp4")
    for name in names:
        videos.write(tmp_path / name, frames=40)
    infos, _ = Prober(tmp_path / "i").probe(tmp_path, names)
    recordings = tuple(
        Recording(
            dataset="d", scene=name[0], view=name[2:-4], perspective="exo", subject="", action="", path=name,
            kind="video", **infos[name].columns(),
        )
        for name in names
    )  # fmt: skip
    videos.truncate(tmp_path / "a_right.mp4")
    sampling = Sampling(
        views={"exo": View(perspective="exo", frames=4, fps=30.0, size_px=64, count=3)}, pairing="group"
    )
    plan = Plan(Catalog(tmp_path, recordings), sampling, seed=0)
    shard = Shard(start_step=0, stop_step=2, batch=1, micro_batch=1)
    data = Data(catalog=tmp_path, max_quarantined=1.0)
    batch = RowDecoder(plan, data, shard).decode(np.arange(2))
    assert [bool(said) for said in batch["quarantine"]].count(True) == 1
    assert batch["video/mask"].tolist() == [[[1, 0, 0]], [[1, 0, 0]]]
    assert not batch["video"][:, :, 1:].any()
    assert (batch["video"][:, :, 0].std(axis=(2, 3, 4)) > 1).all()
