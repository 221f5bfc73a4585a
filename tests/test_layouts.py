"""Every dataset from its own layout on disk to a batch, by its adapter and each pairing that it allows."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import av
import layout_world
import numpy as np
import pytest
import torch
from PIL import Image

from crossview.datasets.catalog import Catalog
from crossview.datasets.catalog.labels import classes_of
from crossview.datasets.catalog.probing import Prober
from crossview.datasets.sampling.plan import Clip, Plan
from crossview.datasets.sampling.spec import Sampling, View
from crossview.datasets.synthetic import layouts
from crossview.errors import UserError
from crossview.platform.cli import prepare
from crossview.platform.cli.main import main
from crossview.platform.config import Data
from crossview.platform.data.loader import Shard, Stream

PUBLISHED = (*layouts.names(), "ae2")
ROWS = 2
"""Of a batch."""


def of_name(name: str, films: Path) -> Any:
    module, options = layout_world.exported(name, films)
    return module, options, layout_world.saved(module, options, films / name / "catalog")


@pytest.fixture(scope="module", params=PUBLISHED)
def published(request: pytest.FixtureRequest, films: Path) -> Any:
    """(module, options, catalog) of one dataset."""
    return of_name(request.param, films)


@pytest.fixture(scope="module", params=[*PUBLISHED, "folder"])
def dataset(request: pytest.FixtureRequest, films: Path) -> Any:
    """The same of a folder of any files too, of which nobody but its CSV knows what it holds."""
    return of_name(request.param, films)


def labelled(catalog: Catalog) -> dict[str, int]:
    """Kinds of labels that clips of the catalog have, and how many classes there are of each."""
    kinds = {segment.name for segment in catalog.segments} | {"perspective"}
    if any(recording.action for recording in catalog.recordings):
        kinds.add("action")
    return {kind: len(classes_of(catalog, kind)) for kind in sorted(kinds)}


def asked(pairing: str, catalog: Catalog) -> Sampling:
    """Clips of all cameras that the pairing can take, with all labels that single views can have."""
    labels = {} if pairing == "group" else labelled(catalog)
    perspectives = sorted({r.perspective for r in catalog.recordings})
    views = [View(perspective=p, frames=4, fps=None, size_px=32) for p in perspectives]
    if pairing == "single":
        return Sampling(views={"clip": replace(views[0], perspective="any")}, pairing="single", labels=labels)
    if pairing == "group":
        return Sampling(views={f"v{k}": replace(view, count=2) for k, view in enumerate(views)}, pairing="group")
    first, second = views if len(views) == 2 else (views[0], views[0])
    return Sampling(views={"a": first, "b": second}, pairing=pairing, labels=labels)  # type: ignore[arg-type]


def test_every_protocol_trains_and_tests(dataset: Any) -> None:
    module, _, catalog = dataset
    assert set(catalog.protocols) <= set(module.PROTOCOLS)
    assert list(catalog.protocols) == [name for name in module.PROTOCOLS if name in catalog.protocols]
    for name, of in catalog.protocols.items():
        assert "train" in of.values(), name
        assert len(set(of.values())) > 1, name


@cache
def pictures(file: Path) -> np.ndarray:
    """All of a recording's file, folder or pattern of images, by the plainest decode: float32 (L, H, W, 3)."""
    if file.is_dir() or "*" in file.name:
        listed = file.glob("*.jpg") if file.is_dir() else file.parent.glob(file.name)
        images = sorted(listed, key=lambda path: int(re.findall(r"\d+", path.name)[0]))
        return np.stack([np.asarray(Image.open(path).convert("RGB"), np.float32) for path in images])
    with av.open(str(file)) as container:
        return np.stack([frame.to_ndarray(format="rgb24").astype(np.float32) for frame in container.decode(video=0)])


def shows(video: torch.Tensor, clip: Clip, catalog: Catalog) -> bool:
    """Whether the frames uint8 (T, 3, H, W) are those of the plan: no other picture of the file is closer to them."""
    recording = catalog.recordings[clip.recording]
    everything = pictures(catalog.file(recording))
    for frame, number in zip(video.movedim(1, -1).numpy().astype(np.float32), clip.frames, strict=True):
        error = np.abs(everything - frame).mean((1, 2, 3))
        if not error[recording.first_frame + number] <= min(error.min() + 0.25, 8):
            return False
    return True


