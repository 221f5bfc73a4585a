"""Evaluation clips, their embeddings, and the tasks that score them, on a tiny run over synchronized files."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import videos
from rich.console import Console
from synchronized import SEEN, camera, write_synchronized
from tiny_run import train

from crossview.datasets.catalog import Catalog
from crossview.datasets.sampling.evaluation_clips import evaluation_clips
from crossview.datasets.sampling.spec import Sampling, View
from crossview.downstream.action_probe.config import Options as ProbeOptions
from crossview.downstream.clip_table import ClipTable
from crossview.downstream.retrieval.clip_retrieval import clip_retrieval
from crossview.downstream.retrieval.config import Options as RetrievalOptions
from crossview.downstream.table import from_arrow
from crossview.methods.byov.model import Model
from crossview.platform import checkpoint
from crossview.platform.config import Data
from crossview.platform.data.video_reader import video
from crossview.platform.evaluate import clip_embeddings as module
from crossview.platform.evaluate.clip_embeddings import clip_windows
from crossview.platform.evaluate.opened import open_run
from crossview.platform.evaluate.runner import evaluate
from crossview.platform.report.run_report import report
from crossview.platform.report.score_table import terminal


def embed_clips(run: Path, *, per_scene: int = 4, actors: int | None = None, **options) -> dict[str, Path]:
    opened = open_run(run, in_process=actors is None, actors=actors or 1)
    return module.embed_clips(opened, per_scene=per_scene, **options)


def views(*found: View) -> Sampling:
    """A method's views, named 0, 1, ..."""
    pairing = {1: "single", 2: "unpaired"}.get(len(found), "group")
    return Sampling(views={str(k): view for k, view in enumerate(found)}, pairing=pairing)


def both(**facts) -> dict:
    view = View(perspective="any", **facts)
    return {"ego": view, "exo": view}


def of(*recordings) -> Catalog:
    return Catalog(Path(), recordings)


def test_clips_start_evenly_and_show_the_same_time_from_every_camera() -> None:
    # exo starts 0.5 s later at half the rate: both show 0.5 s to 59/30 s.
    pair = [camera("ego"), camera("exo", fps=15.0, num_frames=30, start_offset_s=0.5)]
    ego, exo = evaluation_clips(of(*pair), both(frames=4, fps=7.5), 3)
    assert ego.start_s.tolist() == pytest.approx([0.5, 0.5 + 8 / 15, 0.5 + 16 / 15])  # the last ends at 58/30 s
    assert ego.frames.tolist() == [[15, 19, 23, 27], [31, 35, 39, 43], [47, 51, 55, 59]]
    assert exo.frames.tolist() == [[0, 2, 4, 6], [8, 10, 12, 14], [16, 18, 20, 22]]
    assert ego.instant.tolist() == exo.instant.tolist() == [0, 1, 2]
    for a, b in zip(ego.frames, exo.frames, strict=True):
        assert a / 30 == pytest.approx(0.5 + b / 15, abs=1 / 30)
    again = evaluation_clips(of(*pair[::-1]), both(frames=4, fps=7.5), 3)
    assert np.array_equal(again[1].frames, ego.frames)


def test_a_short_scene_repeats_its_last_frame_and_has_no_equal_clips() -> None:
    (alone,) = evaluation_clips(of(camera("ego", num_frames=5)), both(frames=8, fps=30.0), 4)
    assert alone.frames.tolist() == [[0, 1, 2, 3, 4, 4, 4, 4]]
    (tight,) = evaluation_clips(of(camera("ego", num_frames=6)), both(frames=4, fps=30.0), 8)
    assert tight.frames.tolist() == [[0, 1, 2, 3], [1, 2, 3, 4], [2, 3, 4, 5]]
    assert tight.instant.tolist() == [0, 1, 2]
    # What the shorter camera does not show is shown from neither.
    pair = [camera("ego", num_frames=60), camera("exo", num_frames=3)]
    assert [w.frames.tolist() for w in evaluation_clips(of(*pair), both(frames=4, fps=30.0), 4)] == [[[0, 1, 2, 2]]] * 2


