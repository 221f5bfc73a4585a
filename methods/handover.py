"""Weights that one training stage takes over from another, with every tensor accounted for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from crossview.errors import UserError


def take_over(
    model: nn.Module, weights: dict[str, Tensor], *, fresh: Iterable[str] = (), dropped: Iterable[str] = ()
) -> list[str]:
    """Load `weights`, by parameter name, into the model; returns a line for each prefix that was left out.

    `fresh` are prefixes of parameters that stay as they were drawn, `dropped` prefixes of weights that the model has no
    use for. Raises ValueError, before anything is changed, where any other weight is missing, unknown or of another
    shape.
    """
    fresh, dropped = tuple(fresh), tuple(dropped)
    own = {name: value for name, value in model.state_dict().items() if not name.startswith(fresh)}
    given = {name: value for name, value in weights.items() if not name.startswith((*fresh, *dropped))}
    if wrong := mismatch(own, given):
        raise UserError(wrong)
    model.load_state_dict(given, strict=False)
    lines = [f"{prefix}*: stays as drawn" for prefix in fresh if _count(model.state_dict(), prefix)]
    lines += [f"{p}*: {count} weights not taken over" for p in (*dropped, *fresh) if (count := _count(weights, p))]
    return lines


def mismatch(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    """Which weights are missing, unknown or of another shape, the first five by name; empty where all fit."""
    wrong = [f"{name} is missing" for name in own.keys() - given.keys()]
    wrong += [f"{name} is unknown" for name in given.keys() - own.keys()]
    wrong += [
        f"{name} is {tuple(given[name].shape)}, not {tuple(own[name].shape)}"
        for name in own.keys() & given.keys()
        if own[name].shape != given[name].shape
    ]
    more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
    return f"{'; '.join(sorted(wrong)[:5])}{more}"


def _count(names: Iterable[str], prefix: str) -> int:
    return sum(name.startswith(prefix) for name in names)
