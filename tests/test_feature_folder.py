"""A folder of features: which files are taken as they are, which are packed, and what is refused."""

from __future__ import annotations

import os
import pickle
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from crossview.datasets import folder
from crossview.datasets.catalog import Catalog
from crossview.datasets.features.arrays import ArrayFile
from crossview.datasets.sampling.plan import Plan
from crossview.datasets.sampling.spec import Sampling, View
from crossview.datasets.video.frames import UnreadableVideo
from crossview.errors import UserError
from crossview.platform.data.feature_files import read_features

HEADER = "path,split,scene,view,perspective,fps"


def values(frames: int = 12, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((frames, *(shape or (6,)))).astype(np.float32)


def listed(root: Path, *names: str, header: str = HEADER, fps: str = "10") -> folder.Options:
    lines = [f"{name},train,s{k // 2},{'ego' if k % 2 else 'left'},{'ego' if k % 2 else 'exo'},{fps}"
             for k, name in enumerate(names)]  # fmt: skip
    (root / "features.csv").write_text("\n".join([header, *lines]) + "\n")
    return folder.Options(root=root, csv=root / "features.csv")


def test_float16_files_are_read_where_they_are(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", values(12).astype(np.float16))
    np.save(tmp_path / "b.npy", values(15, 1, 6).astype(np.float16))
    catalog = folder.catalog(listed(tmp_path, "a.npy", "b.npy"))
    assert [(r.path, r.kind, r.num_frames, r.fps) for r in catalog.recordings] == [
        ("a.npy", "features", 12, 10.0),
        ("b.npy", "features", 15, 10.0),
    ]
    assert catalog.root == tmp_path
    catalog.save(tmp_path / "catalog")
    loaded = Catalog.load(tmp_path / "catalog")
    view = View(perspective="ego", frames=4, fps=10.0)
    plan = Plan(loaded, Sampling(views={"a": view, "b": replace(view, perspective="exo")}, pairing="synchronized"), 0)
    for clip in plan.row(0).clips[0]:
        assert clip is not None
        recording = loaded.recordings[clip.recording]
        assert read_features(loaded.file(recording), recording)[clip.frames].shape == (4, 1, 6)


def test_other_files_are_packed(tmp_path: Path) -> None:
    arrays = {name: values(9 + k, 2, 5, seed=k) for k, name in enumerate(("a.npy", "b.npz", "c.pt", "d.pt", "e.npy"))}
    np.save(tmp_path / "a.npy", arrays["a.npy"].astype(np.float64))
    np.savez_compressed(tmp_path / "b.npz", whatever=arrays["b.npz"])
    torch.save(torch.from_numpy(arrays["c.pt"]).bfloat16(), tmp_path / "c.pt")
    torch.save(torch.from_numpy(arrays["d.pt"].transpose(2, 1, 0).copy()).permute(2, 1, 0), tmp_path / "d.pt")
    np.save(tmp_path / "e.npy", np.asfortranarray(arrays["e.npy"].astype(np.float16)))
    options = replace(listed(tmp_path, *arrays), packed=tmp_path / "packed")
    catalog = folder.catalog(options)
    arrays["c.pt"] = torch.from_numpy(arrays["c.pt"]).bfloat16().float().numpy()
    for recording, array in zip(catalog.recordings, arrays.values(), strict=True):
        kept = read_features(catalog.file(recording), recording)
        assert kept.dtype == np.float16
        np.testing.assert_array_equal(kept, array.astype(np.float16))
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "packed").iterdir()}
    assert folder.catalog(options).recordings == catalog.recordings
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "packed").iterdir()} == before


def test_a_changed_file_is_packed_again(tmp_path: Path) -> None:
    options = replace(listed(tmp_path, "a.npy"), packed=tmp_path / "packed")
    for seed in (0, 1):
        np.save(tmp_path / "a.npy", values(seed=seed))
        os.utime(tmp_path / "a.npy", (seed, seed))
        (recording,) = (catalog := folder.catalog(options)).recordings
        np.testing.assert_array_equal(np.load(catalog.file(recording)), values(seed=seed).astype(np.float16))


