"""BYOV's options: what is refused, what they ask of the plan, which features they share."""

from __future__ import annotations

import dataclasses

import pytest
from byov_tiny import TINY

from crossview.methods.byov.config import Config, Decoder, Encoder, Weights
from crossview.platform.cli.options import parse_train


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"msm_ratio": 1.0}, "msm_ratio is 1.0"),
        ({"mcm_ratio": 0.01}, "mcm_ratio is 0.01 with 10 frames"),
        ({"stm_ratio": 30}, "stm_ratio is 30"),
        ({"frames": 1}, "frames is 1"),
        ({"mcm_ratio": 0.96}, "mcm_ratio is 0.96 with 10 frames"),
        ({"msm_ratio": -0.4}, "msm_ratio is -0.4"),
        ({"stm_ratio": 0.0}, "stm_ratio is 0.0"),
        ({"encoder": Encoder(width=30, heads=4)}, r"encoder has width 30, .*heads must divide the width"),
        ({"decoder": Decoder(width=32, depth=0)}, r"decoder has .*all must be above 0"),
        ({"segment_embedding": True, "weights": Weights(mcm_ego=0, mcm_exo=0)}, "segment_embedding"),
    ],
)
def test_impossible_options_are_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **change)


def test_weights_are_checked() -> None:
    with pytest.raises(ValueError, match=r"weights\.msm_ego is -1"):
        Weights(msm_ego=-1)
    with pytest.raises(ValueError, match="are all 0"):
        Weights(msm_ego=0, msm_exo=0, mcm_ego=0, mcm_exo=0)


@pytest.mark.parametrize(("pairs", "perspectives"), [("ego-exo", ["ego", "exo"]), ("merged", ["any", "any"])])
def test_the_sampling_is_two_random_clips_of_one_action(pairs: str, perspectives: list[str]) -> None:
    sampling = dataclasses.replace(TINY, pairs=pairs).sampling()
    assert sampling.pairing == "unpaired"
    assert [v.perspective for v in sampling.views.values()] == perspectives
    assert all(v.frames == 10 and v.spread == "random" and v.size_px == 64 for v in sampling.views.values())


def test_the_smallest_and_the_largest_options_are_taken() -> None:
    config = Config(frames=2, msm_ratio=0.5, mcm_ratio=0.5, stm_ratio=1.0)
    assert config.frames == 2
    assert dataclasses.replace(config, stm_ratio=None, segment_embedding=True, weights=Weights(mcm_ego=0)).weights


def test_runs_share_features_unless_their_bases_differ() -> None:
    key = TINY.features_key()
    fields = {f.name for f in dataclasses.fields(TINY.base)}
    assert key.keys() == fields - {"chunk"}  # changes no result
    assert dataclasses.replace(TINY, frames=12, stm_ratio=0.5).features_key() == key
    assert all(key[name] == getattr(TINY.base, name) for name in key)


def test_a_checkpoint_is_loaded_on_a_random_base_of_the_same_shape() -> None:
    bare = Config().without_pretrained()
    assert bare.base.weights == "random"
    assert dataclasses.replace(bare, base=dataclasses.replace(bare.base, weights="hub")) == Config()


def test_the_three_ratios_are_set_apart_on_the_command_line() -> None:
    """The released options are whole numbers, and one of them is twice another."""
    ratios = {"stm-ratio": 0.25, "msm-ratio": 0.45, "mcm-ratio": 0.7}
    words = [word for name, value in ratios.items() for word in (f"--method.{name}", str(value))]
    _, launch = parse_train(["byov", "--data.catalog", "any", *words])
    config = launch.experiment.method
    assert (config.stm_ratio, config.msm_ratio, config.mcm_ratio) == (0.25, 0.45, 0.7)