def expected(clip: Clip, kind: str, catalog: Catalog) -> set[int]:
    """Numbers of the classes that a clip shows, by the catalog's tables."""
    recording, names = catalog.recordings[clip.recording], classes_of(catalog, kind)
    of_kind = [s for s in catalog.segments if s.name == kind]
    if kind == "perspective":
        return {["exo", "ego"].index(recording.perspective)}
    if not of_kind:
        return {names.index(recording.action)} if recording.action else set()
    first_s, last_s = catalog.instants(recording, clip.frames[[0, -1]]) - recording.start_offset_s
    shown = [s for s in of_kind if s.recording == recording.id and s.end_s - 1e-5 > first_s]
    return {names.index(s.label) for s in shown if s.start_s + 1e-5 < last_s + 1 / recording.fps}


def test_every_pairing_that_it_allows_streams_what_is_planned(dataset: Any) -> None:
    """A batch as training takes it: shapes, pictures and labels of the clips that the plan lists."""
    module, _, catalog = dataset
    assert module.PAIRINGS
    shard = Shard(start_step=0, stop_step=1, batch=ROWS, micro_batch=ROWS)
    for pairing in module.PAIRINGS:
        part = catalog.select("train", next(iter(catalog.protocols)))
        plan = Plan(part, asked(pairing, part), seed=0)
        data = Data(catalog=part.folder)
        with Stream(plan, data, shard, device=torch.device("cpu"), run_dir=None, in_process=True, prefetch=0) as stream:
            (batch,) = list(stream)
            assert not stream.quarantined
        assert batch["sample"].tolist() == [*range(ROWS)]
        cameras = (len(plan.slots),) if pairing == "group" else ()
        for name in dict.fromkeys("video" if cameras else slot for slot in plan.slots):
            assert batch[name].shape == (ROWS, *cameras, 4, 3, 32, 32), pairing
            assert batch[name].dtype == torch.uint8
        for row in range(ROWS):
            for place, (slot, clip) in enumerate(zip(plan.slots, plan.row(row).clips[0], strict=True)):
                name, at = ("video", (row, place)) if cameras else (slot, (row,))
                if clip is None:
                    assert not batch["video/mask"][at]
                    assert not batch["video"][at].any()
                    continue
                assert batch[f"{name}/frames"][at].tolist() == clip.frames.tolist()
                assert shows(batch[name][at], clip, part), (pairing, part.recordings[clip.recording].path)
                for kind, count in plan.sampling.labels.items():
                    given = batch[f"{name}/label/{kind}"][at]
                    assert given.shape == (count,)
                    assert set(given.nonzero().flatten().tolist()) == expected(clip, kind, part), (pairing, kind)


def test_clips_of_every_kind_of_label_are_labelled(dataset: Any) -> None:
    """What is compared above is not empty: each kind is there in some clip of an epoch."""
    _, _, catalog = dataset
    part = catalog.select("train", next(iter(catalog.protocols)))
    plan = Plan(part, asked("single", part), seed=0)
    clips = [clip for i in range(plan.rows_per_epoch) for clip in plan.row(i).clips[0] if clip]
    for kind in plan.sampling.labels:
        assert any(expected(clip, kind, part) for clip in clips), kind


def test_segments_lie_in_their_recordings(dataset: Any) -> None:
    _, _, catalog = dataset
    by_id = {r.id: r for r in catalog.recordings}
    for segment in catalog.segments:
        recording = by_id[segment.recording]
        assert 0 <= segment.start_s < segment.end_s, segment
        assert segment.start_s < recording.num_frames / recording.fps, segment
        assert segment.label in catalog.classes[segment.name], segment


def test_it_says_what_is_there(published: Any) -> None:
    _, _, catalog = published
    assert catalog.notes
    assert all(note and "\n" not in note for note in catalog.notes)


def test_the_root_of_something_else_is_refused(published: Any, tmp_path: Path) -> None:
    module, options, _ = published
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
    assert np.all([again.all_classes()[kind] == names for kind, names in catalog.classes.items()])


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
