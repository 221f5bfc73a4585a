from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import videos

from crossview.datasets.catalog import Catalog, Recording
from crossview.datasets.sampling.geometry import SQUASH
from crossview.datasets.sampling.plan import Plan
from crossview.datasets.sampling.spec import Sampling, View
from crossview.datasets.video.decode import decode, probe
from crossview.errors import UserError
from crossview.platform.config import Data
from crossview.platform.data import unreadable
from crossview.platform.data.loader import Shard, Stream
from crossview.platform.data.row_decoder import RowDecoder
from crossview.platform.data.unreadable import Quarantine

LENGTHS = (24, 30, 27, 33)
FOOTAGE = Path(__file__).parents[2] / "shared" / "data" / "single_person"
ONE: dict[str, int] = {"start_step": 0, "stop_step": 1, "batch": 1, "micro_batch": 1}
PAIR = Sampling(
    views={
        "ego": View(perspective="ego", frames=4, spread="random", size_px=32, geometry=SQUASH),
        "exo": View(perspective="exo", frames=4, spread="random", size_px=64, geometry=SQUASH),
    },
    pairing="unpaired",
)


def facts(path: Path, root: Path, **changes: Any) -> Recording:
    values: dict[str, Any] = {
        "dataset": "test", "scene": "s0", "view": "ego", "perspective": "ego", "subject": "p0",
        "action": "wave", "path": str(path.relative_to(root)), "kind": "video", "fps": 30.0, "num_frames": 24,
        "height_px": 64, "width_px": 96,
    }  # fmt: skip
    return Recording(**(values | changes))


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four scenes of an ego and an exo recording."""
    root = tmp_path_factory.mktemp("stream")
    for scene, length in enumerate(LENGTHS):
        for view in ("ego", "exo"):
            videos.write(root / f"s{scene}_{view}.mp4", frames=length)
    return root


def catalog_of(root: Path) -> Catalog:
    return Catalog(
        root,
        tuple(
            facts(root / f"s{k}_{view}.mp4", root, scene=f"s{k}", view=view, perspective=view, num_frames=length)
            for k, length in enumerate(LENGTHS)
            for view in ("ego", "exo")
        ),
    )


def stream(plan: Plan, shard: Shard, *, in_process: bool = True, run_dir: Path | None = None, **data: Any) -> Stream:
    options = Data(catalog=plan.catalog.root, **data)
    return Stream(plan, options, shard, device=torch.device("cpu"), run_dir=run_dir, in_process=in_process, prefetch=0)


def collect(source: Stream) -> dict[str, torch.Tensor]:
    with source:
        batches = list(source)
    return {name: torch.cat([b[name] for b in batches]) for name in batches[0]}


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype
        assert torch.equal(a[name], b[name]), name


def test_batches_hold_what_the_plan_says(root: Path) -> None:
    plan = Plan(catalog_of(root), PAIR, seed=3)
    batch = collect(stream(plan, Shard(start_step=0, stop_step=3, batch=2, micro_batch=2)))
    assert batch["ego"].shape == (6, 4, 3, 32, 32)
    assert batch["exo"].shape == (6, 4, 3, 64, 64)
    assert batch["sample"].tolist() == list(range(6))
    for k in range(6):
        row = plan.row(k)
        assert int(batch["seed"][k]) == row.seed
        for slot, clip in zip(plan.slots, row.clips[0], strict=True):
            assert clip is not None
            recording = plan.catalog.recordings[clip.recording]
            assert batch[f"{slot}/frames"][k].tolist() == clip.frames.tolist()
            assert int(batch[f"{slot}/num_frames"][k]) == recording.num_frames
            shown = [videos.barcode(f.permute(1, 2, 0).numpy()) for f in batch[slot][k]]
            assert shown == clip.frames.tolist()


@pytest.mark.ray
@pytest.mark.parametrize("world", [2, 3])
def test_ranks_share_the_rows_through_ray(
    root: Path, ray_cluster: None, world: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Plan(catalog_of(root), replace(PAIR, windows=2), seed=0)
    whole = collect(stream(plan, Shard(start_step=1, stop_step=5, batch=6 * world, micro_batch=3)))
    assert whole["sample"].tolist() == [i for i in range(6 * world, 30 * world) for _ in range(2)]
    assert len(set(whole["seed"].tolist())) == 48 * world
    row_bytes = sum(a.nbytes for a in RowDecoder(plan, Data(catalog=root), Shard(**ONE)).empty(1).values())
    for rank in range(world):
        fitting, block_rows = ((2, 1), (7, 6), (100, 24))[rank]  # micro batches in parts, two in a block, all in one
        monkeypatch.setattr("crossview.platform.data.loader.BLOCK_BYTES", fitting * row_bytes)
        monkeypatch.setattr(
            "crossview.platform.data.loader.EXECUTION_BLOCKS", 3 if rank == 1 else 4096
        )  # two executions
        monkeypatch.setattr("crossview.platform.data.loader.AHEAD_BLOCKS", 1)
        shard = Shard(start_step=1, stop_step=5, batch=6 * world, micro_batch=3, rank=rank, world=world)
        source = stream(plan, shard, in_process=False, decode_actors=2 if rank == 0 else 1)
        assert source.block_rows() == block_rows
        mine = collect(source)
        own = {name: v.reshape(4, 2, world, 6, *v.shape[1:])[:, :, rank].flatten(0, 2) for name, v in whole.items()}
        assert_same(mine, own)


class Blocks:
    """A dataset that says when its execution starts and ends."""

    def __init__(self, first: int, stop: int, rows: int, said: list[str]) -> None:
        self.first, self.stop, self.rows, self.said = first, stop, rows, said

    def iter_batches(self, **options: object) -> Iterator[list[int]]:
        self.said.append(f"start {self.first}")
        try:
            for row in range(self.first, self.stop, self.rows):
                yield list(range(row, min(row + self.rows, self.stop)))
        finally:
            self.said.append(f"end {self.first}")


def executions(root: Path, monkeypatch: pytest.MonkeyPatch, ahead: int) -> tuple[Stream, list[str]]:
    said: list[str] = []
    monkeypatch.setattr("crossview.platform.data.loader.EXECUTION_BLOCKS", 10)
    monkeypatch.setattr("crossview.platform.data.loader.AHEAD_BLOCKS", ahead)
    plan = Plan(catalog_of(root), PAIR, seed=5)
    source = stream(plan, Shard(start_step=0, stop_step=25, batch=1, micro_batch=1), in_process=False)
    monkeypatch.setattr(source, "_dataset", lambda first, stop, rows: Blocks(first, stop, rows, said))
    return source, said


@pytest.mark.parametrize("ahead", [4, 10, 99])
def test_the_next_execution_starts_before_the_last_one_ends(
    root: Path, monkeypatch: pytest.MonkeyPatch, ahead: int
) -> None:
    source, said = executions(root, monkeypatch, ahead)
    found, waits = [], 0
    for row, table in enumerate(source._tables(1)):
        found += table
        while ahead == 4 and row in (5, 15) and f"start {row + 5}" not in said:
            time.sleep(0.01)
            waits += 1
            assert waits < 1000, "the next execution has not started"
        if ahead == 4 and row in (4, 14):
            assert f"start {row + 6}" not in said
    assert found == list(range(25))
    assert sorted(said) == sorted(f"{what} {first}" for first in (0, 10, 20) for what in ("start", "end"))


def test_a_consumer_that_stops_early_ends_every_execution(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, said = executions(root, monkeypatch, 4)
    tables = source._tables(1)
    for _ in range(8):
        next(tables)
    tables.close()
    assert sorted(said) == ["end 0", "end 10", "start 0", "start 10"]


@pytest.mark.ray
def test_a_consumer_that_stops_early_frees_the_actors(root: Path, ray_cluster: None) -> None:
    import ray

    plan = Plan(catalog_of(root), PAIR, seed=1)
    with stream(plan, Shard(start_step=0, stop_step=100_000, batch=4, micro_batch=2), in_process=False) as source:
        assert next(iter(source))["sample"].tolist() == [0, 1]
        assert source.wait_s > 0
        assert ray.available_resources()["CPU"] < 4
    waits = 0
    while ray.available_resources().get("CPU", 0) < 4:
        time.sleep(0.1)
        waits += 1
        assert waits < 300, "the actors' CPUs are still taken"


def test_decoded_rows_take_a_share_of_the_object_store(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the dataset is made, and none of it stays for other datasets of this process."""
    import ray.data

    found: list[Any] = []

    def made(blocks: object) -> None:
        found.append(ray.data.DataContext.get_current())
        raise InterruptedError

    monkeypatch.setattr("crossview.platform.cluster.connect.connect", lambda: None)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"object_store_memory": 8e9})
    monkeypatch.setattr(ray.data, "from_blocks", made)
    shard = Shard(start_step=0, stop_step=4, batch=4, micro_batch=2, rank=1, world=2)
    source = stream(Plan(catalog_of(root), PAIR, seed=1), shard, in_process=False, store_share=0.25)
    with pytest.raises(InterruptedError):
        source._dataset(0, 8, 2)
    (context,) = found
    assert context.execution_options.resource_limits.object_store_memory == 8e9 * 0.25 / 2
    assert context.execution_options.preserve_order
    assert not ray.data.DataContext.get_current().execution_options.preserve_order


