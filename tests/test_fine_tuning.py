"""Few-clip fine-tuning: of a toy encoder, and as a task of a run."""

from __future__ import annotations

import copy
import dataclasses
import functools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import videos
from synchronized import SEEN, camera, write_synchronized
from tiny_run import train
from torch import Tensor, nn

from crossview.datasets.catalog import Catalog, one_protocol
from crossview.downstream.few_clips.config import Options
from crossview.downstream.few_clips.draws import Draws
from crossview.downstream.few_clips.fine_tuning import Classifier, FineTuning, accuracy, embed_all, fine_tune
from crossview.downstream.table import from_arrow
from crossview.platform.evaluate.runner import evaluate

TWO = {"few_clips": Options(clips_per_scene=2)}


class Toy(nn.Module):
    """Means over time, a linear map, batch norm, and a part that takes no gradient."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.base = nn.Linear(4, 8).requires_grad_(requires_grad=False)
        self.inner = nn.Linear(8, width)
        self.norm = nn.BatchNorm1d(width)

    def embed_clip(self, clips: Tensor) -> Tensor:
        return self.norm(self.inner(torch.relu(self.base(clips.float())).mean((1, 2))))


@functools.cache
def settled() -> Toy:
    """A network whose batch norm has seen some data, as a trained one's has."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Toy().train()
        with torch.no_grad():
            for step in range(60):
                model.embed_clip(labelled(30, step)[0])
        return model.eval()


def toy() -> Toy:
    return copy.deepcopy(settled())


def labelled(count: int, seed: int, noise: float = 0.3) -> tuple[Tensor, Tensor]:
    """Features (N, T, M, D) of three classes."""
    draw = torch.Generator().manual_seed(seed)
    centres = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(count) % 3
    clips = centres[labels][:, None, None] + noise * torch.randn(count, 5, 2, 4, generator=draw)
    return clips.half(), labels


def test_a_few_clips_teach_the_classes_and_the_given_encoder_stays() -> None:
    encoder, (clips, labels), (test, truth) = toy(), labelled(15, 1), labelled(60, 2)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    model = fine_tune(encoder, clips, labels, 3, FineTuning(), seed=0)
    assert accuracy(model, test, truth) > 0.9
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    changed = {n for n, value in model.encoder.state_dict().items() if not torch.equal(value, before[n])}
    norm = {"norm.weight", "norm.bias", "norm.running_mean", "norm.running_var", "norm.num_batches_tracked"}
    assert changed == {"inner.weight", "inner.bias", *norm}
    assert not model.training


def test_the_result_is_a_function_of_the_seed() -> None:
    clips, labels = labelled(12, 1)
    one, same, other = (
        fine_tune(toy(), clips, labels, 3, FineTuning(epochs=2), seed=s).state_dict() for s in (4, 4, 5)
    )
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["head.weight"], other["head.weight"])
    state = torch.get_rng_state()
    fine_tune(toy(), clips, labels, 3, FineTuning(epochs=1), seed=0)
    assert torch.equal(torch.get_rng_state(), state)


def test_each_draw_takes_other_clips_and_the_same_again() -> None:
    recordings = tuple(SimpleNamespace(id=str(k), action="wave" if k % 2 else "stir") for k in range(12))
    clips = SimpleNamespace(
        count=lambda recording: 4, read=lambda recording, places: [torch.tensor([int(recording), k]) for k in places]
    )
    draws = Draws(SimpleNamespace(recordings=recordings, clips=clips, split="train"))  # type: ignore[arg-type]

    def drawn(draw: int) -> list[tuple[str, list[int]]]:
        return [(action, clip.tolist()) for action, clip in draws.few(3, draw)]

    assert drawn(0) == drawn(0) != drawn(1)
    assert [action for action, _ in drawn(0)] == ["stir"] * 3 + ["wave"] * 3
    assert len({clip[0] for _, clip in drawn(0)}) == 6


def test_the_head_alone_leaves_every_weight_and_statistic_of_the_encoder() -> None:
    encoder, (clips, labels) = toy(), labelled(15, 1)
    model = fine_tune(encoder, clips, labels, 3, FineTuning(head_only=True), seed=0)
    for name, value in encoder.state_dict().items():
        assert torch.equal(model.encoder.state_dict()[name], value), name
    assert model.head.weight.abs().sum().item() > 0
    # It is what a head on precomputed vectors gives.
    vectors = embed_all(encoder, clips, 4)
    assert torch.equal(model.classify(vectors).argmax(1), model(clips).argmax(1))
    assert accuracy(model, clips, labels) > 0.9


def test_scores_use_the_running_statistics_whatever_stands_beside_a_clip() -> None:
    clips, labels = labelled(15, 1)
    test, truth = labelled(20, 2)
    model = fine_tune(toy(), clips, labels, 3, FineTuning(), seed=0)
    alone = torch.cat([model(clip[None]) for clip in test])
    assert torch.allclose(alone, model(test), atol=1e-5)
    assert accuracy(model, test, truth, batch=7) == pytest.approx(float((alone.argmax(1) == truth).float().mean()))


