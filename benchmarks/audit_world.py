"""Audit of the synthetic world: what tells the phase, within a view and across views, on held-out subjects.

Prints weighted F1 (mean over actions) of chance, time-only, mean-colour and thumbnail
classifiers, and of a small supervised network on clips and on single frames.
Run: python benchmarks/audit_world.py [--world FOLDER] [--workers 2] [--device cuda]
"""

from __future__ import annotations

import argparse
import pickle
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import av
import numpy as np
import torch
from sklearn.metrics import f1_score
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from torch import Tensor, nn

from crossview.datasets.synthetic.ae2_layout import export_ae2
from crossview.datasets.synthetic.config import PHASES, WorldConfig

SETTINGS = {
    "ego": ("ego", "ego"), "exo": ("exo", "exo"), "ego2exo": ("ego", "exo"), "exo2ego": ("exo", "ego"),
    "regular": ("both", "both"),
}  # fmt: skip
"""Setting to the view trained on and the view tested on."""
CLIP, DILATION = 8, 3
"""Frames of the network's clip and their distance: about two seconds."""


@dataclass
class Video:
    """One video: uint8 pixels (L, S, S, 3), labels (L,)."""

    pixels: np.ndarray
    labels: np.ndarray
    action: int
    view: str


def read(root: Path, split: str, size_px: int) -> list[Video]:
    """All videos of a split of a csv-layout export, reduced to size_px."""
    videos = []
    for number, action in enumerate(PHASES):
        folder = root / action
        if not folder.is_dir():
            continue
        labels = pickle.loads((folder / "label.pickle").read_bytes())  # written by this script's own export
        for view in ("ego", "exo"):
            for name in (folder / view / f"{split}.csv").read_text().split():
                with av.open(str(folder / view / name)) as container:
                    frames = [
                        f.reformat(size_px, size_px, "rgb24", interpolation="AREA").to_ndarray()
                        for f in container.decode(video=0)
                    ]
                videos.append(Video(np.stack(frames), np.asarray(labels[Path(name).stem]), number, view))
    return videos