@pytest.mark.parametrize("prefetch", [0, 2])
def test_a_later_start_gives_the_tail(root: Path, prefetch: int) -> None:
    plan = Plan(catalog_of(root), PAIR, seed=5)
    whole = collect(stream(plan, Shard(start_step=0, stop_step=4, batch=4, micro_batch=2)))
    rest = stream(Plan(catalog_of(root), PAIR, seed=5), Shard(start_step=3, stop_step=4, batch=4, micro_batch=4))
    rest.prefetch = prefetch
    assert_same(collect(rest), {name: values[12:] for name, values in whole.items()})


@pytest.mark.parametrize("decoder", ["pyav", "decord"])
def test_both_decoders_give_nearly_the_same_pixels(root: Path, decoder: str) -> None:
    plan = Plan(catalog_of(root), PAIR, seed=0)
    batch = collect(stream(plan, Shard(start_step=0, stop_step=1, batch=2, micro_batch=2), decoder=decoder))
    for slot, clip in zip(plan.slots, plan.row(0).clips[0], strict=True):
        assert clip is not None
        path = plan.catalog.file(plan.catalog.recordings[clip.recording])
        pictures = batch[slot][0].permute(0, 2, 3, 1).numpy()
        assert [videos.barcode(p) for p in pictures] == clip.frames.tolist()
        exact = decode(path, clip.frames, size_px=PAIR.views[slot].size_px, pixels="rgb")
        assert np.abs(pictures.astype(int) - exact).mean() < 4  # chroma is resized before or after the conversion


