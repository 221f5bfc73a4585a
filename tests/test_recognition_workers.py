"""Fine-tuning on two real workers (gloo) takes the step that one process takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import ranks
import torch
import torch.distributed as dist
from mv2mae_tiny import TINY
from recognition_tiny import FINE, classifier, labelled
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from crossview.downstream.recognition.augment_config import Augmentation
from crossview.downstream.recognition.config import Config
from crossview.methods.mv2mae.model import Model as Mv2mae

WORKERS = 2
UNMIXED = replace(Augmentation(), mixup=None, cutmix=None)
CONFIGS = {
    "plain": replace(FINE, drop_path=0.0, augmentation=UNMIXED),
    "mixed": replace(FINE, drop_path=0.0, augmentation=Augmentation()),
}


def step(passes: list[Mapping[str, Tensor]], config: Config, wrap: bool) -> dict[str, Tensor]:
    """Gradients of the mean loss of a worker's passes."""
    torch.manual_seed(3)
    model = classifier(config, method=Mv2mae(TINY)).train()
    forward = DistributedDataParallel(model) if wrap else model
    torch.stack([forward(batch)["loss"] for batch in passes]).mean().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def parts_of_batch() -> list[dict[str, Tensor]]:
    torch.manual_seed(5)
    batch = labelled(FINE, 4)
    return [{name: value.chunk(WORKERS)[k] for name, value in batch.items()} for k in range(WORKERS)]


def work(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=WORKERS)
    parts = parts_of_batch()
    found = {name: step([parts[rank]], config, wrap=True) for name, config in CONFIGS.items()}
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_workers_take_the_step_of_one_process(tmp_path: Path) -> None:
    """Of the whole batch, or where clips are mixed within a pass, of the same passes."""
    found = ranks.results(work, WORKERS, tmp_path)
    parts = parts_of_batch()
    whole = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    alone = {
        "plain": step([whole], CONFIGS["plain"], wrap=False),
        "mixed": step(list(parts), CONFIGS["mixed"], wrap=False),
    }
    for name, gradients in alone.items():
        assert any(float(gradient.abs().max()) > 1e-3 for gradient in gradients.values())
        for of in found:
            assert of[name].keys() == gradients.keys()
            for parameter, gradient in gradients.items():
                torch.testing.assert_close(of[name][parameter], gradient, rtol=1e-4, atol=1e-6)
