"""What goes wrong in the hands of a user ends with one line that names the file or option and what to do."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny_run
import torch
from ray.exceptions import OutOfMemoryError

from crossview import storage
from crossview.datasets.catalog import Catalog
from crossview.errors import UserError
from crossview.methods.byov.model import Model
from crossview.platform import checkpoint
from crossview.platform.cli import main as cli
from crossview.platform.cluster import validate
from crossview.platform.cluster.map_recordings import Where, _Actor
from crossview.platform.evaluate import runner
from crossview.platform.train.state import Training
from crossview.platform.tune import space, spec
from crossview.storage.tables import read_table

BROKEN = b"neither JSON nor Parquet \xff"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("clips")
    tiny_run.write_catalog(root)
    return root


@pytest.fixture(scope="module")
def run(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_run.train(tmp_path_factory.mktemp("runs") / "run", root)


@pytest.fixture
def copied(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "run"))


def said(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    """The one line of a refused command."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        cli.main([str(arg) for arg in args])
    text = capsys.readouterr().err
    assert end.value.code == 2, text
    assert text.startswith("error: ")
    assert text.count("\n") == 1
    return text


def configure(run: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    info = json.loads((run / "run.json").read_text())
    change(info["experiment"])
    (run / "run.json").write_text(json.dumps(info))


@pytest.mark.parametrize(
    ("command", "file", "fix"),
    [
        ("resume", "run.json", "restore it, or pass a configuration that"),
        ("report", "run.json", "restore it, or pass a configuration that"),
        ("evaluate", "run.json", "restore it, or pass a configuration that"),
        ("evaluate", "results.parquet", "delete it and make it again with `crossview evaluate"),
        ("report", "results.parquet", "delete it and make it again with `crossview evaluate"),
        ("report", "metrics.parquet", "delete it: the run goes on without the rows so far"),
        ("evaluate", "embeddings/val/rows.json", "delete it: the embeddings are then computed again"),
        ("evaluate", "evaluations/val.json", "delete it and evaluate split val again"),
        ("evaluate", "evaluations/val-phases-fixed.json", "delete it: an evaluation makes it again"),
        ("evaluate", "checkpoints/step-00000004/model.safetensors", "delete its folder, so that the one before it"),
        ("resume", "checkpoints/step-00000004/train_state.pt", "delete its folder, so that the one before it"),
    ],
)
def test_a_broken_file_of_a_run_is_named(
    copied: Path, capsys: pytest.CaptureFixture[str], command: str, file: str, fix: str
) -> None:
    broken = copied / file
    broken.parent.mkdir(parents=True, exist_ok=True)
    broken.unlink(missing_ok=True)
    broken.write_bytes(BROKEN)
    if file.startswith("checkpoints"):
        configure(copied, lambda experiment: experiment["optim"].update(steps=6))
    debug = [] if command == "report" else ["--debug"]
    text = said(capsys, command, copied, *debug)
    assert text.startswith(f"error: {broken}: ")
    assert fix in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: e.pop("name"), "the configuration lacks 'name'"),
        (lambda e: e.update(name="dreams"), "method 'dreams' is unknown; choose from byov"),
        (lambda e: e.update(name=3), "the configuration's 'name' is 3; it must be a text"),
        (lambda e: e.update(optim=3), "the configuration's 'optim' is 3; it must be an object"),
        (lambda e: e.update(seed="x"), "the configuration's 'seed' is 'x'; it must be a whole number"),
        (lambda e: e.update(init_from=3), "the configuration's 'init_from' is 3; it must be a text or null"),
        (lambda e: e.update(colour=3), "unknown option colour"),
        (lambda e: e["optim"].update(lr="high"), 'wrong value type for field "lr"'),
        (lambda e: e["optim"].update(batch=-3), "optim.batch is -3; it must be above 0"),
        (lambda e: e["data"].update(views=3), "an option that takes a list has no list"),
    ],
)
def test_a_wrong_value_in_run_json_is_named(
    copied: Path, capsys: pytest.CaptureFixture[str], change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    configure(copied, change)
    text = said(capsys, "resume", copied, "--debug")
    assert text.startswith(f"error: {copied / 'run.json'}: ")
    assert message in text


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("catalog.json", "{", "not JSON"),
        ("catalog.json", "[]", "it holds a list in JSON in place of an object"),
        ("catalog.json", '{"format": 2}', "format is 2 and root None; they must be a number and a path"),
        ("catalog.json", '{"format": "x", "root": "y"}', "format is 'x' and root 'y'"),
        ("recordings.parquet", "x", "not a readable Parquet table"),
        ("frame_labels.parquet", None, "this file of the catalog is missing"),
    ],
)
def test_a_broken_catalog_is_to_be_made_again(
    root: Path, tmp_path: Path, file: str, content: str | None, message: str
) -> None:
    folder = Path(shutil.copytree(root / "catalog", tmp_path / "catalog"))
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_text(content)
    with pytest.raises(UserError) as refused:
        Catalog.load(folder)
    assert str(refused.value).startswith(f"{folder / file}: ")
    assert message in str(refused.value)
    assert "make the catalog again" in str(refused.value)


