"""The geometry that each method asks for, of its presets, of its studies and of configurations that name none."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import egoexo_tiny
import mv2mae_tiny
import numpy as np
import pytest
import torch

from crossview.datasets.catalog import Catalog, Recording
from crossview.datasets.sampling.geometry import SQUASH, Geometry
from crossview.datasets.sampling.plan import Plan
from crossview.datasets.sampling.spec import Sampling
from crossview.datasets.video.conversion import rgb, yuv420
from crossview.datasets.video.framing import Framing
from crossview.errors import UserError
from crossview.methods.byov.studies import studies as byov_studies
from crossview.methods.egoexo.model import Model as EgoExo
from crossview.methods.egoexo.studies import studies as egoexo_studies
from crossview.methods.evgap.studies import studies as evgap_studies
from crossview.methods.mv2mae.model import Model as CrossView
from crossview.methods.mv2mae.studies import studies as mv2mae_studies
from crossview.methods.recipe import MethodConfig
from crossview.methods.study import Study
from crossview.platform.config import Data, Experiment, from_dict, preset, to_dict

OLD: dict[tuple[str, str], tuple[dict[str, Any], int]] = {
    ("byov", "break_eggs"): ({}, 224),
    ("byov", "debug"): ({}, 112),
    ("egoexo", "charades_ego"): ({"short_side_px": [256, 320]}, 256),
    ("egoexo", "debug"): ({"short_side_px": [64, 80]}, 64),
    ("evgap", "debug"): ({}, 96),
    ("mv2mae", "ntu60"): (
        {"crop_scales": [1.0, 0.875, 0.75, 0.66], "stage": "pretrain", "finetuning": {"classes": 60}},
        128,
    ),
}
"""Options as version 0.5 wrote them beside those of today, and the side of the squares that it decoded."""


def reloaded(method: str, config: MethodConfig, **options: Any) -> Any:
    """The method's configuration from a file that has no geometry."""
    recipe = preset(method, "debug")
    experiment: Experiment[Any] = Experiment(data=Data(catalog=Path("unused")), method=config, optim=recipe.optim)
    values = to_dict(method, experiment)
    del values["method"]["geometry"]
    values["method"] |= options
    name, read = from_dict(json.loads(json.dumps(values)))
    assert name == method
    return read.method


def oblong() -> Catalog:
    """Three scenes, each seen by an ego and two exo cameras of 1920 x 1080, with every label that a preset reads."""
    return Catalog(
        Path("unused"),
        tuple(
            Recording(
                dataset="d", scene=f"s{k}", view=view, perspective=view[:3], subject="", action="a",  # type: ignore[arg-type]
                path=f"{k}{view}.mp4", kind="video", fps=30.0, num_frames=600, height_px=1080, width_px=1920,
            )
            for k in range(3)
            for view in ("ego", "exo1", "exo2")
        ),
    )  # fmt: skip


def clips(sampling: Sampling, rows: int = 12) -> list[tuple[Any, ...]]:
    """Every clip's recording, frames and region."""
    made = Plan(oblong(), replace(sampling, labels={}, scores={}, boxes=0), seed=1)
    drawn = [clip for i in range(rows) for window in made.row(i).clips for clip in window if clip]
    return [(clip.recording, tuple(clip.frames), clip.region) for clip in drawn]


@pytest.mark.parametrize(("method", "name"), OLD)
def test_a_configuration_without_geometry_squashes_as_it_did(method: str, name: str) -> None:
    options, size_px = OLD[method, name]
    config = reloaded(method, preset(method, name).method, **options)
    assert config.geometry == SQUASH
    for view in config.sampling().views.values():
        for form in (view, view.evaluated()):
            assert form.size_px == size_px
            assert form.centred(1080, 1920) == form.framing(None, 1080, 1920) == Framing(size=(size_px, size_px))
    found = clips(config.sampling())
    assert {region for *_, region in found} == {None}
    now = clips(preset(method, name).method.sampling())
    assert [clip[:2] for clip in found] == [clip[:2] for clip in now]


def test_an_old_egoexo_configuration_scales_and_crops_on_the_device() -> None:
    config = reloaded("egoexo", replace(egoexo_tiny.TINY, geometry=SQUASH), short_side_px=[52, 64])
    view = config.sampling().views["clip"]
    assert (view.size_px, view.geometry) == (config.frame_px, SQUASH)
    model, batch = EgoExo(config).train(), egoexo_tiny.batch_of(config, size=8)
    batch["clip"] = torch.arange(config.frame_px, dtype=torch.uint8).expand(8, config.frames, 3, config.frame_px, -1)
    batch["clip"] = batch["clip"].contiguous()  # a ramp across: its range is the crop's
    found, _ = model.inputs(batch)
    assert found.shape[-2:] == (config.crop_px, config.crop_px)
    low, high = found.amin((1, 2, 3, 4)).float(), found.amax((1, 2, 3, 4)).float()
    assert (high - low).min() >= config.frame_px * 48 / 64 - 3
    assert (high - low).max() <= config.frame_px * 48 / 52 + 1
    assert len(set(low.tolist())) > 3
    whole, _ = model.eval().inputs(batch)
    assert torch.equal(whole, batch["clip"])


