"""Classification heads, their losses, and rates that fall with depth."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from crossview.downstream.recognition.heads import Heads, layer_rates, parameter_groups, shares


def heads(**options: object) -> Heads:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Heads(8, {"verb": 5, "noun": 7}, **options)  # type: ignore[arg-type]


def test_fresh_heads_are_undecided() -> None:
    logits = heads()(torch.randn(3, 8))
    assert {k: tuple(x.shape) for k, x in logits.items()} == {"verb": (3, 5), "noun": (3, 7)}
    assert all(bool((x.abs() < 1e-3).all()) for x in logits.values())
    out = heads().losses(logits, {"verb": torch.eye(5)[:3], "noun": torch.eye(7)[:3]})
    assert out["loss"].item() == pytest.approx(math.log(5) + math.log(7), abs=1e-3)
    torch.testing.assert_close(out["loss"], out["verb"] + out["noun"])


def test_the_loss_is_smoothed_cross_entropy_on_soft_targets() -> None:
    logits = {"verb": torch.randn(4, 5), "noun": torch.randn(4, 7)}
    targets = {k: torch.rand(x.shape).softmax(1) for k, x in logits.items()}
    for smoothing in (0.0, 0.1):
        out = heads(label_smoothing=smoothing).losses(logits, targets)
        for kind, x in logits.items():
            torch.testing.assert_close(out[kind], F.cross_entropy(x, targets[kind], label_smoothing=smoothing))


def test_clips_without_a_label_do_not_count() -> None:
    labels = torch.tensor([[0, 1, 1, 0, 0], [0, 0, 0, 0, 0], [1, 0, 0, 0, 0]], dtype=torch.uint8)
    target = shares(labels)
    assert target.tolist() == [[0, 0.5, 0.5, 0, 0], [0] * 5, [1, 0, 0, 0, 0]]
    logits, other = torch.randn(3, 5), {"noun": torch.randn(3, 7)}
    model = heads(label_smoothing=0.1)
    found = model.losses({"verb": logits, **other}, {"verb": target, "noun": torch.zeros(3, 7)})
    expected = F.cross_entropy(logits[[0, 2]], target[[0, 2]], label_smoothing=0.1)
    torch.testing.assert_close(found["verb"], expected)
    assert float(found["noun"]) == 0


def test_sigmoids_judge_every_class() -> None:
    model = heads(loss="sigmoid")
    logits = {"verb": torch.randn(4, 5), "noun": torch.randn(4, 7)}
    targets = {k: (torch.rand(x.shape) < 0.3).to(torch.uint8) for k, x in logits.items()}
    out = model.losses(logits, targets)
    for kind, x in logits.items():
        torch.testing.assert_close(out[kind], F.binary_cross_entropy_with_logits(x, targets[kind].float()))
        torch.testing.assert_close(model.probabilities(logits)[kind], x.sigmoid())
    torch.testing.assert_close(heads().probabilities(logits)["verb"], logits["verb"].softmax(1))


def test_features_are_normalised_and_dropped_out() -> None:
    model, x = heads(dropout=0.5), torch.randn(64, 8)
    for linear in model.linears.values():
        nn.init.normal_(linear.weight)  # type: ignore[arg-type]
    model.eval()
    torch.testing.assert_close(model(10 * x + 3)["verb"], model(x)["verb"], rtol=1e-3, atol=1e-3)
    assert torch.equal(model(x)["verb"], model(x)["verb"])
    model.train()
    assert not torch.equal(model(x)["verb"], model(x)["verb"])
    bare = heads(norm=False).eval()
    torch.testing.assert_close(bare(2 * x)["verb"], 2 * bare(x)["verb"])


def test_heads_learn_soft_targets_by_heart() -> None:
    model, x = heads(), torch.randn(5, 8)
    targets = {"verb": torch.eye(5), "noun": torch.eye(7)[:5]}
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        model.losses(model(x), targets)["loss"].backward()
        optimizer.step()
    assert all(torch.equal(p.argmax(1), torch.arange(5)) for p in model.probabilities(model(x)).values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": {}}, r"name label kinds of at least 2 classes"),
        ({"classes": {"verb": 1}}, r"classes is {'verb': 1} with loss 'softmax'"),
        ({"loss": "sigmoid", "label_smoothing": 0.1}, r"label_smoothing is 0.1 with loss 'sigmoid'"),
    ],
)
def test_bad_heads_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Heads(8, **({"classes": {"verb": 5}} | options))  # type: ignore[arg-type]


def test_rates_fall_by_layers() -> None:
    """VideoMAE's factors: embedding, 12 blocks, head."""
    rates = layer_rates(14, 0.75)
    assert len(rates) == 14
    assert [rates[0], rates[1], rates[12], rates[13]] == pytest.approx([0.02376, 0.03168, 0.75, 1], abs=5e-6)


def test_groups_hold_each_parameter_once() -> None:
    layers = [nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 2)]
    layers[1].bias.requires_grad_(False)
    groups = parameter_groups([list(layer.parameters()) for layer in layers], 0.5, 0.05)
    found = {id(p): (g["lr_scale"], g["weight_decay"]) for g in groups for p in g["params"]}
    assert found == {
        id(layers[0].weight): (0.25, 0.05),
        id(layers[0].bias): (0.25, 0.0),
        id(layers[1].weight): (0.5, 0.05),
        id(layers[2].weight): (1.0, 0.05),
        id(layers[2].bias): (1.0, 0.0),
    }
    assert sum(len(g["params"]) for g in groups) == 5
    with pytest.raises(ValueError, match="a parameter is in two layers"):
        parameter_groups([[layers[0].weight], [layers[0].weight]], 0.5, 0.05)
