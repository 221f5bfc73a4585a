"""A run is resolved once: configuration, catalog, plan and model are made once and handed down."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import tiny_run
import torch

from crossview.datasets.catalog import Catalog
from crossview.datasets.catalog.tables import RECORDINGS, write_rows
from crossview.datasets.sampling.plan import Plan
from crossview.methods.byov.model import Model
from crossview.platform import checkpoint, config
from crossview.platform.train.launcher import resume
from crossview.platform.train.resolve import initialised, saved
from crossview.platform.train.state import Training, Worker


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often a run's parts are read or built."""
    counts: Counter[str] = Counter()

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            counts[name] += 1
            return function(*arguments, **options)

        return call

    monkeypatch.setattr(Catalog, "load", staticmethod(counted("catalog", Catalog.load)))
    monkeypatch.setattr(Plan, "__init__", counted("plan", Plan.__init__))
    monkeypatch.setattr(Model, "__init__", counted("model", Model.__init__))
    monkeypatch.setattr(config, "from_dict", counted("configuration", config.from_dict))
    return counts


def test_training_makes_each_part_once(tmp_path: Path, made: Counter[str]) -> None:
    tiny_run.write_catalog(tmp_path)
    run = tiny_run.train(tmp_path / "run", tmp_path)
    assert made == {"catalog": 1, "plan": 1, "model": 1}
    for folder in (run / "checkpoints").iterdir():  # so that there is something left to do
        checkpoint.remove(folder)
    made.clear()
    resume(run, in_process=True)
    assert made == {"configuration": 1, "catalog": 1, "plan": 1, "model": 1}


def test_the_first_model_is_a_function_of_the_experiment_and_training_continues_its_random_numbers(
    tmp_path: Path,
) -> None:
    tiny_run.write_catalog(tmp_path)
    run = saved(tiny_run.train(tmp_path / "run", tmp_path))
    torch.manual_seed(99)
    first, again = initialised(run.method, run.experiment), initialised(run.method, run.experiment)
    assert all(torch.equal(a, b) for a, b in zip(first.model.parameters(), again.model.parameters(), strict=True))
    assert torch.equal(first.rng, again.rng)
    for folder in (run.folder / "checkpoints").iterdir():
        checkpoint.remove(folder)
    torch.manual_seed(98)
    Training(run, Worker(torch.device("cpu")))
    assert torch.equal(torch.get_rng_state(), first.rng)


def test_what_travels_to_workers_is_without_catalogs_and_model(tmp_path: Path) -> None:
    tiny_run.write_catalog(tmp_path)
    run = saved(tiny_run.train(tmp_path / "run", tmp_path))
    sent = run.for_workers()
    assert sent.catalogs == ()
    assert sent.initial is None
    assert sent.total_steps == run.total_steps == 4
    assert sent.info == json.loads((run.folder / "run.json").read_text())


def test_copies_of_the_recordings_go_on_with_a_run_and_others_do_not(tmp_path: Path) -> None:
    """Where a file and its index are decides no sample; when its frames are shown does."""
    catalog = tiny_run.write_catalog(tmp_path)
    run = tiny_run.train(tmp_path / "run", tmp_path)
    moved = tuple(replace(r, index="elsewhere.npz") for r in catalog.recordings)
    write_rows(tmp_path / "catalog" / "recordings.parquet", [asdict(r) for r in moved], RECORDINGS)
    saved(run).with_recordings_noted()
    late = (replace(catalog.recordings[0], first_s=0.5), *catalog.recordings[1:])
    replace(catalog, recordings=late).save(tmp_path / "catalog")
    with pytest.raises(ValueError, match="are not those that the run started with"):
        saved(run).with_recordings_noted()
