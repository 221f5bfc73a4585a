"""`Training.optimise` equals a plain torch loop, parameter by parameter, for every option that changes a step."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import resolved
import torch
from torch import Tensor, nn

from crossview.methods.recipe import Optim
from crossview.platform.config import Compute, Data, Experiment, preset
from crossview.platform.train.batch_layout import shares
from crossview.platform.train.state import Training, Worker, optimizer_for

STEPS, TOTAL = 8, 12
BASE = Optim(lr=0.05, weight_decay=0.1, schedule="constant", batch=4, steps=TOTAL)


class Net(nn.Module):
    """Two layers, the second at three times the rate and without decay, and a frozen one."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.still = nn.Linear(3, 4), nn.Linear(4, 1), nn.Linear(3, 3)
        self.still.requires_grad_(False)

    def forward(self, batch: Tensor) -> dict[str, Tensor]:
        error = self.second(torch.tanh(self.first(self.still(batch[:, :3])))) - batch[:, 3:]
        return {"loss": (error**2).mean(), "absolute": error.detach().abs().mean()}

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        return [
            {"params": list(self.first.parameters()), "weight_decay": weight_decay},
            {"params": list(self.second.parameters()), "weight_decay": 0.0, "lr_scale": 3.0},
        ]


def training_of(folder: Path, optim: Optim, net: Net, **compute: Any) -> Training:
    """A training of a run whose model is replaced by `net`."""
    made = Experiment(
        data=Data(catalog=Path("nowhere")),
        method=preset("byov", "debug").method,
        optim=optim,
        compute=Compute(device="cpu", **compute),
    )
    training = Training(resolved.new_without_data(folder, "byov", made), Worker(torch.device("cpu")))
    training.model = net  # type: ignore[assignment]
    training.optimizer = optimizer_for(net, optim)  # type: ignore[arg-type]
    if optim.ema_decay is not None:
        training.ema = {n: p.detach().clone() for n, p in net.named_parameters() if p.requires_grad}
    return training


def rate(optim: Optim, step: int) -> float:
    """The schedule written out for TOTAL steps."""
    warm = optim.warmup_steps if optim.warmup_share is None else round(optim.warmup_share * TOTAL)

    def after(k: int) -> float:
        if optim.schedule == "constant":
            return optim.lr
        if optim.schedule == "steps":
            return optim.lr * optim.gamma ** sum(1 for m in optim.milestones if k >= round(m * TOTAL))
        first = 0 if optim.cosine_over == "run" else warm
        share = (k - first) / (TOTAL - first)
        return optim.min_lr + (optim.lr - optim.min_lr) * (1 + math.cos(math.pi * share)) / 2

    if step >= warm:
        return after(step)
    if optim.warmup_lr is not None:
        return optim.warmup_lr + (after(warm) - optim.warmup_lr) * step / warm
    return after(warm) * (step + 1) / warm


class Plain:
    """Optimisers, clipping, accumulation and averaging written out for one parameter after the other."""

    def __init__(self, net: Net, optim: Optim) -> None:
        self.net, self.optim = net, optim
        self.named = [(n, p) for n, p in net.named_parameters() if p.requires_grad]
        self.moments = {n: (torch.zeros_like(p), torch.zeros_like(p)) for n, p in self.named}
        self.ema = {n: p.detach().clone() for n, p in self.named}

    def step(self, step: int, passes: list[Tensor]) -> dict[str, float]:
        losses = [self.net(batch) for batch in passes]
        whole = torch.stack([of["loss"] for of in losses]).mean()
        gradients = torch.autograd.grad(whole, [p for _, p in self.named])
        norm = math.sqrt(sum(float((g**2).sum()) for g in gradients))
        limit = self.optim.clip_norm
        scale = 1.0 if limit is None else min(1.0, limit / (norm + 1e-6))
        with torch.no_grad():
            for (name, parameter), gradient in zip(self.named, gradients, strict=True):
                second = name.startswith("second")
                lr, decay = rate(self.optim, step) * (3 if second else 1), 0.0 if second else self.optim.weight_decay
                self._update(name, parameter, gradient * scale, lr, decay, step + 1)
                if self.optim.ema_decay is not None:
                    self.ema[name] = self.optim.ema_decay * self.ema[name] + (1 - self.optim.ema_decay) * parameter
        means = {key: float(torch.stack([of[key] for of in losses]).mean()) for key in losses[0]}
        return means | {"grad_norm": norm}

    def _update(self, name: str, p: Tensor, g: Tensor, lr: float, decay: float, t: int) -> None:
        m, v = self.moments[name]
        if self.optim.optimizer == "sgd":
            g = g + decay * p
            m.mul_(self.optim.momentum).add_(g)
            p -= lr * (g + self.optim.momentum * m)  # Nesterov
            return
        a, b = self.optim.betas
        if self.optim.optimizer == "adam":
            g = g + decay * p
        else:
            p *= 1 - lr * decay
        m.mul_(a).add_(g, alpha=1 - a)
        v.mul_(b).add_(g * g, alpha=1 - b)
        p -= lr * (m / (1 - a**t)) / ((v / (1 - b**t)).sqrt() + 1e-8)


