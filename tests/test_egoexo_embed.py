"""Ego-Exo's embeddings, logits and scores of test views equal a plain transcription."""

from __future__ import annotations

import egoexo_reference as reference
import pytest
import torch
from egoexo_cases import CONFIGS, built, state_of
from egoexo_tiny import batch_of


@pytest.mark.parametrize("name", ["slow pathway alone", "study", "pre-training"])
@pytest.mark.parametrize("windows", [0.5, 1, 2.5, 3])
def test_embeddings_equal_the_transcription(name: str, windows: float) -> None:
    config = CONFIGS[name]
    model = built(config).eval()
    p, length = state_of(model), int(windows * config.frames)
    video = torch.randint(0, 256, (2, length, 3, 48, 48), dtype=torch.uint8)
    with torch.no_grad():
        found, expected = model.embed(video), reference.frame_embeddings(config, p, video)
        assert found.shape == (2, length, sum(model.backbone.widths))
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["pre-training with dropout", "slow pathway alone", "fine-tuning on Charades-Ego"])
def test_clip_embeddings_logits_and_scores_equal_the_transcription(name: str) -> None:
    """On whole frames of 64 pixels, whose map is one cell larger than that of a crop of 48; with gradients."""
    config = CONFIGS[name]
    model = built(config).eval()
    p, clips = state_of(model), batch_of(config, 2)["clip"]
    expected = reference.clip_embedding(config, p, clips)
    torch.testing.assert_close(model.embed_clip(clips).double(), expected, rtol=1e-5, atol=1e-5)
    logits = expected @ p["classifier.action.weight"].T + p["classifier.action.bias"]
    for head in model.classifier.values():
        head.register_forward_pre_hook(lambda _, args: (args[0].double(),))
    torch.testing.assert_close(model.class_logits(clips)["action"], logits, rtol=1e-5, atol=1e-5)
    scores = reference.view_scores(config, p, clips, "action")
    torch.testing.assert_close(model.class_scores(clips)["action"].double(), scores, rtol=1e-5, atol=1e-6)
    model.embed_clip(clips).sum().backward()
    expected.sum().backward()
    for parameter, value in model.backbone.named_parameters():
        torch.testing.assert_close(value.grad, p[f"backbone.{parameter}"].grad, rtol=1e-3, atol=1e-4)
