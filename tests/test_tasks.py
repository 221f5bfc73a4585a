"""Tasks as plugins: found by their folders, refused before anything is embedded, and a run that is opened once."""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from synchronized import SEEN, write_synchronized
from tiny_run import train, write_catalog

import crossview.downstream
from crossview import storage
from crossview.datasets.catalog import Catalog, Recording
from crossview.downstream import results
from crossview.methods.byov.model import Model
from crossview.platform import checkpoint, run_folder
from crossview.platform.cli.main import main
from crossview.platform.config import is_trainer
from crossview.platform.evaluate import frame_embeddings, opened, parts
from crossview.platform.evaluate.runner import evaluate
from crossview.platform.evaluate.tasks import default_tasks, make, options_class, options_from, task_names

CONFIG = '''
from dataclasses import dataclass
from typing import ClassVar

from crossview.downstream.task import Mode, Reads, TaskOptions


@dataclass(frozen=True, kw_only=True)
class Options(TaskOptions):
    """How long vectors are."""

    reads: ClassVar[Reads] = "frames"
    fitted: ClassVar[bool] = False
    power: int = 1
    """Of the length."""

    def metrics(self) -> dict[str, Mode]:
        return {"toy/length": "min"}
'''
TASK = """
import numpy as np

from crossview.downstream import task


class Task(task.Task):
    def predict(self, fitted, test):
        flat = test.table["vector"].combine_chunks().flatten().to_numpy()
        return float(np.abs(flat).mean() ** self.options.power)

    def score(self, predictions, test):
        return {"toy/length": predictions}

    def items(self, predictions, test):
        return test.table.num_rows

    def baselines(self):
        return {"nothing": Nothing(self.options)}

    def details(self, predictions, test):
        return {"lengths": [{"length": predictions}]}


class Nothing(Task):
    def predict(self, fitted, test):
        return 0.0
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synchronized(tmp_path_factory.mktemp("synchronized")).root


@pytest.fixture(scope="module")
def run(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("runs") / "tiny", root, views=SEEN)


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder `downstream/toy/` outside this repository."""
    folder = tmp_path / "downstream" / "toy"
    folder.mkdir(parents=True)
    for name, text in (("__init__", '"""A toy."""\n'), ("config", CONFIG), ("task", TASK)):
        (folder / f"{name}.py").write_text(text)
    monkeypatch.setattr(crossview.downstream, "__path__", [*crossview.downstream.__path__, str(folder.parent)])
    importlib.invalidate_caches()
    yield
    for name in [n for n in sys.modules if n.startswith("crossview.downstream.toy")]:
        del sys.modules[name]


@pytest.mark.parametrize("name", task_names())
def test_every_task_declares_what_it_is(name: str) -> None:
    kind = options_class(name)
    options = kind()
    assert (kind.__doc__ or "").strip()
    assert options.reads in ("frames", "clips", "encoder", "samples", "predictions")
    assert isinstance(options.fitted, bool)
    assert set(options.metrics().values()) <= {"max", "min"}
    assert make((name,))[name].options == options
    assert options_from(name, {}) == options
    for field in vars(options):
        with pytest.raises(ValueError, match=rf"{name}.*{field}"):
            options_from(name, {field: "many"})


def test_some_task_is_scored_where_none_is_named() -> None:
    assert default_tasks() == ("phases",)
    with pytest.raises(ValueError, match="task 'dance' is unknown; choose from action_probe"):
        options_class("dance")
    with pytest.raises(ValueError, match="options of task phases: can not match"):
        options_from("phases", {"kk": 3})


def test_a_folder_is_a_task(toy: None, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "toy" in task_names()
    table = evaluate(run, tasks=("toy",), options={"toy": options_class("toy")(power=2)}, in_process=True)
    rows = results.scores(table)
    once = results.scores(evaluate(run, tasks=("toy",), in_process=True))
    assert set(rows) == {"trained", "frozen features", "frozen mean", "no time code", "random init", "nothing"}
    assert rows["trained"]["toy/length"] == pytest.approx(once["trained"]["toy/length"] ** 2)
    assert set(table["mode"].to_pylist()) == {"min"}
    assert (run / "evaluations" / "val-toy-lengths.parquet").is_file()
    line = next(x for x in (run / "evaluations" / "val.md").read_text().splitlines() if "toy/length" in x)
    assert "**0.000**" in line  # less is better: the best baseline is the one with nothing
    assert line.rstrip(" |").split("|")[-1].strip().startswith("-")
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    text = capsys.readouterr().out
    assert "--toy.power" in text
    assert "How long vectors are" in text
    main(["evaluate", str(run), "--tasks", "toy", "--toy.power", "0", "--debug"])
    assert "1.000" in capsys.readouterr().out


def test_unknown_tasks_are_refused_on_the_command_line(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["evaluate", str(run), "--tasks", "dance", "--debug"])
    assert f"tasks is dance; name some of {', '.join(task_names())}" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["evaluate", str(run), "--phases.k", "0"])
    assert re.search(r"k is 0; frame retrieval\s.*needs", " ".join(capsys.readouterr().err.split()))


