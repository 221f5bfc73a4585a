"""EVGAP's losses against numbers worked out by hand and by other code, and the collapse that the bias prevents."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from crossview.methods.evgap.losses import group_loss, indicators, pair_loss


def unit(*shape: int, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def number(x: float) -> Tensor:
    return torch.tensor(x)


def scenes(B: int, views: int) -> Tensor:
    """One layer of groups in which every view of scene i is the i-th basis vector: (1, B, views, B)."""
    return torch.eye(B)[None, :, None].expand(1, B, views, B)


# Pairs


@pytest.mark.parametrize(("vectors", "loss"), [(torch.eye(4), 0.743668), (torch.ones(200, 3) / 3**0.5, 5.298317)])
def test_pair_loss_of_orthonormal_and_of_equal_rows(vectors: Tensor, loss: float) -> None:
    assert float(pair_loss(vectors[None], vectors[None], number(1.0))) == pytest.approx(loss, abs=1e-5)


def test_pair_loss_is_the_cross_entropy_of_rows_and_columns() -> None:
    ego, exo = unit(3, 16, 32), unit(3, 16, 32, seed=1)
    target = torch.arange(16)
    for layer, loss in enumerate(pair_loss(ego, exo, number(5.0))):
        logits = 5 * ego[layer] @ exo[layer].T
        expected = 0.5 * (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target))
        torch.testing.assert_close(loss, expected, atol=1e-6, rtol=0)


def test_pair_loss_treats_ego_and_exo_alike() -> None:
    ego, exo = unit(1, 9, 8), unit(1, 9, 8, seed=1)
    torch.testing.assert_close(pair_loss(ego, exo, number(7.0)), pair_loss(exo, ego, number(7.0)), atol=1e-6, rtol=0)


# Groups


@pytest.mark.parametrize(("scale", "bias", "loss"), [(1.0, 0.0, 0.503205), (10.0, -10.0, 0.346596)])
def test_group_loss_of_separate_scenes(scale: float, bias: float, loss: float) -> None:
    value = group_loss(scenes(2, 2), scenes(2, 3), number(scale), number(bias))
    assert float(value) == pytest.approx(loss, abs=1e-5)


@pytest.mark.parametrize(
    ("B", "bias", "loss"), [(2, None, 0.693147), (7, None, 0.693147), (2, -10.0, 5.000046), (64, -10.0, 0.156295)]
)
def test_group_loss_of_vectors_that_say_nothing(B: int, bias: float | None, loss: float) -> None:
    value = group_loss(
        torch.zeros(1, B, 2, 4), torch.zeros(1, B, 3, 4), number(10.0), None if bias is None else number(bias)
    )
    assert float(value) == pytest.approx(loss, abs=1e-5)


def sigmoid_pairs(ego: Tensor, exo: Tensor, scale: float, bias: float) -> Tensor:
    """The sigmoid loss of SigLIP (Zhai et al., ICCV 2023) on matching rows: a sum over pairs by the number of rows."""
    total = torch.zeros(())
    for i in range(len(ego)):
        for j in range(len(exo)):
            z = 1 if i == j else -1
            total = total - F.logsigmoid(z * (scale * (ego[i] @ exo[j]) + bias))
    return total / len(ego)


def test_one_view_each_is_the_sigmoid_loss_of_siglip() -> None:
    ego, exo = unit(16, 32), unit(16, 32, seed=1)
    value = 16 * group_loss(ego[None, :, None], exo[None, :, None], number(5.0), number(-2.0))[0]
    torch.testing.assert_close(value, sigmoid_pairs(ego, exo, 5.0, -2.0), atol=1e-5, rtol=1e-5)


def test_group_loss_is_the_mean_over_all_pairs_of_clips() -> None:
    ego, exo = unit(5, 2, 8), unit(5, 3, 8, seed=1)
    total = sum(
        float(-F.logsigmoid((1 if i == j else -1) * (4 * ego[i, m] @ exo[j, n] - 1)))
        for i in range(5)
        for j in range(5)
        for m in range(2)
        for n in range(3)
    )
    assert float(group_loss(ego[None], exo[None], number(4.0), number(-1.0))) == pytest.approx(total / 150, abs=1e-6)


def test_the_order_of_views_and_of_scenes_does_not_matter() -> None:
    ego, exo = unit(1, 6, 4, 8), unit(1, 6, 8, 8, seed=1)
    expected = group_loss(ego, exo, number(9.0), number(-3.0))
    views = group_loss(ego[:, :, [2, 0, 3, 1]], exo[:, :, torch.randperm(8)], number(9.0), number(-3.0))
    order = torch.randperm(6)
    joint = group_loss(ego[:, order], exo[:, order], number(9.0), number(-3.0))
    torch.testing.assert_close(views, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(joint, expected, atol=1e-6, rtol=0)


def test_a_second_copy_of_every_exo_view_changes_nothing() -> None:
    ego, exo = unit(1, 6, 4, 8), unit(1, 6, 8, 8, seed=1)
    twice = group_loss(ego, torch.cat([exo, exo], dim=2), number(9.0), number(-3.0))
    torch.testing.assert_close(twice, group_loss(ego, exo, number(9.0), number(-3.0)), atol=1e-6, rtol=0)


def test_missing_views_count_nowhere() -> None:
    ego, exo = unit(2, 5, 2, 8), unit(2, 5, 3, 8, seed=1)
    ego_mask, exo_mask = torch.ones(5, 2, dtype=torch.bool), torch.ones(5, 3, dtype=torch.bool)
    whole = group_loss(ego, exo, number(9.0), number(-3.0))
    torch.testing.assert_close(group_loss(ego, exo, number(9.0), number(-3.0), ego_mask, exo_mask), whole)
    exo_mask[:, 1] = False  # the same camera is missing everywhere: as if there were two
    fewer = group_loss(ego, exo[:, :, [0, 2]], number(9.0), number(-3.0))
    torch.testing.assert_close(group_loss(ego, exo, number(9.0), number(-3.0), ego_mask, exo_mask), fewer)
    exo_mask = torch.ones(5, 3, dtype=torch.bool)
    exo_mask[3, 0] = False
    exo = exo.requires_grad_()
    group_loss(ego, exo, number(9.0), number(-3.0), ego_mask, exo_mask).sum().backward()
    assert exo.grad is not None
    assert float(exo.grad[:, 3, 0].abs().max()) == 0
    assert float(exo.grad[:, 3, 1].abs().max()) > 0


# Collapse


def trained_vectors(bias_init: float | None) -> tuple[float, dict[str, float]]:
    """Free unit vectors of 64 scenes (M=4, N=8) that minimise the group loss at the fixed scale 1/0.7."""
    B, M, N, D = 64, 4, 8, 64
    ego, exo = (torch.nn.Parameter(unit(B, views, D, seed=views)) for views in (M, N))
    bias = None if bias_init is None else torch.nn.Parameter(number(bias_init))
    optimizer = torch.optim.Adam([ego, exo] if bias is None else [ego, exo, bias], lr=0.05)
    loss = number(0.0)
    for _ in range(200):
        a, b = F.normalize(ego, dim=-1), F.normalize(exo, dim=-1)
        loss = group_loss(a[None], b[None], number(1 / 0.7), bias)[0]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = indicators(F.normalize(ego.detach(), dim=-1), F.normalize(exo.detach(), dim=-1))
    return float(loss.detach()), {name: float(value) for name, value in found.items()}


def test_with_a_learned_bias_the_optimum_aligns_views() -> None:
    _, found = trained_vectors(-math.log(63))
    assert found["positive"] > 0.95
    assert abs(found["negative"]) < 0.05
    assert found["R@1"] == 1.0
    assert max(found["ego_mean"], found["exo_mean"]) < 0.1


def test_the_printed_loss_puts_ego_and_exo_at_opposite_poles() -> None:
    """Why the bias is on by default: negatives are 63 to 1, so that pushing the two perspectives apart is cheapest."""
    loss, found = trained_vectors(None)
    assert loss == pytest.approx(0.237, abs=2e-3)
    assert found["R@1"] < 0.1
    assert found["positive"] < -0.99
    assert min(found["ego_mean"], found["exo_mean"]) > 0.99


def test_indicators_by_hand() -> None:
    ego = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    exo = torch.tensor([[[1.0, 0.0], [0.6, 0.8]], [[0.0, 1.0], [1.0, 0.0]]])
    found = indicators(ego, exo)
    assert float(found["positive"]) == pytest.approx((1 + 0.6 + 1 + 0) / 4)
    assert float(found["negative"]) == pytest.approx((0 + 1 + 0 + 0.8) / 4)
    assert float(found["R@1"]) == pytest.approx((1 + 2 / 4) / 2)  # both egos find theirs; exo 2 and exo 4 do not
    assert float(found["ego_mean"]) == pytest.approx(0.5**0.5)
    without = indicators(ego, exo, torch.ones(2, 1, dtype=torch.bool), torch.tensor([[True, False], [True, False]]))
    assert float(without["R@1"]) == 1.0
    assert float(without["positive"]) == 1.0


def test_a_missing_camera_is_nobodys_nearest_clip() -> None:
    ego = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    exo = torch.tensor([[[0.8, 0.6], [0.8, 0.6]], [[0.0, 1.0], [1.0, 0.0]]])  # the last one is missing
    all_there, one_missing = torch.ones(2, 1, dtype=torch.bool), torch.tensor([[True, True], [True, False]])
    assert float(indicators(ego, exo, all_there, one_missing)["R@1"]) == 1.0
    assert float(indicators(exo, ego, one_missing, all_there)["R@1"]) == 1.0
    assert float(indicators(ego, exo)["R@1"]) == pytest.approx((1 / 2 + 3 / 4) / 2)
