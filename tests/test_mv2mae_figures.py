"""MV2MAE's figures show what the model computes: motion weights, reconstructions and cross-attention."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import mv2mae_reference as reference
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from mv2mae_reference_parts import MEAN, STD, Parameters, parameters, shares, tokens
from mv2mae_tiny import TINY, batch_of, model_of
from torch import Tensor

from crossview.methods.mv2mae import motion
from crossview.methods.mv2mae.config import Config, Motion
from crossview.methods.mv2mae.figures import Query, attention_map, cross_attention, draw, motion_weights, reconstruction


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def rows(figure: Figure) -> dict[str, list[np.ndarray]]:
    """The topmost image of every panel, by the label of its row."""
    found: dict[str, list[np.ndarray]] = {}
    for axis in figure.axes:
        if axis.get_ylabel():
            found[axis.get_ylabel()] = []
        if axis.images:
            list(found.values())[-1].append(np.asarray(axis.images[-1].get_array()))
    return found


def frames(config: Config, values: Tensor) -> np.ndarray:
    """Standardised tokens (N, P) -> frames (T, H, W, 3) in 0-1."""
    side, s, f = config.size_px // config.patch_px, config.patch_px, config.tubelet
    video = torch.zeros(config.frames, 3, config.size_px, config.size_px, dtype=torch.float64)
    for i, token in enumerate(values):
        t, y, x = i // side**2 * f, i // side % side * s, i % side * s
        video[t : t + f, :, y : y + s, x : x + s] = token.view(f, s, s, 3).permute(0, 3, 1, 2)
    return (video * STD + MEAN).clamp(0, 1).permute(0, 2, 3, 1).numpy()


def filled(p: Parameters, config: Config, view: reference.View, source: reference.View | None, clip: Tensor) -> Tensor:
    """The clip's tokens with the hidden ones as predicted; a normalised prediction gets the true moments back."""
    out = tokens(config, clip)
    for i, values in zip(view.hidden, reference.decode(p, config, view, source), strict=True):
        for c in range(3):
            colour = out[i, c::3].clone()
            scale, shift = (colour.std() + 1e-6, colour.mean()) if config.target_norm == "channel" else (1, 0)
            out[i, c::3] = values[c::3] * scale + shift
    return out


@pytest.mark.parametrize("norm", ["none", "channel"])
def test_reconstructions_are_the_decoders_predictions(norm: str) -> None:
    config = replace(TINY, target_norm=norm)  # type: ignore[arg-type]
    model, batch = model_of(config), batch_of(config, 1)
    p, clip = parameters(model), batch["target"][0]
    found = rows(reconstruction(model, batch))
    assert list(found) == ["target", "visible", "same view", "cross view", "source"]
    with torch.no_grad():
        ((source, target),) = reference.views(p, config, batch, training=False)
        visible = tokens(config, clip)
        visible[target.hidden] = tokens(config, torch.full_like(clip, 140))[0]
        expected = {
            "target": tokens(config, clip),
            "visible": visible,
            "same view": filled(p, config, target, None, clip),
            "cross view": filled(p, config, target, source, clip),
            "source": tokens(config, batch["source"][0]),
        }
    for name, values in expected.items():
        np.testing.assert_allclose(np.stack(found[name]), frames(config, values), atol=1e-5, err_msg=name)


def test_weights_are_shown_at_their_tokens() -> None:
    clip = batch_of()["target"][0]
    found = rows(motion_weights(clip, TINY, temperatures=(3.0, 60.0)))
    for temperature in (3.0, 60.0):
        config = replace(TINY, motion=Motion(temperature=temperature))
        weights = 32 * shares(config, clip, list(range(32)))
        shown = np.stack(found[f"τ = {temperature:g}"])
        np.testing.assert_allclose(shown[:2], weights.view(2, 4, 4).numpy(), rtol=1e-4)


def test_the_query_is_the_hidden_token_that_moves_most_and_its_best_match_is_marked() -> None:
    model, batch = model_of(), batch_of(size=1)
    batch["target"] //= 8
    clips = model.clips(batch)
    hidden, visible = (part[1].tolist() for part in clips.split)
    for token, strength in ((visible[-1], 255), (hidden[-2], 128)):  # a visible token moves even more
        assert token >= 16, "in the last tubelet, where no later one sees its change"
        y, x = token // 4 % 4, token % 4
        batch["target"][0, 3, :, 8 * y : 8 * y + 8, 8 * x : 8 * x + 8] = strength
    marked = cross_attention(model, batch)
    maps = attention_map(model, model.encode(model.clips(batch)), model.clips(batch))[hidden[-2]]
    boxes = [patch for axis in marked.axes for patch in axis.patches if patch.get_width() == 8]
    assert [to_hex(box.get_edgecolor()) for box in boxes] == ["#ff2a2a", "#22c55e"]
    for box, token in zip(boxes, (hidden[-2], int(maps.argmax())), strict=True):
        assert box.get_xy() == (token % 4 * 8 - 0.5, token // 4 % 4 * 8 - 0.5)
    heat = torch.from_numpy(np.stack(rows(marked)["attention"][:2]))
    enlarged = torch.nn.functional.interpolate((maps / maps.max()).view(1, 2, 4, 4), (32, 32), mode="bilinear")[0]
    torch.testing.assert_close(heat, enlarged, atol=1e-5, rtol=1e-4)


def test_a_map_without_a_head_is_the_mean_of_the_heads_in_the_last_layer() -> None:
    model, batch = model_of(), batch_of(size=1)
    clips = model.clips(batch)
    latents = model.encode(clips)
    heads = torch.stack([attention_map(model, latents, clips, layer=1, head=head) for head in range(2)])
    assert not torch.equal(*heads)
    torch.testing.assert_close(attention_map(model, latents, clips), heads.mean(0))


def test_figures_show_what_they_are_asked_for() -> None:
    model, batch = model_of(replace(TINY, target_norm="channel")), batch_of(size=1)
    found = motion_weights(batch["target"][0], TINY, temperatures=(1.0, 60.0))
    titles = [axis.get_title(loc="left") for axis in found.axes]
    norms = motion.differences(batch["target"], TINY)
    for t in (1.0, 60.0):
        count = float(motion.effective(motion.weigh(norms, Motion(temperature=t)))[0])
        assert f"ESS {count:.0f} of 32" in titles
    assert len({axis.images[-1].norm.vmax for axis in found.axes[2:6]}) == 1
    assert set(draw(model, batch)) == {"motion_weights", "reconstruction", "cross_attention"}
    names = [axis.get_ylabel() for axis in reconstruction(model, batch).axes]
    assert [n for n in names if n] == ["target", "visible", "same view", "cross view", "source"]
    marked = cross_attention(model, batch, Query(time=1, row=2, column=3), layer=0, head=1)
    boxes = [patch for axis in marked.axes for patch in axis.patches if patch.get_width() == 8]
    assert [to_hex(box.get_edgecolor()) for box in boxes] == ["#ff2a2a", "#22c55e"]
    assert boxes[0].get_xy() == (23.5, 15.5)
    for query, layer, head, message in (
        (Query(time=2, row=0, column=0), -1, None, r"outside the grid; time must be in 0..1, row and column in 0..3"),
        (None, 2, None, r"layer is 2 and head None; the cross-view decoder has 2 layers and 2 heads"),
        (None, 0, 2, r"layer is 0 and head 2"),
    ):
        with pytest.raises(ValueError, match=message):
            cross_attention(model, batch, query, layer, head)
