"""The frozen base of a study: shipped with the study, or trained in its folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import crossview.methods
from crossview.datasets.synthetic.parts import part_frames
from crossview.errors import UserError
from crossview.methods.base_config import Base
from crossview.methods.recipe import Recipe
from crossview.methods.study import BaseTraining, Study
from crossview.platform.progress import Progress, ticking


def with_base(study: Study, out: Path, *, train: bool = False) -> dict[str, Recipe]:
    """The variants' recipes on the study's base; `train` trains it in `out` even if the study ships its weights.

    Raises UserError where the shipped file is missing.
    """
    if study.base is None:
        return study.variants
    shipped = study.base.shipped
    if shipped is None or train:
        config: Base = next(r.method.base for r in study.variants.values() if has_base(r))
        weights = _trained(study.base, config, out / "base.safetensors")
    else:
        weights = Path(crossview.methods.__path__[0]) / shipped
        if not weights.is_file():
            raise UserError(f"{weights}: the study's base is missing; restore the file, or pass --train-base")
    return {variant: _on(recipe, weights) if has_base(recipe) else recipe for variant, recipe in study.variants.items()}


def has_base(recipe: Recipe) -> bool:
    """Whether its method reads a frozen base."""
    return hasattr(recipe.method, "base")


def _on(recipe: Recipe, weights: Path) -> Recipe:
    method: Any = recipe.method
    return replace(recipe, method=replace(method, base=replace(method.base, weights=str(weights))))


def _trained(base: BaseTraining, config: Base, file: Path) -> Path:
    if file.exists():
        return file
    with ticking("rendering for the base") as tick:
        pixels, coverage = part_frames(base.world, every=base.every, patch_px=config.patch_px or 16, progress=tick)
    from crossview.methods.base_training import train_base

    with Progress("training the base", base.steps, "steps") as line:
        train_base(
            config,
            torch.from_numpy(pixels),
            torch.from_numpy(coverage),
            file,
            steps=base.steps,
            tell=lambda step, loss: line.update(step, f"loss {loss:.3f}"),
        )
    return file
