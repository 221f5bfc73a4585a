"""What a geometry draws, that it draws nothing else, and that boxes and pixels go the same way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from crossview.datasets.catalog import Catalog, Recording
from crossview.datasets.sampling.geometry import SQUASH, Geometry, boxes_in
from crossview.datasets.sampling.plan import Plan
from crossview.datasets.sampling.spec import Sampling, View
from crossview.datasets.teachers.store import FOLDER, Detections, write_detections
from crossview.datasets.video.conversion import rgb, yuv420
from crossview.datasets.video.framing import Framing
from crossview.platform.config import Data
from crossview.platform.data.decoder import Shard
from crossview.platform.data.row_decoder import RowDecoder

HEIGHT, WIDTH = 90, 160
VIEW = View(perspective="any", frames=4, fps=10.0, size_px=48)
GEOMETRIES = {
    "squash": SQUASH,
    "centre": Geometry(),
    "centre of a longer side": Geometry(short_px=(64, 64)),
    "pad": Geometry(fit="pad"),
    "random": Geometry(crop="random", short_px=(48, 80)),
    "resized": Geometry(crop="resized"),
    "corners": Geometry(crop="corners"),
    "two steps": Geometry(fit="squash", via_px=64),
}


def recording(k: int, **changed: Any) -> Recording:
    plain = Recording(
        dataset="d", scene=f"s{k}", view="cam", perspective="exo", subject="", action="a", path=f"{k}.mp4",
        kind="video", fps=30.0, num_frames=40, height_px=HEIGHT, width_px=WIDTH,
    )  # fmt: skip
    return replace(plain, **changed)


def plan(geometry: Geometry, seed: int = 3, **changed: Any) -> Plan:
    catalog = Catalog(Path("root"), tuple(recording(k) for k in range(4)))
    sampling = Sampling(views={"clip": replace(VIEW, geometry=geometry)}, pairing="single", windows=2, **changed)
    return Plan(catalog, sampling, seed)


def drawn(geometry: Geometry, seed: int = 3) -> list[tuple[Any, ...]]:
    """Every clip's frames and region, of 40 rows."""
    made = plan(geometry, seed)
    clips = [clip for i in range(40) for window in made.row(i).clips for clip in window]
    return [(clip.recording, tuple(clip.frames), clip.region) for clip in clips if clip]


@pytest.mark.parametrize("name", GEOMETRIES)
def test_regions_are_a_function_of_the_row_and_change_no_frames(name: str) -> None:
    geometry = GEOMETRIES[name]
    found = drawn(geometry)
    assert found == drawn(geometry)
    assert [f[:2] for f in found] == [f[:2] for f in drawn(SQUASH)]
    regions = {f[2] for f in found}
    assert len(regions) == 1 if not geometry.drawn else len(regions) > 30
    if geometry.drawn:
        assert [f[2] for f in found] != [f[2] for f in drawn(geometry, seed=4)]
    for top, left, height, width in regions - {None}:
        assert min(top, left) >= 0
        assert max(top + height, left + width) <= 1 + 1e-9


def pixels(geometry: Geometry, height: int = HEIGHT, width: int = WIDTH, draws: int = 400) -> np.ndarray:
    """Top, left, height and width of drawn regions in pixels: float (draws, 4)."""
    rng = np.random.default_rng(0)
    regions = [geometry.region(height, width, 48, rng) or (0, 0, 1, 1) for _ in range(draws)]
    return np.array(regions) * [height, width, height, width]


@pytest.mark.parametrize(("height", "width"), [(90, 160), (160, 90), (90, 90)])
def test_a_random_crop_keeps_the_aspect_and_reaches_every_edge(height: int, width: int) -> None:
    top, left, tall, wide = pixels(Geometry(crop="random", short_px=(60, 80)), height, width).T
    np.testing.assert_allclose(tall, wide)
    short = 90 * 48 / tall
    assert short.min() >= 60 - 1e-6
    assert short.max() <= 80 + 1e-6
    assert np.ptp(short) > 19
    for start, room in ((top, height - tall), (left, width - wide)):
        assert (start / room).min() < 0.02
        assert (start / room).max() > 0.98
        assert abs((start / room).mean() - 0.5) < 0.05


