"""A frozen encoder's clips are embedded once: which they are, that training is the same, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import image_folders
import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny_run
import torch
from synchronized import camera

from crossview.datasets.catalog import Catalog, Segment, one_protocol
from crossview.datasets.sampling.geometry import Geometry
from crossview.datasets.sampling.plan import Plan
from crossview.datasets.sampling.spec import Sampling, View
from crossview.downstream.encoder import ClipEncoder
from crossview.downstream.recognition.augment_config import NO_AUGMENTATION
from crossview.errors import UserError
from crossview.platform import checkpoint
from crossview.platform.config import Cadence, Compute, Data, Encoder, TrainerExperiment, preset
from crossview.platform.data.decoder import Shard
from crossview.platform.data.embedding_files import clip_key, write_embeddings
from crossview.platform.data.row_decoder import RowDecoder
from crossview.platform.train import frozen_embeddings, launcher
from crossview.platform.train.metrics import read_metrics

SHARD = Shard(start_step=0, stop_step=24, batch=1, micro_batch=1)
DRAWN = View(perspective="any", frames=6, fps=20.0, size_px=tiny_run.SIZE, geometry=Geometry(crop="random"))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    tiny_run.write_catalog(folder, actions=("nod", "wave"))
    return folder


@pytest.fixture(scope="module")
def byov(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_run.train(tmp_path_factory.mktemp("byov") / "run", root)


def probe(root: Path, byov: Path, *, steps: int = 7, **changes: Any) -> TrainerExperiment[Any]:
    """Of the 8 recordings' 16 drawn clips, in batches of 4."""
    recipe = preset("recognition", "charades_ego_probe")
    drawn = {"fps": DRAWN.fps, "geometry": DRAWN.geometry, "draws": 2}
    options = {"classes": {"action": 2}, "frames": DRAWN.frames, "size_px": DRAWN.size_px} | drawn | changes
    return TrainerExperiment(
        data=Data(catalog=root / "catalog"),
        method=replace(recipe.method, **options),
        optim=replace(recipe.optim, lr=1e-2, batch=4, epochs=None, steps=steps),
        compute=Compute(device="cpu", threads=1),
        every=Cadence(log=1, checkpoint=steps),
        encoder=Encoder(run=byov),
    )


def losses(run: Path) -> list[float]:
    return [row["loss"] for row in read_metrics(run)]


def quarantined(run: Path) -> list[dict[str, str]]:
    return pq.read_table(run / "quarantine.parquet").to_pylist()


def both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: TrainerExperiment[Any]) -> tuple[Path, Path]:
    """The same run with each clip embedded once, and in every pass."""
    once = launcher.start(tmp_path / "once", "recognition", made, in_process=True)
    with monkeypatch.context() as plain:
        plain.setattr(launcher, "on_embeddings", lambda run, **_: run)
        return once, launcher.start(tmp_path / "each", "recognition", made, in_process=True)


def same_training(once: Path, each: Path) -> None:
    assert losses(once) == pytest.approx(losses(each), rel=1e-5)
    one, other = (checkpoint.read_weights(checkpoint.resolve(run)) for run in (once, each))
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=1e-5, atol=1e-5)


def sampling(view: View = DRAWN, **changes: Any) -> Sampling:
    return Sampling(**({"views": {"video": view}, "pairing": "single", "draws": 3} | changes))


def of_epoch(plan: Plan, epoch: int) -> list[Any]:
    first = epoch * plan.rows_per_epoch
    return [plan.row(i).clips[0][0] for i in range(first, first + plan.rows_per_epoch)]


def halves(catalog: Catalog) -> Catalog:
    """With two segments in each recording, of times at which it has frames."""
    segments = [
        Segment(recording=r.id, name="half", label=f"{k}", start_s=start_s, end_s=start_s + 0.3)
        for r in catalog.recordings
        for k, start_s in enumerate((0.0, 0.15))
    ]
    return replace(catalog, segments=tuple(segments))


@pytest.mark.parametrize("unit", ["recording", "half"])
def test_the_draws_of_a_unit_are_shown_in_turn(root: Path, unit: str) -> None:
    view = replace(DRAWN, frames=3)
    plan = Plan(halves(Catalog.load(root / "catalog")).select("train"), sampling(view, unit=unit), seed=0)
    epochs = [of_epoch(plan, epoch) for epoch in range(6)]
    for k in range(3):
        assert set(epochs[k]) == set(epochs[k + 3])
        assert epochs[k] != epochs[k + 3]  # in another order
    shown = {clip for epoch in epochs for clip in epoch}
    assert len(shown) == 3 * plan.rows_per_epoch
    assert {clip for recording in plan.drawn for clip in plan.clips_of(recording)} == shown
    assert {clip.recording for clip in plan.clips_of(2)} == {2}
    assert len({clip.region for clip in shown}) == len(shown)
    assert len({clip_key(clip) for clip in shown}) == len(shown)
    assert len({plan.row(i).seed for i in range(6 * plan.rows_per_epoch)}) == 6 * plan.rows_per_epoch


