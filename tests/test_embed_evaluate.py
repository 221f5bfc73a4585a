from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import videos
from safetensors.torch import load_file, save_file
from tiny_run import SIZE, method_config, train, write_catalog
from torch import nn

from crossview.datasets.catalog import Catalog
from crossview.datasets.sampling.geometry import SQUASH
from crossview.datasets.sampling.spec import View
from crossview.datasets.video import seeking
from crossview.datasets.video.frames import UnreadableVideo, sequential
from crossview.downstream.phases.config import Options
from crossview.downstream.table import from_arrow
from crossview.errors import UserError
from crossview.methods.byov.model import Model
from crossview.methods.method import build
from crossview.platform import checkpoint
from crossview.platform.config import Data
from crossview.platform.data import feature_cache as features
from crossview.platform.data import video_reader as recording
from crossview.platform.data.feature_cache import cache
from crossview.platform.data.feature_files import read_features
from crossview.platform.evaluate import frame_embeddings
from crossview.platform.evaluate.opened import open_run
from crossview.platform.evaluate.runner import evaluate


def embed(run: Path, **options: Any) -> dict[str, Path]:
    return frame_embeddings.embed(open_run(run, in_process=True), **options)


def export(run: Path, catalog: Catalog, out: Path, *, actors: int | None = None, **options: Any) -> Path:
    opened = open_run(run, in_process=actors is None, actors=actors or 1)
    return frame_embeddings.export(opened, catalog, out, **options)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("clips")
    write_catalog(root)
    return root


@pytest.fixture(scope="module")
def run(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("runs") / "plain", root)


def vectors(file: Path) -> np.ndarray:
    column = pq.read_table(file)["vector"].combine_chunks()
    return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)


def test_embed_writes_every_frame_of_every_row(run: Path, root: Path) -> None:
    files = embed(run, split="val")
    assert set(files) == {"trained", "frozen features", "frozen mean", "no time code", "random init"}
    catalog = Catalog.load(root / "catalog")
    for row, file in files.items():
        table = pq.read_table(file)
        assert table.num_rows == sum(r.num_frames for r in catalog.select("val").recordings), row
        assert table["is_ego"].to_pylist() == sorted(table["is_ego"].to_pylist(), reverse=True)
        for video in set(table["video"].to_pylist()):
            part = table.filter([v == video for v in table["video"].to_pylist()])
            assert part["frame"].to_pylist() == list(range(part.num_rows))
            assert part["label"].to_pylist() == catalog.frame_labels["phase"][video].tolist()
    assert vectors(files["trained"]).shape[1] == 16
    assert vectors(files["frozen features"]).shape[1] == 24
    assert not np.array_equal(vectors(files["trained"]), vectors(files["random init"]))


def test_trained_row_is_what_the_loaded_method_embeds(run: Path, root: Path) -> None:
    table = pq.read_table(embed(run, split="val")["trained"])
    catalog = Catalog.load(root / "catalog").select("val")
    recording = next(r for r in catalog.recordings if r.perspective == "exo")
    one = Catalog(catalog.root, (recording,))
    config = method_config()
    model = checkpoint.load(run)
    array = np.load(cache_file(cache("byov", config, one, run / "own", in_process=True)))
    expected = model.embed(torch.from_numpy(array)[None])[0].detach().numpy()
    mine = [row["vector"] for row in table.to_pylist() if row["video"] == recording.id]
    np.testing.assert_allclose(np.array(mine), expected, rtol=1e-5, atol=1e-6)


def cache_file(catalog: Catalog) -> Path:
    return catalog.file(catalog.recordings[0])


def test_random_init_has_the_seed_of_the_run(run: Path, root: Path) -> None:
    torch.manual_seed(3)
    fresh = build("byov", method_config()).eval()
    exported = vectors(embed(run, split="val")["random init"])
    catalog = Catalog.load(root / "catalog").select("val")
    first = min((r for r in catalog.recordings if r.perspective == "ego"), key=lambda r: r.path)
    stored = cache("byov", method_config(), Catalog(root, (first,)), run / "own", in_process=True)
    expected = fresh.embed(torch.from_numpy(np.load(cache_file(stored)))[None])[0].detach().numpy()
    np.testing.assert_allclose(exported[: len(expected)], expected, rtol=1e-5, atol=1e-6)


