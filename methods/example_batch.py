"""A batch of noise in the shapes that a sampling declares: for tests, benchmarks and a first look in a debugger."""

from __future__ import annotations

import torch
from torch import Tensor

from crossview.datasets.sampling.spec import Sampling, View


def example_batch(sampling: Sampling, size: int, *, features: tuple[int, int] | None = None) -> dict[str, Tensor]:
    """What the stream would yield for `size` samples, drawn from torch's generator.

    uint8 video, or float16 features with (N, D) per frame. Every camera of a group is there, each label's first class
    or another one is set, and every teacher has spoken.
    """
    batch = {"sample": torch.arange(size), "seed": torch.arange(size) * 7_919 + 11}
    views = sampling.views
    if sampling.pairing == "group":
        slots = sum(view.count for view in views.values())
        batch |= _clips(sampling, "video", next(iter(views.values())), (size, slots), features)
        batch["video/mask"] = torch.ones(size, slots, dtype=torch.bool)
    else:
        for name, view in views.items():
            batch |= _clips(sampling, name, view, (size,), features) | _facts(sampling, name, view, size)
    if sampling.window_length == "true":
        view = next(iter(views.values()))
        shortest = max(1, round(view.frames * sampling.window_scale[0]))
        length = torch.randint(shortest, sampling.max_frames(view) + 1, (size,))
        names = ("video",) if sampling.pairing == "group" else tuple(views)
        batch |= {f"{name}/length": length for name in names}
    return batch


def _clips(
    sampling: Sampling, name: str, view: View, shape: tuple[int, ...], features: tuple[int, int] | None
) -> dict[str, Tensor]:
    T = sampling.max_frames(view)
    if features is None:
        clips = torch.randint(0, 256, (*shape, T, 3, view.size_px, view.size_px), dtype=torch.uint8)
    else:
        clips = torch.randn(*shape, T, *features).half()
    length = torch.randint(T, 5 * T, shape)
    frames = (torch.rand(*shape, T).sort(-1).values * length[..., None]).long()
    return {name: clips, f"{name}/frames": frames, f"{name}/num_frames": length}


def _facts(sampling: Sampling, name: str, view: View, size: int) -> dict[str, Tensor]:
    """Labels, teachers' scores and boxes of a view."""
    out: dict[str, Tensor] = {}
    for kind, count in sampling.labels.items():
        out[f"{name}/label/{kind}"] = torch.nn.functional.one_hot(torch.randint(count, (size,)), count).byte()
    for task, count in sampling.scores.items():
        out[f"{name}/scores/{task}"] = 3 * torch.randn(size, count)
        out[f"{name}/scores/{task}/mask"] = torch.ones(size, dtype=torch.bool)
    if sampling.boxes:
        shape = (size, sampling.max_frames(view), sampling.boxes)
        corners = torch.rand(*shape, 2, 2).sort(-2).values.flatten(-2)  # x1, y1, x2, y2
        code, score = torch.randint(0, 3, (*shape, 1)).float(), torch.rand(*shape, 1)
        out[f"{name}/boxes"] = torch.cat([code, corners, score], dim=-1)
        out[f"{name}/boxes/mask"] = torch.ones(size, dtype=torch.bool)
    return out