def test_a_resized_crop_has_an_area_and_an_aspect_from_their_ranges() -> None:
    top, left, tall, wide = pixels(Geometry(crop="resized", area=(0.1, 0.5), ratio=(0.8, 1.25))).T
    area, ratio = tall * wide / (HEIGHT * WIDTH), wide / tall
    assert area.min() >= 0.1 - 1e-6
    assert area.max() <= 0.5 + 1e-6
    assert np.ptp(area) > 0.35
    assert ratio.min() >= 0.8 - 1e-6
    assert ratio.max() <= 1.25 + 1e-6
    assert abs(np.log(ratio).mean()) < 0.02
    assert (top + tall).max() <= HEIGHT + 1e-6
    assert (left + wide).max() <= WIDTH + 1e-6


def test_a_resized_crop_that_never_fits_is_the_largest_in_the_centre() -> None:
    (top, left, tall, wide), *rest = pixels(Geometry(crop="resized", area=(1, 1), ratio=(1, 1)), draws=3)
    np.testing.assert_allclose((top, left, tall, wide), (0, 35, 90, 90))
    np.testing.assert_allclose(rest, [(0, 35, 90, 90)] * 2)


def test_corner_crops_have_13_places_and_sides_at_most_a_step_apart() -> None:
    top, left, tall, wide = pixels(Geometry(crop="corners"), draws=3000).T
    scales = [1.0, 0.875, 0.75, 0.66]
    sides = {(scales.index(round(h / 90, 4)), scales.index(round(w / 90, 4))) for h, w in zip(tall, wide, strict=True)}
    assert sides == {(i, j) for i in range(4) for j in range(4) if abs(i - j) <= 1}
    small = tall < 90
    down, across = (top / (HEIGHT - tall + 1e-12))[small].round(6), (left / (WIDTH - wide))[small].round(6)
    quarters = {0.0, 0.25, 0.5, 0.75, 1.0}
    assert set(down) == set(across) == quarters
    assert len(set(zip(down, across, strict=True))) == 13


def test_the_form_of_evaluation_is_the_centre_with_the_shortest_side() -> None:
    assert Geometry(crop="random", short_px=(64, 80)).central() == Geometry(short_px=(64, 64))
    assert Geometry(crop="corners").central() == Geometry()
    assert Geometry(fit="pad").central() == Geometry(fit="pad")
    view = replace(VIEW, geometry=Geometry(crop="random", short_px=(64, 80)), test_px=64).evaluated()
    assert view.size_px == 64
    assert view.centred(HEIGHT, WIDTH) == Framing((0.0, 35 / 160, 1.0, 90 / 160), (64, 64))
    shorter = replace(view, size_px=48).centred(HEIGHT, WIDTH).region
    np.testing.assert_allclose(np.array(shorter) * [90, 160, 90, 160], (11.25, 46.25, 67.5, 67.5))