def test_the_head_does_not_depend_on_the_scale_of_the_vectors() -> None:
    class Scaled(Toy):
        def embed_clip(self, clips: Tensor) -> Tensor:
            return 1000 * super().embed_clip(clips) + 7

    scaled = Scaled()
    scaled.load_state_dict(toy().state_dict())
    (clips, labels), recipe = labelled(15, 1), FineTuning(head_only=True)
    small = fine_tune(toy(), clips, labels, 3, recipe, seed=0)
    large = fine_tune(scaled.eval(), clips, labels, 3, recipe, seed=0)
    assert torch.allclose(small(clips), large(clips), atol=1e-3)
    constant = Classifier(toy(), torch.ones(4, 6), 3)
    assert torch.isfinite(constant.classify(torch.ones(2, 6))).all()


def test_what_cannot_be_tuned_is_refused() -> None:
    clips, labels = labelled(6, 1)
    with pytest.raises(ValueError, match=r"6 clips with labels .* of 2 classes"):
        fine_tune(toy(), clips, labels, 2, FineTuning(), seed=0)
    with pytest.raises(ValueError, match="6 clips with labels"):
        fine_tune(toy(), clips, labels[:5], 3, FineTuning(), seed=0)
    with pytest.raises(ValueError, match="the loss is nan"):
        fine_tune(toy(), clips * float("nan"), labels, 3, FineTuning(), seed=0)
    for wrong in ({"epochs": 0}, {"batch": 0}, {"encoder_lr": -1.0}, {"weight_decay": -0.1}):
        with pytest.raises(ValueError, match=f"fine-tuning: {next(iter(wrong))} is"):
            FineTuning(**wrong)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synchronized(tmp_path_factory.mktemp("synchronized")).root


@pytest.fixture(scope="module")
def run(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("runs") / "tiny", root, views=SEEN)


def test_a_run_is_tuned_beside_its_baselines_on_ego_clips(run: Path) -> None:
    table = evaluate(run, tasks=("few_clips",), options=TWO, in_process=True)
    rows = from_arrow(table)
    assert set(rows) == {"trained", "frozen head only", "random init"}
    assert all(set(scores) == {"few_clips/accuracy/ego"} for scores in rows.values())
    draws = pq.read_table(run / "evaluations" / "val-few_clips-draws.parquet").to_pylist()
    assert len(draws) == 3 * 3
    assert {d["clips"] for d in draws} == {8}  # two recordings per action, two clips each, fewer than asked for
    mine = [d["accuracy"] for d in draws if d["row"] == "trained"]
    assert rows["trained"]["few_clips/accuracy/ego"] == [pytest.approx(np.mean(mine))]
    assert "scored on 8 of split val" in (run / "evaluations" / "val.md").read_text()
    again = from_arrow(evaluate(run, tasks=("few_clips",), options=TWO, in_process=True))
    assert again == rows
    alone = from_arrow(evaluate(run, tasks=("few_clips",), options=TWO, baselines=False, in_process=True))
    assert alone == {row: rows[row] for row in ("trained", "frozen head only")}


def test_a_damaged_recording_is_passed_over(
    root: Path,
    tmp_path: Path,
) -> None:
    whole = Catalog.load(root / "catalog")
    broken = next(r for r in whole.select("train").recordings if r.perspective == "ego")
    folder = tmp_path / "catalog"
    for recording in whole.recordings:
        (tmp_path / recording.path).parent.mkdir(exist_ok=True)
        (tmp_path / recording.path).write_bytes(whole.file(recording).read_bytes())
    dataclasses.replace(whole, root=tmp_path).save(folder)
    damaged = train(tmp_path / "run", tmp_path, views=SEEN, max_quarantined=0.5)
    videos.truncate(tmp_path / broken.path, 0.5)
    evaluate(damaged, tasks=("few_clips",), options=TWO, baselines=False, in_process=True)
    draws = pq.read_table(damaged / "evaluations" / "val-few_clips-draws.parquet").to_pylist()
    assert {d["clips"] for d in draws} == {6}


def test_a_catalog_without_ego_clips_or_with_one_action_is_refused(tmp_path: Path) -> None:
    recordings = []
    for split in ("train", "val"):
        for view in ("ego", "exo1"):
            path = f"{split}_{view}.mp4"
            videos.write(tmp_path / path, frames=12)
            recordings.append(camera(view, num_frames=12, path=path, scene=split))
            videos.write(tmp_path / f"more_{path}", frames=12)
            recordings.append(camera(view, num_frames=12, path=f"more_{path}", scene=f"more{split}"))
    protocols = one_protocol((r, "train" if "train" in r.scene else "val") for r in recordings)
    Catalog(tmp_path, tuple(recordings), protocols=protocols).save(tmp_path / "catalog")
    single = train(tmp_path / "run", tmp_path)
    with pytest.raises(ValueError, match="all ego recordings to tune on show the action 'wave'"):
        evaluate(single, tasks=("few_clips",), in_process=True)
    exo = tuple(r for r in recordings if "train" in r.scene or r.perspective == "exo")
    Catalog(tmp_path, exo, protocols=protocols).save(tmp_path / "catalog")
    with pytest.raises(ValueError, match="split 'val' has no ego recording of the cameras ego, exo1"):
        evaluate(single, tasks=("few_clips",), in_process=True)
