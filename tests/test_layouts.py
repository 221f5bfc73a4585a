"""Every dataset from its own layout on disk to clips, as its adapter and each pairing that it allows read it."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import layout_world
import numpy as np
import pytest

from crossview.datasets.catalog import Catalog
from crossview.datasets.catalog.probing import Prober
from crossview.datasets.sampling.plan import Plan
from crossview.datasets.sampling.spec import Sampling, View
from crossview.datasets.synthetic import layouts
from crossview.datasets.video.decode import read_clips
from crossview.datasets.video.source import Wanted
from crossview.errors import UserError
from crossview.platform.cli import prepare
from crossview.platform.cli.main import main


@pytest.fixture(scope="module", params=layouts.names())
def dataset(request: pytest.FixtureRequest, films: Path) -> Any:
    """(module, options, catalog) of one dataset."""
    module, options = layout_world.exported(request.param, films)
    return module, options, layout_world.saved(module, options, films / request.param / "catalog")


def asked(pairing: str, catalog: Catalog) -> Sampling:
    perspectives = sorted({r.perspective for r in catalog.recordings})
    views = [View(perspective=p, frames=4, fps=None, size_px=32) for p in perspectives]
    if pairing == "single":
        return Sampling(views={"clip": replace(views[0], perspective="any")}, pairing="single")
    if pairing == "group":
        return Sampling(views={f"v{k}": replace(view, count=2) for k, view in enumerate(views)}, pairing="group")
    first, second = views if len(views) == 2 else (views[0], views[0])
    return Sampling(views={"a": first, "b": second}, pairing=pairing)  # type: ignore[arg-type]


def test_every_protocol_trains_and_tests(dataset: Any) -> None:
    module, _, catalog = dataset
    assert set(catalog.protocols) <= set(module.PROTOCOLS)
    assert list(catalog.protocols) == [name for name in module.PROTOCOLS if name in catalog.protocols]
    for name, of in catalog.protocols.items():
        assert "train" in of.values(), name
        assert len(set(of.values())) > 1, name


def test_every_pairing_that_it_allows_reads_clips(dataset: Any) -> None:
    module, _, catalog = dataset
    assert module.PAIRINGS
    for pairing in module.PAIRINGS:
        part = catalog.select("train", next(iter(catalog.protocols)))
        plan = Plan(part, asked(pairing, part), seed=0)
        row = plan.row(0)
        for clip in row.clips[0]:
            if clip is None:
                continue
            recording = part.recordings[clip.recording]
            if recording.has_pixels:
                (pixels,) = read_clips(part.source(recording), [Wanted(clip.frames)])
                assert len(pixels) == 4
                assert pixels.std() > 1, (pairing, recording.path)


def test_segments_lie_in_their_recordings(dataset: Any) -> None:
    _, _, catalog = dataset
    by_id = {r.id: r for r in catalog.recordings}
    for segment in catalog.segments:
        recording = by_id[segment.recording]
        assert 0 <= segment.start_s < segment.end_s, segment
        assert segment.start_s < recording.num_frames / recording.fps, segment
        assert segment.label in catalog.classes[segment.name], segment


def test_it_says_what_is_there(dataset: Any) -> None:
    _, _, catalog = dataset
    assert catalog.notes
    assert all(note and "\n" not in note for note in catalog.notes)


def test_the_root_of_something_else_is_refused(dataset: Any, tmp_path: Path) -> None:
    module, options, _ = dataset
    (tmp_path / "holiday.txt").write_text("sun\n")
    with pytest.raises(UserError) as refused:
        module.catalog(replace(options, root=tmp_path))
    assert str(tmp_path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_same_root_gives_the_same_catalog(dataset: Any, films: Path, tmp_path: Path) -> None:
    module, options, catalog = dataset
    again = module.catalog(options, prober=Prober(tmp_path))
    assert [r.id for r in again.recordings] == [r.id for r in catalog.recordings]
    assert again.protocols == catalog.protocols
    assert again.segments == catalog.segments
    assert np.all([again.classes[kind] == names for kind, names in catalog.classes.items()])


def test_the_datasets_own_command_makes_the_same(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def export(name: str, world: Catalog, out: Path, own: Any = layouts.export) -> Any:
        return replace(own(name, world, out), test_subjects=(2, 5), release="frames")

    monkeypatch.setattr(layouts, "export", export)
    world, out = layout_world.world(films), tmp_path / "my [b]world[/b]"
    prepare._as_dataset("nucla", world, out)
    (command,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("The same by")]
    words = shlex.split(command.partition(": ")[2])
    assert words == [
        "crossview", "prepare", "nucla", "--root", str(out / "nucla"), "--release", "frames", "--test-subjects", "2",
        "5", "--out", str(out / "catalog"),
    ]  # fmt: skip
    main([*words[1:-1], str(tmp_path / "again")])
    first, again = Catalog.load(out / "catalog"), Catalog.load(tmp_path / "again")
    assert again.protocols == first.protocols
    assert {*first.protocols["xsub"].values()} == {"train", "test"}
