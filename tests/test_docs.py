"""What docs/adding-a-method.md, adding-a-dataset.md and adding-a-task.md print works as it stands there."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import videos
from tiny_run import train, write_catalog

import crossview.datasets
import crossview.downstream
import crossview.methods
from crossview.datasets import folder
from crossview.datasets.catalog import Catalog
from crossview.downstream import results
from crossview.downstream.frame_table import FrameTable
from crossview.methods import method as contract
from crossview.platform.cli.main import main
from crossview.platform.cli.prepare import dataset_names
from crossview.platform.config import config_class, method_names, preset, presets
from crossview.platform.evaluate.runner import evaluate
from crossview.platform.evaluate.tasks import options_from

PAGE = Path(__file__).resolve().parent.parent / "docs" / "adding-a-method.md"


@pytest.fixture
def printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The page's files in a folder of their own, importable as crossview.methods.tcn."""
    files = re.findall(r"^`(\S+/tcn\S*\.py)`\n```python\n(.*?)```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert [name for name, _ in files] == [
        "methods/tcn/__init__.py",
        "methods/tcn/config.py",
        "methods/tcn/model.py",
        "tune_spaces/tcn.py",
    ]
    for name, text in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(crossview.methods, "__path__", [*crossview.methods.__path__, str(tmp_path / "methods")])
    importlib.invalidate_caches()
    yield tmp_path
    for name in [n for n in sys.modules if n.startswith("crossview.methods.tcn")]:
        del sys.modules[name]


def test_printed_method_is_found_by_its_folder_and_trains(printed: Path) -> None:
    assert "tcn" in method_names()
    assert next(iter(presets("tcn"))) == "paper"
    assert config_class("tcn")().sampling().pairing == "synchronized"
    config = preset("tcn", "debug").method
    torch.manual_seed(0)
    model = contract.build("tcn", config)
    views = config.sampling().views
    batch = {
        name: torch.randint(0, 256, (2, view.frames, 3, view.size_px, view.size_px), dtype=torch.uint8)
        for name, view in views.items()
    }
    optimizer = torch.optim.AdamW(model.parameter_groups(0.0), lr=1e-2)
    first = float(model(batch)["loss"].detach())
    for _ in range(30):
        optimizer.zero_grad()
        model(batch)["loss"].backward()
        assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
        optimizer.step()
    assert float(model(batch)["loss"].detach()) < 0.7 * first


def test_printed_method_embeds_video_and_cached_features_alike(printed: Path) -> None:
    config = preset("tcn", "debug").method
    model = contract.build("tcn", config).eval()
    size_px = config.sampling().views["ego"].size_px
    video = torch.randint(0, 256, (1, 5, 3, size_px, size_px), dtype=torch.uint8)
    vectors = model.embed(video)
    assert vectors.shape == (1, 5, 32)
    features = model.frozen_features(video)
    assert features is not None
    torch.testing.assert_close(model.embed(features), vectors, atol=5e-3, rtol=0)


def test_printed_tune_space_uses_options_that_exist(printed: Path) -> None:
    spec = importlib.util.spec_from_file_location("printed_space", printed / "tune_spaces" / "tcn.py")
    assert spec is not None
    assert spec.loader is not None
    space = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(space)
    recipe = preset("tcn", "debug")
    for path in space.SPACE:
        value: object = recipe
        for part in path.split("."):
            value = getattr(value, part)
        assert isinstance(value, float), path
    assert space.MODE in ("min", "max")
    assert space.METRIC