def test_random_init_keeps_the_frozen_weights_of_the_checkpoint(run: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(run, tmp_path / "run"))
    file = checkpoint.resolve(copied) / checkpoint.FROZEN
    frozen = {name: weight + 1 for name, weight in load_file(file).items()}  # as where a file of weights was read
    assert frozen
    file.unlink()  # checkpoints share it as a hard link
    save_file(frozen, file)
    opened = open_run(copied, in_process=True)
    found, trained = opened.random_init.state_dict(), opened.trained.state_dict()
    assert all(torch.equal(found[name], weight) for name, weight in frozen.items())
    assert any(not torch.equal(found[name], value) for name, value in trained.items())


def test_statistics_of_frozen_parts_are_frozen_too() -> None:
    class Statistics(Model):
        def __init__(self) -> None:
            nn.Module.__init__(self)
            self.still, self.learned = nn.BatchNorm1d(2).requires_grad_(requires_grad=False), nn.BatchNorm1d(2)

    kept = {f"still.{name}" for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")}
    assert set(checkpoint.frozen_state(Statistics())) == kept


def test_result_depends_neither_on_the_batch_nor_on_the_other_recordings(run: Path, root: Path, tmp_path: Path) -> None:
    catalog = Catalog.load(root / "catalog")
    whole = pq.read_table(export(run, catalog, tmp_path / "whole.parquet"))
    backwards = dataclasses.replace(catalog, recordings=catalog.recordings[::-1])
    again = pq.read_table(export(run, backwards, tmp_path / "again.parquet"))
    assert whole.equals(again)
    alone = Catalog(root, catalog.recordings[3:4])
    single = pq.read_table(export(run, alone, tmp_path / "single.parquet"))
    name = catalog.recordings[3].id
    same = whole.filter([v == name for v in whole["video"].to_pylist()])
    assert same["vector"].to_pylist() == single["vector"].to_pylist()
    assert single["label"].null_count == single.num_rows  # this catalog has no phases
    other = pq.read_table(export(run, alone, tmp_path / "other.parquet", batch=5))
    np.testing.assert_allclose(np.array(other["vector"].to_pylist()), np.array(single["vector"].to_pylist()), atol=2e-3)


def test_what_is_there_is_kept_until_the_checkpoint_or_the_labels_change(run: Path, root: Path) -> None:
    first = {row: file.stat().st_mtime_ns for row, file in embed(run, split="val").items()}
    assert {r: f.stat().st_mtime_ns for r, f in embed(run, split="val").items()} == first
    only = embed(run, split="val", baselines="none")
    assert list(only) == ["trained"]
    catalog = Catalog.load(root / "catalog")
    changed = {r.id: np.zeros(r.num_frames, np.int32) for r in catalog.recordings}
    relabelled = dataclasses.replace(catalog, frame_labels={"phase": changed})
    table = pq.read_table(embed(run, split="val", catalog=relabelled)["trained"])
    assert set(table["label"].to_pylist()) == {0}


def test_another_checkpoint_is_embedded_anew(run: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(run, tmp_path / "run"))
    before = vectors(embed(copied, split="val", baselines="none")["trained"])
    file = checkpoint.resolve(copied) / checkpoint.MODEL
    weights = {name: weight + 0.1 for name, weight in load_file(file).items()}
    file.unlink()
    save_file(weights, file)
    assert not np.array_equal(vectors(embed(copied, split="val", baselines="none")["trained"]), before)


def test_a_mended_or_changed_video_is_embedded_anew(tmp_path: Path) -> None:
    catalog = write_catalog(tmp_path / "clips")
    run = train(tmp_path / "run", tmp_path / "clips", max_quarantined=0.5)
    video = catalog.select("val").recordings[0]
    whole = embed(run, split="val", baselines="none")["trained"]
    before = vectors(whole)
    videos.write(catalog.file(video), frames=video.num_frames, gop=5)
    changed = vectors(embed(run, split="val", baselines="none")["trained"])
    assert changed.shape == before.shape
    assert not np.array_equal(changed, before)
    facts = catalog.file(video).stat()
    good = catalog.file(video).read_bytes()
    catalog.file(video).write_bytes(bytes(len(good)))
    os.utime(catalog.file(video), ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert len(vectors(embed(run, split="val", baselines="none")["trained"])) == len(before)  # kept
    os.utime(catalog.file(video), ns=(0, 0))
    assert len(vectors(embed(run, split="val", baselines="none")["trained"])) < len(before)
    catalog.file(video).write_bytes(good)
    os.utime(catalog.file(video), ns=(0, 0))  # as after a failure that lies not in the file
    assert np.array_equal(vectors(embed(run, split="val", baselines="none")["trained"]), changed)


def test_a_base_that_float16_cannot_hold_is_embedded_from_video(
    run: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = Catalog.load(root / "catalog").select("val")
    expected = vectors(export(run, catalog, tmp_path / "cached.parquet"))
    calls: list[int] = []

    def overflow(self: Model, video: torch.Tensor) -> torch.Tensor:
        calls.append(video.shape[1])
        if len(calls) % 2:
            return self.base(video).half()
        raise UserError("its tokens exceed float16")

    monkeypatch.setattr(Model, "frozen_features", overflow)
    found = vectors(export(run, catalog, tmp_path / "video.parquet", batch=5))
    assert len(calls) == 2 * len(catalog.recordings)  # the second chunk of each recording failed
    np.testing.assert_allclose(found, expected, atol=2e-3)
    with pytest.raises(ValueError, match="its tokens exceed float16"):
        cache("byov", method_config(), catalog, tmp_path, in_process=True, batch=5)


@pytest.mark.parametrize("decoder", ["pyav", "decord"])
def test_a_recording_is_read_in_chunks_within_the_time_limit(
    root: Path, monkeypatch: pytest.MonkeyPatch, decoder: Literal["pyav", "decord"]
) -> None:
    catalog = Catalog.load(root / "catalog")
    one = catalog.recordings[0]
    limits: list[float] = []

    def opened(path: Path, time_limit_s: float) -> Any:
        limits.append(time_limit_s)
        return sequential(path, time_limit_s)

    monkeypatch.setattr(seeking, "sequential", opened)
    data = Data(catalog=root, decoder=decoder, time_limit_s=20.0)
    view = View(perspective="any", frames=4, size_px=64, geometry=SQUASH)
    chunks = list(recording.video(catalog.source(one), one.num_frames, view, data, 4))
    assert [len(c) for c in chunks] == [4, 4, 4, 2]
    assert [videos.barcode(p.permute(1, 2, 0).numpy()) for p in torch.cat(chunks)] == list(range(14))
    assert limits == [20.0]  # one opening of the file; before decord's own, for the size of its first frame
    longer = dataclasses.replace(one, num_frames=20)
    with pytest.raises(UnreadableVideo, match="14 frames"):
        list(recording.video(catalog.source(one), longer.num_frames, view, data, 4))


def test_features_are_computed_once_and_a_cut_file_is_rebuilt(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog, config = Catalog.load(root / "catalog").select("train"), method_config()
    stored = cache("byov", config, catalog, tmp_path, in_process=True)
    assert {r.kind for r in stored.recordings} == {"features"}
    assert [(r.id, r.num_frames) for r in stored.recordings] == [(r.id, r.num_frames) for r in catalog.recordings]
    assert stored.frame_labels.keys() == catalog.frame_labels.keys()
    files = [stored.file(r) for r in stored.recordings]
    before = [f.read_bytes() for f in files]
    array = np.load(files[0])
    assert array.dtype == np.float16
    assert array.shape == (catalog.recordings[0].num_frames, (SIZE // 16) ** 2, 24)

    decoded: list[str] = []
    real = features.clips
    monkeypatch.setattr(
        features, "clips", lambda m, source, *a, **k: (decoded.append(source.path.name), real(m, source, *a, **k))[1]
    )
    cache("byov", config, catalog, tmp_path, in_process=True)
    assert decoded == []
    videos.truncate(files[1], 0.5)
    cache("byov", config, catalog, tmp_path, in_process=True)
    assert decoded == [Path(catalog.recordings[1].path).name]
    assert [f.read_bytes() for f in files] == before


def test_another_base_never_reads_these_features(root: Path, tmp_path: Path) -> None:
    catalog = Catalog.load(root / "catalog").select("val")
    config = method_config()
    first = cache("byov", config, catalog, tmp_path, in_process=True)
    other = dataclasses.replace(config, base=dataclasses.replace(config.base, seed=9))
    second = cache("byov", other, catalog, tmp_path, in_process=True)
    assert first.root != second.root
    assert not np.array_equal(np.load(cache_file(first)), np.load(cache_file(second)))
    model = build("byov", config).eval()
    assert cache("byov", config, catalog, tmp_path, in_process=True, model=model).root == first.root
    with torch.no_grad():  # the configuration stays, as where a file of weights is replaced
        next(p for p in model.parameters() if not p.requires_grad).add_(1)
    assert cache("byov", config, catalog, tmp_path, in_process=True, model=model).root != first.root
    same_base = dataclasses.replace(config, frames=8)
    assert cache("byov", same_base, catalog, tmp_path, in_process=True).root == first.root


@pytest.mark.parametrize(
    ("more", "width", "kind"), [(1, (2, 3), "f2"), (-1, (2, 3), "f2"), (0, (2, 3), "f4"), (0, (2, 3, 4), "f2")]
)
def test_features_of_another_length_type_or_shape_are_refused(
    root: Path, tmp_path: Path, more: int, width: tuple[int, ...], kind: str
) -> None:
    video = Catalog.load(root / "catalog").recordings[0]
    np.save(tmp_path / "fine.npy", np.zeros((video.num_frames, 2, 3), "f2"))
    assert read_features(tmp_path / "fine.npy", video).shape == (video.num_frames, 2, 3)
    np.save(tmp_path / "other.npy", np.zeros((video.num_frames + more, *width), kind))
    with pytest.raises(UnreadableVideo, match=rf"must be float16 \({video.num_frames}, N, D\): delete the file"):
        read_features(tmp_path / "other.npy", video)


def test_a_changed_video_is_computed_anew(tmp_path: Path) -> None:
    catalog = write_catalog(tmp_path / "clips").select("val")
    config = method_config()
    first = cache("byov", config, catalog, tmp_path, in_process=True)
    videos.write(catalog.file(catalog.recordings[0]), frames=catalog.recordings[0].num_frames, gop=5)
    second = cache("byov", config, catalog, tmp_path, in_process=True)
    assert [r.path == s.path for r, s in zip(first.recordings, second.recordings, strict=True)] == [
        False,
        True,
        True,
        True,
    ]


def test_training_on_cached_features_embeds_as_training_on_video(root: Path, run: Path, tmp_path: Path) -> None:
    cached = train(tmp_path / "cached", root, cache_features=True)
    plain = embed(run, split="val")
    for row, file in embed(cached, split="val").items():
        if row in ("frozen features", "frozen mean", "random init"):
            np.testing.assert_array_equal(vectors(file), vectors(plain[row]))
    assert len(list((root / "catalog" / "features").iterdir())) == 1  # embedding read what training had computed


def test_an_unreadable_video_is_quarantined_and_too_many_stop(tmp_path: Path) -> None:
    catalog = write_catalog(tmp_path / "clips").select("train")
    broken = catalog.recordings[1]
    videos.corrupt(catalog.file(broken))
    with pytest.raises(ValueError, match=r"1 of 4 recordings are unreadable(.|\n)*wave_exo_0\.mp4"):
        cache("byov", method_config(), catalog, tmp_path / "out", in_process=True)
    data = Data(catalog=tmp_path, max_quarantined=0.3)
    stored = cache("byov", method_config(), catalog, tmp_path / "out", in_process=True, data=data)
    assert broken.id not in {r.id for r in stored.recordings}
    assert len(stored.recordings) == 3
    listed = pq.read_table(stored.root / "quarantine.parquet").to_pylist()
    assert [row["recording"] for row in listed] == [broken.id]


def test_evaluate_scores_every_row_and_stores_it(run: Path) -> None:
    table = evaluate(run, split="val", in_process=True, options={"phases": Options(few_shot=True)})
    rows = from_arrow(table)
    assert next(iter(rows)) == "trained"
    assert set(rows) == {"trained", "frozen features", "frozen mean", "no time code", "random init", "time only"}
    assert {len(scores) for scores in rows.values()} == {8}
    # All clips here are cut into equal thirds: the clock knows every phase.
    assert rows["time only"]["phase_f1/regular"][0] > 0.9
    folder = run / "evaluations"
    assert pq.read_table(run / "results.parquet").equals(table)
    assert not (folder / "val.parquet").exists()
    text = (folder / "val.md").read_text()
    assert "| phase_f1/ego2exo |" in text
    assert "4 videos (2 ego, 2 exo), 58 frames" in text
    assert "This is small" in text
    assert (
        pq.read_table(folder / "val-phases-few-shot.parquet").num_rows == 6 * 5
    )  # shots 1, 2, 3, half and all of 4 videos


def test_classifiers_are_never_fitted_on_what_is_evaluated(run: Path) -> None:
    with pytest.raises(ValueError, match="--split is 'val' and --fit-split 'test'"):
        evaluate(run, split="val", fit_split="test", in_process=True)
    with pytest.raises(ValueError, match="--split is 'val' and --fit-split 'val'"):
        evaluate(run, split="val", fit_split="val", in_process=True)


def test_each_evaluation_on_test_is_counted(run: Path) -> None:
    evaluate(run, split="test", in_process=True, options={"phases": Options(k=5)})
    evaluate(run, split="test", in_process=True, options={"phases": Options(k=5)})
    assert "scored on test 2 time(s)" in (run / "evaluations" / "test.md").read_text()


def test_actions_are_scored_apart(tmp_path: Path) -> None:
    write_catalog(tmp_path / "clips", actions=("wave", "nod"))
    run = train(tmp_path / "run", tmp_path / "clips")
    rows = from_arrow(evaluate(run, in_process=True))
    parts = pq.read_table(run / "evaluations" / "val-phases-actions.parquet").to_pylist()
    mine = [p["value"] for p in parts if p["row"] == "trained" and p["metric"] == "kendall_tau"]
    assert sorted({p["action"] for p in parts}) == ["nod", "wave"]
    assert rows["trained"]["kendall_tau"][0] == pytest.approx(np.mean(mine))


def test_a_catalog_without_phases_is_refused(tmp_path: Path) -> None:
    write_catalog(tmp_path / "clips", labels=False)
    run = train(tmp_path / "run", tmp_path / "clips")
    with pytest.raises(ValueError, match=r"4 of 4 recordings of split 'val' .* no frame labels named 'phase'"):
        evaluate(run, in_process=True)


@pytest.mark.ray
def test_ray_actors_give_the_same_bits(run: Path, root: Path, tmp_path: Path, ray_cluster: None) -> None:
    catalog = Catalog.load(root / "catalog").select("val")
    torch.set_num_threads(1)
    here = export(run, catalog, tmp_path / "here.parquet")
    there = export(run, catalog, tmp_path / "there.parquet", actors=2)
    assert pq.read_table(here).equals(pq.read_table(there))
    stored = cache("byov", method_config(), catalog, tmp_path / "one", in_process=True)
    on_ray = cache("byov", method_config(), catalog, tmp_path / "two", actors=1)
    for one, two in zip(stored.recordings, on_ray.recordings, strict=True):
        assert stored.file(one).read_bytes() == on_ray.file(two).read_bytes()


@pytest.mark.ray
def test_errors_on_ray_are_as_clear_as_in_process(tmp_path: Path, ray_cluster: None) -> None:
    catalog = write_catalog(tmp_path / "clips").select("test")
    videos.corrupt(catalog.file(catalog.recordings[0]))
    with pytest.raises(ValueError, match="1 of 2 recordings are unreadable"):
        cache("byov", method_config(), catalog, tmp_path / "out", actors=1)
