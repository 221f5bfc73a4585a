"""The catalog on disk, and prepared copies of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import videos

from crossview.datasets.catalog import Catalog, Quarantined, Recording, Segment
from crossview.datasets.video.decode import probe
from crossview.datasets.video.transcode import prepare


def recording(name: str, frames: int = 5, split: str = "train") -> Recording:
    return Recording(
        dataset="d", split=split, scene=name, view="v", perspective="exo", subject="p", action="a", path=f"{name}.mp4",
        kind="video", fps=29.97, num_frames=frames, height_px=64, width_px=96, start_offset_s=0.25,
    )  # fmt: skip


def full(root: Path) -> Catalog:
    found = (recording("a"), recording("b", 7), recording("c", 3, "val"))
    return Catalog(
        root,
        found,
        (Segment("train/a/v", 0.0, 0.1, "action", "cut"), Segment("val/c/v", 0.0, 0.1, "action", "pour")),
        {"phase": {r.id: np.arange(r.num_frames, dtype=np.int32) for r in found}},
        (Quarantined("bad.mp4", "bad.mp4: it is cut off"),),
    )


def same(first: Catalog, second: Catalog) -> bool:
    np.testing.assert_equal(first.frame_labels, second.frame_labels)
    return (first.recordings, first.segments, first.quarantined) == (
        second.recordings,
        second.segments,
        second.quarantined,
    )


def test_round_trip(tmp_path: Path) -> None:
    catalog = full(tmp_path)
    catalog.save(tmp_path / "tables")
    loaded = Catalog.load(tmp_path / "tables")
    assert same(loaded, catalog)
    assert loaded.root == tmp_path.resolve()
    assert {p.name for p in (tmp_path / "tables").iterdir()} == {
        "recordings.parquet", "segments.parquet", "frame_labels.parquet", "quarantine.parquet", "catalog.json",
    }  # fmt: skip
    (tmp_path / "elsewhere").mkdir()
    assert Catalog.load(tmp_path / "tables", tmp_path / "elsewhere").root == tmp_path / "elsewhere"


def test_a_save_that_fails_leaves_the_old_catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = full(tmp_path)
    catalog.save(tmp_path / "tables")

    def no_space(table: object, where: Path) -> None:
        Path(where).write_bytes(b"PAR1 half a")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pyarrow.parquet.write_table", no_space)
    with pytest.raises(OSError, match="No space"):
        replace(catalog, recordings=catalog.recordings[:1], frame_labels={}).save(tmp_path / "tables")
    assert same(Catalog.load(tmp_path / "tables"), catalog)


def test_select(tmp_path: Path) -> None:
    val = full(tmp_path).select("val")
    assert [r.scene for r in val.recordings] == ["c"]
    assert [s.label for s in val.segments] == ["pour"]
    assert list(val.frame_labels["phase"]) == ["val/c/v"]
    with pytest.raises(ValueError, match=r"split 'test' holds no recording; splits here: train, val"):
        full(tmp_path).select("test")


def test_what_load_refuses(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nothing: no catalog here .*crossview prepare"):
        Catalog.load(tmp_path / "nothing")
    tables = tmp_path / "tables"
    full(tmp_path).save(tables)
    (tables / "catalog.json").write_text(json.dumps({"root": str(tmp_path / "gone")}))
    with pytest.raises(ValueError, match=r"under .*gone, which is missing; .*`crossview prepare`, or .*--data\.root"):
        Catalog.load(tables)
    full(tmp_path).save(tables)
    (tables / "recordings.parquet").write_bytes((tables / "segments.parquet").read_bytes())
    with pytest.raises(ValueError, match=r"recordings\.parquet: columns .*make the catalog again"):
        Catalog.load(tables)
    (tables / "recordings.parquet").write_bytes(b"PAR1 half a table")
    with pytest.raises(ValueError, match=r"recordings\.parquet: not a readable table"):
        Catalog.load(tables)


def test_inconsistent_catalogs(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"recording 'train/a/v' appears twice"):
        Catalog(tmp_path, (recording("a"), recording("a")))
    with pytest.raises(ValueError, match=r"a\.mp4: 4 'phase' labels for 5 decoded frames"):
        Catalog(tmp_path, (recording("a"),), frame_labels={"phase": {"train/a/v": np.zeros(4)}})


def sources(root: Path) -> Catalog:
    found = []
    for name, frames in (("a", 10), ("b", 12), ("c", 9)):
        info = probe(videos.write(root / f"{name}.mp4", frames=frames, b_frames=2))
        found.append(replace(recording(name, frames), fps=info.fps))
    return Catalog(root, tuple(found), (), {"phase": {r.id: np.zeros(r.num_frames, np.int32) for r in found}})


def test_prepare_is_resumable_and_redoes_what_changed(tmp_path: Path) -> None:
    catalog, out = sources(tmp_path / "from"), tmp_path / "to"
    first = prepare(catalog, out, size_px=32)
    assert same(Catalog.load(out), first)
    assert [(r.height_px, r.width_px) for r in first.recordings] == [(32, 48)] * 3
    assert [replace(r, height_px=64, width_px=96) for r in first.recordings] == list(catalog.recordings)
    times = {name: (out / f"{name}.mp4").stat().st_mtime_ns for name in "abc"}
    (out / "b.mp4").unlink()
    (out / "c.mp4").write_bytes(b"half a copy")
    seen: list[tuple[int, int]] = []
    prepare(catalog, out, size_px=32, tick=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    again = {name: (out / f"{name}.mp4").stat().st_mtime_ns for name in "abc"}
    assert [times[name] == again[name] for name in "abc"] == [True, False, False]
    assert probe(out / "c.mp4").num_frames == 9
    prepare(catalog, out, size_px=48)
    assert probe(out / "a.mp4").height_px == 48


def test_prepare_has_short_closed_groups_without_b_frames(tmp_path: Path) -> None:
    import av

    prepare(sources(tmp_path / "from"), tmp_path / "to", size_px=32, gop=4)
    with av.open(str(tmp_path / "to" / "b.mp4")) as container:
        stream = container.streams.video[0]
        packets = [p for p in container.demux(stream) if p.size]
        assert [p.is_keyframe for p in packets] == [k % 4 == 0 for k in range(12)]
        assert [p.pts for p in packets] == [p.dts for p in packets]
        assert packets[0].pts == 0
        assert not stream.codec_context.has_b_frames


def test_prepare_sets_broken_files_aside(tmp_path: Path) -> None:
    catalog, out = sources(tmp_path / "from"), tmp_path / "to"
    videos.truncate(catalog.root / "a.mp4")
    (catalog.root / "b.mp4").write_bytes((catalog.root / "c.mp4").read_bytes())  # 9 frames, the catalog says 12
    with pytest.raises(ValueError, match=r"2 of 3 videos cannot be read.*max_quarantined = 0\.05"):
        prepare(catalog, out, size_px=32)
    prepared = prepare(catalog, out, size_px=32, max_quarantined=0.7)
    assert [r.scene for r in prepared.recordings] == ["c"]
    assert list(prepared.frame_labels["phase"]) == ["train/c/v"]
    listed = {q.path: q.reason for q in Catalog.load(out).quarantined}
    assert set(listed) == {"a.mp4", "b.mp4"}
    assert "9 frames, but the catalog says 12" in listed["b.mp4"]
    assert sorted(p.name for p in out.glob("*mp4")) == ["c.mp4"]


def test_prepare_refuses_bad_settings(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path, (recording("a"),))
    with pytest.raises(ValueError, match=r"size_px=33.*size_px must be even"):
        prepare(catalog, tmp_path / "to", size_px=33)
    with pytest.raises(ValueError, match=r"the catalog's own root; name another folder"):
        prepare(catalog, tmp_path)
