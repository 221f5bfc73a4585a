"""A frozen encoder's steps are embedded once: which they are, that training is the same, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from segmentation_toys import CLASSES, WIDTH, experiment, train_evgap, write_toys

from crossview.datasets.catalog import Catalog
from crossview.datasets.sampling.sequence_plan import SequencePlan, Stretch
from crossview.datasets.sampling.sequences import Sequences
from crossview.datasets.video.frames import UnreadableVideo
from crossview.downstream.segmentation import model
from crossview.downstream.segmentation.model import Model
from crossview.downstream.segmentation.segmenter import SegmentationModel
from crossview.errors import UserError
from crossview.platform import checkpoint
from crossview.platform.config import Encoder
from crossview.platform.data.embedding_files import holds_embeddings, is_embedded, read_embeddings, write_embeddings
from crossview.platform.train import frozen_embeddings, launcher
from crossview.platform.train.encoder_inputs import steps_of
from crossview.platform.train.metrics import read_metrics


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toys(tmp_path_factory.mktemp("toys"))


@pytest.fixture(scope="module")
def evgap(toys: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_evgap(toys, tmp_path_factory.mktemp("evgap") / "run", steps=1)


class Linear(SegmentationModel):
    """A layer for each step by itself: what it is given decides the loss, in no time."""

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__(dim, classes, smoothing=0.1)
        self.layer = torch.nn.Linear(dim, classes)

    def forward(self, features: torch.Tensor, mask: torch.Tensor) -> list[torch.Tensor]:
        return [self.layer(features) * mask[..., None]]


@pytest.fixture(autouse=True)
def _light(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(model.ARCHITECTURES, "c2f-tcn", Linear)


def frozen(toys: Path, evgap: Path, **changes: Any) -> Any:
    made = experiment(toys, steps=3, encoder=Encoder(run=evgap), **changes)
    return replace(made, optim=replace(made.optim, batch=14), every=replace(made.every, log=1, checkpoint=3))


def losses(run: Path) -> list[float]:
    return [row["loss"] for row in read_metrics(run)]


def plan_of(catalog: Catalog, **changes: Any) -> SequencePlan:
    return SequencePlan(catalog, Sequences(kind="coarse", classes=CLASSES, **changes), seed=0)


def shown(plan: SequencePlan, rows: int) -> dict[int, set[tuple[int, int]]]:
    """By recording, first frame and number of frames of every step of some rows."""
    found: dict[int, set[tuple[int, int]]] = {}
    for i in range(rows):
        row = plan.row(i)
        for recording, frames in zip(row.recordings, row.frames, strict=True):
            found.setdefault(recording, set()).update(zip(frames[:, 0].tolist(), row.count.tolist(), strict=True))
    return found


@pytest.mark.parametrize(
    ("changes", "epochs"),
    [
        ({"chunk": 7}, 1),
        ({"chunk": 7, "max_steps": 4}, 1),
        ({"chunk": 3, "chunk_range": (2, 4), "max_steps": 30}, 60),
        ({"chunk": 7, "views": ("ego", "exo"), "max_steps": 8}, 30),
    ],
)
def test_the_steps_of_a_plan_are_those_that_its_rows_show(toys: Path, changes: dict[str, Any], epochs: int) -> None:
    late = [replace(r, start_offset_s=0.2 if r.view == "e1" else 0.0) for r in Catalog.load(toys).recordings]
    plan = plan_of(replace(Catalog.load(toys), recordings=tuple(late)), **changes)
    stretches = plan.stretches()
    assert stretches is not None
    expected = {i: set(map(tuple, steps_of(of).tolist())) for i, of in stretches.items()}
    assert shown(plan, epochs * plan.rows_per_epoch) == expected


def test_steps_of_a_camera_of_another_rate_are_not_embedded_beforehand(toys: Path) -> None:
    whole = Catalog.load(toys)
    slow = [replace(r, fps=25.0) if r.view == "v1" else r for r in whole.recordings]
    mixed = replace(whole, recordings=tuple(slow))
    assert plan_of(mixed, views=("ego", "exo")).stretches() is None
    assert plan_of(mixed).stretches() is not None


def test_the_last_step_of_a_stretch_may_be_shorter() -> None:
    assert Stretch(5, 12, 3).steps().tolist() == [[5, 3], [8, 3], [11, 1]]
    both = steps_of([Stretch(5, 12, 3), Stretch(5, 11, 3)])
    assert both.tolist() == [[5, 3], [8, 3], [11, 1]]


@pytest.mark.parametrize("changes", [{"chunk_range": (2, 3)}, {"views": ("ego", "exo")}])
def test_training_is_that_with_the_encoder_in_every_pass(
    toys: Path, evgap: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    made, embedded = frozen(toys, evgap, **changes), []
    before = Model.embed_steps

    def counted(self: Model, frames: torch.Tensor) -> torch.Tensor:
        embedded.append(len(frames))
        return before(self, frames)

    monkeypatch.setattr(Model, "embed_steps", counted)
    once = launcher.start(tmp_path / "once", "segmentation", made, in_process=True)
    few = sum(embedded)
    assert not (once / frozen_embeddings.FOLDER).exists()
    monkeypatch.setattr(frozen_embeddings, "_saves", lambda *_: False)
    each = launcher.start(tmp_path / "each", "segmentation", made, in_process=True)
    assert few < sum(embedded) - few
    assert losses(once) == pytest.approx(losses(each), rel=1e-6)
    one, other = (checkpoint.read_weights(checkpoint.resolve(run)) for run in (once, each))
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=1e-4, atol=1e-5)


def test_it_is_resumed_with_what_is_embedded_already(
    toys: Path, evgap: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = frozen(toys, evgap)
    run = launcher.start(tmp_path / "run", "segmentation", made, in_process=True, until=1)
    folder = run / frozen_embeddings.FOLDER
    facts = json.loads((folder / "embedded.json").read_text())
    assert facts["encoder"] == str(checkpoint.resolve(evgap))
    assert (facts["weights"], facts["chunk"], "commit" in facts) == ("trained", 2, True)
    lost = folder / "toys__toy0__e1.npy"
    expected, lost_content = sorted(file.name for file in folder.iterdir()), np.load(lost)
    lost.unlink()
    embedded = []
    before = frozen_embeddings.write_embeddings
    monkeypatch.setattr(
        frozen_embeddings, "write_embeddings", lambda *args: (embedded.append(args[1].id), before(*args))
    )
    launcher.resume(run, in_process=True, until=2)
    assert embedded == ["toys/toy0/e1"]
    assert sorted(file.name for file in folder.iterdir()) == expected
    assert np.allclose(np.load(lost), lost_content, atol=1e-6)
    file = folder / "embedded.json"
    file.write_text(json.dumps(facts | {"fingerprint": "another"}))
    with pytest.raises(UserError, match=r"embedded.json: .*fingerprint 'another'.*another run's; remove .*embedded, "):
        launcher.resume(run, in_process=True)
    file.write_text(json.dumps(facts))
    np.save(folder / "toys__toy0__e1.keys.npy", np.zeros((3, 2), np.int64))
    with pytest.raises(UserError, match=r"toys__toy0__e1.npy: .* of 3 steps up to frame -1; .*remove that folder"):
        launcher.resume(run, in_process=True)


def test_a_step_that_was_not_embedded_is_an_error_and_its_recording_named(toys: Path, tmp_path: Path) -> None:
    one, other = Catalog.load(toys).recordings[:2]
    steps = Stretch(4, 20, 5).steps()
    write_embeddings(tmp_path, one, steps, np.arange(8, dtype=np.float32).reshape(4, 2))
    assert holds_embeddings(tmp_path, one, steps, 2)
    assert [is_embedded(tmp_path, each) for each in (one, other)] == [True, False]
    wanted = np.array([[9, 5], [14, 5]])
    assert read_embeddings(tmp_path, one, wanted).tolist() == [[2, 3], [4, 5]]
    for later in (1, 100):
        wrong = wanted + np.array([later, 0])
        with pytest.raises(UserError, match=rf"no embedding of the 5 frames of {one.id} from {wrong[0, 0]} on"):
            read_embeddings(tmp_path, one, wrong)
    with pytest.raises(UserError, match=r"\(4, 2\) of 4 steps up to frame 19; this run reads \(4, 3\)"):
        holds_embeddings(tmp_path, one, steps, 3)
    with pytest.raises(UnreadableVideo, match=r"toys__toy0__v1.npy: the recording could not be read"):
        read_embeddings(tmp_path, other, wanted)
    (tmp_path / "toys__toy0__e1.npy").write_bytes(b"cut")
    with pytest.raises(UserError, match=r"not a readable array .* remove that folder"):
        read_embeddings(tmp_path, one, wanted)


def test_what_cannot_be_embedded_is_named(
    toys: Path, evgap: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Model.embed_steps
    with monkeypatch.context() as diverged:
        diverged.setattr(Model, "embed_steps", lambda self, frames: before(self, frames) * float("nan"))
        with pytest.raises(UserError, match=r"step-00000001: the embedding of toys/.* from frame \d+ on is not finite"):
            launcher.start(tmp_path / "nan", "segmentation", frozen(toys, evgap), in_process=True)
    wide = frozen(toys, evgap)
    wide = replace(wide, method=replace(wide.method, width=32))
    with pytest.raises(UserError, match=rf"pass --method\.width {WIDTH}"):
        launcher.start(tmp_path / "width", "segmentation", wide, in_process=True)


def test_a_recording_that_cannot_be_read_is_quarantined(evgap: Path, tmp_path: Path) -> None:
    broken = write_toys(tmp_path)
    (tmp_path / "toy1-e1.npy").write_bytes(b"cut")
    made = frozen(broken, evgap)
    with pytest.raises(UserError, match=r"toy1-e1\.npy"):
        launcher.start(tmp_path / "none", "segmentation", made, in_process=True)
    made = replace(made, data=replace(made.data, max_quarantined=0.2))
    run = launcher.start(tmp_path / "some", "segmentation", made, in_process=True, until=3)
    assert not (run / frozen_embeddings.FOLDER).exists()  # that step is the last
    assert "quarantine.parquet" in {file.name for file in run.iterdir()}
    assert len(losses(run)) == 3


def test_few_steps_and_a_tuned_encoder_embed_in_every_pass(
    toys: Path, evgap: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frozen_embeddings, "_embed", lambda *_, **__: pytest.fail("embedded beforehand"))
    short = frozen(toys, evgap)
    short = replace(short, optim=replace(short.optim, steps=1))  # one epoch
    for name, made in {"short": short, "tuned": frozen(toys, evgap, encoder_lr=0.1)}.items():
        launcher.start(tmp_path / name, "segmentation", made, in_process=True)
    with pytest.raises(pytest.fail.Exception):
        launcher.start(tmp_path / "long", "segmentation", frozen(toys, evgap), in_process=True)