def test_how_many_rows_a_unit_has() -> None:
    still = replace(DRAWN, fps=None, geometry=Geometry())
    assert sampling().rows_per_unit == 3
    assert sampling(draws=None).rows_per_unit is None
    assert sampling(still).rows_per_unit == sampling(still, draws=None).rows_per_unit == 1
    assert sampling(replace(still, spread="random")).rows_per_unit == 3
    assert sampling(replace(still, geometry=DRAWN.geometry)).rows_per_unit == 3
    assert sampling(replace(still, fps=5.0), draws=None).rows_per_unit is None
    pair = {"a": replace(still, perspective="ego"), "b": replace(still, perspective="exo")}
    assert sampling(views=pair, pairing="paired", draws=None).rows_per_unit is None
    for wrong in ({"draws": 0}, {"views": pair, "pairing": "paired"}):
        with pytest.raises(UserError, match=r"draws is \d with pairing"):
            sampling(**wrong)


def test_training_is_that_with_the_encoder_in_every_pass(
    root: Path, byov: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded = []
    before = ClipEncoder.forward

    def counted(self: ClipEncoder, clips: torch.Tensor) -> torch.Tensor:
        embedded.append(len(clips))
        return before(self, clips)

    monkeypatch.setattr(ClipEncoder, "forward", counted)
    once, each = both(tmp_path, monkeypatch, probe(root, byov))
    assert sum(size for size in embedded if size != 1) == 8 * 2 + 7 * 4  # a model is built with one clip
    assert not (once / frozen_embeddings.FOLDER).exists()
    assert len(set(losses(once))) == 7
    same_training(once, each)


@pytest.mark.ray
def test_actors_embed_for_workers(
    root: Path, byov: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ray_cluster: None
) -> None:
    made = probe(root, byov, steps=5)
    here = launcher.start(tmp_path / "here", "recognition", made, in_process=True, until=4)
    monkeypatch.setattr(frozen_embeddings, "write_embeddings", lambda *_: pytest.fail("embedded in this process"))
    run = launcher.start(tmp_path / "run", "recognition", made, in_process=False, until=4)
    vectors = [sorted((of / frozen_embeddings.FOLDER).glob("*o.npy")) for of in (here, run)]
    assert len(vectors[0]) == 8
    for one, other in zip(*vectors, strict=True):
        np.testing.assert_allclose(np.load(one), np.load(other), rtol=1e-5, atol=1e-5)
    same_training(run, here)


def test_clips_that_are_alike_are_embedded_once_in_the_steps_precision(
    root: Path, byov: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BYOV's recipe has a clip per video; here of the cached features of its frames."""
    made = probe(root, byov, steps=3, fps=None, draws=None, geometry=Geometry(fit="squash", via_px=256))
    made = replace(made, data=replace(made.data, cache_features=True))
    made = replace(made, compute=replace(made.compute, precision="bfloat16"))
    embedded = []
    before = ClipEncoder.forward

    def noted(self: ClipEncoder, clips: torch.Tensor) -> torch.Tensor:
        if torch.is_inference_mode_enabled():
            embedded.append((len(clips), clips.dtype, torch.is_autocast_enabled("cpu")))
        return before(self, clips)

    monkeypatch.setattr(ClipEncoder, "forward", noted)
    once, each = both(tmp_path, monkeypatch, made)
    assert embedded == [(1, torch.float16, True)] * 8
    same_training(once, each)


def test_rows_differ_in_nothing_but_the_clip(root: Path, tmp_path: Path) -> None:
    catalog, wanted = Catalog.load(root / "catalog"), sampling(labels={"action": 2})
    plan = Plan(catalog.select("train"), wanted, seed=0)
    data = Data(catalog=root / "catalog", max_quarantined=0.5)
    for number in plan.drawn:
        keys = np.array(sorted(clip_key(clip) for clip in plan.clips_of(number)))
        write_embeddings(tmp_path, catalog.recordings[number], keys, np.stack([keys % 7, keys % 5], 1).astype("f4"))
    (tmp_path / "embedded.json").write_text('{"width": 2}')
    video = RowDecoder(plan, data, SHARD).decode(np.arange(24))
    plan.embedded = tmp_path
    found = RowDecoder(plan, data, SHARD).decode(np.arange(24))
    clips = [plan.row(i).clips[0][0] for i in range(24)]
    keys = [clip_key(clip) for clip in clips if clip]
    assert found.pop("video")[:, 0].tolist() == [[key % 7, key % 5] for key in keys]
    video.pop("video")
    assert found.keys() == video.keys()
    assert all(np.array_equal(found[name], video[name]) for name in found)
    assert "video/label/action" in found
    other = Plan(plan.catalog, wanted, seed=1)
    other.embedded = tmp_path
    with pytest.raises(UserError, match=r"no embedding of a clip of clips/.*, but of 3 clips; .* remove that folder"):
        RowDecoder(other, data, SHARD).decode(np.arange(24))


def test_it_is_resumed_with_what_is_embedded_already(
    root: Path, byov: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = probe(root, byov)
    whole = launcher.start(tmp_path / "whole", "recognition", made, in_process=True)
    run = launcher.start(tmp_path / "run", "recognition", made, in_process=True, until=3)
    folder = run / frozen_embeddings.FOLDER
    facts = json.loads((folder / "embedded.json").read_text())
    assert facts["encoder"] == str(checkpoint.resolve(byov))
    assert (facts["draws"], facts["seed"], facts["view"]["frames"]) == (2, 0, 6)
    (folder / "clips__nod0__ego.npy").unlink()
    for changed, message in (
        ({"fingerprint": "another"}, r"embedded.json: .*fingerprint 'another'.*another run's; remove .*embedded, "),
        ({"seed": 5}, r"have seed 5, and this run's have 0"),
    ):
        (folder / "embedded.json").write_text(json.dumps(facts | changed))
        with pytest.raises(UserError, match=message):
            launcher.resume(run, in_process=True)
    (folder / "embedded.json").write_text(json.dumps(facts))
    embedded = []
    write = frozen_embeddings.write_embeddings
    monkeypatch.setattr(frozen_embeddings, "write_embeddings", lambda *of: (embedded.append(of[1].id), write(*of)))
    launcher.resume(run, in_process=True)
    assert embedded == ["clips/nod0/ego"]
    assert not folder.exists()
    same_training(run, whole)


def write_images(root: Path) -> Catalog:
    """Four folders of 14 images, of which one has a damaged image in the middle."""
    members = []
    for k in range(4):
        files = image_folders.write(root / f"images{k}", range(14))
        facts = {"scene": f"s{k}", "path": f"images{k}", "num_frames": 14}
        members.append((camera("ego", kind="frames", action="nod" if k % 2 else "wave", **facts), "train"))
    files[7].write_bytes(b"cut")
    catalog = Catalog(root, tuple(r for r, _ in members), protocols=one_protocol(members))
    catalog.save(root / "catalog")
    return catalog


def test_a_recording_that_is_damaged_is_replaced_as_without(
    byov: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its clips that do not show the damage are read."""
    catalog = write_images(tmp_path)
    made = probe(tmp_path, byov, steps=12, fps=60.0, draws=6)
    with pytest.raises(UserError, match=r"frame_7\.jpg"):
        launcher.start(tmp_path / "no", "recognition", made, in_process=True)
    made = replace(made, data=replace(made.data, max_quarantined=0.3))
    plan = Plan(catalog.select("train"), made.sampling(), made.seed)
    damaged = [7 in clip.frames for clip in plan.clips_of(3)]
    assert 0 < sum(damaged) < 6
    embedded = {}
    write = frozen_embeddings.write_embeddings
    monkeypatch.setattr(
        frozen_embeddings, "write_embeddings", lambda *of: (embedded.update({of[1].scene: of[3]}), write(*of))
    )
    once, each = both(tmp_path, monkeypatch, made)
    assert {scene: int(np.isnan(of).all(1).sum()) for scene, of in embedded.items()} == {
        "s0": 0, "s1": 0, "s2": 0, "s3": sum(damaged)
    }  # fmt: skip
    assert quarantined(once) == quarantined(each)
    assert quarantined(once)[0]["recording"] == "d/s3/ego"
    same_training(once, each)
    part = launcher.start(tmp_path / "part", "recognition", made, in_process=True, until=1)
    image_folders.write(tmp_path / "images3", range(14))
    embedded.clear()
    launcher.resume(part, in_process=True, until=2)
    assert {scene: bool(np.isfinite(of).all()) for scene, of in embedded.items()} == {"s3": True}


def test_what_is_not_embedded_beforehand(
    root: Path, byov: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fewer samples than clips, an endless number of clips, an encoder that changes, and clips that do."""
    monkeypatch.setattr(frozen_embeddings, "_embed", lambda *_, **__: pytest.fail("embedded beforehand"))
    flipped = replace(NO_AUGMENTATION, flip=0.5)
    for name, made in {
        "short": probe(root, byov, steps=4),
        "endless": probe(root, byov, draws=None),
        "tuned": probe(root, byov, encoder_lr=0.1),
        "augmented": probe(root, byov, augmentation=flipped),
    }.items():
        launcher.start(tmp_path / name, "recognition", made, in_process=True, until=1)
    with pytest.raises(pytest.fail.Exception):
        launcher.start(tmp_path / "long", "recognition", probe(root, byov, steps=5), in_process=True)


def test_an_embedding_that_is_not_finite_is_named(
    root: Path, byov: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ClipEncoder, "forward", lambda self, clips: torch.full((len(clips), 16), torch.nan))
    with pytest.raises(UserError, match=r"the embedding of clips/nod0/e.o from frame \d+ on is not finite"):
        launcher.start(tmp_path / "nan", "recognition", probe(root, byov), in_process=True)
