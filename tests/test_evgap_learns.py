"""On features whose shared content is known, step 2 finds a scene in other cameras more often than step 1 does."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from crossview.methods.evgap.config import Config, Encoder
from crossview.methods.evgap.losses import indicators
from crossview.methods.evgap.model import Model

CONTENT, NUISANCE, WIDTH, FRAMES = 8, 8, 48, 6
M, N = 2, 3
PAIRS = Config(
    feature_width=WIDTH,
    encoder=Encoder(width=32, depth=2, heads=2, hidden=64, dropout=0.0),
    ego_views=M,
    exo_views=N,
    frames=FRAMES,
    window_scale=(1.0, 1.0),
)


class World:
    """Frames that mix, per camera, what all cameras of a scene share with as much that only one clip shows."""

    def __init__(self, seed: int) -> None:
        self.random = torch.Generator().manual_seed(seed)
        common = torch.randn(1, CONTENT, WIDTH, generator=self.random)
        self.content = common + 0.8 * torch.randn(M + N, CONTENT, WIDTH, generator=self.random)  # of each camera
        self.nuisance = torch.randn(NUISANCE, WIDTH, generator=self.random)

    def clips(self, scenes: int) -> Tensor:
        """(B, V, T, 1, D)."""
        shared = torch.randn(scenes, CONTENT, generator=self.random)
        own = torch.randn(scenes, M + N, NUISANCE, generator=self.random)
        seen = torch.einsum("bc,vcd->bvd", shared, self.content) + own @ self.nuisance
        noise = torch.randn(scenes, M + N, FRAMES, WIDTH, generator=self.random)
        return ((seen / CONTENT**0.5)[:, :, None] + 0.5 * noise)[..., None, :]


def recall(model: Model, clips: Tensor) -> float:
    with torch.no_grad():
        z = model.eval().embed_clip(clips.flatten(0, 1)).unflatten(0, clips.shape[:2])
    return float(indicators(z[:, :M], z[:, M:])["R@1"])


def trained(model: Model, world: World, steps: int, lr: float) -> None:
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=lr, weight_decay=0.0)
    for step in range(steps):
        clips, B = world.clips(24), 24
        batch = {"sample": torch.arange(B), "seed": torch.arange(B)}
        if model.config.step == "groups":
            batch |= {"video": clips, "video/mask": torch.ones(B, M + N, dtype=torch.bool)}
        else:
            ego, exo = (torch.randint(n, (B,), generator=world.random) for n in (M, N))
            batch |= {"ego": clips[torch.arange(B), ego], "exo": clips[torch.arange(B), M + exo]}
        for group in optimizer.param_groups:
            group["lr"] = lr * (1 - step / steps)
        loss = model(batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def test_recall_rises_from_random_init_over_step_1_to_step_2() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        world = World(0)
        held_out = world.clips(128)
        first = Model(PAIRS)
        scores = [recall(first, held_out)]
        trained(first, world, 120, 2e-3)
        scores.append(recall(first, held_out))
        second = Model(dataclasses.replace(PAIRS, step="groups"))
        second.start_from(first.state_dict())
        trained(second, world, 100, 2e-3)
        scores.append(recall(second, held_out))
    assert scores[0] < 0.2
    assert scores[1] > scores[0] + 0.4
    assert scores[2] > scores[1] + 0.05
