"""The page of a catalog: its counts, its scenes as a method sees them, and what it says where nothing can be shown."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import av
import numpy as np
import pytest
import videos
from PIL import Image
from synchronized import write_synchronized

from crossview.datasets.catalog import Catalog, Quarantined, Recording, Segment
from crossview.datasets.sampling.geometry import Geometry
from crossview.datasets.sampling.spec import Sampling, View
from crossview.platform.cli.main import main
from crossview.platform.report import dataset_facts
from crossview.platform.report.contact_sheet import at_equal_shares, contact_sheet, strip, thumbnails
from crossview.platform.report.dataset_page import Seen, page
from crossview.platform.report.dataset_plots import timeline


def recording(scene: str, view: str, **facts) -> Recording:
    given = {
        "dataset": "d", "subject": f"p{scene}", "action": "wave", "path": f"{scene}_{view}.mp4", "kind": "video",
        "fps": 10.0, "num_frames": 40, "height_px": 64, "width_px": 96,
        "perspective": "ego" if view == "head" else "exo",
    }  # fmt: skip
    return Recording(scene=scene, view=view, **(given | facts))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def filmed(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    root = tmp_path_factory.mktemp("filmed")
    write_synchronized(root)
    return Catalog.load(root / "catalog")


def cells(table: dataset_facts.Table) -> dict[str, list[str]]:
    return {row[0]: row[1:] for row in table.rows}


# --- counts -----------------------------------------------------------------------------------------------------------


def test_protocols_and_views_are_counted() -> None:
    members = [recording(s, v) for s in ("a", "b", "c") for v in ("head", "left")]
    members[1] = dataclasses.replace(members[1], start_offset_s=0.5)
    members[3] = dataclasses.replace(members[3], own_clock=True)
    splits = {"xsub": {r.id: "test" if r.scene == "c" else "train" for r in members}}
    splits["xview"] = {r.id: "train" for r in members if r.view == "left"}
    catalog = Catalog(Path("/d"), tuple(members), protocols=splits)
    rows = dataset_facts.protocols(catalog).rows
    assert rows == [
        ["xsub", "train", "4", "2", "2", "2", "2", "0.00"],
        ["xsub", "test", "2", "1", "1", "1", "1", "0.00"],
        ["xview", "train", "3", "0", "3", "3", "3", "0.00"],
        ["xview", "in no split", "3", "3", "0", "3", "3", "0.00"],
    ]
    seen = cells(dataset_facts.views(catalog))
    assert seen["head"] == ["ego", "3", "0.00", "96 x 64", "10", "0"]
    assert seen["left"][-1] == "0.250 (0.000 to 0.500); 1 with clocks of their own"


def test_classes_are_counted_in_each_split_and_the_rest_together() -> None:
    members = [recording(s, "head") for s in ("a", "b")]
    splits = {"default": {members[0].id: "train", members[1].id: "val"}}
    segments = [Segment(members[k % 2].id, 0.0, 1.0, "verb", f"v{k % 20}") for k in range(20)]
    segments += [Segment(members[0].id, 0.0, 1.0, "verb", "v3")] * 5
    names = tuple(f"v{k}" for k in range(25))
    catalog = Catalog(Path("/d"), tuple(members), tuple(segments), protocols=splits, classes={"verb": names})
    action, verb = dataset_facts.classes(catalog)
    assert action.rows == [["wave", "2", "1", "1"]]
    assert action.head == ["action", "recordings", "train", "val"]
    assert verb.title == "verb: 20 classes, 25 segments"
    assert verb.rows[0] == ["v3", "6", "5", "1"]
    assert len(verb.rows) == 12
    assert verb.more == "8 more classes have 8 segments. Of the dataset's list, 5 more occur nowhere."
    assert verb.shares[:2] == [1.0, pytest.approx(1 / 6)]


def test_kinds_and_splits_that_are_too_many_are_named(tmp_path: Path) -> None:
    member = recording("a", "head")
    segments = tuple(Segment(member.id, 0.0, 1.0, f"kind{k}", "x") for k in range(9))
    splits = {f"fold{k}": {member.id: "train"} for k in range(8)}
    catalog = Catalog(tmp_path, (member,), segments, protocols=splits)
    tables = dataset_facts.classes(catalog)
    assert len(tables) == 9
    assert tables[-1].title == "2 more kinds: kind7, kind8"
    assert tables[0].more == "Not counted apart: fold6: train, fold7: train."
    assert "2 more kinds: kind7, kind8" in page(catalog, [], tmp_path / "x.html").read_text()


def test_frame_labels_are_counted_by_their_names() -> None:
    member = recording("a", "head")
    labels = {"phase": {member.id: np.repeat([0, 1], [10, 30]).astype(np.int32)}}
    catalog = Catalog(Path("/d"), (member,), frame_labels=labels, classes={"phase/wave": ("lift", "swing")})
    assert dataset_facts.frame_classes(catalog).rows == [["phase/wave", "1", "40", "swing 75%, lift 25%"]]


# --- scenes -----------------------------------------------------------------------------------------------------------


def test_scenes_come_from_all_over_the_catalog_those_of_several_cameras_first() -> None:
    members = [recording(f"{k:02}", v) for k in range(10) for v in ("head", "left")]
    members += [recording(f"alone{k}", "head") for k in range(50)]
    catalog = Catalog(Path("/d"), tuple(members))
    assert [s[0].scene for s in dataset_facts.chosen_scenes(catalog, 3)] == ["00", "04", "09"]
    assert len(dataset_facts.chosen_scenes(catalog, 30)) == 10
    assert dataset_facts.chosen_scenes(Catalog(Path("/d"), ()), 3) == []
    with pytest.raises(ValueError, match=r"there is no scene 'x'; scenes: 00, 01, .* and 52 more"):
        dataset_facts.of_scene(catalog, "x")


def stripes(path: Path) -> None:
    """Red, green and blue, each a third of a picture of 64 x 192."""
    picture = np.zeros((64, 192, 3), np.uint8)
    for k in range(3):
        picture[:, 64 * k : 64 * (k + 1), k] = 255
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = 64, 192, "yuv420p"
        for _ in range(6):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


@pytest.mark.parametrize(("fit", "shown"), [("crop", "g"), ("squash", "rgb"), ("pad", "rgb")])
def test_pictures_are_what_the_method_embeds(tmp_path: Path, fit: str, shown: str) -> None:
    stripes(tmp_path / "a_left.mp4")
    member = recording("a", "left", num_frames=6, height_px=64, width_px=192)
    catalog = Catalog(tmp_path, (member,))
    ego = View(perspective="ego", frames=2, size_px=32)
    exo = View(perspective="exo", frames=2, size_px=96, test_px=48, geometry=Geometry(fit=fit))  # type: ignore[arg-type]
    sampling = Sampling(views={"ego": ego, "exo": exo}, pairing="paired")
    found = strip(catalog, member, np.array([0, 3]), sampling).pictures
    assert all(p.shape == (160, 160, 3) for p in found)
    colours = "".join("rgb"[k] for k in range(3) if (found[0][80, :, k] > 200).any())
    assert colours == shown
    assert (found[0][8].max() < 40) == (fit == "pad")  # the black bars
    assert strip(catalog, member, np.array([0])).pictures[0].shape == (160, 480, 3)


def test_recordings_with_clocks_of_their_own_are_shown_at_equal_shares(filmed: Catalog, tmp_path: Path) -> None:
    own = tuple(
        dataclasses.replace(r, own_clock=True, num_frames=6 if r.view == "exo1" else r.num_frames)
        for r in filmed.recordings
        if r.scene == "wave0"
    )
    heads, frames = at_equal_shares(own, 3)
    assert heads == ["0%", "50%", "100%"]
    assert [f.tolist() for f in frames] == [[0, 6, 11], [0, 2, 5], [0, 6, 11]]
    catalog = dataclasses.replace(filmed.keep(lambda r: r.scene == "wave0"), recordings=own)
    assert [videos.barcode(p) for p in thumbnails(catalog.source(own[1]), frames[1], 64)] == [0, 2, 5]
    assert contact_sheet(catalog, own, tmp_path / "own.png", 3).stat().st_size
    text = page(catalog, [own], tmp_path / "own.html", instants=3).read_text()
    assert "at equal shares of the way through each recording" in text
    assert "Not shown" not in text


def test_an_unreadable_camera_costs_its_row_alone(tmp_path: Path) -> None:
    catalog = write_synchronized(tmp_path)
    scene = [r for r in catalog.recordings if r.scene == "wave0"]
    videos.truncate(catalog.file(scene[1]))
    text = page(catalog, [scene], tmp_path / "x.html", instants=3).read_text()
    assert "2 of 3 recordings at common instants" in text
    assert re.search(r"Not shown: \S*train/wave0_exo1.mp4: ", text)


# --- the timeline -----------------------------------------------------------------------------------------------------


def lanes(catalog: Catalog, members: list[Recording]) -> list[str]:
    figure, _ = timeline(catalog, members)
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


def test_labels_that_cameras_share_are_shown_once_and_overlapping_ones_below_each_other() -> None:
    members = [recording("a", v) for v in ("head", "left", "right")]
    same = [Segment(r.id, 0.0, 2.0, "noun", "cup") for r in members]
    other = [Segment(members[0].id, a, a + 1.0, "verb", f"v{a}") for a in (0.0, 0.5, 1.0)]
    phases = {"phase": {r.id: np.repeat([0, 1], 20).astype(np.int32) for r in members[:2]}}
    catalog = Catalog(Path("/d"), tuple(members), (*same, *other), phases)
    assert lanes(catalog, members) == [
        "head (ego)", "left (exo)", "right (exo)", "noun", "verb: head", "", "phase: head, left (frames)",
    ]  # fmt: skip
    late = [dataclasses.replace(members[0], start_offset_s=0.3), *members[1:]]
    shifted = dataclasses.replace(catalog, recordings=tuple(late))
    assert lanes(shifted, late)[3:5] == ["noun: head", "noun: left, right"]  # the same label at another time
    apart = [dataclasses.replace(r, own_clock=True) for r in members]
    assert lanes(dataclasses.replace(catalog, recordings=tuple(apart)), apart)[0] == "noun"


def test_a_timeline_of_many_cameras_and_labels_stays_small() -> None:
    members = [recording("a", f"cam{k:02}") for k in range(40)]
    segments = [Segment(r.id, k / 10, k / 10 + 0.05, f"kind{n}", "x") for k, r in enumerate(members) for n in range(3)]
    catalog = Catalog(Path("/d"), tuple(members), tuple(segments))
    figure, note = timeline(catalog, members)
    assert len(figure.axes[0].get_yticks()) == 32
    assert note == "24 more cameras and 104 more rows of labels not shown."


# --- the page ---------------------------------------------------------------------------------------------------------


def test_the_page_is_whole_loads_nothing_and_cannot_be_given_markup(filmed: Catalog, tmp_path: Path) -> None:
    bad = Quarantined("train/<b>x</b>.mp4", "train/x.mp4: <script>alert(1)</script>")
    catalog = dataclasses.replace(filmed, notes=("12 videos are <i>missing</i>.",), quarantined=(bad,) * 60)
    scene = [r for r in catalog.recordings if r.scene == "wave0"]
    seen = Seen("byov, preset x,", Sampling(views={"any": View(perspective="any", frames=2)}, pairing="single"))
    text = page(catalog, [scene], tmp_path / "x.html", seen=seen).read_text()
    assert "<script" not in text
    assert not re.search(r"(src|href)=\"(?!data:)", text)
    assert "url(" not in text
    for escaped in ("12 videos are &lt;i&gt;missing", "train/&lt;b&gt;x", "&lt;script&gt;alert(1)"):
        assert escaped in text
    assert "10 more files are in quarantine.parquet." in text
    assert "as byov, preset x, embeds them: ego 224 x 224 px, the centre is cut out" in text
    assert text.count("data:image/png;base64,") == 3
    assert "<td>train</td><td>12</td><td>4</td><td>8</td><td>4</td>" in text


def test_catalogs_of_features_and_empty_ones_have_a_page(
    filmed: Catalog, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    features = tuple(
        dataclasses.replace(r, kind="features", index="", height_px=0, width_px=0, constant_rate=True)
        for r in filmed.recordings
    )
    catalog = dataclasses.replace(filmed, recordings=features)
    catalog.save(tmp_path / "features")
    main(["view", str(tmp_path / "features"), "--out", str(tmp_path / "f.html"), "--scenes", "2", "--check-sync"])
    text = (tmp_path / "f.html").read_text()
    assert text.count("Its recordings are features, which have no pictures.") == 2
    assert text.count("data:image/png;base64,") == 3
    with pytest.raises(SystemExit):
        main(["view", str(tmp_path / "features"), "--out", str(tmp_path / "f.png"), "--scene", "nod2"])
    assert "scene 'nod2' has no video" in capsys.readouterr().err
    Catalog(tmp_path, ()).save(tmp_path / "empty")
    main(["view", str(tmp_path / "empty"), "--out", str(tmp_path / "e.html")])
    assert "A catalog of no recordings" in (tmp_path / "e.html").read_text()
    with pytest.raises(SystemExit):
        main(["view", str(tmp_path / "empty"), "--out", str(tmp_path / "e.png")])


def test_the_page_of_a_large_catalog_is_small(tmp_path: Path) -> None:
    members, segments = [], []
    for k in range(4000):
        members += [recording(f"s{k}", v, action=f"a{k % 300}", subject=f"p{k % 90}") for v in ("head", f"cam{k % 50}")]
        segments += [Segment(members[-1].id, t, t + 1.0, "step", f"step {(k * 7 + t) % 278}") for t in range(4)]
    splits = {name: {r.id: "train" for r in members} for name in ("xsub", "xview")}
    notes = tuple(f"note {k}" for k in range(3))
    catalog = Catalog(tmp_path, tuple(members), tuple(segments), protocols=splits, notes=notes)
    out = page(catalog, dataset_facts.chosen_scenes(catalog, 1), tmp_path / "x.html")
    text = out.read_text()
    assert len(text) < 200_000
    assert "39 more views have" in text
    assert "266 more classes have" in text
    assert "Not shown" in text  # there are no such videos


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--out", "x.pdf"], "--out x.pdf: it must end in .html"),
        (["--instants", "0"], "--instants is 0; it must be at least 1"),
        (["--scenes", "0"], "--scenes is 0; it must be at least 1"),
        (["--max-offset-s", "nan"], "--max-offset-s is nan; it must be above 0"),
        (["--preset", "debug"], "--preset debug: a preset is one of a method; name it with --method"),
        (["--method", "byol"], "method 'byol' is unknown; choose from byov"),
        (["--method", "byov", "--preset", "x"], "--preset x: byov has no such preset"),
        (["--scene", "x"], "there is no scene 'x'; scenes: wave0, wave1"),
    ],
)
def test_bad_options_are_one_line(
    filmed: Catalog, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["view", str(filmed.folder), *options])
    assert end.value.code == 2
    assert said in capsys.readouterr().err


def test_the_command_writes_a_page_or_the_picture_of_one_scene(filmed: Catalog, tmp_path: Path) -> None:
    main(["view", str(filmed.folder), "--out", str(tmp_path / "new" / "x.html"), "--scenes", "1", "--instants", "2"])
    assert "Scene wave0" in (tmp_path / "new" / "x.html").read_text()
    some = ["--scene", "nod2", "--instants", "2", "--method", "byov"]
    main(["view", str(filmed.folder), "--out", str(tmp_path / "y.html"), *some])
    assert "Scene nod2" in (tmp_path / "y.html").read_text()
    main(["view", str(filmed.folder), "--out", str(tmp_path / "x.png"), *some])
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


def test_the_picture_is_of_the_scene_that_was_chosen_and_not_of_its_namesake(filmed: Catalog, tmp_path: Path) -> None:
    """The first dataset's scene of that name has one camera, so the second dataset's is chosen."""
    scene = [r for r in filmed.recordings if r.scene == "wave0"]
    alone = dataclasses.replace(scene[1], dataset="first", view="alone")
    both = dataclasses.replace(filmed, recordings=(alone, *scene), segments=(), protocols={}, frame_labels={})
    both.save(tmp_path / "both")
    main(["view", str(tmp_path / "both"), "--out", str(tmp_path / "chosen.png"), "--instants", "2"])
    for name, recordings in (("first", [alone]), ("second", scene)):
        contact_sheet(filmed, recordings, tmp_path / f"{name}.png", instants=2)
    chosen, first, second = (np.asarray(Image.open(tmp_path / f"{n}.png")) for n in ("chosen", "first", "second"))
    assert np.array_equal(chosen, second)
    assert chosen.shape != first.shape
