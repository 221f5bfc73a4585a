"""Ego-Exo learns what it distils, measures it strictly, and refuses what cannot be right."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from egoexo_tiny import BACKBONE, PLAIN, STAR, TINY, batch_of
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import Rectangle
from torch import Tensor

from crossview.datasets.sampling.geometry import Geometry
from crossview.methods.egoexo.config import ACTIONS_ALONE, Config, Weights
from crossview.methods.egoexo.figures import draw
from crossview.methods.egoexo.model import Model


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


CUED = replace(
    TINY,
    weights=Weights(action=0, ego=0.5, object=0.5, hand_map=1, object_map=1),
    backbone=replace(BACKBONE, pathways="slow", strides=(1, 2, 1, 1)),
    frames=2,
    frame_px=48,
    crop_px=48,
    geometry=Geometry(),
    short_side_px=(48, 60),
    boxes=2,
)


def cued(size: int, seed: int) -> dict[str, Tensor]:
    """Clips with a bright moving square (the hand), a dark one (the object), and teachers tied to visible cues."""
    generator = torch.Generator().manual_seed(seed)
    batch = batch_of(CUED, size)
    clip = torch.full((size, 2, 3, 48, 48), 110.0) + 25 * torch.rand(size, 2, 3, 48, 48, generator=generator)
    boxes = torch.zeros(size, 2, 2, 6)
    tint = torch.randint(0, 3, (size,), generator=generator)
    for b in range(size):
        clip[b, :, tint[b]] += 60
        start, step = (
            torch.randint(0, 28, (2, 2), generator=generator),
            torch.randint(0, 5, (2, 2), generator=generator),
        )
        for t in range(2):
            for k, level in enumerate((250, 5)):
                x, y = (start[k] + t * step[k]).tolist()
                clip[b, t, :, y : y + 16, x : x + 16] = level
                boxes[b, t, k] = torch.tensor([k + 1, x / 48, y / 48, (x + 16) / 48, (y + 16) / 48, 0.9])
    logits = 4.0 * torch.eye(7)[tint]
    seeds = torch.arange(size) + 10_000 * seed
    return batch | {
        "clip": clip.clamp(0, 255).to(torch.uint8), "clip/boxes": boxes, "clip/scores/object": logits,
        "clip/scores/ego": torch.stack([-2.0 + 4 * (tint == 0), 2.0 - 4 * (tint == 0)], dim=1), "seed": seeds,
    }  # fmt: skip


def test_the_signals_are_learnt_from_what_is_seen() -> None:
    """Every loss takes away most of what the best constant leaves, on clips that were not trained on."""
    model = Model(CUED)
    held_out = cued(64, 999)
    before = model.eval().measures(held_out)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    model.train()
    for step in range(150):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * min(1, 2 * (1 - step / 150))
        loss = model(cued(16, step))["loss"]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    after = model.eval().measures(held_out)
    assert set(after) == {"ego_score", "object_score", "hand_map", "object_map"}
    assert all(float(value) < 0.2 for value in before.values()), before
    assert all(float(value) > 0.5 for value in after.values()), after


def test_a_perfect_prediction_measures_1_and_the_mean_target_0(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = Model(TINY).eval(), batch_of(TINY, 20)
    target = model.paint(batch["clip/boxes"], torch.zeros(20, 2, 2, 4, 4))
    labels = batch["clip/label/action"].float()
    p = {t: batch[f"clip/scores/{t}"].softmax(1) for t in ("ego", "object")}
    perfect = {t: v.log() for t, v in p.items()}
    perfect |= {"map": torch.special.logit(target.clamp(1e-7, 1 - 1e-7)), "action/action": 40 * labels}
    constant = {t: v.mean(0).log().expand(20, -1) for t, v in p.items()}
    mean = target.mean((0, 2), keepdim=True)
    constant |= {
        "map": torch.special.logit(mean).expand_as(target),
        "action/action": labels.mean(0).log().expand(20, -1),
    }
    for logits, expected in ((perfect, 1.0), (constant, 0.0)):
        parts = iter([{k: v[:16] for k, v in logits.items()}, {k: v[16:] for k, v in logits.items()}])
        monkeypatch.setattr(model, "predict", lambda _, parts=parts: next(parts))
        found = model.measures(batch)
        assert set(found) == {"label_action", "ego_score", "object_score", "hand_map", "object_map"}
        for name, value in found.items():
            assert float(value) == pytest.approx(expected, abs=1e-4), name


def test_measures_leave_out_samples_without_a_teacher_and_targets_without_spread() -> None:
    model, batch = Model(TINY).eval(), batch_of(TINY, 6)
    some = torch.tensor([True, False, True, True, False, True])
    masked = model.measures(batch | {"clip/boxes/mask": some, "clip/scores/ego/mask": some})
    part = model.measures({k: v[some] for k, v in batch.items()})
    for name in ("hand_map", "object_map", "ego_score"):
        torch.testing.assert_close(masked[name], part[name])
    same = model.measures(batch | {"clip/scores/ego": torch.zeros(6, 2), "clip/boxes/mask": ~torch.ones(6).bool()})
    assert set(same) == {"label_action", "object_score"}


def test_scores_are_measured_at_their_temperature() -> None:
    config, batch = replace(TINY, ego_temperature=3.0), batch_of(TINY, 6)
    warm, plain = Model(config).eval(), Model(TINY).eval()
    warm.load_state_dict(plain.state_dict())
    with torch.no_grad():
        p = (batch["clip/scores/ego"] / 3).softmax(1)
        q = (warm.predict(batch["clip"])["ego"] / 3).log_softmax(1)
        mean = p.mean(0).log()
        expected = 1 - (p * (p.log() - q)).sum(1).mean() / (p * (p.log() - mean)).sum(1).mean()
    torch.testing.assert_close(warm.measures(batch)["ego_score"], expected, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(warm.measures(batch)["object_score"], plain.measures(batch)["object_score"])
    assert float(warm.measures(batch)["ego_score"]) != float(plain.measures(batch)["ego_score"])


def test_measures_share_several_labels_and_leave_out_clips_without_one_and_maps_without_weight() -> None:
    config = replace(TINY, weights=replace(TINY.weights, object_map=0))
    model, batch = Model(config).eval(), batch_of(config, 6)
    batch["clip/label/action"][1, :2] = 1
    batch["clip/label/action"][2] = 0
    found = model.measures(batch)
    assert set(found) == {"label_action", "ego_score", "object_score", "hand_map"}
    with torch.no_grad():
        log_q = model.predict(batch["clip"])["action/action"].log_softmax(1)
    p = torch.stack([row / row.sum() for row in batch["clip/label/action"].float() if row.any()])
    log_q = log_q[torch.tensor([0, 1, 3, 4, 5])]
    error, constant = ((p.xlogy(p) - p.xlogy(q)).sum(1).mean() for q in (log_q.exp(), p.mean(0).expand_as(p)))
    torch.testing.assert_close(found["label_action"], 1 - error / constant, rtol=1e-4, atol=1e-5)


def test_measures_of_binary_labels() -> None:
    config = replace(PLAIN, stage="pretrain", action_loss="binary", classes={"action": 6})
    batch = batch_of(config, 8)
    batch["clip/label/action"] = torch.randint(0, 2, (8, 6), dtype=torch.uint8)
    model = Model(config).eval()
    found = model.measures(batch)
    assert set(found) == {"label_action"}
    labels = batch["clip/label/action"].float()
    with torch.no_grad():
        logits = model.predict(batch["clip"])["action/action"]
    constant = labels.mean(0).expand_as(labels)
    expected = 1 - F.binary_cross_entropy_with_logits(logits, labels) / F.binary_cross_entropy(constant, labels)
    torch.testing.assert_close(found["label_action"], expected, rtol=1e-4, atol=1e-5)


def test_figures_show_the_signals_that_there_are() -> None:
    model, batch = Model(TINY), batch_of(TINY)
    figures = draw(model, batch)
    assert set(figures) == {"interaction_map", "ego_scores", "object_scores"}
    for figure in figures.values():
        FigureCanvasAgg(figure).draw()
    assert model.training
    assert set(draw(Model(STAR), batch)) == {"interaction_map"}
    assert draw(Model(replace(TINY, weights=ACTIONS_ALONE)), batch) == {}


def test_figures_draw_the_slow_frames_maps_and_the_most_likely_classes() -> None:
    config = replace(TINY, frames=16, object_classes=10)
    model, batch = Model(config), batch_of(config)
    figures = draw(model, batch)
    model.eval()
    with torch.no_grad():
        out = model.predict(batch["clip"])
    target = model.paint(batch["clip/boxes"], out["map"])[0]
    predicted = out["map"][0].sigmoid()
    columns = np.array(figures["interaction_map"].axes[:20], dtype=object).reshape(5, 4).T
    for slot, (frame, axes) in enumerate(zip((0, 5, 10, 15), columns, strict=True)):
        shown = [torch.as_tensor(np.asarray(axis.images[-1].get_array())) for axis in axes]
        assert torch.equal(shown[0], batch["clip"][0, frame].permute(1, 2, 0))
        for row, cells in enumerate((target[0], predicted[0], target[1], predicted[1]), start=1):
            torch.testing.assert_close(shown[row], cells[slot])
    for task, most in (("ego", torch.tensor([[0, 1]] * 3)), ("object", batch["clip/scores/object"].topk(8).indices)):
        p, q = (x.softmax(1).gather(1, most) for x in (batch[f"clip/scores/{task}"], out[task]))
        for axis, expected in zip(figures[f"{task}_scores"].axes, torch.cat([p, q], dim=1).tolist(), strict=True):
            heights = [bar.get_height() for bar in axis.patches if isinstance(bar, Rectangle)]
            assert heights == pytest.approx(expected, abs=1e-6)
    assert [t.get_text() for t in figures["ego_scores"].axes[0].get_xticklabels()] == ["exo", "ego"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": Weights(action=1), "stage": "finetune"}, r"weights.ego is 0.1 .* set both to 0"),
        ({"classes": {}}, r"classes is \{\} with weights.action"),
        ({"classes": {"action": 1}}, "name label kinds of 2 or more"),
        ({"frames": 6}, "alpha must divide the frames"),
        ({"crop_px": 60}, "lower the crop or raise the sides"),
        ({"crop_px": 40}, r"a map of one cell per 16 pixels; both must be multiples"),
        ({"crop_px": 8, "frame_px": 8}, "with a backbone of stride 16"),
        ({"flip": 1.5}, r"flip is 1.5; it must lie in \[0, 1\]"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"boxes": 0}, "boxes is 0"),
        ({"object_classes": 1}, "object_classes is 1"),
        ({"ego_temperature": 0.0}, "ego_temperature is 0.0"),
    ],
)
def test_impossible_options_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(TINY, **changes)  # type: ignore[arg-type]


def test_impossible_weights_and_backbones_are_refused() -> None:
    with pytest.raises(ValueError, match=r"weights.ego is -1"):
        Weights(ego=-1)
    with pytest.raises(ValueError, match="are all 0"):
        replace(ACTIONS_ALONE, action=0)
    with pytest.raises(ValueError, match="beta_inverse must divide the width"):
        replace(BACKBONE, width=6)
    with pytest.raises(ValueError, match="every stage must have a block"):
        replace(BACKBONE, blocks=(1, 0, 1, 1))
    with pytest.raises(ValueError, match=r"backbone.alpha is 0"):
        replace(BACKBONE, alpha=0)


def test_a_clip_of_another_length_and_features_are_refused() -> None:
    model = Model(TINY)
    with pytest.raises(ValueError, match=r"a clip of 5 frames; Ego-Exo is configured for 8: repeat the last"):
        model.embed_clip(torch.zeros(1, 5, 3, 64, 64, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"shape \(1, 8, 49, 32\); Ego-Exo takes video"):
        model.embed(torch.zeros(1, 8, 49, 32, dtype=torch.float16))


def test_the_config_is_one_a_checkpoint_can_carry() -> None:
    """Through JSON and back, as a run folder keeps it."""
    import json
    from dataclasses import asdict

    import dacite

    values = json.loads(json.dumps(asdict(TINY)))
    assert dacite.from_dict(Config, values, dacite.Config(cast=[tuple])) == TINY
