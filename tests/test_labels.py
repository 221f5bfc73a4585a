from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from crossview.datasets.catalog import Catalog, Recording, Segment
from crossview.datasets.catalog.labels import Labels, classes_of

ONE = Recording(
    dataset="d", scene="s", view="ego", perspective="ego", subject="p", action="wave", path="a.mp4",
    kind="video", fps=10.0, num_frames=100, height_px=8, width_px=8,
)  # fmt: skip
TWO = replace(ONE, view="exo", perspective="exo", action="stir", path="b.mp4")
SEGMENTS = (
    Segment(ONE.id, 0.0, 2.0, "verb", "c10"),
    Segment(ONE.id, 1.0, 4.0, "verb", "c2"),
    Segment(ONE.id, 6.0, 6.0, "verb", "c7"),
    Segment(TWO.id, 0.0, 9.0, "verb", "c7"),
)
CATALOG = Catalog(Path("root"), (ONE, TWO), SEGMENTS)


def verbs(first: int, last: int) -> list[int]:
    return Labels(CATALOG, {"verb": 3}).of(ONE, "verb", first / ONE.fps, last / ONE.fps).tolist()


def test_classes_are_those_of_every_split_in_natural_order() -> None:
    assert classes_of(CATALOG, "verb") == ("c2", "c7", "c10")
    assert classes_of(CATALOG, "action") == ("stir", "wave")
    assert classes_of(CATALOG, "perspective") == ("exo", "ego")


def test_a_clip_has_every_class_that_its_span_shows() -> None:
    assert verbs(0, 5) == [0, 0, 1]
    assert verbs(9, 10) == [1, 0, 1]
    assert verbs(0, 9) == [0, 0, 1]
    assert verbs(20, 39) == [1, 0, 0]
    assert verbs(40, 99) == [0, 0, 0]


def test_empty_segments_label_nothing() -> None:
    assert verbs(55, 65) == [0, 0, 0]
    assert Labels(CATALOG, {"verb": 3}).of(TWO, "verb", 0.0, 2 / TWO.fps).tolist() == [0, 1, 0]


def test_actions_and_perspectives_come_from_the_recording() -> None:
    labels = Labels(CATALOG, {"action": 2, "perspective": 2})
    assert labels.of(ONE, "action", 0.0, 2 / ONE.fps).tolist() == [0, 1]
    assert labels.of(ONE, "perspective", 0.0, 2 / ONE.fps).tolist() == [0, 1]
    assert labels.of(TWO, "perspective", 0.0, 2 / TWO.fps).tolist() == [1, 0]


def test_a_part_numbers_classes_as_the_whole_does() -> None:
    part = CATALOG.keep(lambda r: r == TWO)
    assert classes_of(part, "verb") == ("c2", "c7", "c10")
    assert Labels(part, {"verb": 3}).of(TWO, "verb", 0.0, 2 / TWO.fps).tolist() == [0, 1, 0]
    assert Labels(part, {"action": 2}).of(TWO, "action", 0.0, 2 / TWO.fps).tolist() == [1, 0]


def test_declared_classes_count_where_no_recording_shows_them() -> None:
    declared = replace(CATALOG, classes={"verb": ("c10", "c9", "c7", "c2"), "action": ("jump", "stir", "wave")})
    assert Labels(declared, {"verb": 4}).of(ONE, "verb", 0.0, 5 / ONE.fps).tolist() == [1, 0, 0, 0]
    assert Labels(declared, {"action": 3}).of(TWO, "action", 0.0, 5 / TWO.fps).tolist() == [0, 1, 0]
    with pytest.raises(ValueError, match=r"kind 'verb' have 4 classes .*the method asks for 3; have .* 4"):
        Labels(declared, {"verb": 3})
    withheld = replace(declared, recordings=(ONE, replace(TWO, action="")))
    assert Labels(withheld, {"action": 3}).of(withheld.recordings[1], "action", 0.0, 5 / 30).tolist() == [0, 0, 0]
    unseen = replace(CATALOG, segments=(), classes={"verb": ("c1",)})
    assert Labels(unseen, {"verb": 1}).of(ONE, "verb", 0.0, 5 / ONE.fps).tolist() == [0]


def test_labels_outside_the_class_list_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"d/s/ego has the label 'c10' of kind 'verb', .* outside its 2 classes \(c2, c7"
    ):
        replace(CATALOG, classes={"verb": ("c2", "c7")})
    unknown = replace(CATALOG, classes={"action": ("wave", "jump")})
    with pytest.raises(ValueError, match=r"d/s/exo has the label 'stir' of kind 'action'"):
        Labels(unknown, {"action": 2})
    phases = {"phase": {ONE.id: np.full(100, 2, np.int32)}}
    replace(CATALOG, frame_labels=phases, classes={"phase/wave": ("a", "b", "c"), "phase/stir": ("a",)})
    with pytest.raises(ValueError, match=r"d/s/ego has the label 2 of kind 'phase/wave', .* outside its 2 classes"):
        replace(CATALOG, frame_labels=phases, classes={"phase/wave": ("a", "b")})


def test_another_number_of_classes_is_refused_with_the_right_one() -> None:
    with pytest.raises(
        ValueError, match=r"kind 'verb' have 3 classes \(c2, c7, c10\), but the method asks for 5; have"
    ):
        Labels(CATALOG, {"verb": 5})
    with pytest.raises(ValueError, match=r"but --method\.verbs is 5; pass --method\.verbs 3, or correct the catalog"):
        Labels(CATALOG, {"verb": 5}, {"verb": "method.verbs"})
    with pytest.raises(ValueError, match=r"no labels of kind 'noun'; kinds here: action, perspective, verb"):
        Labels(CATALOG, {"noun": 5})


@pytest.mark.parametrize("offset_s", [0.0, 0.7, 1.1, 5.0])
def test_a_segment_that_touches_a_clip_is_not_shown_wherever_the_scenes_clock_is(offset_s: float) -> None:
    """Times are on the scene's clock before, so they are rounded to either side of a segment's."""
    moved = replace(ONE, start_offset_s=offset_s)
    for k in range(1, 99):
        segments = (Segment(ONE.id, 0.0, k / 10, "verb", "cut"), Segment(ONE.id, k / 10, 9.9, "verb", "mix"))
        catalog = Catalog(Path("root"), (moved,), segments)
        labels = Labels(catalog, {"verb": 2})
        before, after = (catalog.instants(moved, np.array([k - 1, k])) - offset_s).tolist()
        assert labels.of(moved, "verb", before, before).tolist() == [1, 0]
        assert labels.of(moved, "verb", after, after).tolist() == [0, 1]
