from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import videos
from PIL import Image
from tiny_run import train, write_catalog

from crossview.datasets.catalog import Catalog, one_protocol
from crossview.downstream.frame_table import FrameTable
from crossview.platform.data import unreadable
from crossview.platform.evaluate.runner import evaluate
from crossview.platform.report import plots
from crossview.platform.report.contact_sheet import common_instants, contact_sheet, thumbnails
from crossview.platform.report.figures import _sheet, draw, queries
from crossview.platform.report.run_report import report


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("clips")
    write_catalog(root)
    return root


@pytest.fixture(scope="module")
def run(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = train(tmp_path_factory.mktemp("runs") / "shown", root)
    evaluate(run, in_process=True)
    draw(run)
    return run


def test_the_page_holds_the_scores_the_figures_and_how_to_repeat_it(run: Path) -> None:
    page = report(run).read_text()
    scores = pq.read_table(run / "results.parquet").to_pylist()
    assert len(scores) == 6 * 8
    for score in scores:
        value = f"{score['value']:.3f}" if abs(score["value"]) < 100 else f"{score['value']:.0f}"
        assert f">{value}</td>" in page, score
    for row in {score["row"] for score in scores}:
        assert f">{row}</th>" in page
    captions = json.loads((run / "figures" / "captions.json").read_text())
    assert page.count("data:image/png;base64,") == len(captions) >= 4
    facts = json.loads((run / "run.json").read_text())
    assert facts["versions"]["torch"] in page
    assert facts["command"] in page.replace("&#39;", "'").replace("&amp;", "&")
    assert "&#34;optim&#34;" in page  # the configuration
    assert "This is small: with 4 videos" in page
    assert "Unreadable files" not in page


def test_the_page_loads_nothing(run: Path) -> None:
    page = report(run).read_text()
    assert "<script" not in page
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    assert "url(" not in page


def test_names_from_outside_cannot_become_markup(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    bad = {"recording": "train/<b>x</b>/ego", "path": "x.mp4", "reason": "x.mp4: <script>alert(1)</script>"}
    unreadable.write(copy, {bad["recording"]: bad})
    page = report(copy).read_text()
    assert "Unreadable files" in page
    assert "&lt;script&gt;alert(1)" in page
    assert "<script" not in page


def test_a_run_without_evaluation_says_what_to_do(run: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(run / "run.json", bare)
    page = report(bare).read_text()
    assert "not been evaluated yet" in page
    assert "crossview evaluate" in page
    with pytest.raises(ValueError, match=r"run\.json is missing"):
        report(tmp_path)


def test_draw_writes_small_pictures_of_every_kind(run: Path) -> None:
    names = {f.name for f in (run / "figures").glob("*.png")}
    assert {"losses.png", "tsne.png", "retrieval.png", "views.png"} <= names
    assert any(name.startswith("method-") for name in names)
    for file in (run / "figures").glob("*.png"):
        assert file.stat().st_size < 500_000
        with Image.open(file) as image:
            assert image.width > 300
            assert np.asarray(image.convert("L")).std() > 5  # it is not blank


def test_save_keeps_to_the_size(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    shots = [plots.Shot(noise, "noise", 0)] * 2
    figure = plots.retrieval(shots, [shots] * 2)
    assert plots.save(figure, tmp_path / "x.png", max_bytes=60_000).stat().st_size <= 60_000
    assert [f.name for f in tmp_path.iterdir()] == ["x.png"]


def test_retrieval_borders_tell_right_from_wrong() -> None:
    shots = [plots.Shot(np.zeros((8, 8, 3), np.uint8), "", label) for label in (0, 0, 1)]
    figure = plots.retrieval(shots[:1], [shots[1:]])
    colours = [axis.spines["left"].get_edgecolor() for axis in figure.axes]
    import matplotlib.colors as mc

    assert colours[1:] == [mc.to_rgba(plots.RIGHT), mc.to_rgba(plots.WRONG)]


def test_queries_cover_both_views_and_several_phases() -> None:
    labels = np.tile(np.repeat(np.arange(4), 5), 4)
    video = np.repeat(np.arange(4), 20)
    frames = np.tile(np.arange(20), 4)
    vectors = np.zeros((80, 2), np.float32)
    e = FrameTable(vectors, labels, video, frames, video < 2, ("a", "b", "c", "d"))
    rows = queries(e, 3)
    assert e.is_ego[rows].tolist() == [True] * 3 + [False] * 3
    assert [sorted(set(e.labels[rows[:3]])), sorted(set(e.labels[rows[3:]]))] == [[0, 2, 3], [0, 2, 3]]
    assert np.array_equal(rows, queries(e, 3))


def test_losses_that_were_never_logged_are_an_error() -> None:
    with pytest.raises(ValueError, match="has no rows"):
        plots.loss_curves([])


def test_the_sheet_shows_each_camera_at_the_same_instants(tmp_path: Path) -> None:
    """Every frame shows its number: clocks that differ by an offset must give frames that differ by it."""
    catalog = write_catalog(tmp_path)
    first, second = (r for r in catalog.select("train").recordings if r.scene == "wave1")
    late = dataclasses.replace(second, start_offset_s=4 / 30)
    times = common_instants(catalog, [first, late], 5)
    assert times[0] == pytest.approx(4 / 30)
    assert times[-1] == pytest.approx((first.num_frames - 1) / 30)
    shown = [
        [videos.barcode(p) for p in thumbnails(catalog.source(r), catalog.frames_at(r, times), height_px=64)]
        for r in (first, late)
    ]
    assert [a - b for a, b in zip(*shown, strict=True)] == [4] * 5
    out = contact_sheet(catalog, [first, late], tmp_path / "new" / "sheet.png", instants=5)
    with Image.open(out) as image:
        assert image.width > image.height


def test_recordings_that_never_overlap_are_named(root: Path) -> None:
    catalog = Catalog.load(root / "catalog")
    first, second = catalog.recordings[:2]
    with pytest.raises(ValueError, match=r"never overlap in time \(ego 0\.00-0\.43 s, exo 9\.00-9\.43 s\)"):
        common_instants(catalog, [first, dataclasses.replace(second, start_offset_s=9.0)], 4)


def test_the_figure_of_a_report_has_the_cameras_of_one_scene(root: Path, tmp_path: Path) -> None:
    """A scene of that name in another dataset is another one, with a clock of its own."""
    first, second = Catalog.load(root / "catalog").recordings[:2]
    other = dataclasses.replace(first, dataset="other", view="left", start_offset_s=9.0)
    members = [(r, "train") for r in (other, first, second)]
    catalog = Catalog(root, (other, first, second), protocols=one_protocol(members))
    said = _sheet(catalog, tmp_path, "train")
    assert said == {"views.png": f"The 2 cameras of scene {first.scene!r} at common instants."}
    assert (tmp_path / "views.png").is_file()
    same = dataclasses.replace(other, dataset=first.dataset)
    with pytest.raises(ValueError, match="never overlap in time"):
        contact_sheet(catalog, (first, second, same), tmp_path / "sheet.png")


def test_pictures_come_in_the_order_asked_for(root: Path) -> None:
    catalog = Catalog.load(root / "catalog")
    pictures = thumbnails(catalog.source(catalog.recordings[0]), np.array([7, 2, 7]), height_px=64)
    assert [videos.barcode(p) for p in pictures] == [7, 2, 7]


def test_an_embedding_table_of_one_view_is_not_drawn_across_views(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    for file in (copy / "embeddings" / "val").glob("*.parquet"):
        table = pq.read_table(file)
        pq.write_table(table.filter(pa.compute.equal(table["is_ego"], True)), file)
    shutil.rmtree(copy / "figures")
    assert "retrieval.png" not in {f.name for f in draw(copy)}


def test_damaged_videos_cost_their_figures_and_not_the_page(tmp_path: Path) -> None:
    catalog = write_catalog(tmp_path / "clips")
    run = train(tmp_path / "run", tmp_path / "clips")
    evaluate(run, in_process=True)
    for recording in catalog.recordings:
        if catalog.split_of(recording) != "test":
            videos.truncate(catalog.file(recording))
    assert {f.name for f in draw(run)} == {"losses.png", "tsne.png"}
    page = report(run).read_text()
    for name in ("nearest frames", "contact sheet", "figures of the method"):
        assert f"Not drawn: {name}. " in page
    assert "val/wave_ego_0.mp4" in page