def test_printed_task_is_found_by_its_folder_and_scores_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (PAGE.parent / "adding-a-task.md").read_text()
    files = re.findall(r"^`(downstream/\S+\.py)`\n```python\n(.*?)```", page, re.MULTILINE | re.DOTALL)
    assert [Path(name).name for name, _ in files] == ["__init__.py", "config.py", "task.py"]
    for name, text in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    paths = [*crossview.downstream.__path__, str(tmp_path / "downstream")]
    monkeypatch.setattr(crossview.downstream, "__path__", paths)
    importlib.invalidate_caches()
    write_catalog(tmp_path / "clips")
    run = train(tmp_path / "run", tmp_path / "clips")
    try:
        options = {"smoothness": options_from("smoothness", {"stride": 2})}
        table = evaluate(run, tasks=("smoothness",), options=options, in_process=True)
    finally:
        for name in [n for n in sys.modules if n.startswith("crossview.downstream.smoothness")]:
            del sys.modules[name]
    scores = results.scores(table)
    frames = FrameTable.from_table(pq.read_table(run / "embeddings" / "val" / "trained.parquet"))
    ratios = []
    for rows in frames.video_slices():
        v, order = frames.vectors[rows], np.random.default_rng(0).permutation(rows.stop - rows.start)
        steps, pairs = np.linalg.norm(v[2:] - v[:-2], axis=1), np.linalg.norm(v - v[order], axis=1)
        ratios.append(steps.mean() / pairs.mean())
    assert scores["trained"]["smoothness/step"] == pytest.approx(np.mean(ratios), rel=1e-5)
    assert scores["shuffled"]["smoothness/step"] != scores["trained"]["smoothness/step"]
    assert set(table["mode"].to_pylist()) == {"min"}
    assert table["n"][0].as_py() == 4


def blocks(language: str) -> list[str]:
    text = (PAGE.parent / "adding-a-dataset.md").read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_printed_csv_describes_a_folder(tmp_path: Path) -> None:
    lines = blocks("csv")[0]
    (tmp_path / "videos.csv").write_text(lines)
    for name in re.findall(r"^([^,]+\.mp4)", lines, re.MULTILINE):
        videos.write(tmp_path / name, frames=6)
    (tmp_path / "kitchen" / "anna_head.txt").write_text("0\n0\n1\n1\n2\n2\n")
    found = folder.catalog(folder.Options(root=tmp_path, csv=tmp_path / "videos.csv"))
    assert [(r.scene, r.view, r.perspective) for r in found.select("train").recordings] == [
        ("anna_1", "head", "ego"),
        ("anna_1", "left", "exo"),
    ]
    assert found.frame_labels["phase"]["videos/anna_1/head"].tolist() == [0, 0, 1, 1, 2, 2]
    assert found.recordings[1].start_offset_s == 0.4


def test_printed_dataset_is_prepared_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("anna_1/head", "anna_1/left", "ben_1/head"):
        videos.write(tmp_path / f"{name}.mp4", frames=6)
    facts = {"person": "anna", "task": "make tea", "ego": "head"}
    takes = {"anna_1": facts | {"split": "train"}, "ben_1": facts | {"split": "val"}}
    (tmp_path / "takes.json").write_text(json.dumps(takes))
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "takes.py").write_text(blocks("python")[0])
    monkeypatch.setattr(crossview.datasets, "__path__", [*crossview.datasets.__path__, str(tmp_path / "datasets")])
    try:
        main(["prepare", "takes", "--root", str(tmp_path), "--out", str(tmp_path / "catalog")])
    finally:
        sys.modules.pop("crossview.datasets.takes", None)
    found = Catalog.load(tmp_path / "catalog")
    assert [r.scene for r in found.select("val").recordings] == ["ben_1"]
    assert found.classes["action"] == ("make coffee", "make tea")
    assert sorted((r.id, r.perspective, r.num_frames) for r in found.recordings) == [
        ("takes/anna_1/head", "ego", 6),
        ("takes/anna_1/left", "exo", 6),
        ("takes/ben_1/head", "ego", 6),
    ]


def test_every_dataset_has_a_section_with_its_pairings() -> None:
    text = (PAGE.parent / "datasets.md").read_text()
    named = dict(re.findall(r"^\| \[[^\]]+\]\(#[^)]+\) \| `(\w+)` \| [^|]+ \| ([^|]+) \|", text, re.MULTILINE))
    assert sorted(named) == [name for name in dataset_names() if name != "folder"]
    every = {"single", "synchronized", "paired", "unpaired", "group"}
    for name, said in named.items():
        assert f"(`{name}`)\n" in text, name
        first, _, without = said.strip().partition("all but ")
        pairings = every - {without} if without else every if first == "all" else set(first.split(", "))
        assert set(importlib.import_module(f"crossview.datasets.{name}").PAIRINGS) == pairings, name
