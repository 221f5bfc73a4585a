"""`crossview prepare` finds a dataset by its module's name, and what it makes serves several protocols."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny_run
import videos

import crossview.datasets
from crossview.datasets.catalog import Catalog
from crossview.datasets.catalog.tables import ADDED
from crossview.datasets.video.framing import Framing
from crossview.platform.cli.main import main
from crossview.platform.cli.prepare import dataset_names
from crossview.platform.config import Data
from crossview.platform.data.feature_cache import cache
from crossview.platform.data.frame_cache import frame_cache
from crossview.platform.data.plan_builder import load_catalog
from crossview.platform.evaluate.frame_embeddings import embed
from crossview.platform.evaluate.opened import open_run
from crossview.platform.train.launcher import resume

TOY = '''"""Toy takes that a test films.

A second paragraph, for the help of this dataset alone.
"""

from dataclasses import dataclass
from pathlib import Path

from crossview.datasets.catalog import Catalog, Recording
from crossview.datasets.catalog.probing import Prober

PROTOCOLS = ("x-sub", "x-view")
PAIRINGS = ("single", "synchronized")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Where they are."""

    root: Path
    """Folder of TAKE_VIEW.mp4."""
    longest: int = 100
    """Frames above which a take is left out."""


def catalog(options, *, prober=None):
    paths = sorted(p.name for p in options.root.glob("*.mp4"))
    infos, broken = prober.probe(options.root, paths)
    found = []
    for path, info in infos.items():
        scene, view = path.removesuffix(".mp4").split("_")
        if info.num_frames <= options.longest:
            found.append(Recording(
                dataset="toy", scene=scene, view=view, perspective="ego" if view == "head" else "exo", subject=scene,
                action="wave", path=path, kind="video", **info.columns(),
            ))
    by_subject = {r.id: "train" if r.scene == "a" else "val" for r in found}
    by_view = {r.id: "train" if r.view == "head" else "val" for r in found}
    protocols = dict(zip(PROTOCOLS, (by_subject, by_view)))
    classes = {"action": ("nod", "wave")}
    return Catalog(options.root, tuple(found), quarantined=broken, protocols=protocols, classes=classes)