def test_an_evaluation_reads_the_run_once_and_builds_two_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_catalog(tmp_path / "clips", actions=("wave", "nod"))
    run = train(tmp_path / "run", tmp_path / "clips", cache_features=True)
    monkeypatch.setattr(Model, "measures", lambda self, batch: {"one": torch.ones(())})
    read: list[str] = []
    loaded: list[Path] = []
    built: list[str] = []
    real_json, real_load, real_init = storage.read_json, Catalog.load, Model.__init__

    def read_json(file: Path, *arguments: Any) -> Any:
        read.append(file.name)
        return real_json(file, *arguments)

    def load(folder: Path, root: Path | None = None) -> Catalog:
        loaded.append(folder)
        return real_load(folder, root)

    def built_model(self: Model, config: object) -> None:
        built.append(type(config).__name__)
        real_init(self, config)  # type: ignore[arg-type]

    monkeypatch.setattr(storage, "read_json", read_json)
    monkeypatch.setattr(Catalog, "load", staticmethod(load))
    monkeypatch.setattr(Model, "__init__", built_model)
    names = [name for name in task_names() if not is_trainer(name)]
    table = evaluate(run, tasks=names, in_process=True)
    assert set(table["task"].to_pylist()) == set(names)
    assert read.count("run.json") == 1
    assert len(loaded) == 1
    assert len(built) == 2  # trained and random init


def test_an_opened_run_leaves_its_models_behind(run: Path) -> None:
    import pickle

    one = opened.open_run(run, in_process=True)
    assert one.trained is one.trained
    assert one.random_init is not one.trained
    size = len(pickle.dumps(opened.open_run(run, in_process=True)))
    sent = pickle.loads(pickle.dumps(one))
    assert len(pickle.dumps(one)) == size
    assert torch.equal(*(next(m.parameters()) for m in (sent.trained, one.trained)))
    assert one.seen == set(SEEN)


@pytest.mark.parametrize(
    ("task", "keep", "said"),
    [
        ("phases", lambda r, split: True, "12 of 12 recordings of split 'val'.*needs a phase of every frame"),
        ("retrieval", lambda r, split: r.view == "ego", "no instant of split 'val' is shown by two cameras"),
        (
            "action_probe",
            lambda r, split: split == "val" or r.action == "wave",
            "all 4 recordings to fit on show.*'wave'",
        ),
        (
            "action_probe",
            lambda r, split: split == "val" or r.subject == "train0",
            "all 4 recordings.*of subject 'train0'",
        ),
        ("few_clips", lambda r, split: split == "train" or r.view != "ego", "split 'val' has no ego recording"),
        ("few_clips", lambda r, split: split == "val" or r.action == "wave", "to tune on show the action 'wave'"),
        ("measures", lambda r, split: True, "byov measures nothing of its own"),
    ],
)
def test_what_the_catalog_lacks_is_said_before_anything_is_embedded(
    run: Path,
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    task: str,
    keep: Callable[[Recording, str | None], bool],
    said: str,
) -> None:
    def never(*args: object, **options: object) -> None:
        raise AssertionError("nothing may be embedded")

    monkeypatch.setattr(parts, "embed", never)
    monkeypatch.setattr(parts, "embed_clips", never)
    monkeypatch.setattr(checkpoint, "read_weights", never)
    whole = Catalog.load(root / "catalog")
    whole.keep(lambda r: keep(r, whole.split_of(r))).save(tmp_path)
    other = tmp_path / "run"
    other.mkdir()
    info = json.loads((run / "run.json").read_text())
    info["experiment"]["data"]["catalog"] = str(tmp_path)
    run_folder.write_json(other / "run.json", info)
    (other / "checkpoints").symlink_to(run / "checkpoints")
    with pytest.raises(ValueError, match=said):
        evaluate(other, tasks=(task,), in_process=True)


def test_embedding_uses_the_opened_model(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = opened.open_run(run, in_process=True)
    model = one.trained
    monkeypatch.setattr(checkpoint, "read_weights", lambda path: pytest.fail("weights are read once"))
    catalog = one.catalog.select("train")
    few = replace(catalog, recordings=catalog.recordings[:1])
    frame_embeddings.export(one, few, tmp_path / "few.parquet")
    assert one.trained is model
