"""The optimiser's state by parameter name, so that another order of groups or modules does not mix its moments."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from crossview.errors import UserError

Own = Callable[[Tensor, Tensor], Tensor]
"""(parameter, whole tensor) -> what this worker keeps of it."""


def by_name(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Any]:
    """`optimizer.state_dict()` with qualified names in place of positions, in "state" and in each group's "params"."""
    names, found = _names(optimizer, model), optimizer.state_dict()
    groups = [{**group, "params": [names[k] for k in group["params"]]} for group in found["param_groups"]]
    return {"state": {names[k]: state for k, state in found["state"].items()}, "param_groups": groups}


def restore(optimizer: torch.optim.Optimizer, model: nn.Module, saved: dict[str, Any], own: Own, file: Path) -> None:
    """Give each parameter its state from `saved`, as `by_name` made it, or by position as Crossview 0.4 did.

    The groups' settings stay those of the configuration: a member of a population that took over another's weights has
    others. Raises ValueError naming `file` and the parameters if the saved ones are not those that are trained.
    """
    names = _names(optimizer, model)
    saved_names = [name for group in saved["param_groups"] for name in group["params"]]
    if all(isinstance(name, int) for name in saved_names):
        if len(saved_names) != len(names):
            raise UserError(f"{file}: it has {len(saved_names)} trained parameters, this model {len(names)}; {_FIX}")
        saved_names, saved = names, {**saved, "state": {names[k]: state for k, state in saved["state"].items()}}
    missing, surplus = set(names) - set(saved_names), set(saved_names) - set(names)
    if missing or surplus:
        lacks = [f"it lacks {_listed(missing)}"] if missing else []
        has = [f"it has {_listed(surplus)}, which this model does not train"] if surplus else []
        raise UserError(f"{file}: its optimiser state does not fit: {' and '.join(lacks + has)}; {_FIX}")
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    position = {name: k for k, name in enumerate(names)}
    state = {
        position[name]: {
            key: own(parameters[position[name]], value) if isinstance(value, Tensor) and value.ndim else value
            for key, value in of.items()
        }
        for name, of in saved["state"].items()
    }
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


_FIX = (
    "resume with the code and configuration that wrote it, or start a new run from its weights with `crossview train "
    "METHOD --from RUN --init-from RUN`"
)


def _names(optimizer: torch.optim.Optimizer, model: nn.Module) -> list[str]:
    """The name of each trained parameter, in the order of the optimiser's groups."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [names[id(p)] for group in optimizer.param_groups for p in group["params"]]


def _listed(names: set[str], shown: int = 5) -> str:
    some = ", ".join(sorted(names)[:shown])
    return some if len(names) <= shown else f"{some} and {len(names) - shown} more"
