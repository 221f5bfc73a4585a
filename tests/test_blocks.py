"""Activation checkpointing and torch.compile on every method's blocks, against the same model without them.

torch.compile traces and differentiates as in training; its last stage, which writes C++ and takes a minute, is left out
of all but the long test.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import ranks
import resolved
import torch
import torch.distributed as dist
from feature_run import STEPS, experiment, losses, weights
from torch import Tensor, nn
from torch._dynamo.utils import counters

from crossview.methods.example_batch import example_batch
from crossview.methods.method import Method, build
from crossview.platform import run_folder
from crossview.platform.config import Compute, Data, Experiment, method_names, preset, saved
from crossview.platform.train.blocks import check_blocks, compiled_blocks, recomputed_blocks, set_up_blocks
from crossview.platform.train.launcher import resume, start
from crossview.platform.train.loop import training_of
from crossview.platform.train.metrics import Interval
from crossview.platform.train.state import Worker

CHECKPOINTING = Compute(activation_checkpointing=True)
COMPILED = Compute(compile=True)
BOTH = Compute(activation_checkpointing=True, compile=True)
OPTIONS = pytest.mark.parametrize("compute", [CHECKPOINTING, COMPILED, BOTH], ids=["checkpointing", "compile", "both"])


@pytest.fixture
def _without_cpp(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.fixture(params=method_names())
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def dropping(name: str) -> Method:
    """A method's debug model, in training mode, that drops much at random wherever it can."""
    torch.manual_seed(0)
    model = build(name, preset(name, "debug").method).train()
    for module in cast(Iterator[Any], model.modules()):
        if isinstance(module, nn.Dropout):
            module.p = 0.3
        for option in ("dropout", "chance"):  # of fused attention; of a residual branch
            if isinstance(getattr(module, option, None), float):
                setattr(module, option, 0.3)
    return model


def batch_of(name: str) -> dict[str, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return example_batch(preset(name, "debug").method.sampling(), 4)


def step(model: Method, batch: dict[str, Tensor], seed: int = 2) -> dict[str, Tensor]:
    """All that a step gives or changes: losses, gradients, buffers, and the next random number."""
    torch.manual_seed(seed)
    found = model(batch)
    found["loss"].backward()
    gradients = {f"{n}.grad": p.grad for n, p in model.named_parameters() if p.grad is not None}
    found = {n: v.detach() for n, v in found.items()}
    return found | gradients | dict(model.named_buffers()) | {"random": torch.rand(1)}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-5, atol=1e-7, msg=lambda m, key=key: f"{key}: {m}")


@OPTIONS
@pytest.mark.usefixtures("_without_cpp")
def test_a_step_with_dropout_is_the_same(name: str, compute: Compute) -> None:
    plain = dropping(name)
    changed = copy.deepcopy(plain)
    set_up_blocks(changed, compute)
    batch = batch_of(name)
    expected = step(plain, batch)
    assert_same(step(changed, batch), expected)
    if name != "byov":  # which has no dropout
        assert not torch.equal(step(dropping(name), batch, seed=3)["loss"], expected["loss"])
    assert changed.state_dict().keys() == plain.state_dict().keys()


def test_less_is_kept_for_the_backward_pass(name: str) -> None:
    kept = []
    for compute in (Compute(), CHECKPOINTING):
        model = dropping(name)
        set_up_blocks(model, compute)
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, s=sizes: (s.append(t.nbytes), t)[1], lambda t: t):
            model(batch_of(name))
        kept.append(sum(sizes))
    assert kept[1] < 0.8 * kept[0]


@pytest.mark.usefixtures("_without_cpp")
def test_every_block_is_compiled_without_a_graph_break(name: str) -> None:
    model = build(name, preset(name, "debug").method).train()
    plain = {block: block.forward for block in compiled_blocks(model)}
    set_up_blocks(model, COMPILED)
    assert all(block.forward is not forward for block, forward in plain.items())
    assert set(recomputed_blocks(model)) <= set(plain)
    counters.clear()
    model(batch_of(name))["loss"].backward()
    assert counters["stats"]["unique_graphs"] > 0
    assert not counters["graph_break"]
    assert not counters["recompile_limit"]


def test_blocks_are_executed_twice_for_a_gradient_and_once_without(name: str) -> None:
    model, batch = dropping(name), batch_of(name)
    called: list[nn.Module] = []
    for block in recomputed_blocks(model):
        block.forward = functools.partial(_noting, called, block, block.forward)
    counts = []
    for compute in (Compute(), CHECKPOINTING):
        set_up_blocks(model, compute)
        for gradient in (True, False):
            called.clear()
            with torch.set_grad_enabled(gradient):
                loss = model(batch)["loss"]
            if gradient:
                loss.backward()
            counts.append(len(called))
    once = counts[0]
    assert counts == [once, once, 2 * once, once]
    assert once >= len(recomputed_blocks(model)) > 0


