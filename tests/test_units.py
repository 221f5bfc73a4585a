"""Rows that are drawn for labelled segments: their frames, labels and partners."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import videos

from crossview.datasets.catalog import Catalog, Recording, Segment, one_protocol
from crossview.datasets.sampling.coverage import plan_warnings
from crossview.datasets.sampling.geometry import Geometry
from crossview.datasets.sampling.plan import Clip, Plan
from crossview.datasets.sampling.spec import Sampling, View
from crossview.datasets.sampling.units import Units
from crossview.downstream.recognition.config import presets as recognition_presets
from crossview.errors import UserError
from crossview.methods.egoexo import losses
from crossview.methods.egoexo.config import presets as egoexo_presets
from crossview.platform.config import Data
from crossview.platform.data.decoder import Shard
from crossview.platform.data.row_decoder import RowDecoder

FPS = 10


def recording(scene: str, view: str, frames: int = 100, **facts: object) -> Recording:
    return Recording(
        dataset="d", scene=scene, view=view, perspective="ego" if view == "head" else "exo", subject="", action="",
        path=f"{scene}_{view}.mp4", kind="video", fps=FPS, num_frames=frames, height_px=64, width_px=96,
        **facts,  # type: ignore[arg-type]
    )  # fmt: skip


def segments(of: Recording, *spans: tuple[float, float, str, str]) -> list[Segment]:
    return [
        Segment(of.id, start, end, name, label)
        for start, end, verb, noun in spans
        for name, label in (("verb", verb), ("noun", noun))
    ]


KITCHEN = recording("P01_01", "head")
OTHER = recording("P02_01", "head", frames=60)
SILENT = recording("P03_01", "head")
CATALOG = Catalog(
    Path(),
    (KITCHEN, OTHER, SILENT),
    tuple(
        segments(
            KITCHEN, (1.0, 2.0, "take", "cup"), (1.5, 3.5, "open", "door"), (9.0, 11.0, "take", "pan"),
            (9.0, 11.0, "take", "lid"),
        )
        + segments(OTHER, (0.0, 0.02, "close", "door"))
    ),
    protocols=one_protocol((r, "train") for r in (KITCHEN, OTHER, SILENT)),
    classes={"verb": ("close", "open", "take", "wash"), "noun": ("cup", "door", "lid", "pan")},
)  # fmt: skip
WINDOW = View(perspective="ego", frames=4, fps=FPS, size_px=64, geometry=Geometry(fit="squash"))
ASKED = Sampling(views={"clip": WINDOW}, pairing="single", unit="verb", labels={"verb": 4, "noun": 4})


def clips(plan: Plan, rows: int) -> list[Clip]:
    found = [plan.row(i).clips[0][0] for i in range(rows)]
    return [clip for clip in found if clip is not None]


def test_an_epoch_has_one_row_per_segment_and_frames_of_it_alone() -> None:
    plan = Plan(CATALOG, ASKED, seed=0)
    assert plan.rows_per_epoch == 5  # two narrations of one span with one verb are two
    shown: dict[tuple[int, tuple[float, float]], list[int]] = {}
    for clip in clips(plan, 300):
        assert clip.segment is not None
        shown.setdefault((clip.recording, clip.segment), []).extend(clip.frames.tolist())
    assert {key: (min(frames), max(frames)) for key, frames in shown.items()} == {
        (0, (1.0, 2.0)): (10, 19),
        (0, (1.5, 3.5)): (15, 34),
        (0, (9.0, 11.0)): (90, 99),  # ends with its video
        (1, (0.0, 0.02)): (0, 0),  # shorter than a frame
    }
    assert plan.drawn == {0, 1}


def test_labels_are_those_of_the_segment_and_not_of_what_overlaps_it(tmp_path: Path) -> None:
    for r in (KITCHEN, OTHER):
        videos.write(tmp_path / r.path, frames=r.num_frames, fps=FPS)
    catalog = replace(CATALOG, root=tmp_path)
    plan = Plan(catalog, ASKED, seed=0)
    shard = Shard(start_step=0, stop_step=5, batch=1, micro_batch=1)
    batch = RowDecoder(plan, Data(catalog=tmp_path), shard).decode(np.arange(5))
    assert batch["quarantine"].tolist() == [""] * 5
    names = {kind: np.array(names) for kind, names in catalog.classes.items()}
    said = {}
    for k, clip in enumerate(clips(plan, 5)):
        labels = [set(names[kind][batch[f"clip/label/{kind}"][k, 0] == 1].tolist()) for kind in ("verb", "noun")]
        said[clip.recording, clip.segment] = labels
        assert [videos.barcode(plane[:64]) for plane in batch["clip"][k, 0]] == clip.frames.tolist()
    assert said == {
        (0, (1.0, 2.0)): [{"take"}, {"cup"}],
        (0, (1.5, 3.5)): [{"open"}, {"door"}],
        (0, (9.0, 11.0)): [{"take"}, {"pan", "lid"}],
        (1, (0.0, 0.02)): [{"close"}, {"door"}],
    }


@pytest.mark.parametrize(
    "narrations",
    [
        [("take", "pan"), ("take", "lid")],
        [("take", "pan"), ("open", "pan")],
        [("take", "pan"), ("open", "lid"), ("wash", "cup")],
    ],
)
def test_narrations_of_one_span_have_the_loss_of_single_labels(narrations: list[tuple[str, str]]) -> None:
    """An epoch has a row per narration; the rows of one span show the same frames, and each has all of its labels.

    Their cross-entropies add up to those of rows with one verb and one noun each, as EPIC-KITCHENS lists them.
    """
    listed = segments(KITCHEN, (1.0, 2.0, "open", "door"), *((9.0, 10.0, verb, noun) for verb, noun in narrations))
    catalog = Catalog(Path(), (KITCHEN,), tuple(listed), classes=CATALOG.classes)
    plan = Plan(catalog, ASKED, seed=0)
    assert plan.rows_per_epoch == 1 + len(narrations)
    rows = [clip for clip in clips(plan, plan.rows_per_epoch) if clip.segment == (9.0, 10.0)]
    assert len(rows) == len(narrations)
    for place, kind in enumerate(("verb", "noun")):
        shown = np.stack([plan.labels.of(KITCHEN, kind, 9.0, 9.9, clip.segment) for clip in rows])
        logits = torch.tensor([[0.3, -1.0, 2.0, 0.5]]).expand(len(rows), 4)
        alone = torch.tensor([catalog.classes[kind].index(labels[place]) for labels in narrations])
        assert shown.sum(1).tolist() == [len({labels[place] for labels in narrations})] * len(rows)
        shared, single = losses.cross_entropy(logits, torch.from_numpy(shown)), F.cross_entropy(logits, alone)
        assert shared.item() == pytest.approx(single.item(), abs=1e-6)


def test_cameras_of_an_event_share_its_instants() -> None:
    left, right = recording("s", "left"), recording("s", "right", start_offset_s=-0.5)
    found = [
        Segment(left.id, 2.0, 6.0, "action", "wave"),
        Segment(right.id, 3.0, 7.5, "action", "wave"),  # the same event, marked a little otherwise
        Segment(left.id, 7.0, 9.0, "action", "wave"),
        Segment(right.id, 1.0, 9.0, "action", "nod"),
    ]
    catalog = Catalog(Path(), (left, right), tuple(found))
    view = View(perspective="exo", frames=3, fps=FPS)
    pairs = Sampling(views={"a": view, "b": view}, pairing="synchronized", unit="action")
    plan = Plan(catalog, pairs, seed=0)
    assert plan.rows_per_epoch == 2  # one event, two orders; the others are seen by one camera
    for i in range(20):
        first, second = plan.row(i).clips[0]
        assert first is not None
        assert second is not None
        assert {first.segment, second.segment} == {(2.0, 6.0), (3.0, 7.5)}
        of = {clip.recording: clip.frames for clip in (first, second)}
        assert (of[0] + 5 == of[1]).all()  # the right camera started half a second earlier
        assert of[0].min() >= 25
        assert of[0].max() <= 59


def test_units_are_spans_of_their_files() -> None:
    """By the file's own time, whatever the scene's clock and wherever in the file the recording begins."""
    late = recording("s", "left", start_offset_s=4.0)
    part = recording("t", "left", first_frame=50, start_offset_s=-2.0)
    found = [Segment(r.id, 3.0, 4.5, "action", "wave") for r in (late, part)]
    units = Units.of(Catalog(Path(), (late, part), tuple(found)), "action")
    assert [(r.scene, r.first_frame, r.num_frames, r.start_s) for r in units.catalog.recordings] == [
        ("s#0", 30, 15, 7.0),
        ("t#0", 80, 15, 1.0),
    ]
    assert units.first_frames.tolist() == [30, 30]
    assert units.recordings.tolist() == [0, 1]


def test_recordings_with_their_own_clocks_share_no_event() -> None:
    first, second = recording("s", "head", own_clock=True), recording("s", "left", own_clock=True)
    found = tuple(Segment(r.id, 1.0, 2.0, "action", "wave") for r in (first, second))
    units = Units.of(Catalog(Path(), (first, second), found), "action")
    assert [r.scene for r in units.catalog.recordings] == ["s#0", "s#1"]


def test_what_overlaps_by_half_or_less_is_another_event() -> None:
    left, right = recording("s", "left"), recording("s", "right")
    found = (
        Segment(left.id, 1.0, 3.0, "action", "wave"),
        Segment(right.id, 2.0, 4.0, "action", "wave"),  # half of it
        Segment(left.id, 5.0, 7.0, "action", "wave"),
        Segment(left.id, 5.5, 7.5, "action", "wave"),  # one camera shows two
    )
    units = Units.of(Catalog(Path(), (left, right), found), "action")
    assert [r.scene for r in units.catalog.recordings] == ["s#0", "s#1", "s#2", "s#3"]


def test_recordings_without_a_segment_are_told() -> None:
    (said,) = plan_warnings(Plan(CATALOG, ASKED, seed=0))
    assert said == "1 of 3 recordings have no segment of kind 'verb' that can be drawn: d/P03_01/head"


def test_an_unknown_unit_is_refused() -> None:
    with pytest.raises(UserError, match=r"no segments of kind 'phase' here.*: noun, verb\. Choose one"):
        Plan(CATALOG, replace(ASKED, unit="phase"), seed=0)


def test_whole_recordings_are_drawn_as_before() -> None:
    plan = Plan(CATALOG, replace(ASKED, unit="recording", labels={}), seed=0)
    assert plan.rows_per_epoch == 3
    assert all(clip.segment is None for clip in clips(plan, 3))


@pytest.mark.parametrize("name", ["epic55", "epic100", "epic100_star", "epic100_r101", "epic100_r101_star"])
def test_epic_presets_draw_segments(name: str) -> None:
    assert egoexo_presets()[name]().method.sampling().unit == "verb"


def test_recognition_presets_draw_segments() -> None:
    units = {name: make().method.sampling().unit for name, make in recognition_presets().items()}
    segments = {"pkummd2": "action", "keystep": "keystep", "epic100": "verb"}
    assert units == dict.fromkeys(units, "recording") | segments
