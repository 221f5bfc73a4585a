"""Cataloguing by decoding, by what containers state, and on several nodes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import videos

from crossview import storage
from crossview.datasets.catalog import Catalog, Recording, one_protocol
from crossview.datasets.catalog.catalog import INDICES
from crossview.datasets.catalog.probing import Prober, indexed
from crossview.datasets.sampling.plan import Plan
from crossview.datasets.sampling.spec import Sampling, View
from crossview.datasets.video import indexing
from crossview.datasets.video.frame_index import FrameIndex
from crossview.datasets.video.source import Source
from crossview.platform.cli.main import main
from crossview.platform.config import Data
from crossview.platform.data.decoder import Shard
from crossview.platform.data.probing import on_ray
from crossview.platform.data.row_decoder import RowDecoder


def files(root: Path) -> list[str]:
    """A steady video, one with B-frames that is turned, one of a variable rate, one whose container lists no frames."""
    videos.write(root / "steady.mp4", frames=40)
    videos.write(root / "turned.mp4", frames=31, b_frames=2, rotation=90, fps=25)
    videos.write(root / "uneven.mp4", frames=30, variable=True)
    videos.write(root / "matroska.mkv", frames=20)
    (root / "broken.mp4").write_bytes(b"no video")
    return ["steady.mp4", "turned.mp4", "uneven.mp4", "matroska.mkv", "broken.mp4"]


def test_containers_are_believed_where_they_state_a_steady_rate(tmp_path: Path) -> None:
    names = files(tmp_path)
    exact, broken = Prober(tmp_path / "a").probe(tmp_path, names)
    quick, also = Prober(tmp_path / "b", quick=True).probe(tmp_path, names)
    assert list(quick) == list(exact) == names[:-1]
    assert [q.path for q in also] == [q.path for q in broken] == ["broken.mp4"]
    for name in names[:-1]:
        facts, known = quick[name].columns(), exact[name].columns()
        assert facts | {"index": ""} == known | {"index": ""}, name
    assert {name for name in quick if not quick[name].index} == {"steady.mp4", "turned.mp4"}
    assert len(list((tmp_path / "b").glob("*.npz"))) == 2


@pytest.mark.parametrize("quick", [False, True])
def test_a_file_that_is_indexed_already_is_not_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: bool
) -> None:
    videos.write(tmp_path / "a.mp4", frames=20)
    first, _ = Prober(tmp_path / "i").probe(tmp_path, ["a.mp4"])

    def never(*_: object, **__: object) -> None:
        raise AssertionError("opened")

    for name in ("scan", "stated"):
        monkeypatch.setattr(indexing, name, never)
    monkeypatch.setattr("crossview.datasets.catalog.probing.stated", never)
    again, broken = Prober(tmp_path / "i", quick=quick).probe(tmp_path, ["a.mp4"])
    assert (again, broken) == (first, ())
    assert again["a.mp4"].index


def test_a_quick_look_does_not_use_the_index_of_what_a_file_was(tmp_path: Path) -> None:
    videos.write(tmp_path / "a.mp4", frames=20)
    Prober(tmp_path / "i").probe(tmp_path, ["a.mp4"])
    videos.write(tmp_path / "a.mp4", frames=31)
    found, _ = Prober(tmp_path / "i", quick=True).probe(tmp_path, ["a.mp4"])
    assert (found["a.mp4"].num_frames, found["a.mp4"].index) == (31, "")


def test_the_first_use_makes_the_index_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROSSVIEW_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "root"
    videos.write(root / "a.mp4", frames=120)
    infos, _ = Prober(tmp_path / "none", quick=True).probe(root, ["a.mp4"])
    recording = Recording(
        dataset="d", scene="s", view="v", perspective="exo", subject="", action="", path="a.mp4", kind="video",
        **infos["a.mp4"].columns(),
    )  # fmt: skip
    catalog = Catalog(root, (recording,), protocols=one_protocol([(recording, "train")]))
    sampling = Sampling(views={"clip": View(perspective="exo", frames=4, fps=30.0, size_px=64)}, pairing="single")
    decoder = RowDecoder(
        Plan(catalog, sampling, seed=0), Data(catalog=root), Shard(start_step=0, stop_step=4, batch=1, micro_batch=1)
    )
    made = tmp_path / "cache" / INDICES
    assert not made.exists()
    before = [decoder.decode(np.array([k])) for k in range(4)]
    (index,) = made.glob("*.npz")
    assert len(FrameIndex.read(index).entry_frames) > 5
    written = index.stat().st_mtime_ns
    after = [decoder.decode(np.array([k])) for k in range(4)]
    assert index.stat().st_mtime_ns == written
    assert all(np.array_equal(a["clip"], b["clip"]) for a, b in zip(before, after, strict=True))
    assert all(r["quarantine"].tolist() == [""] for r in after)


def test_what_cannot_be_indexed_is_read_without(tmp_path: Path) -> None:
    videos.write(tmp_path / "a.mp4", frames=60)
    whole = Source(tmp_path / "a.mp4")
    assert indexed(whole, 60.0).index is not None
    (tmp_path / "a.mp4").write_bytes((tmp_path / "a.mp4").read_bytes()[:-400])
    assert indexed(Source(tmp_path / "a.mp4"), 60.0).index is None
    assert storage.cache_folder().is_dir()


def listing(tmp_path: Path) -> list[str]:
    names = files(tmp_path / "root")[:-1]
    lines = ["path,split,scene,view,perspective"]
    lines += [f"{name},train,{name},v,{'ego' if k else 'exo'}" for k, name in enumerate(names)]
    (tmp_path / "list.csv").write_text("\n".join(lines) + "\n")
    return ["prepare", "folder", "--root", str(tmp_path / "root"), "--csv", str(tmp_path / "list.csv"), "--out"]


def test_the_command_probes_quickly(tmp_path: Path) -> None:
    command = listing(tmp_path)
    main([*command, str(tmp_path / "exact")])
    main([*command, str(tmp_path / "quick"), "--probe", "quick"])
    exact, quick = Catalog.load(tmp_path / "exact"), Catalog.load(tmp_path / "quick")
    assert [bool(r.index) for r in exact.recordings] == [True] * 4
    assert [bool(r.index) for r in quick.recordings] == [False, False, True, True]
    assert [(r.id, r.num_frames, r.fps) for r in quick.recordings] == [
        (r.id, r.num_frames, r.fps) for r in exact.recordings
    ]


@pytest.mark.ray
def test_actors_find_what_threads_do(ray_cluster: None, tmp_path: Path) -> None:
    names = files(tmp_path)
    here, broken = Prober(tmp_path / "a").probe(tmp_path, names)
    ticks: list[tuple[int, int]] = []
    there, also = Prober(tmp_path / "b", lambda done, total: ticks.append((done, total)), spread=on_ray(2)).probe(
        tmp_path, names
    )
    assert list(there) == list(here)
    assert also == broken
    for name in here:
        assert there[name].columns() | {"index": ""} == here[name].columns() | {"index": ""}
    assert {f.name for f in (tmp_path / "b").iterdir()} == {f.name for f in (tmp_path / "a").iterdir()}
    assert ticks == [(k, 5) for k in range(1, 6)]
