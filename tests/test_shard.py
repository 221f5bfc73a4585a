from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from crossview.datasets.catalog import Catalog, Recording
from crossview.datasets.sampling.plan import Clip, Plan, Row
from crossview.datasets.sampling.spec import Sampling, View
from crossview.datasets.video.frames import UnreadableVideo
from crossview.platform.config import Data
from crossview.platform.data.decoder import Shard
from crossview.platform.data.row_decoder import RowDecoder

RECORDINGS, FIRST = 12, 20
BROKEN = {2: 0, 5: 0, 7: 10, 8: 0}
"""From which frame on a recording cannot be read."""


@pytest.mark.parametrize("world", [1, 2, 4])
def test_ranks_take_the_micro_batches_of_each_step_in_turn(world: int) -> None:
    """What is together in a pass is the same for any number of ranks, and all rows of a step are in it."""
    shards = [Shard(start_step=3, stop_step=5, batch=16, micro_batch=2, rank=r, world=world) for r in range(world)]
    assert [shard.length for shard in shards] == [32 // world] * world
    rows = np.stack([shard.rows(np.arange(shard.length)) for shard in shards])  # (world, rows of both steps)
    passes = rows.reshape(world, -1, 2)  # (world, passes, micro batch)
    expected = np.arange(48, 80).reshape(-1, world, 2).swapaxes(0, 1)
    assert np.array_equal(passes, expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rank": 2}, "rank 2 of 2"),
        ({"start_step": 6}, "steps 6 to 5"),
        ({"micro_batch": 3}, "does not divide into 2 workers x micro batches of 3"),
    ],
)
def test_impossible_shards_are_refused(changes: dict[str, int], message: str) -> None:
    options = {"start_step": 3, "stop_step": 5, "batch": 16, "micro_batch": 2, "rank": 0, "world": 2}
    with pytest.raises(ValueError, match=message):
        Shard(**(options | changes))


class Blank(RowDecoder):
    """Reads nothing but zeros, and writes down what it is asked for."""

    def __init__(self, plan: Plan, rows: int) -> None:
        shard = Shard(start_step=0, stop_step=1, batch=rows, micro_batch=rows)
        super().__init__(plan, Data(catalog=Path("catalog"), max_quarantined=1.0), shard)
        self.asked: dict[int, list[int]] = {}

    def read(self, recording: int, clips: list[Clip], places: list[np.ndarray]) -> None:
        last = max(int(clip.frames[-1]) for clip in clips)
        self.asked.setdefault(recording, []).append(last)
        if last >= BROKEN.get(recording, last + 1):
            raise UnreadableVideo(f"{recording}: cut")
        assert [place.shape for place in places] == [(len(clip.frames), *self.slots[0].shape[1:]) for clip in clips]


@pytest.fixture
def plan() -> Plan:
    """Recording k has FIRST + k frames."""
    recordings = tuple(
        Recording(
            dataset="test",
            scene=f"s{k}",
            view="ego",
            perspective="ego",
            subject="",
            action="",
            path=f"{k}.mp4",
            kind="video",
            fps=30.0,
            num_frames=FIRST + k,
            height_px=4,
            width_px=4,
        )
        for k in range(RECORDINGS)
    )
    view = View(perspective="ego", frames=3, spread="random", size_px=4)
    return Plan(Catalog(Path("root"), recordings), Sampling(views={"clip": view}, pairing="single", windows=2), seed=0)


def first_clip(row: Row) -> Clip:
    clip = row.clips[0][0]
    assert clip is not None
    return clip


def test_an_unreadable_row_is_replaced_by_a_readable_one_of_its_epoch(plan: Plan) -> None:
    rows = 6 * RECORDINGS
    out = Blank(plan, rows).decode(np.arange(rows))
    replacements = []
    for i in range(rows):
        shown = int(out["clip/num_frames"][i, 0]) - FIRST
        first = i - i % RECORDINGS
        (source,) = (row for k in range(first, first + RECORDINGS) if first_clip(row := plan.row(k)).recording == shown)
        frames = np.stack([clip.frames for (clip,) in source.clips if clip])
        assert np.array_equal(out["clip/frames"][i], frames)
        assert frames.max() < BROKEN.get(shown, FIRST + RECORDINGS)
        if source.sample != i:
            replacements.append(source.sample - first)
    assert len(replacements) >= 6 * 3
    assert len(set(replacements)) > 4
    assert out["sample"].tolist() == [[i, i] for i in range(rows)]


def test_what_could_not_be_read_is_not_asked_for_again(plan: Plan) -> None:
    """Only a read that ends earlier may succeed: the others would cost a time limit each."""
    rows = 6 * RECORDINGS
    decoder = Blank(plan, rows)
    reports = "".join(decoder.decode(np.arange(rows))["quarantine"])
    for recording, first in BROKEN.items():
        failed = [last for last in decoder.asked[recording] if last >= first]
        assert failed == sorted(set(failed), reverse=True)
        assert reports.count(f'"test/s{recording}/ego"') == 1


def test_every_window_of_a_row_has_noise_of_its_own(plan: Plan) -> None:
    seeds = Blank(plan, RECORDINGS).decode(np.arange(RECORDINGS))["seed"]
    assert [int(seed) for seed in seeds[:, 0]] == [plan.row(i).seed for i in range(RECORDINGS)]
    assert len(np.unique(seeds)) == 2 * RECORDINGS


@pytest.mark.parametrize("decoder", ["pyav", "decord"])
def test_seeking_may_pass_over_what_is_damaged(plan: Plan, decoder: Literal["pyav", "decord"]) -> None:
    """What failed is asked for again where it is sought: of the decoders, PyAV alone does so."""
    indexed = replace(plan.catalog, recordings=tuple(replace(r, index="i.npz") for r in plan.catalog.recordings))
    rows = 6 * RECORDINGS
    blank = Blank(Plan(indexed, plan.sampling, seed=0), rows)
    blank.data = replace(blank.data, decoder=decoder)
    blank.decode(np.arange(rows))
    failed = [last for last in blank.asked[2] if last >= BROKEN[2]]
    assert (failed != sorted(set(failed), reverse=True)) == (decoder == "pyav")