def test_views_without_a_rate_take_equal_parts_of_the_span() -> None:
    (alone,) = evaluation_clips(of(camera("ego", num_frames=61)), both(frames=3), 3)
    assert alone.frames.tolist() == [[0, 10, 20], [20, 30, 40], [40, 50, 60]]


def test_cameras_that_never_run_together_share_no_instant() -> None:
    scene = [camera("a"), camera("b", start_offset_s=9.0), camera("c"), camera("d", start_offset_s=9.0)]
    other = camera("a", scene="t")
    a, b, c, d, t = (w.instant.tolist() for w in evaluation_clips(of(*scene, other), both(frames=4, fps=30.0), 2))
    assert a == c == t == [0, 1]
    assert b == d == [2, 3]
    with pytest.raises(ValueError, match="clips per scene is 0"):
        evaluation_clips(of(*scene), both(frames=4), 0)


def test_scenes_of_one_name_in_two_datasets_share_no_instant() -> None:
    recordings = [camera("ego"), camera("exo1", dataset="other", num_frames=30)]
    found = evaluation_clips(of(*recordings), both(frames=4, fps=30.0), 2)
    alone = evaluation_clips(of(*recordings[:1]), both(frames=4, fps=30.0), 2)
    assert found[0].frames.tolist() == alone[0].frames.tolist()
    assert found[0].frames.max() > 30


def test_a_clip_of_a_perspective_is_the_first_view_that_fits() -> None:
    ego, exo, any_ = (
        View(perspective="ego", frames=2),
        View(perspective="exo", frames=3),
        View(perspective="any", frames=4),
    )
    for given, expected in (
        ((exo, ego), (ego, exo)),
        ((any_,), (any_, any_)),
        ((ego,), (ego, ego)),
        ((any_, exo), (any_, exo)),  # its own before "any", wherever that is
        ((ego, any_), (ego, any_)),
    ):
        assert tuple(views(*given).view_for(p) for p in ("ego", "exo")) == expected


def test_views_that_fit_a_perspective_must_have_one_size() -> None:
    small, large = (View(perspective="exo", frames=2, size_px=size) for size in (32, 64))
    with pytest.raises(ValueError, match=r"exo views have sizes \[32, 64\]; exo recordings are embedded at one size"):
        views(small, large).view_for("exo")
    with pytest.raises(ValueError, match="ego recordings are embedded at one size"):
        views(small, large).view_for("ego")
    ego = View(perspective="ego", frames=2, size_px=64)
    assert views(small, ego).view_for("ego") == ego


TWO = {"retrieval": RetrievalOptions(clips_per_scene=2), "action_probe": ProbeOptions(clips_per_scene=2)}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synchronized(tmp_path_factory.mktemp("synchronized")).root


@pytest.fixture(scope="module")
def run(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("runs") / "tiny", root, views=SEEN)


def read(file: Path) -> ClipTable:
    return ClipTable.from_table(pq.read_table(file))


def test_every_row_holds_every_clip_and_the_trained_one_is_the_loaded_methods(run: Path, root: Path) -> None:
    files = embed_clips(run, split="val", per_scene=2)
    assert set(files) == {"trained", "frozen features", "frozen mean", "no time code", "random init"}
    catalog = Catalog.load(root / "catalog").select("val")
    for row, file in files.items():
        e = read(file)
        assert len(e) == 2 * len(catalog.recordings), row
        assert set(zip(e.scene, e.view, e.action, e.subject, strict=True)) == {
            (r.scene, r.view, r.action, r.subject) for r in catalog.recordings
        }
        assert e.perspective.tolist() == sorted(e.perspective.tolist())
    model = checkpoint.load(run)
    recording = catalog.recordings[2]
    windows = clip_windows(catalog, model.config.sampling(), 2)[recording.id]
    view = model.config.sampling().view_for(recording.perspective)
    pixels = next(video(catalog.source(recording), recording.num_frames, view, Data(catalog=root), 64))
    with torch.no_grad():
        frozen = model.frozen_features(pixels[None])[0]
        expected = model.embed_clip(frozen[torch.from_numpy(windows.frames)])
        expected_mean = model.baselines()["frozen mean"](frozen[torch.from_numpy(windows.frames)]).mean(1)
    for row, vectors in (("trained", expected), ("frozen mean", expected_mean)):
        e = read(files[row])
        np.testing.assert_allclose(e.vectors[e.recording == recording.id], vectors.numpy(), rtol=1e-4, atol=1e-5)
    starts = pq.read_table(files["trained"], columns=["recording", "start_s"]).to_pylist()
    assert [s["start_s"] for s in starts if s["recording"] == recording.id] == windows.start_s.tolist()
    assert windows.start_s[0] == pytest.approx(2 / 30)


