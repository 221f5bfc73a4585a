"""EVGAP on two real workers (gloo): whose negatives a step takes, and what gradient that makes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import pytest
import ranks
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from crossview.methods.collect import gather
from crossview.methods.evgap.config import Config, Encoder
from crossview.methods.evgap.model import Model

WORKERS = 2
PAIRS = Config(
    feature_width=12,
    encoder=Encoder(width=16, depth=3, heads=2, hidden=24, dropout=0.0),
    ego_views=2,
    exo_views=3,
    frames=4,
    fps=15.0,
    window_stride=4,
    clips_per_video=2,
)
CONFIGS = {
    "gathered": PAIRS,
    "pairs": dataclasses.replace(PAIRS, gather=False),
    "groups": dataclasses.replace(PAIRS, step="groups"),
}
Result = dict[str, Tensor]


def model_of(name: str) -> Model:
    torch.manual_seed(3)
    return Model(CONFIGS[name])


def batch_of(name: str, size: int = 6) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(5)
    batch = {"sample": torch.arange(size), "seed": torch.arange(size)}
    length = torch.randint(2, 9, (size,), generator=random)
    if name == "groups":
        mask = torch.ones(size, 5, dtype=torch.bool)
        video = torch.randn(size, 5, 8, 1, 12, generator=random)
        return batch | {"video": video, "video/mask": mask, "video/length": length}
    for view in ("ego", "exo"):
        batch |= {view: torch.randn(size, 8, 1, 12, generator=random), f"{view}/length": length}
    return batch


def share(batch: Mapping[str, Tensor], rank: int) -> dict[str, Tensor]:
    return {k: v.chunk(WORKERS)[rank] for k, v in batch.items()}


def step(model: Model, forward: torch.nn.Module, batch: Mapping[str, Tensor]) -> Result:
    """Gradients by name after one backward pass, the loss, and the scenes that stood against each other."""
    out = forward(batch)
    out["loss"].backward()
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return found | {"loss": out["loss"].detach(), "scenes": torch.tensor(model.views(batch).ego.shape[1])}


def work(rank: int, folder: Path) -> None:
    """What one worker does: a step of each configuration on its own part of the batch."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=WORKERS)
    results: dict[str, Result] = {}
    for name in CONFIGS:
        model = model_of(name)
        results[name] = step(model, DistributedDataParallel(model), share(batch_of(name), rank))
    x = torch.tensor([[1.0 + rank, 2.0]], requires_grad=True)
    joined = gather(x)
    (joined * torch.tensor([[1.0], [10.0]]) * (rank + 1)).sum().backward()
    assert x.grad is not None
    results["gather"] = {"joined": joined.detach(), "grad": x.grad}
    torch.save(results, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Result]]:
    folder = tmp_path_factory.mktemp("workers")
    return ranks.results(work, WORKERS, folder)


def alone(name: str, batch: Mapping[str, Tensor]) -> Result:
    """The same step in this one process."""
    model = model_of(name)
    return step(model, model, batch)


def mean(results: list[Result]) -> Result:
    return {name: torch.stack([r[name].float() for r in results]).mean(0) for name in results[0]}


def assert_equal(found: Result, expected: Result) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name].float(), value.float(), atol=1e-6, rtol=1e-4, msg=lambda m, n=name: n + m
        )


def test_gathering_joins_in_the_order_of_ranks_and_sums_the_gradients(workers: list[dict[str, Result]]) -> None:
    for rank, factor in enumerate((1.0, 10.0)):
        found = workers[rank]["gather"]
        assert found["joined"].tolist() == [[1.0, 2.0], [2.0, 2.0]]
        assert found["grad"].tolist() == [[3 * factor, 3 * factor]]  # losses of weight 1 and 2 read both rows


@pytest.mark.parametrize("name", ["groups", "pairs"])
def test_without_gathering_two_workers_are_the_mean_of_two_runs(name: str, workers: list[dict[str, Result]]) -> None:
    batch = batch_of(name)
    expected = mean([alone(name, share(batch, rank)) for rank in range(WORKERS)])
    assert_equal(mean([w[name] for w in workers]), expected)
    for parameter in workers[0][name].keys() - {"loss"}:
        torch.testing.assert_close(workers[0][name][parameter], workers[1][name][parameter])
    assert int(workers[0][name]["scenes"]) == 3  # a positive share of 1 in 3, not in 6
    whole = alone(name, batch)
    assert float((whole["loss"] - expected["loss"]).abs()) > 1e-3


def test_gathered_pairs_are_one_process_over_the_whole_batch(workers: list[dict[str, Result]]) -> None:
    expected = alone("gathered", batch_of("gathered"))
    for found in workers:
        assert_equal(found["gathered"], expected)
