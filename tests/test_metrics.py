"""What a row of metrics.parquet says of throughput and memory."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest
import ranks
import torch
import torch.distributed as dist
from feature_run import experiment

from crossview.platform.train import metrics
from crossview.platform.train.launcher import resume, start
from crossview.platform.train.metrics import Interval, Metrics, read_metrics
from crossview.storage.tables import write_table


def test_samples_per_second_count_from_the_last_row(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 102.0, 102.5])
    monkeypatch.setattr(metrics, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    interval = Interval(torch.device("cpu"), 4)
    first = interval.row({"loss": torch.tensor(2.5)}, 7, batch=8)
    assert (first["loss"], first["samples_per_s"]) == (2.5, 12.0)
    assert interval.row({"loss": torch.tensor(1.0)}, 8, batch=8)["samples_per_s"] == 16.0


def test_peak_memory_on_the_cpu_is_that_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = SimpleNamespace(RUSAGE_SELF=0, getrusage=lambda who: SimpleNamespace(ru_maxrss=3 * 2**20))
    monkeypatch.setattr(metrics, "resource", usage)
    row = Interval(torch.device("cpu"), 0).row({"loss": torch.tensor(1.0)}, 1, batch=1)
    assert row["peak_memory_gb"] == 3.0


def work(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    usage = SimpleNamespace(RUSAGE_SELF=0, getrusage=lambda who: SimpleNamespace(ru_maxrss=(3 - rank) * 2**20))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(metrics, "resource", usage)
        values = {"loss": torch.tensor(1.0 + rank), "grad_norm": torch.tensor(0.5)}
        row = Interval(torch.device("cpu"), 0).row(values, 1, batch=1)
    row.pop("samples_per_s")
    torch.save(row, folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_losses_are_means_and_memory_is_the_largest_over_workers(tmp_path: Path) -> None:
    row = {"loss": 1.5, "grad_norm": 0.5, "peak_memory_gb": 3.0}
    assert ranks.results(work, 2, tmp_path) == [row, row]


def test_every_row_of_a_run_has_both(straight: Path) -> None:
    for row in read_metrics(straight):
        assert row["samples_per_s"] > 0
        assert 0.01 < row["peak_memory_gb"] < 100


def test_a_run_of_crossview_0_4_is_resumed_with_the_new_columns(features: Path, tmp_path: Path) -> None:
    run = start(tmp_path / "run", "byov", experiment(features, optim__steps=6), in_process=True, until=4)
    new = {"samples_per_s", "peak_memory_gb"}
    rows = [{k: v for k, v in row.items() if k not in new} for row in read_metrics(run)]
    write_table(pa.Table.from_pylist(rows), run / "metrics.parquet")
    resume(run, in_process=True)
    found = read_metrics(run)
    assert [row["step"] for row in found] == [1, 2, 3, 4, 5, 6]
    assert [new <= row.keys() for row in found] == [False] * 4 + [True] * 2
    assert found[:4] == rows


def test_rows_after_the_checkpoint_are_left_out_on_resume(tmp_path: Path) -> None:
    first = Metrics(tmp_path, 0, [])
    for step in (1, 2, 3):
        first.log(step, {"loss": float(step)})
    first.close()
    again = Metrics(tmp_path, 2, [])
    again.log(3, {"loss": 30.0})
    again.close()
    assert [row["loss"] for row in read_metrics(tmp_path)] == [1.0, 2.0, 30.0]
