"""Pictures that are not square have the same shape on every way to a model, upright or turned."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import videos
from torch import Tensor

from crossview.datasets.catalog import Catalog, Recording
from crossview.datasets.sampling.geometry import SQUASH, Geometry
from crossview.datasets.sampling.mixture import Mixture
from crossview.datasets.sampling.plan import Plan
from crossview.datasets.sampling.spec import Sampling, View
from crossview.datasets.video.decode import decode
from crossview.errors import UserError
from crossview.platform.config import Data
from crossview.platform.data.decoder import Shard
from crossview.platform.data.frame_cache import check_cacheable
from crossview.platform.data.row_decoder import RowDecoder
from crossview.platform.data.video_reader import in_rgb, video
from crossview.platform.encoder import _of_file, _of_frames
from crossview.platform.evaluate.clip_embeddings import clip_frames

FRAMES, SIDE = 6, 64
VIEW = View(perspective="any", frames=FRAMES, fps=30.0, size_px=SIDE)
GEOMETRIES = {
    "crop": Geometry(),
    "shorter": Geometry(short_px=(80, 96)),
    "squash": SQUASH,
    "pad": Geometry(fit="pad"),
    "two steps": Geometry(via_px=96),
}
SIZES = {"wide": (64, 96, 0), "turned": (64, 96, 90), "tall": (112, 64, 0)}


@pytest.fixture(scope="module")
def catalogs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Catalog]:
    """A recording each, with the size at which it is displayed."""
    root, found = tmp_path_factory.mktemp("shape"), {}
    for name, (height, width, rotation) in SIZES.items():
        videos.write(root / f"{name}.mp4", frames=FRAMES, height=height, width=width, rotation=rotation)
        shown = (width, height) if rotation else (height, width)
        one = Recording(
            dataset="test", scene=name, view="left", perspective="exo", subject="p", action="wave", path=f"{name}.mp4",
            kind="video", fps=30.0, num_frames=FRAMES, height_px=shown[0], width_px=shown[1],
        )  # fmt: skip
        found[name] = Catalog(root, (one,))
    return found


def batch(plan: Plan | Mixture, rows: int, data: Data) -> dict[str, Any]:
    shard = Shard(start_step=0, stop_step=1, batch=rows, micro_batch=rows)
    return RowDecoder(plan, data, shard).decode(np.arange(rows))


def displayed(catalog: Catalog) -> Tensor:
    """uint8 (T, 3, H, W), as stored but for its orientation."""
    pictures = decode(catalog.file(catalog.recordings[0]), np.arange(FRAMES))
    return torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2)


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_all_ways_to_a_model_give_the_same_pixels(
    catalogs: dict[str, Catalog], tmp_path: Path, name: str, geometry: str
) -> None:
    catalog, data = catalogs[name], Data(catalog=tmp_path)
    (recording,), view = catalog.recordings, replace(VIEW, geometry=GEOMETRIES[geometry]).evaluated()
    whole = torch.cat(list(video(catalog.source(recording), FRAMES, view, data, 4)))
    assert whole.shape == (FRAMES, 3, SIDE, SIDE)
    assert torch.equal(whole, torch.cat(list(_of_file(catalog.file(recording), view, data))))
    every = np.arange(FRAMES)[None]
    for options in (data, replace(data, cache_frames=True), replace(data, cache_frames=True)):
        assert torch.equal(whole, clip_frames(catalog, recording, every, view, options))
    plan = Plan(catalog, Sampling(views={"clip": view}, pairing="single"), 0)
    assert torch.equal(whole, in_rgb(batch(plan, 1, data)["clip"][0, 0], data.pixels(view)))
    given = torch.cat(list(_of_frames(displayed(catalog), view, data)))
    assert float((given.int() - whole.int()).abs().float().mean()) < 2  # of 255: they were rounded to RGB before


@pytest.mark.parametrize("name", SIZES)
def test_the_centre_of_the_displayed_picture_is_cut(catalogs: dict[str, Catalog], tmp_path: Path, name: str) -> None:
    catalog = catalogs[name]
    shown = displayed(catalog)
    top, left = ((side - SIDE) // 2 for side in shown.shape[-2:])
    expected = shown[..., top : top + SIDE, left : left + SIDE].int()
    source = catalog.source(catalog.recordings[0])
    found = torch.cat(list(video(source, FRAMES, VIEW, Data(catalog=tmp_path), 4))).int()
    assert float((found - expected).abs().float().mean()) < 4  # chroma is interpolated otherwise
    shifted = torch.roll(found, 2, dims=-2 if top else -1)
    assert float((shifted - expected).abs().float().mean()) > 4


def test_a_mixture_of_shapes_cuts_each_recordings_own_centre(catalogs: dict[str, Catalog], tmp_path: Path) -> None:
    sampling, data = Sampling(views={"clip": VIEW}, pairing="single"), Data(catalog=tmp_path)
    mixed = Mixture([Plan(catalog, sampling, 0) for catalog in catalogs.values()], [1 / 3] * 3, 0)
    out, seen = batch(mixed, 9, data), set()
    for i in range(9):
        ((clip,),) = mixed.row(i).clips
        assert clip is not None
        scene = mixed.catalog.recordings[clip.recording].scene
        alone = batch(Plan(catalogs[scene], sampling, 0), 1, data)["clip"][0]
        assert np.array_equal(out["clip"][i], alone)
        seen.add(scene)
    assert seen == set(SIZES)


@pytest.mark.parametrize("option", ["cache_frames", "cache_features"])
def test_a_cache_of_pictures_refuses_parts_that_are_drawn(option: str) -> None:
    sampling = {
        name: Sampling(views={"clip": replace(VIEW, geometry=geometry)}, pairing="single")
        for name, geometry in {**GEOMETRIES, "random": Geometry(crop="random")}.items()
    }
    data = Data(catalog=Path("unused"), **{option: True})  # type: ignore[arg-type]
    for name in ("random", "shorter"):
        with pytest.raises(
            UserError, match=rf"data.{option} is on, and view 'clip' draws .*pass --data.no-{option[:5]}"
        ):
            check_cacheable(sampling[name], data)
        check_cacheable(sampling[name], Data(catalog=Path("unused")))
    for name in ("crop", "squash", "pad", "two steps"):
        check_cacheable(sampling[name], data)


def test_all_views_travel_in_one_pixel_format() -> None:
    views = {"ego": VIEW, "exo": replace(VIEW, geometry=Geometry(via_px=96))}
    with pytest.raises(UserError, match=r"via_px .* is \{'ego': None, 'exo': 96\}; set it for all views or for none"):
        Sampling(views=views, pairing="unpaired")


def test_one_cache_keeps_each_geometrys_own_pictures(catalogs: dict[str, Catalog], tmp_path: Path) -> None:
    catalog, data = catalogs["wide"], Data(catalog=tmp_path)
    for _ in range(2):
        for geometry in GEOMETRIES.values():
            view, every = replace(VIEW, geometry=geometry).evaluated(), np.arange(FRAMES)[None]
            kept, plain = (
                clip_frames(catalog, catalog.recordings[0], every, view, replace(data, cache_frames=cached))
                for cached in (True, False)
            )
            assert torch.equal(kept, plain)


@pytest.mark.parametrize("name", ["wide", "tall"])
def test_other_decoders_give_the_same_shape(catalogs: dict[str, Catalog], tmp_path: Path, name: str) -> None:
    source = catalogs[name].source(catalogs[name].recordings[0])
    pictures = (
        torch.cat(list(video(source, FRAMES, VIEW, Data(catalog=tmp_path, decoder=decoder), 4))).int()
        for decoder in ("pyav", "decord")
    )  # type: ignore[arg-type]
    plain, other = pictures
    assert float((plain - other).abs().float().mean()) < 4