OPTIONS: dict[str, dict[str, Any]] = {
    "adamw": {},
    "adam couples weight decay": {"optimizer": "adam"},
    "sgd": {"optimizer": "sgd"},
    "sgd with another momentum": {"optimizer": "sgd", "momentum": 0.5},
    "other betas": {"betas": (0.8, 0.95)},
    "clipping": {"clip_norm": 0.3},
    "a clip norm that is never reached": {"clip_norm": 1e3},
    "an average of the weights": {"ema_decay": 0.9},
    "a cosine": {"schedule": "cosine"},
    "a cosine down to a rate after a warm-up": {"schedule": "cosine", "min_lr": 0.01, "warmup_steps": 3},
    "a cosine over the run": {"schedule": "cosine", "warmup_steps": 4, "cosine_over": "run"},
    "a warm-up from a rate": {"schedule": "cosine", "warmup_share": 0.25, "warmup_lr": 0.001},
    "steps": {"schedule": "steps", "milestones": (0.25, 0.5), "gamma": 0.3},
    "all at once": {
        "schedule": "cosine",
        "warmup_share": 0.25,
        "clip_norm": 0.5,
        "ema_decay": 0.5,
        "betas": (0.9, 0.95),
    },
}


@pytest.mark.parametrize("micro_batch", [None, 2, 1], ids=["one pass", "two passes", "four passes"])
@pytest.mark.parametrize("name", OPTIONS)
def test_steps_equal_a_plain_loop(name: str, micro_batch: int | None, tmp_path: Path) -> None:
    optim = replace(BASE, **OPTIONS[name])
    net = Net().double()
    plain = Plain(copy.deepcopy(net), optim)
    training = training_of(tmp_path / "run", optim, net, micro_batch=micro_batch)
    micro, passes = shares(optim, training.experiment.compute)
    generator = torch.Generator().manual_seed(1)
    for step in range(STEPS):
        batch = torch.randn(optim.batch, 4, generator=generator, dtype=torch.float64)
        parts = list(batch.split(micro))
        assert len(parts) == passes
        found = training.optimise(iter(parts), training.model, passes, TOTAL)
        expected = plain.step(step, parts)
        assert {key: float(value) for key, value in found.items()} == pytest.approx(expected, rel=1e-9)
        for key, parameter in net.named_parameters():
            torch.testing.assert_close(parameter, dict(plain.net.named_parameters())[key], rtol=1e-9, atol=1e-12)
    assert training.step == STEPS
    if optim.ema_decay is not None:
        assert training.ema is not None
        assert training.ema.keys() == plain.ema.keys()
        for key, value in training.ema.items():
            torch.testing.assert_close(value, plain.ema[key], rtol=1e-9, atol=1e-12)
            assert not torch.equal(value, dict(net.named_parameters())[key])


def test_a_checkpoint_evaluates_the_average_and_resumes_from_the_weights(tmp_path: Path) -> None:
    """The method itself, whose checkpoint `load` reads."""
    from crossview.platform import checkpoint

    optim = replace(BASE, ema_decay=0.5)
    made = Experiment(
        data=Data(catalog=Path("nowhere")),
        method=preset("byov", "debug").method,
        optim=optim,
        compute=Compute(device="cpu"),
    )
    run = resolved.new_without_data(tmp_path / "run", "byov", made)
    training = Training(run, Worker(torch.device("cpu")))
    assert training.ema is not None
    with torch.no_grad():
        for parameter in training.model.parameters():
            if parameter.requires_grad:
                parameter += 1
    training.step = 3
    training.save()
    evaluated = checkpoint.load(tmp_path / "run").state_dict()
    again = Training(run, Worker(torch.device("cpu")))
    assert again.step == 3
    assert again.ema is not None
    for name, average in training.ema.items():
        assert torch.equal(evaluated[name], average)
        assert torch.equal(again.ema[name], average)
        assert torch.equal(again.model.state_dict()[name], average + 1)