def features(video: Video, kind: str) -> np.ndarray:
    """Per-frame features (L, D) of a shortcut."""
    L = len(video.labels)
    if kind == "time-only":
        return np.arange(L)[:, None] / L
    if kind == "mean colour":
        return video.pixels.reshape(L, -1, 3).mean(axis=1)
    s = video.pixels.shape[1]
    return video.pixels.reshape(L, 16, s // 16, 16, s // 16, 3).mean(axis=(2, 4)).reshape(L, -1)


def of_view(videos: list[Video], view: str, action: int | None = None) -> list[Video]:
    """The videos of a view ("both" for all) and, where given, of an action."""
    return [v for v in videos if view in (v.view, "both") and action in (v.action, None)]


def shortcut_f1(train: list[Video], test: list[Video], kind: str, stride: int = 3) -> float:
    """Weighted F1 of an RBF SVM on a shortcut's features; or of majority and uniform guesses."""
    y = np.concatenate([v.labels[::stride] for v in train])
    y_test = np.concatenate([v.labels[::stride] for v in test])
    if kind == "majority":
        guess = np.full_like(y_test, np.bincount(y).argmax())
    elif kind == "uniform":
        guess = np.random.default_rng(0).integers(0, y.max() + 1, len(y_test))
    else:
        x, x_test = (np.concatenate([features(v, kind)[::stride] for v in part]) for part in (train, test))
        scale = StandardScaler().fit(x)
        guess = SVC().fit(scale.transform(x), y).predict(scale.transform(x_test))
    return float(f1_score(y_test, guess, average="weighted"))


class ClipNet(nn.Module):
    """Strided convolutions per frame and a temporal network: (B, T, 3, S, S) -> (B, actions, phases)."""

    def __init__(self, actions: int, phases: int, width: int = 16) -> None:
        super().__init__()
        self.actions, self.phases = actions, phases
        w = width
        plan = [(3, w), (w, 2 * w), (2 * w, 4 * w), (4 * w, 4 * w)]
        self.frame = nn.Sequential(
            *(m for i, o in plan for m in (nn.Conv2d(i, o, 3, 2, 1), nn.BatchNorm2d(o), nn.ReLU(inplace=True)))
        )
        self.neck = nn.Linear(4 * w * 16, 128)
        self.time = nn.Sequential(
            nn.Conv1d(128, 128, 5, padding=2), nn.ReLU(), nn.Dropout(0.3), nn.Conv1d(128, 128, 5, padding=2), nn.ReLU()
        )
        self.head = nn.Linear(256, actions * phases)

    def forward(self, clips: Tensor) -> Tensor:
        """Scores for the clip's middle frame."""
        B, T = clips.shape[:2]
        x = nn.functional.adaptive_avg_pool2d(self.frame(clips.flatten(0, 1)), 4).flatten(1)
        x = nn.functional.relu(self.neck(x)).view(B, T, -1).transpose(1, 2)
        x = x + self.time(x)
        x = torch.cat([x[..., T // 2], x.mean(-1)], 1)
        return self.head(x).view(B, self.actions, self.phases)


class Stack:
    """Videos as one tensor of frames (N, 3, S, S) uint8, so that clips are gathered by index."""

    def __init__(self, videos: list[Video], device: str) -> None:
        frames = torch.from_numpy(np.concatenate([v.pixels for v in videos]))
        self.frames = frames.permute(0, 3, 1, 2).contiguous().to(device)
        self.labels = torch.from_numpy(np.concatenate([v.labels for v in videos])).long().to(device)
        lengths = torch.tensor([len(v.labels) for v in videos], device=device)
        first = lengths.cumsum(0) - lengths
        self.first, self.last = (x.repeat_interleave(lengths) for x in (first, first + lengths - 1))
        self.action = torch.tensor([v.action for v in videos], device=device).repeat_interleave(lengths)

    def clips(self, at: Tensor, length: int) -> Tensor:
        """Clips (B, T, 3, S, S) in [0, 1] around the frames `at` (B,), ends repeated."""
        index = at[:, None] + DILATION * (torch.arange(length, device=at.device) - length // 2)
        index = torch.minimum(torch.maximum(index, self.first[at][:, None]), self.last[at][:, None])
        return self.frames[index].float() / 255


def augment(clips: Tensor) -> Tensor:
    """Per-clip colour gains, random mixing of channels, mirroring, shift; pixels in [0, 1] (B, T, 3, S, S)."""
    B = len(clips)
    mixing = (torch.eye(3) + 0.25 * torch.randn(B, 3, 3)).to(clips)
    clips = torch.einsum("bij,btjhw->btihw", mixing, clips) * (0.7 + 0.6 * torch.rand(B, 1, 3, 1, 1)).to(clips)
    clips = torch.where(torch.rand(B, 1, 1, 1, 1).to(clips) < 0.5, clips.flip(-1), clips)
    angle, zoom = 0.25 * torch.randn(B), 1 + 0.12 * torch.randn(B)
    theta = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).view(B, 2, 2) * zoom[:, None, None]
    grid = nn.functional.affine_grid(
        torch.cat([theta, 0.15 * torch.randn(B, 2, 1)], 2).to(clips), [B, 1, *clips.shape[-2:]], align_corners=False
    )
    T = clips.shape[1]
    return nn.functional.grid_sample(clips.flatten(1, 2), grid, padding_mode="reflection", align_corners=False).view(
        B, T, 3, *clips.shape[-2:]
    )


def normalise(clips: Tensor) -> Tensor:
    """Each clip to zero mean and unit spread per colour channel."""
    mean, std = clips.mean((1, 3, 4), keepdim=True), clips.std((1, 3, 4), keepdim=True)
    return (clips - mean) / (std + 1e-3)


def train_net(data: Stack, length: int, steps: int, batch: int) -> ClipNet:
    """The network trained on clips drawn at random from `data`."""
    torch.manual_seed(0)
    device = data.frames.device
    net = ClipNet(len(PHASES), max(map(len, PHASES.values()))).to(device)
    optimiser = torch.optim.AdamW(net.parameters(), 2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps)
    for _ in range(steps):
        at = torch.randint(len(data.labels), (batch,)).to(device)
        scores = net(normalise(augment(data.clips(at, length))))[torch.arange(batch, device=device), data.action[at]]
        loss = nn.functional.cross_entropy(scores, data.labels[at], label_smoothing=0.05)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return net.eval()


@torch.inference_mode()
def net_f1(net: ClipNet, data: Stack, length: int, stride: int = 6) -> float:
    """Weighted F1, mean over actions; a clip's scores are averaged with those of its mirror image."""
    guesses = []
    frames = torch.arange(0, len(data.labels), stride, device=data.frames.device)
    for at in frames.split(128):
        clips = normalise(data.clips(at, length))
        scores = (net(clips) + net(clips.flip(-1)))[torch.arange(len(at), device=at.device), data.action[at]]
        guesses.append(scores.argmax(1))
    truth, guess, action = (x.cpu().numpy() for x in (data.labels[frames], torch.cat(guesses), data.action[frames]))
    scores_of = [f1_score(truth[action == a], guess[action == a], average="weighted") for a in np.unique(action)]
    return float(np.mean(scores_of))


def table_row(name: str, values: dict[str, float]) -> None:
    """Print one row of the Markdown table."""
    print(f"| {name} | " + " | ".join(f"{values[s]:.2f}" for s in SETTINGS) + " |", flush=True)


def supervised(train: list[Video], test: list[Video], device: str, steps: int, batch: int) -> None:
    """Train the networks per view and on both, and print their rows."""
    parts = ("ego", "exo", "both")
    data, held_out = ({v: Stack(of_view(part, v), device) for v in parts} for part in (train, test))
    for name, length in (("supervised, clips", CLIP), ("supervised, single frames", 1)):
        nets = {v: train_net(data[v], length, steps, batch) for v in parts}
        table_row(name, {s: net_f1(nets[a], held_out[b], length) for s, (a, b) in SETTINGS.items()})
        both = {s: net_f1(nets["both"], held_out[b], length) for s, (_, b) in SETTINGS.items()}
        table_row(f"{name}, trained on both views", both)
        fit = {s: net_f1(nets[a], data[a], length) for s, (a, _) in SETTINGS.items()}
        table_row(f"{name}, on its own train videos", fit)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--world", type=Path, help="keep the rendered export here; default: a temporary folder")
    parser.add_argument("--train-takes", type=int, default=48)
    parser.add_argument("--test-takes", type=int, default=12)
    parser.add_argument("--size-px", type=int, default=128, help="rendered size")
    parser.add_argument("--net-px", type=int, default=64, help="size that classifiers see")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--cut", default="window", choices=("window", "cycle", "whole"))
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--skip-net", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.workers)
    config = replace(
        WorldConfig(size_px=args.size_px, cut=args.cut, workers=args.workers),
        train_takes=args.train_takes, val_takes=0, test_takes=args.test_takes, train_subjects=20, test_subjects=8,
    )  # fmt: skip
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        root = export_ae2(config, args.world or Path(temporary))
        train, test = (read(root, split, args.net_px) for split in ("train", "test"))
    print(f"# {len(train)} train and {len(test)} test videos, ready after {time.monotonic() - start:.0f} s")
    print("| classifier | " + " | ".join(SETTINGS) + " |\n|---|" + "---|" * len(SETTINGS))
    actions = sorted({v.action for v in train})
    for kind in ("majority", "uniform", "time-only", "mean colour", "thumbnail 16x16"):
        table_row(kind, {
            s: float(np.mean([shortcut_f1(of_view(train, a, k), of_view(test, b, k), kind) for k in actions]))
            for s, (a, b) in SETTINGS.items()
        })  # fmt: skip
    if not args.skip_net:
        supervised(train, test, args.device, args.steps, args.batch)
    print(f"# {time.monotonic() - start:.0f} s in all")


if __name__ == "__main__":
    main()
