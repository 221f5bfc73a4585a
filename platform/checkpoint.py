"""Checkpoints: folders of model.safetensors, frozen.safetensors, train_state.pt and run.json.

On a disk a complete folder is renamed into place. In an object store no folder can be: run.json is uploaded last there,
and removed first, and a folder without it is no checkpoint.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
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

from crossview import storage
from crossview.errors import UserError
from crossview.methods.method import Method
from crossview.methods.trained import Trained
from crossview.platform.config import Experiment, is_trainer, read
from crossview.platform.models import build_model
from crossview.platform.run_folder import write_json

MODEL, FROZEN = "model.safetensors", "frozen.safetensors"
BEST = "best.json"
"""In a run's folder: which checkpoint is the best so far, and by which metric."""


def folder(run: Path, step: int) -> Path:
    """The folder of the checkpoint after `step` optimiser steps."""
    return run / "checkpoints" / f"step-{step:08d}"


def all_of(run: Path) -> list[Path]:
    """Complete checkpoints of a run, oldest first."""
    if storage.is_local(run):
        return sorted((run / "checkpoints").glob("step-*"))
    found = storage.patiently(lambda: list((run / "checkpoints").glob("step-*/run.json")), run)
    return sorted(file.parent for file in found)


def is_complete(target: Path) -> bool:
    """Whether the checkpoint there is complete; retried where the storage fails."""
    return storage.patiently((target / "run.json").exists, target)


def latest(run: Path) -> Path | None:
    """The latest complete checkpoint of a run."""
    found = all_of(run)
    return found[-1] if found else None


def best(run: Path) -> dict[str, Any] | None:
    """The step, metric, mode and value of a run's best checkpoint so far; None where it keeps none."""
    file, fix = run / BEST, "delete it: the best of the checkpoints to come is then noted anew"
    if not storage.is_file(file):
        return None
    found: dict[str, Any] = storage.read_json(file, fix)
    if not isinstance(found.get("step"), int) or not isinstance(found.get("value"), float):
        raise UserError(f"{file}: step is {found.get('step')!r} and value {found.get('value')!r}, no numbers; {fix}")
    return found


def note_best(run: Path, step: int, metric: str, mode: str, value: float) -> None:
    """Make the checkpoint of `step` the best one if its value is better than the best so far; NaN never is."""
    before = best(run)
    sign = 1 if mode == "max" else -1
    if not math.isnan(value) and (before is None or sign * value > sign * before["value"]):
        write_json(run / BEST, {"step": step, "metric": metric, "mode": mode, "value": value})


def _remove_all_but(run: Path, keep: int) -> None:
    """Remove checkpoints except the latest `keep` and the best."""
    old = all_of(run)[:-keep]
    if old and (kept := best(run)):
        old = [path for path in old if path != folder(run, kept["step"])]
    for path in old:
        remove(path)


def frozen_names(model: Trained) -> set[str]:
    """Parameters that training leaves as they are."""
    return {name for name, parameter in model.named_parameters() if not parameter.requires_grad}


def frozen_state(model: Trained) -> dict[str, Tensor]:
    """Frozen parameters, and buffers of modules without trained ones, such as a frozen part's running statistics."""
    frozen = frozen_names(model)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    modules = {name.rpartition(".")[0] for name in trained}
    return {
        name: value
        for name, value in model.state_dict().items()
        if name in frozen or (name not in trained and name.rpartition(".")[0] not in modules)
    }


def save(
    target: Path,
    model: Trained,
    weights: dict[str, Tensor],
    train_state: dict[str, Any],
    run: dict[str, Any],
    keep: int,
) -> None:
    """Write one checkpoint and delete all but the latest `keep` and the best.

    `weights` are those to evaluate (the moving average where there is one). Frozen parameters do not change: their file
    is written once and hard-linked, or copied by the object store, from then on. Where the storage fails, all is tried
    again, as `storage.write` does; on failure earlier checkpoints stay as they are; see `needs_space`.
    """
    frozen = frozen_names(model)
    parts = {
        MODEL: {n: w.contiguous() for n, w in weights.items() if n not in frozen},
        FROZEN: {n: w.contiguous() for n, w in weights.items() if n in frozen},
    }
    info = {**run, "step": train_state["step"]}
    place = _place if storage.is_local(target) else _upload
    storage.patiently(lambda: place(target, parts, train_state, info), target)
    _remove_all_but(target.parent.parent, keep)


def remove(old: Path) -> None:
    """Remove a checkpoint; where the storage fails, tried again."""

    def gone() -> None:
        with contextlib.suppress(FileNotFoundError):
            if not storage.is_local(old):
                (old / "run.json").unlink()
        with contextlib.suppress(FileNotFoundError):
            storage.remove(old)

    storage.patiently(gone, old)


def copy(source: Path, run: Path) -> None:
    """Give a run a checkpoint of another one, in place of its own, which go once the source has been found."""
    target, own = run / "checkpoints" / source.name, all_of(run)
    if storage.is_local(run):
        temporary = target.with_name(f".{target.name}")
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.copytree(source, temporary)
        for old in own:
            remove(old)
        temporary.rename(target)
        return
    names = sorted((file.name for file in source.iterdir()), key=lambda name: name == "run.json")
    for old in own:
        remove(old)
    for name in names:
        storage.copy_within(source / name, target / name)