def test_an_old_mv2mae_configuration_crops_on_the_device() -> None:
    config = reloaded("mv2mae", replace(mv2mae_tiny.TINY, geometry=SQUASH), crop_scales=[0.66])
    assert all(v.geometry == SQUASH and v.size_px == config.size_px for v in config.sampling().views.values())
    model, batch = CrossView(config).train(), mv2mae_tiny.batch_of(config, size=8)
    ramp = torch.arange(config.size_px, dtype=torch.uint8).expand(8, config.frames, 3, config.size_px, -1).contiguous()
    video = model.clips(batch | {"source": ramp, "target": ramp}).video
    assert video.shape == (16, config.frames, 3, config.size_px, config.size_px)
    spans = (video.amax((1, 2, 3, 4)).float() - video.amin((1, 2, 3, 4)).float()).tolist()
    assert max(spans) <= 0.66 * config.size_px + 1
    whole = model.eval().clips(batch | {"source": ramp, "target": ramp}).video
    assert torch.equal(whole, torch.cat([ramp, ramp]))


def test_clips_that_the_plan_cropped_are_only_flipped() -> None:
    config = replace(egoexo_tiny.TINY, geometry=Geometry(crop="random"), short_side_px=None, flip=0.5)
    view = config.sampling().views["clip"]
    assert (view.size_px, view.test_px) == (config.crop_px, config.frame_px)
    assert view.evaluated().size_px == config.frame_px
    batch = egoexo_tiny.batch_of(replace(config, frame_px=config.crop_px), size=8)
    found, _ = EgoExo(config).train().inputs(batch)
    kept = [torch.equal(a, b) for a, b in zip(found, batch["clip"], strict=True)]
    turned = [torch.equal(a, b.flip(-1)) for a, b in zip(found, batch["clip"], strict=True)]
    assert any(kept)
    assert [not k for k in kept] == turned


@pytest.mark.parametrize("name", ["kinetics400", "epic100"])
def test_egoexo_trains_on_random_crops_of_a_short_side_and_is_tested_on_the_centre(name: str) -> None:
    sampling = replace(preset("egoexo", name).method.sampling(), unit="recording")
    regions = np.array([region for *_, region in clips(sampling, rows=100)]) * [1080, 1920, 1080, 1920]
    np.testing.assert_allclose(regions[:, 2], regions[:, 3])  # square in pixels
    short = 1080 * 224 / regions[:, 2]
    assert 256 <= short.min() < 262
    assert 314 < short.max() <= 320
    test = sampling.views["clip"].evaluated().centred(1080, 1920)
    assert test.size == (256, 256)
    np.testing.assert_allclose(np.array(test.region) * [1080, 1920, 1080, 1920], (0, 420, 1080, 1080))


def test_mv2mae_trains_on_its_crops_and_is_tested_on_the_whole_short_side() -> None:
    pretraining = preset("mv2mae", "ntu60").method.sampling()
    sides = np.array([region[2:] for *_, region in clips(pretraining, rows=60)]) * [1, 1920 / 1080]
    assert set(sides.round(6).ravel()) == {1.0, 0.875, 0.75, 0.66}
    pairs = [made[:2] for made in zip(*[iter(clips(pretraining, rows=60))] * 2, strict=True)]
    assert any(source[2] != target[2] for source, target in pairs)  # drawn for each view
    assert all(source[1] == target[1] for source, target in pairs)
    tuning = preset("recognition", "ntu60").method.sampling()
    found = [region or (0, 0, 1, 1) for *_, region in clips(tuning, rows=200)]
    tall, wide = np.array(found).T[2:]
    assert 0.08 <= (tall * wide).min() < 0.2
    assert 0.6 < (tall * wide).max() <= 1
    ratio = wide * 1920 / (tall * 1080)
    assert 3 / 4 - 1e-6 <= ratio.min() < 0.8
    assert 1.25 < ratio.max() <= 4 / 3 + 1e-6
    for sampling in (pretraining, tuning):
        for view in sampling.views.values():
            test = view.evaluated().centred(1080, 1920)
            assert test.size == (128, 128)
            np.testing.assert_allclose(np.array(test.region) * [1080, 1920, 1080, 1920], (0, 420, 1080, 1080))


STUDIES: dict[str, Study] = {
    f"{method}:{name}": study
    for method, made in (
        ("byov", byov_studies), ("egoexo", egoexo_studies), ("evgap", evgap_studies), ("mv2mae", mv2mae_studies)
    )
    for name, study in made().items()
}  # fmt: skip


@pytest.mark.parametrize("name", STUDIES)
def test_a_studys_square_footage_is_the_same_bytes_as_when_squashed(name: str) -> None:
    study = STUDIES[name]
    side = study.world.size_px
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
    for recipe in study.variants.values():
        for view in recipe.method.sampling().views.values():
            assert view.geometry.region(side, side, view.size_px, np.random.default_rng(1)) is None
            for form in (view, view.evaluated()):
                squashed = Framing(size=(form.size_px, form.size_px))
                assert form.centred(side, side) == form.framing(None, side, side) == squashed
                for convert in (rgb, yuv420):
                    assert np.array_equal(convert(frame, form.centred(side, side)), convert(frame, squashed))


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("egoexo", r"with geometry\.crop 'random' and geometry\.short_px None, .* --method\.short-side-px None, or"),
        ("mv2mae", r"with geometry\.crop 'random', .* pass --method\.crop-scales without values, or --method\.geom"),
    ],
)
def test_crops_of_the_device_beside_those_of_the_plan_are_refused_with_options(method: str, said: str) -> None:
    config = preset(method, "debug").method
    with pytest.raises(UserError, match=said) as refused:
        replace(config, geometry=Geometry(crop="random"))
    assert "Geometry(" not in str(refused.value)
