"""The method of docs/adding-a-method.md works as it is printed."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import crossview.methods
from crossview.methods import method as contract
from crossview.platform.config import config_class, method_names, preset, presets

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
    assert "tcn" in contract.names()
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