def test_a_checkpoint_is_no_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inside = checkpoint.folder(run, 4)
    for command in ("resume", "evaluate"):
        text = said(capsys, command, inside, "--debug")
        assert text.startswith(f"error: {inside}: a checkpoint of the run {run}; pass the run.")
        assert "--checkpoint 4" in text


@pytest.mark.parametrize("name", ["a/b", "..", "."])
def test_a_name_is_that_of_one_folder(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    for command in ("train", "tune"):
        args = (command, "byov", "--data.catalog", root / "catalog", "--runs", tmp_path / "runs", "--name", name)
        assert f"--name {name!r}: it must be the name of one folder, without slashes" in said(capsys, *args)
    assert not (tmp_path / "runs").exists()


def test_shares_and_counts_are_refused_before_work(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ("prepare", "copies", "--catalog", root / "catalog", "--out", tmp_path / "out", "--max-quarantined", "7")
    assert "max_quarantined is 7; it is a share and must be in [0, 1]" in said(capsys, *args)
    args = ("reproduce", "byov:synthetic", "--jobs", "0", "--out", tmp_path / "out")
    assert "--jobs is 0; it must be at least 1" in said(capsys, *args)
    assert not (tmp_path / "out").exists()


def test_a_place_that_cannot_be_written_is_refused_before_work(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "catalog"):
        for command in (
            ("prepare", "folder", "--root", "none", "--csv", "none.csv"),
            ("prepare", "copies", "--catalog", root / "catalog"),
            ("prepare", "synthetic"),
            ("reproduce", "byov:quickstart"),
        ):
            text = said(capsys, *command, "--out", out)
            assert text.startswith(f"error: --out {out}: {tmp_path / 'file'} is a file, and a folder is to be written")
    assert (tmp_path / "file").read_text() == "mine"
    text = said(capsys, "view", root / "catalog", "--out", tmp_path)
    assert text.startswith(f"error: --out {tmp_path}: it is a folder; name a file in it")
    text = said(capsys, "view", root / "catalog", "--out", tmp_path / "file" / "sheet.png")
    assert f"{tmp_path / 'file'} is a file" in text
    monkeypatch.setattr(os, "access", lambda place, mode: False)
    text = said(capsys, "prepare", "copies", "--catalog", root / "catalog", "--out", tmp_path / "new" / "out")
    assert f"--out {tmp_path / 'new' / 'out'}: you may not write in {tmp_path}; change its permissions" in text


def test_errors_of_the_operating_system_begin_with_the_file(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert said(capsys, "check-cluster", "none.yaml") == (
        "error: none.yaml: No such file or directory; name what exists\n"
    )
    assert "Is a directory; name a file" in said(capsys, "check-cluster", tmp_path)

    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/there/results.parquet")

    monkeypatch.setattr(runner, "append_results", full)
    text = said(capsys, "evaluate", run, "--debug", "--device", "cpu")
    assert text.startswith("error: /there/results.parquet: No space left on device; the disk is full: delete what")


def out_of_memory(*args: object, **options: object) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of")


def test_training_that_does_not_fit_the_gpu_says_which_option_to_lower(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Training, "optimise", out_of_memory)
    options = ("--preset", "debug", "--debug", "--runs", tmp_path, "--name", "big", "--compute.micro-batch", "4")
    text = said(capsys, "train", "byov", "--data.catalog", root / "catalog", *options)
    assert "CUDA out of memory; --compute.micro-batch (now 4) is too large" in text
    assert f"`crossview train byov --from {tmp_path / 'big'} --compute.micro-batch K`" in text


def test_an_evaluation_that_does_not_fit_the_gpu_says_what_helps(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Model, "embed", out_of_memory)
    text = said(capsys, "evaluate", run, "--debug", "--device", "cpu", "--split", "test")
    assert text.startswith("error: CUDA out of memory; the GPU's memory is too small: ")
    assert "--device cpu" in text
    (row,) = _Actor(lambda: out_of_memory, {})._rows(0)  # as in a process of Ray's
    assert row["data"].decode() == text.removeprefix("error: ").strip()
    assert Where().actors == 1


def test_a_node_that_runs_out_of_memory_is_not_taken_for_a_gpu(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*args: object, **options: object) -> None:
        raise OutOfMemoryError("3 worker(s) were killed due to the node running low on memory. Memory on the node")

    monkeypatch.setattr(Model, "embed", killed)
    text = said(capsys, "evaluate", run, "--debug", "--device", "cpu", "--split", "test")
    assert text.startswith("error: 3 worker(s) were killed due to the node running low on memory; a node's memory is")
    assert "--data.decode-actors" in text
    assert "GPU" not in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", r"c.yaml, line 1: not YAML"),
        ("cluster_name: x\nprovider: 3\nauth: {ssh_user: u}", r"field provider.type is missing"),
        (
            "cluster_name: x\nprovider: {type: [1]}\nauth: {ssh_user: u}",
            r"provider.type is \[1\]; write there aws",
        ),
        ("cluster_name: x\nprovider: {type: gcp}\nauth: {ssh_user: u}\nfile_mounts: [1]", r"file_mounts is \[1\]"),
        (
            "cluster_name: x\nprovider: {type: aws, region: u}\nauth: {ssh_user: u}\navailable_node_types: [1]\n"
            "head_node_type: h",
            r"available_node_types is \[1\]; it must be fields with values",
        ),
        (
            "cluster_name: x\nprovider: {type: local, head_ip: h, worker_ips: []}\nauth: {ssh_user: u, "
            "ssh_private_key: 3}",
            r"auth.ssh_private_key names 3, which does not exist here",
        ),
    ],
)
def test_a_cluster_file_of_another_shape_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        validate.check(tmp_path / "c.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SPACE = {3: tune.choice([1])}", r"dict of option path, a text, to a domain"),
        ("SPACE = {'optim.lr': tune.choice([])}", r"optim.lr is choice\(\), which holds no value"),
        ("SPACE = {'optim.lr': tune.uniform(2, 1)}", r"optim.lr is uniform\(2, 1\), which holds no value"),
        ("SPACE = {'optim.lr': tune.choice([1])}\nTASKS, METRIC, MODE = 3, 'x', 'max'", r"TASKS is 3; it must be a"),
    ],
)
def test_a_space_that_holds_nothing_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "s.py").write_text(f"from ray import tune\n{text}\n")
    with pytest.raises(UserError, match=message):
        space.load(str(tmp_path / "s.py"), "byov")


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"experiment": {}, "search": {}}'])
def test_a_broken_search_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "search.json").write_text(text)
    with pytest.raises(UserError, match=r"search\.json: .*restore it from a copy, or start a new search"):
        spec.read(tmp_path)


def test_failing_storage_is_not_taken_for_a_broken_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "t.parquet")

    def fails(*args: object, **options: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(pq, "read_table", fails)
    with pytest.raises(OSError, match="Input/output error"):
        read_table(tmp_path / "t.parquet")
    monkeypatch.undo()
    with pytest.raises(FileNotFoundError):
        read_table(tmp_path / "none.parquet")
    (tmp_path / "list.json").write_text("{}")
    with pytest.raises(UserError, match=r"list.json: it holds a dict in JSON in place of a list; try"):
        storage.read_json(tmp_path / "list.json", "try", list)
    (tmp_path / "list.json").write_text("[" * 100_000 + "]" * 100_000)
    with pytest.raises(UserError, match=r"list.json: not JSON \(maximum recursion .*\); try"):
        storage.read_json(tmp_path / "list.json", "try", list)