def test_clips_are_kept_until_what_they_come_from_changes(run: Path, root: Path) -> None:
    first = {row: f.stat().st_mtime_ns for row, f in embed_clips(run, split="val", per_scene=2).items()}
    again = embed_clips(run, split="val", per_scene=2)
    assert {row: f.stat().st_mtime_ns for row, f in again.items()} == first
    assert list(embed_clips(run, split="val", per_scene=2, baselines="none")) == ["trained"]
    assert len(read(embed_clips(run, split="val", per_scene=3)["trained"])) == 3 * 12
    file = root / Catalog.load(root / "catalog").select("val").recordings[0].path
    os.utime(file, ns=(0, 0))
    key = json.loads((run / "embeddings" / "val" / "clips" / "rows.json").read_text())["keys"]
    embed_clips(run, split="val", per_scene=3)
    assert json.loads((run / "embeddings" / "val" / "clips" / "rows.json").read_text())["keys"] != key


def test_a_damaged_recording_is_left_out_and_its_scene_still_answers(run: Path, root: Path, tmp_path: Path) -> None:
    tolerant = train(tmp_path / "run", root, views=SEEN, max_quarantined=0.2)
    whole = Catalog.load(root / "catalog").select("val")
    file = whole.file(whole.recordings[1])
    good = file.read_bytes()
    try:
        videos.truncate(file)
        e = read(embed_clips(tolerant, split="val")["trained"])
    finally:
        file.write_bytes(good)
    assert whole.recordings[1].id not in set(e.recording)
    pairs = {(p.query, p.gallery): p.queries for p in clip_retrieval(e).pairs}
    assert pairs["ego", "exo1"] == pairs["ego", "exo2"] - 4


