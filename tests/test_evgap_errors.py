"""What EVGAP refuses, in words that name value, rule and fix."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from evgap_tiny import GROUPS, TINY, batch_of

from crossview.methods.base_config import Base
from crossview.methods.evgap.config import Config
from crossview.methods.evgap.model import Model


def test_a_wrong_feature_width_names_both_and_the_fix() -> None:
    batch = batch_of(TINY) | {"ego": torch.randn(4, 16, 3, 12), "exo": torch.randn(4, 16, 3, 12)}
    with pytest.raises(ValueError, match=r"3 x 12 = 36 values per frame, but this encoder expects 24; .*feature-width"):
        Model(TINY)(batch)


def test_another_number_of_cameras_names_both_and_the_fix() -> None:
    batch = batch_of(dataclasses.replace(GROUPS, exo_views=4))
    with pytest.raises(ValueError, match=r"6 cameras .* ego_views 2 \+ exo_views 3 are 5; .*set both options"):
        Model(GROUPS)(batch)


@pytest.mark.parametrize("config", [TINY, GROUPS], ids=["pairs", "groups"])
def test_features_that_are_not_numbers_name_their_sample(config: Config) -> None:
    batch = batch_of(config) | {"sample": torch.tensor([3, 1, 7, 5])}
    name = "video" if config.step == "groups" else "exo"
    batch[name][(2, 0, 1) if config.step == "groups" else (2, 1)] = torch.nan
    with pytest.raises(ValueError, match=r"sample 7 of the plan: 1 of .* clips have features that are not finite"):
        Model(config)(batch)
    with pytest.raises(ValueError, match=r"recording or clip 0 of the batch, frame 1: the features are not finite"):
        Model(config).embed_clip(torch.tensor([0.0, torch.inf, 0.0]).view(1, 3, 1).expand(1, 3, 24)[..., None])


@pytest.mark.parametrize("config", [TINY, GROUPS], ids=["pairs", "groups"])
def test_a_batch_without_negatives_is_refused(config: Config) -> None:
    with pytest.raises(ValueError, match=r"has 1 \w+ and therefore no negatives; the loss needs at least 2: increase"):
        Model(config)(batch_of(config, 1))


def test_video_where_features_are_expected_says_what_to_pass() -> None:
    with pytest.raises(ValueError, match=r"'features', but the catalog contains video; pass --method.input video"):
        Model(TINY).embed(torch.zeros(1, 4, 3, 8, 8, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clips_per_video": 0}, r"clips_per_video is 0; it must be at least 1"),
        ({"ego_views": 0}, r"ego_views is 0; it must be at least 1"),
        ({"exo_views": 0}, r"exo_views is 0; it must be at least 1"),
        ({"frames": 0}, r"frames is 0; it must be at least 1"),
        ({"feature_width": 0}, r"feature_width is 0; it must be at least 1"),
        ({"scale_init": 0.155}, r"scale_init is 0\.155 with scale 'learned'; a learned one must lie in \[1, 100\]"),
        ({"scale_init": 100.1}, r"scale_init is 100\.1 with scale 'learned'"),
        ({"scale_init": 0.0, "scale": "fixed"}, r"scale_init is 0\.0 with scale 'fixed'; .* fixed one in \(0, 100\]"),
        ({"window_scale": (2.0, 0.5)}, r"window_scale is \(2\.0, 0\.5\)"),
        ({"logits_lr": 0.0}, r"logits_lr is 0\.0; it must be above 0"),
        ({"auxiliary": -0.1}, r"auxiliary is -0\.1; it must be 0 or more"),
        ({"base_grid": 0}, r"base_grid is 0; it must be at least 1"),
    ],
)
def test_options_that_cannot_be_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 5}, r"heads must divide the width"),
        ({"depth": 0}, r"sizes must be at least 1"),
        ({"dropout": 1.0}, r"encoder\.dropout is 1\.0; it must lie in \[0, 1\)"),
        ({"dropout": -0.1}, r"encoder\.dropout is -0\.1"),
    ],
)
def test_encoders_that_cannot_be_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY.encoder, **change)


def test_what_lies_on_an_options_border_is_taken() -> None:
    for change in ({"scale_init": 1.0}, {"scale_init": 100.0}, {"scale_init": 0.01, "scale": "fixed"}):
        dataclasses.replace(TINY, **change)  # type: ignore[arg-type]
    dataclasses.replace(TINY, auxiliary=0.0, base_grid=1, clips_per_video=1)


def test_weights_that_are_not_finite_are_left_to_the_training_loop() -> None:
    model = Model(TINY)
    model.encoder.token.data.fill_(torch.nan)
    assert not bool(model(batch_of(TINY))["loss"].isfinite())
    assert not bool(model.embed_clip(torch.zeros(1, 3, 24, 1)).isfinite().any())


def test_features_beyond_float16_are_not_cached() -> None:
    base = Base(model="vit_tiny_patch16_224", weights="random", size_px=32, width=48, depth=1, heads=3)
    model = Model(dataclasses.replace(TINY, input="video", base=base, base_grid=1))
    model.base.get_submodule("vit").pos_embed.data.fill_(1e6)  # type: ignore[union-attr, operator]
    with pytest.raises(
        ValueError, match=r"vit_tiny_patch16_224: its features exceed float16, so they cannot be cached"
    ):
        model.frozen_features(torch.zeros(1, 2, 3, 32, 32, dtype=torch.uint8))
    assert Model(TINY).frozen_features(torch.zeros(1, 2, 2, 12)) is None


def test_a_grid_needs_a_vit() -> None:
    config = dataclasses.replace(
        TINY, input="video", base=Base(model="resnet10t", weights="random", size_px=64), base_grid=2
    )
    with pytest.raises(ValueError, match="must be a plain timm ViT"):
        Model(config)