def test_a_name_in_archives(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", frames=values(), other=values(3))
    torch.save({"frames": torch.from_numpy(values()), "index": torch.arange(12)[:, None], "fps": 10}, tmp_path / "b.pt")
    options = replace(listed(tmp_path, "a.npz", "b.pt"), packed=tmp_path / "packed")
    reasons = [broken.reason for broken in folder.catalog(options).quarantined]
    assert re.search(r"a\.npz: it holds 2 arrays; name one of them with --key: frames, other", reasons[0])
    assert re.search(r"b\.pt: it holds 2 arrays; .*--key: frames, index", reasons[1])
    assert [r.num_frames for r in folder.catalog(replace(options, key="frames")).recordings] == [12, 12]
    assert "no array is named 'x'" in folder.catalog(replace(options, key="x")).quarantined[0].reason
    with pytest.raises(UnreadableVideo, match=r"b\.pt: it is of type int64; features are float16"):
        ArrayFile(tmp_path / "b.pt", "index").shape()


def test_no_place_for_packed_copies(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", values())
    for packed in (None, tmp_path):
        with pytest.raises(UserError, match=r"--packed is .*a\.npy is no contiguous float16 .*name another folder"):
            folder.catalog(replace(listed(tmp_path, "a.npy"), packed=packed))


def test_broken_files_are_set_aside(tmp_path: Path) -> None:
    np.save(tmp_path / "flat.npy", values()[:, 0])
    np.save(tmp_path / "whole.npy", np.arange(12).reshape(3, 4))
    np.save(tmp_path / "nan.npy", np.where(np.arange(72).reshape(12, 6) == 40, np.nan, values()))
    np.save(tmp_path / "large.npy", values() * 1e6)
    (tmp_path / "text.npy").write_text("features")
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04 and no more")
    (tmp_path / "cut.pt").write_bytes(b"PK\x03\x04 and no more")
    (tmp_path / "old.pt").write_bytes(pickle.dumps(values(), protocol=2))
    torch.save([values()[0].tolist()], tmp_path / "list.pt")
    np.save(tmp_path / "good.npy", values())
    names = sorted(p.name for p in tmp_path.iterdir())
    catalog = folder.catalog(replace(listed(tmp_path, *names), packed=tmp_path / "packed"))
    assert [r.path.split("-")[0] for r in catalog.recordings] == ["good.npy"]
    said = {broken.path: broken.reason for broken in catalog.quarantined}
    rules = {
        "flat.npy": r"shape \(12,\); features are \(frames, width\)",
        "whole.npy": "of type int64; features are float16",
        "nan.npy": "value nan of frame 6, counted from 0, is not finite",
        "large.npy": "exceeds float16",
        "text.npy": "not a readable array",
        "cut.npz": "not a readable array",
        "cut.pt": "cut, or was saved before torch 1.6",
        "old.pt": "cut, or was saved before torch 1.6",
        "list.pt": "holds a list; save a tensor",
    }
    assert said.keys() == rules.keys()
    for name, rule in rules.items():
        assert re.search(rule, said[name]), said[name]
        assert str(tmp_path / name) in said[name]
    assert not [file for file in (tmp_path / "packed").iterdir() if "good" not in file.name]


@pytest.mark.parametrize(
    ("header", "line", "rule"),
    [
        (HEADER, "a.npy,train,s,v,ego,", "column 'fps': it is empty; a file of features needs its rate"),
        (HEADER, "a.npy,train,s,v,ego,0", "column 'fps': 0; a file of features needs its rate"),
        (HEADER + ",first_frame", "a.npy,train,s,v,ego,10,3", "column 'first_frame': it is 3, but path names features"),
        (HEADER + ",end_s", "a.npy,train,s,v,ego,10,3", "column 'end_s': it is 3, but path names features"),
        (HEADER, "b.npy,train,s,v,ego,10", "column 'path': b.npy is missing"),
    ],
)
def test_broken_lines(tmp_path: Path, header: str, line: str, rule: str) -> None:
    np.save(tmp_path / "a.npy", values().astype(np.float16))
    (tmp_path / "f.csv").write_text(f"{header}\n{line}\n")
    with pytest.raises(UserError, match=re.escape(f"f.csv, line 2, {rule}")):
        folder.catalog(folder.Options(root=tmp_path, csv=tmp_path / "f.csv"))


def test_features_beside_videos_and_of_two_shapes(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", values().astype(np.float16))
    np.save(tmp_path / "b.npy", values(5, 7).astype(np.float16))
    (tmp_path / "c.mp4").write_bytes(b"")
    (tmp_path / "f.csv").write_text(f"{HEADER}\na.npy,train,s,v,ego,10\nc.mp4,train,s,w,exo,\n")
    with pytest.raises(UserError, match=r"f\.csv, line 3: c\.mp4 and a\.npy of line 2 are features and pictures"):
        folder.catalog(folder.Options(root=tmp_path, csv=tmp_path / "f.csv"))
    with pytest.raises(UserError, match=r"several shapes \(tokens x width\): 1 x 6 in a\.npy, 1 x 7 in b\.npy"):
        folder.catalog(listed(tmp_path, "a.npy", "b.npy"))


def test_labels_of_features(tmp_path: Path) -> None:
    for name in ("a.npy", "b.npy"):
        np.save(tmp_path / name, values().astype(np.float16))
    (tmp_path / "a.txt").write_text("0\n" * 6 + "1\n" * 6)
    (tmp_path / "b.txt").write_text("0\n" * 5)
    lines = [f"{n}.npy,train,{n},v,ego,10,{n}.txt" for n in "ab"]
    (tmp_path / "f.csv").write_text("\n".join([f"{HEADER},labels", *lines]) + "\n")
    catalog = folder.catalog(folder.Options(root=tmp_path, csv=tmp_path / "f.csv"))
    assert [labels.sum() for labels in catalog.frame_labels["phase"].values()] == [6]
    assert re.search(r"f\.csv, line 3, column 'labels': .*5 labels", catalog.quarantined[0].reason)


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.pt"])
def test_damaged_files_are_read_or_refused_by_name(tmp_path: Path, name: str) -> None:
    np.save(tmp_path / "a.npy", values(4, 3))
    np.savez_compressed(tmp_path / "a.npz", values(4, 3))
    torch.save(torch.from_numpy(values(4, 3)), tmp_path / "a.pt")
    whole = (tmp_path / name).read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(400):
        damaged = bytearray(whole[: int(rng.integers(1, len(whole) + 1))] if rng.random() < 0.3 else whole)
        for _ in range(int(rng.integers(1, 4))):
            damaged[int(rng.integers(len(damaged)))] = int(rng.integers(256))
        (tmp_path / name).write_bytes(damaged)
        file = ArrayFile(tmp_path / name)
        said = str(tmp_path / name)
        try:
            assert sum(len(part) for part in file.parts()) == file.shape()[0]
        except UnreadableVideo as error:
            said = str(error)
            refused += 1
        assert str(tmp_path / name) in said
    assert refused > 40