'''


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Two takes of three cameras, and the dataset's module in a folder of its own."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "toy.py").write_text(TOY)
    monkeypatch.setattr(crossview.datasets, "__path__", [*crossview.datasets.__path__, str(tmp_path / "modules")])
    for k, name in enumerate(("a_head", "a_left", "b_head", "b_left", "b_right")):
        videos.write(tmp_path / "files" / f"{name}.mp4", frames=6 + k)
    yield tmp_path
    sys.modules.pop("crossview.datasets.toy", None)


def prepare(toy: Path, *options: str) -> None:
    main(["prepare", "toy", "--root", str(toy / "files"), "--out", str(toy / "catalog"), *options])


def test_a_module_is_a_dataset_of_the_command(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert {"ae2", "folder", "toy"} <= set(dataset_names())
    assert not {"catalog", "sampling", "synthetic"} & set(dataset_names())
    prepare(toy)
    said = capsys.readouterr().out
    assert "protocol x-view, val: 0 ego and 3 exo recordings, 26 frames" in said
    assert "warning: protocol x-view, no ego recording in val: methods and tasks that need both" in said
    assert "warning: protocol x-view, no exo recording in train: " in said
    assert "warning: protocol x-sub" not in said
    assert f"saved to {toy / 'catalog'}" in said.replace("\n", "")
    found = Catalog.load(toy / "catalog")
    assert [r.id for r in found.recordings] == ["toy/a/head", "toy/a/left", "toy/b/head", "toy/b/left", "toy/b/right"]
    assert list(found.protocols) == ["x-sub", "x-view"]
    assert found.classes["action"] == ("nod", "wave")
    prepare(toy, "--longest", "8")
    assert len(Catalog.load(toy / "catalog").recordings) == 3


def test_help_lists_datasets_and_operations_apart(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["prepare", "--help"])
    assert ended.value.code == 0
    assert "crossview.datasets.toy" not in sys.modules
    shipped = {file.stem for file in Path(crossview.datasets.__path__[0]).glob("[!_]*.py")}
    datasets, operations = capsys.readouterr().out.split("Operations on a catalog:")
    assert [line.split()[0] for line in datasets.split("Datasets:")[1].strip().splitlines()] == [
        *sorted(("toy", *shipped)), "synthetic",
    ]  # fmt: skip
    assert "  toy           Toy takes that a test films\n" in datasets
    assert [line.split()[0] for line in operations.split("\n\n")[0].strip().splitlines()] == ["copies", "teachers"]
    with pytest.raises(SystemExit) as ended:
        main(["prepare", "toy", "--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    for part in ("A second paragraph", "--longest", "Frames above which", "--out", "--max-quarantined"):
        assert part in said


def test_what_a_module_must_keep_to(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["prepare", "toys", "--out", str(toy / "catalog")])
    assert (
        f"dataset 'toys' is unknown; choose from {', '.join(dataset_names())}, synthetic, copies, teachers"
        in capsys.readouterr().err
    )
    videos.truncate(toy / "files" / "a_left.mp4")
    with pytest.raises(SystemExit):
        prepare(toy)
    assert "1 of 5 videos cannot be used, more than the share max_quarantined = 0.05" in capsys.readouterr().err
    prepare(toy, "--max-quarantined", "0.2")
    assert [q.path for q in Catalog.load(toy / "catalog").quarantined] == ["a_left.mp4"]
    shutil.rmtree(toy / "catalog")
    sys.modules.pop("crossview.datasets.toy")
    file = toy / "modules" / "toy.py"
    file.write_text(file.read_text().replace("dict(zip(PROTOCOLS", 'dict(zip(("x-view", "x-sub")'))
    with pytest.raises(SystemExit):
        prepare(toy, "--max-quarantined", "0.2")
    assert "has the protocols x-view, x-sub, its module declares x-sub, x-view" in capsys.readouterr().err
    assert not (toy / "catalog" / "catalog.json").exists()


def test_a_file_is_in_one_split_of_a_protocol(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (toy / "files" / "c_head.mp4").symlink_to(toy / "files" / "a_head.mp4")
    with pytest.raises(SystemExit):
        prepare(toy)
    said = capsys.readouterr().err
    assert "dataset toy, protocol 'x-sub': c_head.mp4 is in split 'val' and in split 'train', there as a_h" in said
    assert not (toy / "catalog" / "catalog.json").exists()


def test_recordings_that_take_no_part_are_counted(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = toy / "modules" / "toy.py"
    text = file.read_text()
    file.write_text(text.replace('"val" for r in found}\n    by_view', '"val" for r in found[:3]}\n    by_view'))
    prepare(toy)
    said = capsys.readouterr().out
    assert "protocol x-sub, without a split: 2 recordings, which take no part" in said
    assert "protocol x-view, without" not in said
    shutil.rmtree(toy / "catalog")
    sys.modules.pop("crossview.datasets.toy")
    file.write_text(text.replace("by_subject = {r.id:", "by_subject = {r.scene:"))
    with pytest.raises(SystemExit):
        prepare(toy)
    assert "dataset toy: protocol 'x-sub' has none of the 5 recordings" in capsys.readouterr().err
    assert not (toy / "catalog" / "catalog.json").exists()


def test_two_protocols_share_cached_features_and_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = tiny_run.write_catalog(tmp_path)
    other = {r.id: "train" if r.view == "ego" else "val" for r in made.recordings}
    both = dataclasses.replace(made, protocols={**made.protocols, "x-view": other})
    config, out, data = tiny_run.method_config(), tmp_path / "features", Data(catalog=tmp_path)
    whole = cache("byov", config, both.under("default"), out, in_process=True)
    files = {f: f.stat().st_mtime_ns for f in out.rglob("*.npy")}
    assert len(files) == len(made.recordings)
    framing = Framing(size=(16, 16))
    frames = {r.id: np.array(frame_cache(made.source(r), r, framing, "rgb", data)) for r in made.recordings}

    def never(*_: object, **__: object) -> None:
        raise AssertionError("computed twice")

    monkeypatch.setattr("crossview.platform.data.feature_cache.compute", never)
    monkeypatch.setattr("crossview.platform.data.frame_cache.read_clips", never)
    for split in ("train", "val"):
        part = both.select(split, "x-view")
        features = cache("byov", config, part, out, in_process=True)
        assert {r.path for r in features.recordings} <= {r.path for r in whole.recordings}
        assert {features.split_of(r) for r in features.recordings} == {split}
        for r in part.recordings:
            assert np.array_equal(frame_cache(made.source(r), r, framing, "rgb", data), frames[r.id])
    assert {f: f.stat().st_mtime_ns for f in out.rglob("*.npy")} == files
    assert not any(split in f.name for f in files for split in ("train", "val", "test"))


def test_a_run_is_trained_and_embedded_under_its_protocol(tmp_path: Path) -> None:
    made = tiny_run.write_catalog(tmp_path)
    turned = {"train": "val", "val": "train", "test": "test"}
    other = {k: turned[v] for k, v in made.protocols["default"].items()}
    dataclasses.replace(made, protocols={**made.protocols, "turned": other}).save(tmp_path / "catalog")
    with pytest.raises(ValueError, match=r"2 protocols \(default, turned\); choose one with --data\.protocol"):
        tiny_run.train(tmp_path / "run", tmp_path)
    run = tiny_run.train(tmp_path / "run", tmp_path, protocol="turned")  # type: ignore[arg-type]
    catalog = load_catalog(Data(catalog=tmp_path / "catalog", protocol="turned"))
    table = embed_table(run)
    assert set(table["video"]) == {r.id for r in made.select("train").recordings}
    assert set(table["video"]) == {r.id for r in catalog.select("val").recordings}
    assert set(table["split"]) == {"val"}


def embed_table(run: Path) -> dict[str, list[str]]:
    import pyarrow.parquet as pq

    file = embed(open_run(run, in_process=True), split="val", baselines="none")["trained"]
    return {name: pq.read_table(file)[name].to_pylist() for name in ("video", "split")}


def test_a_run_of_0_3_resumes_on_the_same_recordings_alone(tmp_path: Path) -> None:
    made = tiny_run.write_catalog(tmp_path)
    run = tiny_run.train(tmp_path / "run", tmp_path)
    facts = []
    for r in made.select("train").recordings:
        own = {k: v for k, v in dataclasses.asdict(r).items() if k not in (*ADDED, "path", "kind")}
        facts.append({"dataset": own.pop("dataset"), "split": "train", **own})
    assert list(facts[0])[:4] == ["dataset", "split", "scene", "view"]
    info = json.loads((run / "run.json").read_text())
    for changed in (False, True):
        facts[1]["fps"] = 25.0 if changed else facts[1]["fps"]
        info["recordings"] = hashlib.blake2b(json.dumps(facts).encode(), digest_size=16).hexdigest()
        (run / "run.json").write_text(json.dumps(info))
        if changed:
            with pytest.raises(ValueError, match="are not those that the run started with"):
                resume(run, in_process=True)
        else:
            resume(run, in_process=True)