@pytest.mark.parametrize("shared", [True, False])
def test_views_of_a_window_share_a_draw_or_do_not(shared: bool) -> None:
    cameras = [
        recording(k, view=v, perspective=p, path=f"{k}{v}.mp4")
        for k in range(3)
        for v, p in (("a", "ego"), ("b", "exo"))
    ]
    geometry = Geometry(crop="random", short_px=(48, 80), shared=shared)
    views = {p: View(perspective=p, frames=4, fps=10.0, size_px=48, geometry=geometry) for p in ("ego", "exo")}  # type: ignore[arg-type]
    made = Plan(Catalog(Path("root"), tuple(cameras)), Sampling(views=views, pairing="synchronized", windows=2), 0)
    rows = [made.row(i).clips for i in range(12)]
    for row in rows:
        (ego, exo), (later, _) = row
        assert ego and exo and later  # noqa: PT018
        assert (ego.region == exo.region) is shared
        assert ego.region != later.region


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("pairing", ["group", "synchronized", "unpaired"])
def test_a_region_depends_on_seed_row_window_and_slot_alone(pairing: Any, shared: bool) -> None:
    cameras = [
        recording(k, view=v, perspective=v[:3], path=f"{k}{v}.mp4") for k in range(3) for v in ("ego", "exo1", "exo2")
    ]
    catalog, count = Catalog(Path("root"), tuple(cameras)), 2 if pairing == "group" else 1
    windows = 1 if pairing == "unpaired" else 2

    def made(geometry: Geometry, seed: int = 5) -> Plan:
        fps = None if pairing == "unpaired" else VIEW.fps
        ego, exo = replace(VIEW, perspective="ego", fps=fps), replace(VIEW, perspective="exo", fps=fps, count=count)
        views = {name: replace(view, geometry=geometry) for name, view in (("ego", ego), ("exo", exo))}
        return Plan(catalog, Sampling(views=views, pairing=pairing, windows=windows), seed)

    random, squash = made(Geometry(crop="resized", shared=shared)), made(SQUASH)
    found = {}
    for row in reversed(range(12)):
        clips = random.row(row).clips
        assert clips == made(random.sampling.views["ego"].geometry).row(row).clips  # in any order of rows
        for window, (cut, whole) in enumerate(zip(clips, squash.row(row).clips, strict=True)):
            assert [c and (c.recording, tuple(c.frames)) for c in cut] == [
                c and (c.recording, tuple(c.frames)) for c in whole
            ]
            regions = {c.region for c in cut if c}
            assert len(regions) == (1 if shared else sum(c is not None for c in cut))
            found[row, window] = regions
    assert len(set().union(*found.values())) == sum(map(len, found.values()))  # none is drawn twice
    other = made(random.sampling.views["ego"].geometry, seed=6).row(0).clips
    assert not found[0, 0] & {c.region for c in other[0] if c}


def test_a_centre_crop_of_a_square_picture_is_the_same_bytes_as_squashing() -> None:
    frame = av.VideoFrame.from_ndarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8), format="rgb24")
    view = replace(VIEW, geometry=Geometry())
    for convert in (rgb, yuv420):
        assert np.array_equal(convert(frame, view.centred(64, 64)), convert(frame, Framing(size=(48, 48))))