def test_frozen_features_cached_or_not_and_kept_frames_give_the_same_clips(
    run: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = read(embed_clips(run, split="val")["random init"])
    cached = train(tmp_path / "cached", root, views=SEEN, cache_features=True)
    monkeypatch.setattr(module, "read_clips", None)  # nothing is decoded here
    e = read(embed_clips(cached, split="val")["random init"])
    np.testing.assert_allclose(e.vectors, plain.vectors, rtol=2e-3, atol=2e-3)
    kept = train(tmp_path / "kept", root, views=SEEN, cache_frames=True)
    e = read(embed_clips(kept, split="val")["random init"])
    np.testing.assert_array_equal(e.vectors, plain.vectors)


def test_evaluate_joins_the_tasks_and_leaves_cells_empty_where_a_row_has_no_score(run: Path) -> None:
    table = evaluate(run, split="val", tasks=("retrieval", "action_probe"), options=TWO, in_process=True)
    rows = from_arrow(table)
    shown = [f"retrieval/R@{k}/{c}" for k in (1, 5, 10) for c in ("seen", "held_out")]
    shown += [f"retrieval/R@1/within_scene/{c}" for c in ("seen", "held_out")]
    probed = [f"action_probe/{p}/{c}" for p in ("linear", "knn") for c in ("seen", "held_out")]
    assert set(rows) == {
        "trained",
        "frozen features",
        "frozen mean",
        "no time code",
        "random init",
        "chance",
        "majority",
    }
    agreed = [f"action_probe/{p}/consistency" for p in ("linear", "knn")]
    assert set(rows["trained"]) == set(rows["random init"]) == {*shown, *probed, *agreed}
    assert set(rows["chance"]) == set(shown)
    assert rows["chance"]["retrieval/R@1/held_out"] == [pytest.approx(1 / 8)]
    assert rows["majority"] == {name: [0.5] for name in probed} | {name: [1.0] for name in agreed}
    folder = run / "evaluations"
    text = (folder / "val.md").read_text()
    line = next(x for x in text.splitlines() if x.startswith("| action_probe/knn/seen |"))
    assert line.split("|")[2 + list(rows).index("chance")].strip() == ""
    assert "| ego | exo1 | seen | 8 | 8 |" in text
    assert "held-out cameras: exo2" in text
    pairs = pq.read_table(folder / "val-retrieval-pairs.parquet").to_pylist()
    assert len(pairs) == 6 * 5
    mine = [p["R@1"] for p in pairs if p["row"] == "trained" and p["seen"]]
    assert rows["trained"]["retrieval/R@1/seen"] == [pytest.approx(np.mean(mine))]
    page = report(run).read_text()
    assert "retrieval/R@1/held_out" in page
    assert page.count("on split val.") == 1  # the table of pairs is no evaluation of its own


def test_the_command_takes_several_tasks(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from crossview.platform.cli.main import main

    options = ["--action-probe.clips-per-scene", "2", "--retrieval.clips-per-scene", "2"]
    main(["evaluate", str(run), "--tasks", "action_probe", "retrieval", *options, "--debug"])
    assert "action_probe/linear/seen" in capsys.readouterr().out
    known = "name some of action_probe, anticipation, few_clips"
    with pytest.raises(ValueError, match=f"tasks is retrieval, retrieval; {known}"):
        evaluate(run, tasks=("retrieval", "retrieval"), in_process=True)
    with pytest.raises(ValueError, match="--split is 'val' and --fit-split 'val'"):
        evaluate(run, tasks=("action_probe",), fit_split="val", in_process=True)
    with pytest.raises(ValueError, match="phases needs a phase of every frame"):
        evaluate(run, tasks=("phases",), in_process=True)


def test_measures_are_taken_on_seen_cameras_of_the_split(
    run: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="byov measures nothing of its own"):
        evaluate(run, tasks=("measures",), in_process=True)
    catalog = Catalog.load(root / "catalog").select("val")
    lengths = {r.num_frames for r in catalog.recordings if r.view in SEEN}

    def measured(self: Model, batch) -> dict[str, torch.Tensor]:
        assert not torch.is_grad_enabled()
        assert not self.training
        assert batch["ego"].shape == (4, 6, 3, 32, 32)  # an epoch of val: a row per scene
        assert set(batch["exo/num_frames"].tolist()) <= lengths
        return {"gain": sum(p.sum() for p in self.parameters() if p.requires_grad)}

    monkeypatch.setattr(Model, "measures", measured)
    rows = from_arrow(evaluate(run, tasks=("measures",), in_process=True))
    assert set(rows) == {"trained", "random init"}
    assert rows["trained"]["measures/gain"] != rows["random init"]["measures/gain"]
    assert from_arrow(evaluate(run, tasks=("measures",), in_process=True)) == rows
    alone = from_arrow(evaluate(run, tasks=("measures",), baselines=False, in_process=True))
    assert alone == {"trained": rows["trained"]}  # no margin, and nothing to mark
    assert "| measures/gain | " in (run / "evaluations" / "val.md").read_text()
    assert "measures/gain" in report(run).read_text()


@pytest.mark.parametrize("width", [80, 150])
def test_the_terminal_shows_every_margin_however_narrow_it_is(width: int) -> None:
    metric = "retrieval/R@1/held_out [ego]"  # of one camera alone
    rows = {row: {metric: score} for row, score in (("trained", 0.5), ("chance", 0.25))}
    rows |= {f"some long baseline {k}": {metric: k / 100} for k in range(8)}
    shown = Console(width=width, record=True, file=io.StringIO())
    shown.print(terminal(rows, "run", width))
    text = shown.export_text()
    assert metric in text
    assert "+0.250" in text
    assert ("0.040" in text) == (width == 150)
    assert max(len(line) for line in text.splitlines()) <= width


@pytest.mark.ray
def test_ray_actors_give_the_same_clips(run: Path, tmp_path: Path, ray_cluster: None) -> None:
    torch.set_num_threads(1)
    here = pq.read_table(embed_clips(run, split="train")["trained"])
    (run / "embeddings" / "train" / "clips" / "rows.json").unlink()
    there = pq.read_table(embed_clips(run, split="train", actors=1)["trained"])
    assert here.equals(there)
