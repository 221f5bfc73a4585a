"""The catalog on disk, and prepared copies of it."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import videos

from crossview.datasets.catalog import Catalog, Quarantined, Recording, Segment, one_protocol
from crossview.datasets.catalog.tables import ADDED
from crossview.datasets.video.copies import prepare
from crossview.datasets.video.decode import probe


def recording(name: str, frames: int = 5) -> Recording:
    return Recording(
        dataset="d", scene=name, view="v", perspective="exo", subject="p", action="a", path=f"{name}.mp4",
        kind="video", fps=29.97, num_frames=frames, height_px=64, width_px=96, start_offset_s=0.25,
    )  # fmt: skip


def full(root: Path) -> Catalog:
    found = (recording("a"), recording("b", 7), recording("c", 3))
    return Catalog(
        root,
        found,
        (Segment("d/a/v", 0.0, 0.1, "action", "cut"), Segment("d/c/v", 0.0, 0.1, "action", "pour")),
        {"phase": {r.id: np.arange(r.num_frames, dtype=np.int32) for r in found}},
        (Quarantined("bad.mp4", "bad.mp4: it is cut off"),),
        one_protocol(zip(found, ("train", "train", "val"), strict=True)),
    )


def same(first: Catalog, second: Catalog) -> bool:
    np.testing.assert_equal(first.frame_labels, second.frame_labels)
    return (first.recordings, first.segments, first.quarantined, first.protocols, first.all_classes()) == (
        second.recordings,
        second.segments,
        second.quarantined,
        second.protocols,
        second.all_classes(),
    )


def test_round_trip(tmp_path: Path) -> None:
    catalog = full(tmp_path)
    catalog.save(tmp_path / "tables")
    loaded = Catalog.load(tmp_path / "tables")
    assert same(loaded, catalog)
    assert loaded.root == tmp_path.resolve()
    assert {p.name for p in (tmp_path / "tables").iterdir()} == {
        "recordings.parquet", "segments.parquet", "frame_labels.parquet", "quarantine.parquet", "catalog.json",
        "protocols.parquet", "classes.parquet",
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
    assert list(val.frame_labels["phase"]) == ["d/c/v"]
    with pytest.raises(ValueError, match=r"split 'test' holds no recording; splits here: train, val"):
        full(tmp_path).select("test")


def test_what_load_refuses(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nothing: no catalog here .*crossview prepare"):
        Catalog.load(tmp_path / "nothing")
    tables = tmp_path / "tables"
    full(tmp_path).save(tables)
    (tables / "catalog.json").write_text(json.dumps({"format": 2, "root": str(tmp_path / "gone")}))
    with pytest.raises(ValueError, match=r"under .*gone, which is missing; .*`crossview prepare`; .*--data\.root"):
        Catalog.load(tables)
    full(tmp_path).save(tables)
    (tables / "recordings.parquet").write_bytes((tables / "segments.parquet").read_bytes())
    with pytest.raises(ValueError, match=r"recordings\.parquet: columns .*make the catalog again"):
        Catalog.load(tables)
    (tables / "recordings.parquet").write_bytes(b"PAR1 half a table")
    with pytest.raises(ValueError, match=r"recordings\.parquet: not a readable Parquet table .*make the catalog again"):
        Catalog.load(tables)


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    full(tmp_path).save(tmp_path / "tables")
    facts = json.loads((tmp_path / "tables" / "catalog.json").read_text())
    assert facts["format"] == 3
    (tmp_path / "tables" / "catalog.json").write_text(json.dumps(facts | {"format": 4}))
    with pytest.raises(ValueError, match=r"newer Crossview wrote this catalog \(format 4; this one reads up to 3\)"):
        Catalog.load(tmp_path / "tables")


def test_what_protocol_and_class_tables_refuse(tmp_path: Path) -> None:
    tables = tmp_path / "tables"
    full(tmp_path).save(tables)
    rows = pq.read_table(tables / "protocols.parquet").to_pylist()
    assert rows[2] == {"protocol": "default", "recording": "d/c/v", "split": "val"}
    pq.write_table(pa.Table.from_pylist([*rows, rows[2] | {"split": "train"}]), tables / "protocols.parquet")
    with pytest.raises(ValueError, match=r"protocols\.parquet: .*'d/c/v' in split 'val' and in split 'train'"):
        Catalog.load(tables)
    full(tmp_path).save(tables)
    rows = pq.read_table(tables / "classes.parquet").to_pylist()
    assert rows == [{"kind": "action", "id": 0, "name": "cut"}, {"kind": "action", "id": 1, "name": "pour"}]
    for broken in ([rows[1]], [*rows, rows[0]], [rows[0], rows[1] | {"name": "cut"}]):
        pq.write_table(pa.Table.from_pylist(broken), tables / "classes.parquet")
        with pytest.raises(ValueError, match=r"classes\.parquet: the classes of kind 'action' have ids .*count from 0"):
            Catalog.load(tables)


def test_a_recording_has_a_split_in_each_protocol(tmp_path: Path) -> None:
    """As with NTU: by subject all cameras of a take are in one split, by view they are not."""
    takes = [replace(recording(take), view=view) for take in ("a", "b") for view in ("left", "right")]
    by_subject = {r.id: "train" if r.scene == "a" else "test" for r in takes}
    by_view = {r.id: "train" if r.view == "left" else "test" for r in takes[:3]}
    catalog = Catalog(tmp_path, tuple(takes), protocols={"x-sub": by_subject, "x-view": by_view})
    catalog.save(tmp_path / "tables")
    loaded = Catalog.load(tmp_path / "tables")
    assert loaded.protocols == catalog.protocols
    assert list(loaded.protocols) == ["x-sub", "x-view"]
    assert [r.id for r in loaded.select("train", "x-sub").recordings] == ["d/a/left", "d/a/right"]
    assert [r.id for r in loaded.select("train", "x-view").recordings] == ["d/a/left", "d/b/left"]
    assert [r.id for r in loaded.select("test", "x-view").recordings] == ["d/a/right"]  # d/b/right takes no part
    part = loaded.under("x-view").select("test")
    assert [part.split_of(r) for r in part.recordings] == ["test"]
    assert part.select("test") == part
    assert loaded.split_of(takes[0]) is None
    with pytest.raises(ValueError, match=r"2 protocols \(x-sub, x-view\); choose one with --data\.protocol"):
        loaded.select("train")
    with pytest.raises(ValueError, match=r"2 protocols \(x-sub, x-view\); choose one with --data\.protocol"):
        loaded.under(None)
    with pytest.raises(ValueError, match=r"protocol 'x-set' is unknown; protocols here: x-sub, x-view"):
        loaded.select("train", "x-set")
    with pytest.raises(ValueError, match=r"split 'val' holds no recording in protocol 'x-view'; splits here: test, tr"):
        loaded.select("val", "x-view")
    with pytest.raises(ValueError, match=r"it has no protocol, so no recording has a split"):
        Catalog(tmp_path, tuple(takes)).select("train")


def write_format_1(catalog: Catalog, folder: Path) -> None:
    """The tables as Crossview 0.3 wrote them."""
    old = {r.id: f"{catalog.split_of(r)}/{r.scene}/{r.view}" for r in catalog.recordings}
    rows = []
    for r in catalog.recordings:
        facts = {name: value for name, value in dataclasses.asdict(r).items() if name not in ADDED}
        rows.append({"dataset": facts.pop("dataset"), "split": catalog.split_of(r), **facts})
    labels = [
        {"recording": old[k], "name": n, "labels": v} for n, by in catalog.frame_labels.items() for k, v in by.items()
    ]
    tables = {
        "recordings": rows,
        "segments": [dataclasses.asdict(s) | {"recording": old[s.recording]} for s in catalog.segments],
        "frame_labels": labels,
        "quarantine": [dataclasses.asdict(q) for q in catalog.quarantined],
    }
    folder.mkdir()
    for name, values in tables.items():
        pq.write_table(pa.Table.from_pylist(values), folder / f"{name}.parquet")
    (folder / "catalog.json").write_text(json.dumps({"root": str(catalog.root)}))


def test_a_catalog_of_0_5_is_read_as_one_of_today(tmp_path: Path) -> None:
    catalog = full(tmp_path)
    catalog.save(tmp_path / "old")
    file = tmp_path / "old" / "recordings.parquet"
    pq.write_table(pq.read_table(file).drop_columns(list(ADDED)), file)
    (tmp_path / "old" / "catalog.json").write_text(json.dumps({"format": 2, "root": str(catalog.root)}))
    assert same(Catalog.load(tmp_path / "old"), catalog)


def test_a_catalog_of_0_3_is_read_as_one_of_today(tmp_path: Path) -> None:
    catalog = full(tmp_path)
    write_format_1(catalog, tmp_path / "old")
    found = Catalog.load(tmp_path / "old")
    assert same(found, catalog)
    assert [r.scene for r in found.select("val").recordings] == ["c"]
    found.save(tmp_path / "new")
    assert same(Catalog.load(tmp_path / "new"), catalog)


def test_a_catalog_of_0_3_with_one_take_in_two_splits_is_refused(tmp_path: Path) -> None:
    write_format_1(full(tmp_path), tmp_path / "old")
    file = tmp_path / "old" / "recordings.parquet"
    rows = pq.read_table(file).to_pylist()
    pq.write_table(pa.Table.from_pylist([*rows, rows[0] | {"split": "test"}]), file)
    with pytest.raises(ValueError, match=r"has 'train/a/v' and 'test/a/v'; .*`crossview prepare DATASET --root .*old`"):
        Catalog.load(tmp_path / "old")


def test_a_catalog_of_0_3_with_a_slash_in_a_scene_is_refused_with_the_command(tmp_path: Path) -> None:
    write_format_1(full(tmp_path), tmp_path / "old")
    file = tmp_path / "old" / "recordings.parquet"
    rows = pq.read_table(file).to_pylist()
    pq.write_table(pa.Table.from_pylist([rows[0] | {"scene": "kitchen/a"}]), file)
    with pytest.raises(ValueError, match=r"old: .*0\.3; a\.mp4: scene is 'kitchen/a'; .*`crossview prep.*--out .*old`"):
        Catalog.load(tmp_path / "old")


def test_ids_that_files_could_not_tell_apart_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"scene is 'kitchen/a'; .* must hold no '/'"):
        replace(recording("a"), scene="kitchen/a")
    first, second = replace(recording("a"), scene="a__b", view="c"), replace(recording("a"), scene="a", view="b__c")
    with pytest.raises(ValueError, match=r"'d/a__b/c' and 'd/a/b__c' would have one file name, d__a__b__c"):
        Catalog(tmp_path, (first, second))


def test_inconsistent_catalogs(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"recording 'd/a/v' appears twice"):
        Catalog(tmp_path, (recording("a"), recording("a")))
    with pytest.raises(ValueError, match=r"a\.mp4: 4 'phase' labels for 5 decoded frames"):
        Catalog(tmp_path, (recording("a"),), frame_labels={"phase": {"d/a/v": np.zeros(4)}})


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
    assert [replace(r, height_px=64, width_px=96, index="") for r in first.recordings] == list(catalog.recordings)
    times = {name: (out / f"{name}.mp4").stat().st_mtime_ns for name in "abc"}
    (out / "b.mp4").unlink()
    (out / "c.mp4").write_bytes(bytes((out / "c.mp4").stat().st_size))
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
    with pytest.raises(ValueError, match=r"2 of 3 videos cannot be used.*max_quarantined = 0\.05"):
        prepare(catalog, out, size_px=32)
    prepared = prepare(catalog, out, size_px=32, max_quarantined=0.7)
    assert [r.scene for r in prepared.recordings] == ["c"]
    assert list(prepared.frame_labels["phase"]) == ["d/c/v"]
    listed = {q.path: q.reason for q in Catalog.load(out).quarantined}
    assert set(listed) == {"a.mp4", "b.mp4"}
    assert "9 frames, but the catalog says 12" in listed["b.mp4"]
    assert sorted(p.name for p in out.glob("*mp4")) == ["c.mp4"]


def test_prepare_refuses_bad_settings(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path, (recording("a"),))
    with pytest.raises(ValueError, match=r"size_px is 33; .* must be even and at least 16: pass for example 32"):
        prepare(catalog, tmp_path / "to", size_px=33)
    with pytest.raises(ValueError, match=r"the catalog's own root; name another folder"):
        prepare(catalog, tmp_path)
