"""Checkpoints: folders of model.safetensors, frozen.safetensors, train_state.pt and run.json, renamed when complete."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from crossview.methods.method import Method, build
from crossview.platform.config import read
from crossview.platform.runs import write_json


def folder(run: Path, step: int) -> Path:
    """Where the checkpoint after `step` optimiser steps lies."""
    return run / "checkpoints" / f"step-{step:08d}"


def all_of(run: Path) -> list[Path]:
    """Complete checkpoints of a run, oldest first."""
    return sorted((run / "checkpoints").glob("step-*"))


def latest(run: Path) -> Path | None:
    """The newest complete checkpoint of a run."""
    found = all_of(run)
    return found[-1] if found else None


def _frozen_names(model: Method) -> set[str]:
    return {name for name, parameter in model.named_parameters() if not parameter.requires_grad}


def frozen_state(model: Method) -> dict[str, Tensor]:
    """Frozen parameters, and buffers that stand beside no trained one, such as a frozen part's running statistics."""
    frozen = _frozen_names(model)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    modules = {name.rpartition(".")[0] for name in trained}
    return {
        name: value
        for name, value in model.state_dict().items()
        if name in frozen or (name not in trained and name.rpartition(".")[0] not in modules)
    }


def save(
    target: Path, model: Method, weights: dict[str, Tensor], train_state: dict[str, Any], run: dict[str, Any], keep: int
) -> None:
    """Write one checkpoint and drop all but the newest `keep`.

    `weights` are those to evaluate (the moving average where there is one). Frozen parameters do not change: their file
    is written once and hard-linked from then on. On failure earlier checkpoints stay as they are; see `needs_space`.
    """
    previous = latest(target.parent.parent)
    temporary = target.with_name(f".{target.name}")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        frozen = _frozen_names(model)
        save_file({n: w.contiguous() for n, w in weights.items() if n not in frozen}, temporary / "model.safetensors")
        if frozen:
            _save_frozen(temporary, previous, {n: w.contiguous() for n, w in weights.items() if n in frozen})
        torch.save(train_state, temporary / "train_state.pt")
        write_json(temporary / "run.json", {**run, "step": train_state["step"]})
        for file in (*temporary.iterdir(), temporary):  # a name must not reach the disk before what it names
            _sync(file)
        temporary.rename(target)
        _sync(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    for old in all_of(target.parent.parent)[:-keep]:
        shutil.rmtree(old)


@contextmanager
def needs_space(file: Path, run: Path) -> Iterator[None]:
    """Say what could not be written of a run, and how to go on, where the disk is full or unwritable (OSError)."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:  # each library reports a full disk in its own way
        if not _is_storage(error):
            raise
        before = latest(run)
        left = f"the newest complete checkpoint is {before}" if before else "there is no complete checkpoint yet"
        raise OSError(
            errno.ENOSPC,
            f"{file} could not be written: {error}. Training needs free, writable space ({left}); free some, then "
            f"`crossview resume {run}`",
        ) from error


def _sync(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _is_storage(error: Exception) -> bool:
    text = str(error).lower()
    return isinstance(error, OSError) or any(w in text for w in ("no space", "write", "i/o error", "file"))


def _save_frozen(temporary: Path, previous: Path | None, weights: dict[str, Tensor]) -> None:
    name = "frozen.safetensors"
    if previous and (previous / name).exists():
        try:
            os.link(previous / name, temporary / name)
            return
        except OSError:  # no hard links on this file system: write a copy
            pass
    save_file(weights, temporary / name)


def read_weights(checkpoint: Path) -> dict[str, Tensor]:
    """All weights of one checkpoint by parameter name; raises ValueError naming a file that is missing or broken."""
    weights: dict[str, Tensor] = {}
    for file in (checkpoint / "model.safetensors", checkpoint / "frozen.safetensors"):
        if not file.exists() and file.name == "frozen.safetensors":
            continue
        with _named(file):
            weights |= load_file(file)
    return weights


def read_train_state(checkpoint: Path, device: torch.device) -> dict[str, Any]:
    """What `save` was given beside the weights; raises ValueError naming the file where it is missing or broken."""
    file = checkpoint / "train_state.pt"
    with _named(file):
        state: dict[str, Any] = torch.load(file, map_location=device, weights_only=True)
    return state


@contextmanager
def _named(file: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # safetensors, zip and unpickler each have their own kinds
        raise ValueError(
            f"{file}: not a readable checkpoint ({error}); delete this folder and resume from the one before it"
        ) from error


def resolve(path: Path) -> Path:
    """The checkpoint folder meant by `path`: itself, or the newest of a run; raises ValueError where there is none."""
    if (path / "model.safetensors").exists():
        return path
    found = latest(path)
    if found is None:
        raise ValueError(f"{path}: no checkpoint here; pass a run folder with checkpoints/ or one checkpoint folder")
    return found


def load(path: Path, device: str | torch.device = "cpu") -> Method:
    """The trained method of a run or checkpoint folder, in eval mode; needs neither Ray nor the training data."""
    checkpoint = resolve(Path(path))
    name, experiment = read(checkpoint)
    model = build(name, without_pretrained(experiment.method))
    model.load_state_dict(read_weights(checkpoint), strict=True)
    return model.to(device).eval()


def without_pretrained(config: Any) -> Any:
    """The configuration with pre-trained parts left random: their weights come from the checkpoint."""
    return config.without_pretrained() if hasattr(config, "without_pretrained") else config