def _place(
    target: Path, parts: dict[str, dict[str, Tensor]], train_state: dict[str, Any], info: dict[str, Any]
) -> None:
    previous = latest(target.parent.parent)
    temporary = target.with_name(f".{target.name}")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        if parts[FROZEN] and not (previous and _linked(previous / FROZEN, temporary / FROZEN)):
            _build(temporary / FROZEN, parts[FROZEN])
        _build(temporary / MODEL, parts[MODEL])
        _build(temporary / "train_state.pt", train_state)
        (temporary / "run.json").write_text(json.dumps(info, indent=2) + "\n")
        for file in (*temporary.iterdir(), temporary):  # a name must not reach the disk before what it names
            _sync(file)
        temporary.rename(target)
        _sync(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _upload(
    target: Path, parts: dict[str, dict[str, Tensor]], train_state: dict[str, Any], info: dict[str, Any]
) -> None:
    previous = latest(target.parent.parent)
    with storage.outgoing() as folder:
        if parts[FROZEN] and previous and (previous / FROZEN).exists():
            storage.copy_within(previous / FROZEN, target / FROZEN)
        elif parts[FROZEN]:
            _build(folder / FROZEN, parts[FROZEN])
        _build(folder / MODEL, parts[MODEL])
        _build(folder / "train_state.pt", train_state)
        for file in folder.iterdir():
            storage.upload(file, target / file.name)
    write_json(target / "run.json", info)


def _build(file: Path, content: dict[str, Any]) -> None:
    """Write weights, or the training state; each library's way to report a full disk becomes an OSError."""
    try:
        if file.suffix == ".safetensors":
            save_file(content, file)
        else:
            torch.save(content, file)
    except (RuntimeError, SafetensorError) as error:
        if _is_storage(error):
            raise OSError(errno.ENOSPC, f"{file}: {error}") from error
        raise


@contextmanager
def needs_space(file: Path, run: Path) -> Iterator[None]:
    """Say what could not be written of a run, and how to resume it, where the disk is full or unwritable (OSError)."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:  # each library reports a full disk in its own way
        if not _is_storage(error):
            raise
        try:
            before = latest(run)
        except Exception:  # a store that cannot be reached cannot be asked
            left = f"complete checkpoints are those in {run / 'checkpoints'}"
        else:
            left = f"the latest complete checkpoint is {before}" if before else "there is no complete checkpoint yet"
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


def _linked(previous: Path, file: Path) -> bool:
    """Whether the previous checkpoint's frozen weights could be linked: not every file system has hard links."""
    try:
        os.link(previous, file)
    except OSError:
        return False
    return True


def read_weights(checkpoint: Path) -> dict[str, Tensor]:
    """All weights of one checkpoint by parameter name; raises ValueError naming a file that is missing or broken."""
    weights: dict[str, Tensor] = {}
    for file in (checkpoint / MODEL, checkpoint / FROZEN):
        if file.name == FROZEN and not file.exists():
            continue
        here = storage.local(file)
        with _named(file):
            weights |= load_file(here)
    return weights


def read_train_state(checkpoint: Path, device: torch.device) -> dict[str, Any]:
    """What `save` was given beside the weights; raises ValueError naming the file where it is missing or broken."""
    file = checkpoint / "train_state.pt"
    here = storage.local(file)
    with _named(file):
        state: dict[str, Any] = torch.load(here, map_location=device, weights_only=True)
    return state


@contextmanager
def _named(file: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # safetensors, zip and unpickler each have their own kinds
        reason = str(error).split(". ")[0]
        raise UserError(
            f"{file}: not a readable checkpoint ({reason}); delete its folder, so that the one before it is the "
            "latest, or train again"
        ) from error


def resolve(path: Path, which: str = "latest") -> Path:
    """The checkpoint folder meant by `path`: itself, or of a run the "latest", the "best" or that of a step.

    Raises ValueError where there is none.
    """
    if (path / MODEL).exists() and (path / "run.json").exists():
        if which != "latest":
            raise UserError(f"checkpoint {which!r}: {path} is one checkpoint; to choose among several, pass their run")
        return path
    found = all_of(path)
    if not found:
        raise UserError(f"{path}: no checkpoint here; pass a run folder with checkpoints/ or one checkpoint folder")
    if which == "latest":
        return found[-1]
    if which != "best" and not which.isdecimal():
        raise UserError(f"checkpoint is {which!r}; it must be latest, best or the number of a step")
    kept = best(path) if which == "best" else None
    if which == "best" and kept is None:
        raise UserError(
            f"{path}: checkpoint 'best', but this run has not noted one; runs do with `crossview train ... "
            "--every.evaluate STEPS --every.best METRIC`: choose latest or a step"
        )
    chosen = folder(path, kept["step"] if kept else int(which))
    if chosen not in found:
        steps = ", ".join(str(int(name.name.removeprefix("step-"))) for name in found)
        raise UserError(f"{path}: checkpoint {which!r} is not there; its steps: {steps}")
    return chosen


def load(path: Path | str, device: str | torch.device = "cpu") -> Method:
    """The trained method of a run or checkpoint folder, in eval mode; needs neither Ray nor the training data.

    Raises ValueError for the run of a downstream trainer, which embeds nothing.
    """
    checkpoint = resolve(storage.as_path(path))
    name, experiment = read(checkpoint)
    if is_trainer(name):
        raise UserError(
            f"{path}: it is a run of the downstream trainer {name!r}, which embeds nothing; pass a method's"
        )
    model = restore(checkpoint, name, experiment, device)
    assert isinstance(model, Method)
    return model


def restore(checkpoint: Path, name: str, experiment: Experiment[Any], device: str | torch.device) -> Trained:
    """The model of a checkpoint folder whose name and experiment are known, in eval mode."""
    model = build_model(name, experiment)
    model.load_state_dict(read_weights(checkpoint), strict=True)
    return model.to(device).eval()