def _noting(called: list[nn.Module], block: nn.Module, forward: Any, *args: Any, **kwargs: Any) -> Any:
    called.append(block)
    return forward(*args, **kwargs)


def test_options_without_a_block_to_act_on_are_refused() -> None:
    method = preset("byov", "debug").method
    shallow = {part: replace(getattr(method, part), depth=1) for part in ("encoder", "decoder")}
    model = build("byov", replace(method, **shallow))  # type: ignore[type-var]
    with pytest.raises(ValueError, match=r"compute.activation_checkpointing is on, but .* no repeated blocks"):
        check_blocks(model, CHECKPOINTING, None)
    check_blocks(model, COMPILED, None)  # the frozen base has some
    model.base = nn.Identity()  # type: ignore[assignment]
    with pytest.raises(ValueError, match=r"compute.compile is on, but .* no repeated blocks to compile"):
        check_blocks(model, COMPILED, None)


def test_compiling_without_a_compiler_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("byov", preset("byov", "debug").method)
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ValueError, match=r"compute.compile is on, .* no-such-compiler is not here"):
        check_blocks(model, COMPILED, torch.device("cpu"))
    check_blocks(model, COMPILED, torch.device("cuda"))


@pytest.mark.usefixtures("_without_cpp")
def test_a_run_with_both_is_resumed_without_them_and_the_other_way_round(
    features: Path, straight: Path, tmp_path: Path
) -> None:
    on = {"compute__compile": True, "compute__activation_checkpointing": True}
    for first, second in ((on, {}), ({}, on)):
        run = start(tmp_path / f"run{len(first)}", "byov", experiment(features, **first), in_process=True, until=8)
        info = saved(run).info
        info["experiment"]["compute"] |= {option.removeprefix("compute__"): option in second for option in on}
        run_folder.write_json(run / "run.json", info)
        resume(run, in_process=True)
        assert losses(run) == pytest.approx(losses(straight), rel=1e-4)
        assert weights(run).keys() == weights(straight).keys()


@pytest.mark.long
def test_a_compiled_run_gives_the_losses_of_a_plain_one(features: Path, straight: Path, tmp_path: Path) -> None:
    """With the C++ that torch.compile writes."""
    torch._dynamo.reset()
    run = start(tmp_path / "run", "byov", experiment(features, compute__compile=True), in_process=True)
    assert len(losses(run)) == STEPS
    assert losses(run) == pytest.approx(losses(straight), rel=1e-3)
    assert weights(run).keys() == weights(straight).keys()


def two_steps(rank: int, world: int, folder: Path, compute: Compute) -> list[float]:
    """Losses and gradient norms of two steps on this worker's half of a batch."""
    method = preset("mv2mae", "debug")
    made = Experiment(
        data=Data(catalog=Path("nowhere")),
        method=method.method,
        optim=replace(method.optim, batch=4, steps=4, clip_norm=0.5),
        compute=replace(compute, device="cpu", workers=2, micro_batch=2),
    )
    folder.mkdir()
    run = resolved.new_without_data(folder / "run", "mv2mae", made)
    training = training_of(run, Worker(torch.device("cpu"), rank, world))
    forward, interval, found = training.forward(), Interval(torch.device("cpu"), 0), []
    while training.step < 2:
        batch = batch_of("mv2mae")
        halves = [{k: v[part] for k, v in batch.items()} for part in (slice(0, 2), slice(2, 4))]
        mine = halves if world == 1 else [halves[rank]]
        row = interval.row(training.optimise(iter(mine), forward, len(mine), 4), training.step, 4)
        found += [row["loss"], row["grad_norm"]]
    assert not any("_orig_mod" in n or "checkpoint" in n for n in training.model.state_dict())
    return found


def work(rank: int, folder: Path) -> None:
    """DDP and FSDP with both options."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    found = {}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
        for parallel in ("ddp", "fsdp"):
            options = replace(BOTH, parallel=parallel)
            found[parallel] = two_steps(rank, 2, folder / f"{parallel}-{rank}", options)
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_workers_with_both_train_as_one_without(tmp_path: Path) -> None:
    alone = two_steps(0, 1, tmp_path / "alone", Compute())
    for found in ranks.results(work, 2, tmp_path):
        assert found["ddp"] == pytest.approx(alone, rel=1e-4)
        assert found["fsdp"] == pytest.approx(alone, rel=1e-4)
