"""What BYOV's figures show: the merged patches and how near predictions are to targets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from byov_tiny import TINY, batch_of
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from crossview.methods.byov.figures import draw, selected_patches
from crossview.methods.byov.model import Model
from crossview.methods.byov.stm import selected


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def shown(axis: Axes) -> np.ndarray:
    pixels = axis.images[0].get_array()
    assert pixels is not None
    return np.ma.filled(pixels, np.nan)


def heat_maps(figure: Figure) -> dict[str, np.ndarray]:
    return {axis.get_title(): shown(axis) for axis in figure.axes if axis.get_title()}


def test_the_patches_that_are_kept_stay_bright() -> None:
    video = {v: torch.full((4, 3, 8, 8), 255, dtype=torch.uint8) for v in ("ego", "exo")}
    index = {"ego": torch.tensor([[0], [1], [2], [3]]), "exo": torch.tensor([[3], [2], [1], [0]])}
    figure = selected_patches(video, index, (2, 2), shown=2)
    (first, last), (exo, _) = np.array(figure.axes).reshape(2, 2)
    assert first.get_title() == "frame 1 of 4"
    assert last.get_title() == "frame 4 of 4"
    assert [first.get_ylabel(), exo.get_ylabel()] == ["ego", "exo"]
    for axis, bright in ((first, (slice(0, 4), slice(0, 4))), (last, (slice(4, 8),) * 2), (exo, (slice(4, 8),) * 2)):
        expected = np.full((8, 8), 0.25)
        expected[bright] = 1
        np.testing.assert_allclose(shown(axis)[..., 0], expected, atol=1e-6)


def test_each_row_shows_the_patches_of_its_own_view() -> None:
    model, batch = Model(TINY), batch_of(TINY, 2)
    found = draw(model, batch)["selected_patches"]
    for view, drawn in zip(("ego", "exo"), np.array(found.axes).reshape(2, 8), strict=True):
        index = selected(model.base(batch[view][:1]), 0.3)[0]
        alone = selected_patches({view: batch[view][0]}, {view: index}, (4, 4))
        for axis, expected in zip(drawn, alone.axes, strict=True):
            np.testing.assert_array_equal(shown(axis), shown(expected))


def test_the_heat_maps_hold_the_cosines_of_hidden_frames() -> None:
    model, batch = Model(TINY), batch_of(TINY, 2)
    figures = draw(model, batch)
    assert set(figures) == {"prediction_similarity", "selected_patches"}
    maps = heat_maps(figures["prediction_similarity"])
    with torch.no_grad():
        predictions, target, splits = model.inspect({name: value[:1] for name, value in batch.items()})
    titles = {"msm": "self view (MSM)", "mcm": "cross view (MCM)"}
    assert list(maps) == [f"{titles[t]}, {v}" for t in ("msm", "mcm") for v in ("ego", "exo")]
    for task, title in titles.items():
        for i, view in enumerate(("ego", "exo")):
            mean = target[i].mean(0)
            for t in range(10):
                row = maps[f"{title}, {view}"][t]
                if not splits[task].mask[i, t]:
                    assert np.isnan(row).all()
                    continue
                cosine = [torch.cosine_similarity(predictions[task][i, t] - mean, y - mean, dim=0) for y in target[i]]
                np.testing.assert_allclose(row, torch.stack(cosine).numpy(), atol=1e-4)


def test_a_task_that_is_left_out_and_unmerged_patches_have_no_figure() -> None:
    weights = replace(TINY.weights, msm_ego=0, msm_exo=0)
    figures = draw(Model(replace(TINY, stm_ratio=None, weights=weights)), batch_of(TINY, 1))
    assert set(figures) == {"prediction_similarity"}
    assert list(heat_maps(figures["prediction_similarity"])) == ["cross view (MCM), ego", "cross view (MCM), exo"]