def test_features_are_read_by_frame(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = {view: rng.standard_normal((20, 5, 6)).astype(np.float16) for view in ("ego", "exo")}
    for view, array in values.items():
        np.save(tmp_path / f"{view}.npy", array)
    recordings = tuple(
        facts(tmp_path / f"{v}.npy", tmp_path, view=v, perspective=v, kind="features", num_frames=20) for v in values
    )
    batch = collect(
        stream(
            Plan(Catalog(tmp_path, recordings), PAIR, seed=0), Shard(start_step=0, stop_step=2, batch=1, micro_batch=1)
        )
    )
    assert batch["ego"].dtype == torch.float16
    for view in values:
        assert np.array_equal(batch[view][1].numpy(), values[view][batch[f"{view}/frames"][1].numpy()])


def group_sampling(ego: int, exo: int, size_px: int = 32) -> Sampling:
    view = View(perspective="ego", frames=3, fps=10, count=ego, size_px=size_px)
    return Sampling(views={"ego": view, "exo": replace(view, perspective="exo", count=exo)}, pairing="group", windows=2)


def test_a_missing_camera_is_zero_and_masked(root: Path) -> None:
    recordings = tuple(r for r in catalog_of(root).recordings if r.id != "test/s2/exo")
    plan = Plan(Catalog(root, recordings), group_sampling(1, 1), seed=0)
    batch = collect(stream(plan, Shard(start_step=0, stop_step=4, batch=1, micro_batch=1)))
    assert batch["video"].shape == (8, 2, 3, 3, 32, 32)
    assert batch["video/mask"].dtype == torch.bool
    present = [[clip is not None for clip in clips] for k in range(4) for clips in plan.row(k).clips]
    assert batch["video/mask"].tolist() == present
    assert sum(not all(p) for p in present) == 2
    assert not batch["video"][~batch["video/mask"]].any()
    assert batch["video"][batch["video/mask"]].flatten(1).any(dim=1).all()


@pytest.mark.skipif(not FOOTAGE.is_dir(), reason="the four-camera footage is not here")
def test_four_real_cameras_travel_together() -> None:
    recordings = []
    for path in sorted(FOOTAGE.glob("*.mp4")):
        info = probe(path)
        size = {"fps": info.fps, "num_frames": info.num_frames, "height_px": info.height_px, "width_px": info.width_px}
        recordings.append(facts(path, FOOTAGE, view=path.stem, perspective="exo", **size))
    assert {r.width_px for r in recordings} == {1080, 1088}  # as displayed: the files are rotated
    view = View(perspective="exo", frames=3, fps=5, count=4, size_px=64)
    plan = Plan(Catalog(FOOTAGE, tuple(recordings)), Sampling(views={"exo": view}, pairing="group", windows=2), seed=0)
    batch = collect(stream(plan, Shard(**ONE)))
    assert batch["video"].shape == (2, 4, 3, 3, 64, 64)
    assert batch["video/mask"].all()
    assert (batch["video/frames"] == batch["video/frames"][:, :1]).all()
    assert (batch["video"].float().flatten(2).std(dim=2) > 10).all()


@pytest.fixture
def damaged(root: Path, tmp_path: Path) -> Catalog:
    """The same recordings, one file cut off and one overwritten with text."""
    for path in root.glob("*.mp4"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    videos.truncate(tmp_path / "s1_exo.mp4", 0.5)
    (tmp_path / "s3_ego.mp4").write_text("not a video")
    return catalog_of(tmp_path)


def test_damaged_files_are_replaced_listed_and_counted(damaged: Catalog, tmp_path: Path) -> None:
    plan = Plan(damaged, PAIR, seed=0)
    run = tmp_path / "run"
    run.mkdir()
    source = stream(plan, Shard(start_step=0, stop_step=6, batch=2, micro_batch=2), run_dir=run, max_quarantined=0.5)
    whole = collect(source)
    assert whole["sample"].tolist() == list(range(12))
    assert source.quarantined == 2
    listed = pq.read_table(run / "quarantine.parquet").to_pylist()
    assert [row["recording"] for row in listed] == ["test/s1/exo", "test/s3/ego"]
    assert all(Path(row["path"]).name in row["reason"] for row in listed)
    for k in range(12):  # every picture is of the frame that its number says
        for view in ("ego", "exo"):
            shown = [videos.barcode(f.permute(1, 2, 0).numpy()) for f in whole[view][k]]
            assert shown == whole[f"{view}/frames"][k].tolist()
    later = Shard(start_step=4, stop_step=6, batch=2, micro_batch=1)
    resumed = stream(plan, later, run_dir=run, max_quarantined=0.5)
    assert_same(collect(resumed), {name: values[8:] for name, values in whole.items()})
    assert resumed.quarantined == 2
    assert len(pq.read_table(run / "quarantine.parquet")) == 2


@pytest.mark.ray
def test_damaged_files_are_replaced_alike_in_every_actor(damaged: Catalog, ray_cluster: None, tmp_path: Path) -> None:
    plan = Plan(damaged, PAIR, seed=0)
    shard = Shard(start_step=0, stop_step=6, batch=2, micro_batch=1)
    through_ray = stream(plan, shard, in_process=False, run_dir=tmp_path, decode_actors=2, max_quarantined=0.5)
    assert_same(collect(through_ray), collect(stream(plan, shard, max_quarantined=0.5)))
    assert through_ray.quarantined == len(pq.read_table(tmp_path / "quarantine.parquet")) == 2


def test_too_many_damaged_files_stop_the_run(damaged: Catalog) -> None:
    shard = Shard(start_step=0, stop_step=6, batch=2, micro_batch=2)
    source = stream(Plan(damaged, PAIR, seed=0), shard, max_quarantined=0.1)
    with pytest.raises(ValueError, match=r"(?s)[12] of 8 recordings.*10%.*--data.max-quarantined.*s\d_e\wo.mp4"):
        collect(source)


def test_files_that_were_mended_no_longer_count_against_the_limit(tmp_path: Path) -> None:
    def report(name: str) -> str:
        return json.dumps([{"recording": name, "path": f"{name}.mp4", "reason": f"{name}.mp4: cut"}])

    first = Quarantine(tmp_path, recordings=8, max_share=0.25)
    with pytest.raises(ValueError, match=r"3 of 8 recordings are unreadable.*`crossview prepare`, or start a new run"):
        first.add([report("a"), report("b"), report("c")])
    resumed = Quarantine(tmp_path, recordings=8, max_share=0.25)
    resumed.add([report("c"), "", report("d")])
    assert set(unreadable.read(tmp_path)) == {"a", "b", "c", "d"}
    with pytest.raises(ValueError, match=r"3 of 8 recordings") as caught:
        resumed.add([report("e")])
    assert "a.mp4" not in str(caught.value)


def test_a_row_that_nothing_can_replace_stops_the_run(damaged: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crossview.platform.data.decoder.MAX_TRIES", 3)
    broken = tuple(r for r in damaged.recordings if r.id in ("test/s3/ego", "test/s0/exo"))
    plan = Plan(Catalog(damaged.root, broken), PAIR, seed=0)
    with pytest.raises(ValueError, match="sample 0 has no readable row"):
        collect(stream(plan, Shard(**ONE), max_quarantined=0.9))


@pytest.mark.ray
def test_an_input_error_comes_back_from_an_actor_as_itself(root: Path, ray_cluster: None, tmp_path: Path) -> None:
    videos.write(tmp_path / "ego.mp4", frames=24, b_frames=2)
    videos.write(tmp_path / "exo.mp4", frames=24, b_frames=2)
    pair = tuple(facts(tmp_path / f"{v}.mp4", tmp_path, view=v, perspective=v) for v in ("ego", "exo"))
    plan = Plan(Catalog(tmp_path, pair), PAIR, seed=0)
    shard = Shard(**ONE)
    with pytest.raises(ValueError, match="decoder 'decord' may return wrong frames") as caught:
        collect(stream(plan, shard, in_process=False, decoder="decord"))
    assert type(caught.value) is UserError


def test_a_batch_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="batch 8 does not divide into 3 workers x micro batches of 1"):
        Shard(start_step=0, stop_step=1, batch=8, micro_batch=1, world=3)


def test_a_missing_root_is_refused(root: Path) -> None:
    gone = Catalog(root / "gone", catalog_of(root).recordings)
    with pytest.raises(ValueError, match=r"gone.*missing; restore it, or .*`crossview prepare`.*--data.root"):
        stream(Plan(gone, PAIR, seed=0), Shard(**ONE))
