"""EVGAP's figures show the similarities and indicators that the loss sees."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from evgap_reference import indicators, tokens_of
from evgap_tiny import GROUPS, TINY, batch_of
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from crossview.methods.evgap.config import Config
from crossview.methods.evgap.figures import draw
from crossview.methods.evgap.model import Model


def drawn(config: Config) -> tuple[Model, dict[str, torch.Tensor], dict[str, Figure]]:
    """Two recordings with two instants each; in groups, one ego camera is missing in the second instant."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, batch = Model(config).eval(), batch_of(config)
    if config.step == "groups":
        batch["video/mask"][1, 1] = False
    return model, batch, draw(model, batch)


@pytest.mark.parametrize("config", [TINY, GROUPS], ids=["pairs", "groups"])
def test_the_similarity_of_every_ego_and_exo_clip_is_shown(config: Config) -> None:
    model, batch, figures = drawn(config)
    ego, exo, there = tokens_of(model.double(), batch)
    M, N = ego.shape[2], exo.shape[2]
    axis = figures["similarity"].axes[0]
    shown = np.ma.filled(axis.images[0].get_array().astype(float), np.nan)  # type: ignore[union-attr]
    assert shown.shape == (4 * M, 4 * N)
    for row in range(4 * M):
        for column in range(4 * N):
            i, j = row // M, column // N
            if there[i][row % M] and there[j][M + column % N]:
                cosine = ego[-1, i, row % M] @ exo[-1, j, column % N]
                assert shown[row, column] == pytest.approx(float(cosine.detach()), abs=1e-5)
            else:
                assert np.isnan(shown[row, column])
    framed = [(p.get_xy(), p.get_width(), p.get_height()) for p in axis.patches if isinstance(p, Rectangle)]
    assert framed == [((i * N - 0.5, i * M - 0.5), N, M) for i in range(4)]
    lines = [(list(line.get_xdata()), list(line.get_ydata())) for line in axis.lines]  # type: ignore[arg-type]
    assert lines == [([0, 1], [2 * M - 0.5] * 2), ([2 * N - 0.5] * 2, [0, 1])]  # between the two recordings
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("exo clips", "ego clips")


@pytest.mark.parametrize("config", [TINY, GROUPS], ids=["pairs", "groups"])
def test_indicators_are_shown_layer_by_layer(config: Config) -> None:
    model, batch, figures = drawn(config)
    ego, exo, there = tokens_of(model.double(), batch)
    expected = [indicators(ego[k], exo[k], there) for k in range(3)]
    assert set(figures) == {"similarity", "layers"}
    lines = {str(line.get_label()): line for line in figures["layers"].axes[0].lines}
    for label, name in (("same scene", "positive"), ("other scenes", "negative"), ("R@1 in the batch", "R@1")):
        assert list(lines[label].get_xdata()) == [1, 2, 3]  # type: ignore[arg-type]
        assert list(lines[label].get_ydata()) == pytest.approx([float(e[name]) for e in expected], abs=1e-5)  # type: ignore[arg-type]