def test_features_have_no_region() -> None:
    catalog = Catalog(Path("root"), (recording(0, kind="features", height_px=0, width_px=0),))
    sampling = Sampling(views={"clip": replace(VIEW, geometry=Geometry(crop="random"))}, pairing="single")
    (clip,) = Plan(catalog, sampling, 0).row(0).clips[0]
    assert clip
    assert clip.region is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fit": "squash", "crop": "random"}, "crop is 'random'.*fit 'squash'.*take fit 'crop'"),
        ({"fit": "pad", "short_px": (9, 9)}, "short_px .9, 9. with fit 'pad'"),
        ({"crop": "corners", "short_px": (60, 80)}, "short_px is .60, 80. with crop 'corners'"),
        ({"short_px": (80, 60)}, "short_px is .80, 60.; it must satisfy"),
        ({"area": (0.5, 1.5)}, "area is .0.5, 1.5.; a crop is at most"),
        ({"ratio": (0.0, 1.0)}, "ratio is .0.0, 1.0.; it must satisfy"),
        ({"scales": ()}, "scales is ..; give at least one"),
        ({"scales": (1.2,)}, "scales is .1.2,.; .*each in"),
        ({"fit": "pad", "via_px": 64}, "via_px is 64 with fit 'pad'"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Geometry(**options)


def test_squares_larger_than_the_short_side_are_refused() -> None:
    with pytest.raises(ValueError, match=r"short_px is \(40, 60\) for squares of 48 px"):
        replace(VIEW, geometry=Geometry(short_px=(40, 60)))
    with pytest.raises(ValueError, match="test_px is 31"):
        replace(VIEW, test_px=31)


RECTANGLE = (0.35, 0.3, 0.65, 0.6)  # x1, y1, x2, y2
CORNER = (0.0, 0.0, 0.04, 0.04)


@pytest.fixture(scope="module")
def rectangles(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """A white rectangle on black, upright and turned, with its box and that of a corner of the picture."""
    root = tmp_path_factory.mktemp("rectangles")
    recordings = []
    for k, (height, width, rotation) in enumerate(((360, 640, 0), (640, 360, 90), (360, 640, 180))):
        shown = np.zeros((360, 640, 3) if rotation in (0, 90, 180) else (640, 360, 3), np.uint8)
        x1, y1, x2, y2 = (round(v * s) for v, s in zip(RECTANGLE, (640, 360) * 2, strict=True))
        shown[y1:y2, x1:x2] = 255
        stored = np.ascontiguousarray(np.rot90(shown, -rotation // 90))
        assert stored.shape == (height, width, 3)
        with av.open(str(root / f"{k}.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=30)
            stream.height, stream.width, stream.pix_fmt, stream.options = height, width, "yuv420p", {"crf": "5"}
            if rotation:
                stream.set_display_rotation(rotation)
            for _ in range(40):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(stored, format="rgb24")))
            container.mux(stream.encode(None))
        recordings.append(recording(k, height_px=360, width_px=640))
    catalog = Catalog(root, tuple(recordings))
    frame = np.repeat(np.arange(40), 2)
    box = np.tile(np.array([RECTANGLE, CORNER]), (40, 1))
    found = Detections(frame, np.ones_like(frame), box, np.tile([0.9, 0.8], 40))
    write_detections(root / FOLDER, {r.id: found for r in recordings})
    return catalog


@pytest.mark.parametrize("name", GEOMETRIES)
def test_a_rectangle_and_its_box_end_up_in_the_same_place(rectangles: Catalog, name: str) -> None:
    sampling = Sampling(views={"clip": replace(VIEW, geometry=GEOMETRIES[name])}, pairing="single", windows=2, boxes=2)
    shard = Shard(start_step=0, stop_step=1, batch=12, micro_batch=12)
    decoder = RowDecoder(Plan(rectangles, sampling, 0), Data(catalog=rectangles.root), shard)
    out = decoder.decode(np.arange(12))
    assert not any(out["quarantine"])
    visible = 0
    for window in np.ndindex(12, 2):
        clip, boxes = out["clip"][window], out["clip/boxes"][window]
        luma = clip[:, :48].astype(int) if decoder.pixels == "yuv420" else clip.mean(-1)
        for picture, (rectangle, corner) in zip(luma, boxes, strict=True):
            bright = picture > 126
            if not rectangle.any():  # cut off, or a sliver of it
                assert bright.mean() < 0.05
                continue
            visible += 1
            x1, y1, x2, y2 = rectangle[1:5] * 48
            ys, xs = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
            np.testing.assert_allclose((xs[0], ys[0], xs[-1] + 1, ys[-1] + 1), (x1, y1, x2, y2), atol=1.3)
            assert corner.any() == (name in ("squash", "pad", "two steps") or corner[3] > 0)
    assert visible > 20


def test_a_box_outside_the_crop_is_dropped_and_one_across_its_edge_is_clipped() -> None:
    boxes = np.array([[1, 0.0, 0.1, 0.2, 0.3, 0.9], [2, 0.1, 0.2, 0.5, 0.6, 0.8], [0, 0, 0, 0, 0, 0]], np.float32)
    found = boxes_in(boxes[None], Framing((0.0, 0.25, 1.0, 0.5), (48, 48)))[0]
    np.testing.assert_allclose(found, [[0] * 6, [2, 0, 0.2, 0.5, 0.6, 0.8], [0] * 6], atol=1e-6)
    assert found.dtype == np.float32


def test_aspects_are_drawn_by_their_logarithm() -> None:
    tall, wide = pixels(Geometry(crop="resized", area=(0.01, 0.01), ratio=(1 / 4, 4)), draws=2000).T[2:]
    assert abs(np.log(wide / tall).mean()) < 0.08
