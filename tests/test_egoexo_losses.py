"""Ego-Exo's losses, targets and schedules against the numbers that its definitions give."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from crossview.methods.egoexo import losses
from crossview.methods.egoexo.config import Weights, presets
from crossview.methods.egoexo.slowfast import slow_indices
from crossview.platform.train.lr_schedule import learning_rate

ALL = torch.tensor([True, True])


def three_boxes() -> Tensor:
    """Two overlapping boxes in frame 0 and a small one in frame 3, of 8 frames."""
    boxes = torch.zeros(1, 8, 2, 6)
    boxes[0, 0] = torch.tensor([[1, 0.10, 0.20, 0.40, 0.60, 0.8], [1, 0.30, 0.30, 0.60, 0.50, 0.5]])
    boxes[0, 3, 0] = torch.tensor([1, 0, 0, 0.05, 0.05, 0.9])
    return boxes


def painted_by_loops(boxes: Tensor, side: int) -> Tensor:
    B, T, K, _ = boxes.shape
    out = torch.zeros(B, 2, T, side, side)
    for b in range(B):
        for t in range(T):
            for k in range(K):
                kind, *corners, score = boxes[b, t, k].tolist()
                if kind:
                    c1, r1, c2, r2 = (min(max(math.floor(v * side), 0), side - 1) for v in corners)
                    for row in range(r1, r2 + 1):
                        for column in range(c1, c2 + 1):
                            old = float(out[b, int(kind) - 1, t, row, column])
                            out[b, int(kind) - 1, t, row, column] = max(old, score)
    return out


def test_the_slow_pathway_sees_eight_of_thirty_two_frames() -> None:
    assert slow_indices(32, 4).tolist() == [0, 4, 8, 13, 17, 22, 26, 31]


@pytest.mark.parametrize("alpha", [1, 2, 4, 8])
def test_slow_frames_are_those_of_whole_numbers(alpha: int) -> None:
    for frames in range(alpha, 257, alpha):
        last = max(1, frames // alpha - 1)
        assert slow_indices(frames, alpha).tolist() == [i * (frames - 1) // last for i in range(frames // alpha)]


def test_a_painted_map_has_the_stated_cells() -> None:
    target = losses.paint(three_boxes(), 7)[0]
    hands = target[0]
    expected = torch.zeros(8, 7, 7)
    expected[0, 1:5, 0:3] = 0.8
    expected[0, 2:4, 3:5] = 0.5
    expected[3, 0, 0] = 0.9
    torch.testing.assert_close(hands, expected)
    assert float(hands[0].sum()) == pytest.approx(11.6)
    assert not target[1].any()
    assert float(losses.paint(three_boxes(), 7, "hard")[0, 0, 0].sum()) == 16


def test_painting_equals_loops_over_boxes_and_cells() -> None:
    corner = torch.rand(3, 4, 5, 2) * 0.7
    kind = torch.randint(0, 3, (3, 4, 5, 1)).float()
    boxes = torch.cat([kind, corner, (corner + torch.rand(3, 4, 5, 2) * 0.5).clamp(max=1), torch.rand(3, 4, 5, 1)], -1)
    for side in (7, 8):
        torch.testing.assert_close(losses.paint(boxes, side), painted_by_loops(boxes, side))


def test_a_box_up_to_the_border_fills_the_last_cell() -> None:
    boxes = torch.tensor([2.0, 0.9, 0.9, 1.0, 1.0, 1.0]).view(1, 1, 1, 6)
    target = losses.paint(boxes, 7)[0, 1, 0]
    assert target.nonzero().tolist() == [[6, 6]]


def test_the_map_loss_is_ln2_at_zero_logits_and_bounded_by_the_targets_entropy() -> None:
    target = losses.paint(three_boxes(), 7)[:, 0]
    one = torch.tensor([True])
    assert float(losses.map_error(torch.zeros(1, 8, 7, 7), target, one)) == pytest.approx(math.log(2), abs=1e-6)
    perfect = torch.special.logit(target.clamp(1e-7, 1 - 1e-7))
    assert float(losses.map_error(perfect, target, one)) == pytest.approx(0.02322, abs=1e-5)


@pytest.mark.parametrize(("temperature", "expected"), [(1.0, 0.708319), (2.0, 0.797155), (4.0, 0.823924)])
def test_distillation_has_the_stated_values(temperature: float, expected: float) -> None:
    student, teacher = torch.tensor([[1.0, 2, 3], [0, 0, 0]]), torch.tensor([[3.0, 2, 1], [1, 0, -1]])
    assert float(losses.distill(student, teacher, ALL, temperature)) == pytest.approx(expected, abs=1e-5)
    assert float(losses.distill(teacher, teacher, ALL, temperature)) == pytest.approx(0, abs=1e-7)


def test_distillation_from_certain_teachers_of_a_uniform_student() -> None:
    ego = torch.tensor([[-10.0, 10.0], [-10.0, 10.0]])
    assert float(losses.distill(torch.zeros(2, 2), ego, ALL)) == pytest.approx(0.693147, abs=1e-6)
    assert ego.softmax(1)[0, 1] > 0.999, "index 1 is egocentric"
    certain = torch.full((2, 1000), -40.0)
    certain[:, 3] = 40.0
    assert float(losses.distill(torch.zeros(2, 1000), certain, ALL)) == pytest.approx(6.907755, abs=1e-5)


def test_distillation_has_the_gradient_of_soft_cross_entropy_and_none_to_the_teacher() -> None:
    student, teacher = torch.randn(2, 5, requires_grad=True), torch.randn(2, 5, requires_grad=True)
    losses.distill(student, teacher, ALL).backward()
    assert teacher.grad is None
    expected = (student.softmax(1) - teacher.softmax(1)).detach() / 2
    torch.testing.assert_close(student.grad, expected, rtol=1e-4, atol=1e-6)


def test_the_total_at_uniform_outputs() -> None:
    w = Weights()
    action = losses.cross_entropy(torch.zeros(2, 400), F.one_hot(torch.tensor([3, 9]), 400))
    certain = torch.full((2, 1000), -40.0)
    certain[:, 3] = 40.0
    obj = losses.distill(torch.zeros(2, 1000), certain, ALL)
    ego = losses.distill(torch.zeros(2, 2), torch.tensor([[-30.0, 30.0]] * 2), ALL)
    cells = torch.rand(2, 8, 7, 7)
    maps = losses.map_error(torch.zeros(2, 8, 7, 7), cells, ALL)
    total = w.action * action + w.ego * ego + w.object * obj + (w.hand_map + w.object_map) * maps
    assert float(total) == pytest.approx(7.905219, abs=1e-5)


def test_a_sample_without_teacher_adds_nothing_to_a_mean_over_the_others() -> None:
    student, teacher = torch.randn(3, 4, requires_grad=True), torch.randn(3, 4)
    some = torch.tensor([True, False, True])
    part = losses.distill(student[[0, 2]], teacher[[0, 2]], ALL)
    whole = losses.distill(student, teacher, some)
    torch.testing.assert_close(whole, part)
    whole.backward()
    assert student.grad is not None
    assert not student.grad[1].any()
    assert float(losses.distill(student.detach(), teacher, ~torch.tensor([True] * 3))) == 0
    logits, cells = torch.randn(3, 2, 4, 4), torch.rand(3, 2, 4, 4)
    one = losses.map_error(logits[[0, 2]], cells[[0, 2]], ALL)
    torch.testing.assert_close(losses.map_error(logits, cells, some), one)


def test_cross_entropy_equals_torch_for_one_class_and_shares_several() -> None:
    logits, classes = torch.randn(4, 6), torch.tensor([0, 5, 2, 2])
    one_hot = F.one_hot(classes, 6)
    torch.testing.assert_close(losses.cross_entropy(logits, one_hot), F.cross_entropy(logits, classes))
    two = one_hot.clone()
    two[0, 1] = 1
    expected = (F.cross_entropy(logits[:1], classes[:1]) + F.cross_entropy(logits[:1], torch.tensor([1]))) / 2
    torch.testing.assert_close(losses.cross_entropy(logits[:1], two[:1]), expected)
    none = one_hot.clone()
    none[3] = 0
    torch.testing.assert_close(losses.cross_entropy(logits, none), F.cross_entropy(logits[:3], classes[:3]))


def test_binary_counts_every_class_and_clips_without_one() -> None:
    labels = torch.tensor([[1, 1, 0], [0, 0, 0]])
    assert float(losses.binary(torch.zeros(2, 3), labels)) == pytest.approx(math.log(2))
    logits = torch.randn(2, 3)
    expected = F.binary_cross_entropy_with_logits(logits, labels.float())
    torch.testing.assert_close(losses.binary(logits, labels), expected)


def test_the_divergence_behind_the_measures() -> None:
    p, q = torch.rand(6, 4).softmax(1), torch.rand(6, 4).softmax(1)
    expected = F.kl_div(q.log(), p, reduction="batchmean")
    torch.testing.assert_close(losses.probability_divergence(p, q, binary=False), expected)
    both = F.binary_cross_entropy(q, p) - F.binary_cross_entropy(p, p)
    torch.testing.assert_close(losses.probability_divergence(p, q, binary=True), both, rtol=1e-4, atol=1e-7)
    hard = torch.tensor([[0.0, 1.0]])
    assert float(losses.probability_divergence(hard, hard, binary=True)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("preset", "epochs", "expected"),
    [
        ("kinetics400", 200, {0: 0.08, 17: 0.41215, 34: 0.74430, 100: 0.4}),
        ("charades_ego_star", 60, {0: 0.25, 30: 0.125}),
        ("epic100", 30, {0: 0.02, 19.99: 0.02, 20: 0.002, 24.99: 0.002, 25: 0.0002}),
        ("epic55", 30, {0: 0.01, 20: 0.001, 25: 0.0001}),
    ],
)
def test_learning_rates_at_the_papers_epochs(preset: str, epochs: int, expected: dict[float, float]) -> None:
    optim, per_epoch = presets()[preset]().optim, 1_000
    assert (optim.epochs, optim.optimizer, optim.momentum, optim.weight_decay) == (epochs, "sgd", 0.9, 1e-4)
    for epoch, rate in expected.items():
        found = learning_rate(optim, round(epoch * per_epoch), epochs * per_epoch)
        assert found == pytest.approx(rate, rel=1e-4)
