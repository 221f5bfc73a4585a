"""Everything that a run reads and writes, on a real S3 server, and on storage that fails for a moment."""

from __future__ import annotations

import json
import logging
import os
import resource
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import tiny_run
import torch
from safetensors.torch import load_file

from crossview import storage
from crossview.datasets.catalog import Catalog
from crossview.datasets.teachers.store import Teachers
from crossview.methods.recipe import Optim
from crossview.platform import checkpoint
from crossview.platform.cli.main import main
from crossview.platform.cli.options import parse_train
from crossview.platform.config import Cadence, Compute, Data, Experiment, from_dict, read, to_dict
from crossview.platform.run_folder import create
from crossview.platform.train.launcher import resume, start
from crossview.platform.train.metrics import read_metrics
from crossview.platform.tune.trial_store import Journal

if TYPE_CHECKING:
    from moto.server import ThreadedMotoServer


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of videos, their CSV and their catalog, on this disk."""
    root = tmp_path_factory.mktemp("videos")
    catalog = tiny_run.write_catalog(root)
    lines = ["path,split,scene,view,perspective,action"]
    lines += [
        f"{r.path},{catalog.split_of(r)},{r.scene},{r.view},{r.perspective},{r.action}" for r in catalog.recordings
    ]
    (root / "videos.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture(scope="module")
def there(here: Path, s3_server: ThreadedMotoServer) -> Path:
    """The same folder in the store."""
    root = storage.as_path(f"s3://crossview/{here.name}")
    for file in here.rglob("*"):
        if file.is_file() and "catalog" not in file.parts:
            storage.upload(file, root / str(file.relative_to(here)))
    replace(Catalog.load(here / "catalog"), root=root).save(root / "catalog")
    return root


def experiment(root: Path, steps: int = 6, **data: Any) -> Experiment[Any]:
    return Experiment(
        data=Data(catalog=root / "catalog", **data),
        method=tiny_run.method_config(),
        optim=Optim(lr=1e-2, batch=2, steps=steps),
        compute=Compute(device="cpu", threads=1),
        every=Cadence(log=1, checkpoint=2, keep=2),
        seed=3,
    )


@pytest.fixture(scope="module")
def straight(here: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run on this disk that every other one must equal."""
    return start(tmp_path_factory.mktemp("runs") / "straight", "byov", experiment(here), in_process=True)


def losses(run: Path) -> list[float]:
    return [row["loss"] for row in read_metrics(run)]


def assert_equal(run: Path, other: Path) -> None:
    assert losses(run) == losses(other)
    ours, theirs = checkpoint.latest(run), checkpoint.latest(other)
    assert ours is not None
    assert theirs is not None
    assert ours.name == theirs.name
    for name in (checkpoint.MODEL, checkpoint.FROZEN):
        mine, its = load_file(storage.local(ours / name)), load_file(storage.local(theirs / name))
        assert mine.keys() == its.keys()
        assert all(mine[key].equal(its[key]) for key in mine)


def test_a_run_on_s3_equals_the_local_one_and_is_embedded_scored_and_shown(
    there: Path, s3: Path, straight: Path
) -> None:
    run = start(s3 / "run", "byov", experiment(there), in_process=True, until=2)
    assert [folder.name for folder in checkpoint.all_of(run)] == ["step-00000002"]
    main(["resume", str(run), "--debug"])
    assert_equal(run, straight)
    assert [folder.name for folder in checkpoint.all_of(run)] == ["step-00000004", "step-00000006"]
    assert not (run / "checkpoints" / "step-00000002").exists()
    assert any((run / "tensorboard").iterdir())
    main(["embed", str(run), "--split", "val", "--debug"])
    main(["evaluate", str(run), "--split", "val", "--tasks", "phases", "retrieval", "--debug"])
    main(["report", str(run)])
    assert (run / "evaluations" / "val.md").read_text().startswith("|")
    page = (run / "report.html").read_text()
    assert "data:image/png;base64" in page
    assert "time only" in page
    before = (run / "embeddings" / "val" / "trained.parquet").stat().st_mtime
    main(["embed", str(run), "--split", "val", "--debug"])
    assert (run / "embeddings" / "val" / "trained.parquet").stat().st_mtime == before


def test_cached_features_on_s3_are_computed_once_and_train_as_local_ones(
    here: Path, there: Path, s3: Path, tmp_path: Path
) -> None:
    local = start(tmp_path / "run", "byov", experiment(here, 2, cache_features=True), in_process=True)
    run = start(s3 / "run", "byov", experiment(there, 2, cache_features=True), in_process=True)
    assert_equal(run, local)
    files = sorted((there / "catalog" / "features").glob("*/*.npy"))
    assert len(files) == len(sorted((here / "catalog" / "features").glob("*/*.npy"))) > 0
    written = [storage.state(file) for file in files]
    again = start(s3 / "again", "byov", experiment(there, 2, cache_features=True), in_process=True)
    assert_equal(again, local)
    assert [storage.state(file) for file in files] == written


def test_decoded_frames_are_kept_on_s3(there: Path, s3: Path, straight: Path) -> None:
    run = start(s3 / "run", "byov", experiment(there, cache_frames=True), in_process=True)
    assert_equal(run, straight)
    assert list((there / "catalog" / "frames").glob("*/*.npy"))


@pytest.mark.ray
def test_ray_workers_train_on_s3_as_one_process_does_on_a_disk(
    ray_cluster: None, there: Path, s3: Path, straight: Path
) -> None:
    run = start(s3 / "run", "byov", experiment(there), in_process=False)
    assert_equal(run, straight)
    assert json.loads((run / "progress.json").read_text())["step"] == 6


@pytest.mark.ray
def test_a_search_on_s3_goes_on_and_is_told_there(
    ray_cluster: None, there: Path, s3: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = tmp_path / "ratios.py"
    space.write_text(
        'from ray import tune\nSPACE = {"method.msm_ratio": tune.uniform(0.2, 0.8)}\n'
        'METRIC, MODE, TASKS = "phase_f1/ego2exo", "max", ("phases",)\n'
    )
    config = s3 / "config.json"
    storage.write_text(config, json.dumps(to_dict("byov", experiment(there, 4))))
    command = ["tune", "byov", "--from", str(config), "--runs", str(s3), "--name", "search", "--space", str(space)]
    main([*command, "--trials", "1", "--evaluations", "2", "--scheduler", "none", "--confirm", "0"])
    folder = s3 / "search"
    trials = Journal(folder).trials()
    assert [trial.status for trial in trials] == ["finished"] * 2
    assert not (folder / "ray").exists()
    assert "data:image/png" in (folder / "report.html").read_text()
    capsys.readouterr()
    main(["tune", "--resume", str(folder)])
    assert "phase_f1/ego2exo" in capsys.readouterr().out
    assert Journal(folder).trials() == trials
    assert read(folder / "best.json")[1].data == experiment(there).data


def test_a_run_goes_on_from_a_copy_of_anothers_checkpoint(here: Path, there: Path, s3: Path, tmp_path: Path) -> None:
    """As population-based training has it; the copy takes the place of the run's own checkpoints."""
    for root, runs in ((here, tmp_path), (there, s3)):
        donor = start(runs / "donor", "byov", experiment(root), in_process=True, until=4)
        copier = start(runs / "copier", "byov", replace(experiment(root), seed=4), in_process=True, until=4)
        checkpoint.copy(checkpoint.folder(donor, 4), copier)
        assert [folder.name for folder in checkpoint.all_of(copier)] == ["step-00000004"]
        mine, its = (load_file(storage.local(checkpoint.folder(run, 4) / checkpoint.MODEL)) for run in (copier, donor))
        assert all(mine[key].equal(its[key]) for key in its)
        info = json.loads((copier / "run.json").read_text())
        info["experiment"]["optim"]["weight_decay"] = 0.25
        storage.write_text(copier / "run.json", json.dumps(info))
        resume(copier, in_process=True)
        state = checkpoint.read_train_state(checkpoint.folder(copier, 6), torch.device("cpu"))
        assert max(group["weight_decay"] for group in state["optimizer"]["param_groups"]) == 0.25


def test_a_folder_of_videos_on_s3_is_catalogued_and_copied_there(there: Path, s3: Path) -> None:
    out = str(s3 / "catalog")
    main(["prepare", "folder", "--root", str(there), "--csv", f"{there}/videos.csv", "--out", out])
    made = Catalog.load(s3 / "catalog")
    assert [r.num_frames for r in made.recordings] == [r.num_frames for r in Catalog.load(there / "catalog").recordings]
    main(["prepare", "copies", "--catalog", out, "--out", str(s3 / "copies"), "--size-px", "32"])
    copies = Catalog.load(s3 / "copies")
    assert {r.height_px for r in copies.recordings} == {32}
    written = [storage.state(copies.file(r)) for r in copies.recordings]
    main(["prepare", "copies", "--catalog", out, "--out", str(s3 / "copies"), "--size-px", "32"])
    assert [storage.state(copies.file(r)) for r in copies.recordings] == written
    main(["view", str(s3 / "copies"), "--out", str(s3 / "sheet.png")])
    assert (s3 / "sheet.png").read_bytes().startswith(b"\x89PNG")


def test_the_synthetic_world_is_rendered_to_s3(s3: Path) -> None:
    command = ["prepare", "synthetic", "--out", str(s3 / "world"), "--actions", "strike_peg", "--size-px", "32"]
    main([*command, "--takes", "1", "0", "0", "--exo-cameras", "1", "--workers", "1", "--teachers"])
    made = Catalog.load(s3 / "world" / "catalog")
    assert made.root == s3 / "world"
    assert all(made.file(r).is_file() for r in made.recordings)
    assert Teachers.load(s3 / "world" / "catalog" / "teachers").scores(made.recordings[0].id, "object") is not None


@contextmanager
def on_first_retry(mend: Callable[[], object]) -> Iterator[list[str]]:
    """Mend the storage once a line has said that it fails; yields those lines."""
    said: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if not said:
                mend()
            said.append(record.getMessage())

    handler, log = Handler(), logging.getLogger("crossview.storage")
    log.addHandler(handler)
    try:
        yield said
    finally:
        log.removeHandler(handler)


def at_once(whole: Experiment[Any]) -> Experiment[Any]:
    """Checkpoints are written at their step, so that nothing else meets the failing storage first."""
    return replace(whole, compute=replace(whole.compute, async_checkpoint=False))


def break_before(step: int, action: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Do it just before the checkpoint after `step` steps is written."""
    from crossview.platform.train.state import Training

    saving = Training.saving

    def broken(training: Training, **options: bool) -> Callable[[], None]:
        if training.step == step:
            action()
        return saving(training, **options)

    monkeypatch.setattr(Training, "saving", broken)
    monkeypatch.setenv("CROSSVIEW_PATIENCE_S", "120")


def test_a_store_that_is_away_for_a_moment_changes_nothing(
    s3_server: ThreadedMotoServer, there: Path, s3: Path, straight: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_before(4, s3_server.stop, monkeypatch)
    with on_first_retry(s3_server.start) as said:
        run = start(s3 / "run", "byov", at_once(experiment(there)), in_process=True)
    assert any("step-00000004: the storage fails" in line and "next try in" in line for line in said)
    assert_equal(run, straight)


def test_a_store_that_is_away_is_not_an_empty_one(s3_server: ThreadedMotoServer, s3: Path) -> None:
    storage.write_text(s3 / "a.txt", "one")
    assert storage.is_file(s3 / "a.txt")
    assert not storage.is_file(s3 / "b.txt")
    storage.write_text(s3 / "folder" / "c.txt", "one")
    assert not storage.is_file(s3 / "folder")
    s3_server.stop()
    try:
        with pytest.raises(OSError, match=r"a\.txt"):
            storage.is_file(s3 / "a.txt")
    finally:
        s3_server.start()


def test_an_error_of_a_library_is_told_as_a_plain_one(s3: Path) -> None:
    class UnreachableError(OSError):
        def __init__(self, key: str, cause: OSError) -> None:
            super().__init__(cause.errno, f"cannot reach {key}")

    with pytest.raises(OSError, match=r"s3://crossview/.*: .*cannot reach host") as told, storage.named(s3):
        raise UnreachableError("host", OSError(5, "refused"))
    assert type(told.value) is OSError


def test_a_disk_that_is_full_for_a_moment_changes_nothing(
    here: Path, tmp_path: Path, straight: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    break_before(4, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard)), monkeypatch)
    try:
        with on_first_retry(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))) as said:
            run = start(tmp_path / "run", "byov", at_once(experiment(here)), in_process=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert any("step-00000004: the storage fails" in line for line in said)
    assert_equal(run, straight)


def test_half_a_checkpoint_in_a_store_is_none(there: Path, s3: Path) -> None:
    run = start(s3 / "run", "byov", experiment(there, 4), in_process=True)
    (run / "checkpoints" / "step-00000004" / "run.json").unlink()
    newest = checkpoint.latest(run)
    assert newest is not None
    assert newest.name == "step-00000002"
    with pytest.raises(ValueError, match="no checkpoint here"):
        checkpoint.resolve(run / "checkpoints" / "step-00000004")
    resume(run, in_process=True)
    assert [folder.name for folder in checkpoint.all_of(run)] == ["step-00000002", "step-00000004"]


def test_a_configuration_keeps_its_uris() -> None:
    given = experiment(storage.as_path("s3://crossview/a/b"))
    data = replace(given.data, root=storage.as_path("memory://c/d"))
    given = replace(given, data=data, init_from=storage.as_path("s3://crossview/run"))
    saved = json.loads(json.dumps(to_dict("byov", given)))
    assert saved["data"]["catalog"] == "s3://crossview/a/b/catalog"
    assert from_dict(saved) == ("byov", given)
    _, launch = parse_train(["byov", "--data.catalog", "s3://crossview/a", "--runs", "s3://crossview/runs"])
    assert launch.experiment.data.catalog == storage.as_path("s3://crossview/a")
    assert str(launch.runs / "x") == "s3://crossview/runs/x"
    assert storage.as_path("file:///a%20b/c") == Path("/a b/c")


def test_a_name_in_a_store_is_used_once(there: Path, s3: Path) -> None:
    start(s3 / "run", "byov", experiment(there, 2), in_process=True)
    with pytest.raises(ValueError, match="a name is used once"):
        start(s3 / "run", "byov", experiment(there, 2), in_process=True)


@pytest.mark.filterwarnings("error")
def test_a_run_in_a_store_is_a_configuration_to_start_from(there: Path, s3: Path) -> None:
    create(s3 / "run", "byov", experiment(there))
    _, launch = parse_train(["byov", "--from", str(s3 / "run"), "--seed", "4"])
    assert launch.experiment == replace(experiment(there), seed=4)


def test_a_remote_file_is_fetched_once_per_version(s3: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CROSSVIEW_CACHE", str(tmp_path))
    storage.write_text(s3 / "a.txt", "one")
    first = storage.local(s3 / "a.txt")
    fetched = first.stat().st_ino
    assert storage.local(s3 / "a.txt").stat().st_ino == fetched
    storage.write_text(s3 / "a.txt", "two")
    assert storage.local(s3 / "a.txt").read_text() == "two"
    assert first.read_text() == "one"
    assert storage.local(tmp_path) == tmp_path


def test_a_cut_download_is_fetched_again(s3: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CROSSVIEW_CACHE", str(tmp_path))
    monkeypatch.setattr("crossview.storage.retry.PAUSES_S", (0.01, 0.01))
    storage.write_text(s3 / "a.txt", "whole")
    store = storage.filesystem(s3 / "a.txt")[1]
    fetch, tries = store.get_file, []

    def cut(path: str, target: str) -> None:
        tries.append(path)
        fetch(path, target)
        if len(tries) == 1:
            os.truncate(target, 3)

    monkeypatch.setattr(store, "get_file", cut)
    assert storage.local(s3 / "a.txt").read_text() == "whole"
    assert len(tries) == 2


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def half(partial: Path) -> None:
        partial.write_text("ha")
        raise OSError(28, "disk full")

    with pytest.raises(OSError, match="disk full"):
        storage.write(tmp_path / "a.txt", half, patience_s=0)
    assert list(tmp_path.iterdir()) == []


def test_what_is_missing_is_not_retried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crossview.storage.retry.time.sleep", lambda pause_s: pytest.fail(f"it waits {pause_s} s"))
    with pytest.raises(FileNotFoundError):
        storage.patiently((tmp_path / "a.txt").read_text, tmp_path / "a.txt", 60.0)


def test_the_cache_gives_up_what_was_longest_not_asked_for(
    s3: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CROSSVIEW_CACHE", str(tmp_path))
    monkeypatch.setenv("CROSSVIEW_CACHE_GB", "0.000001")  # 1000 bytes
    kept = []
    for name, age_s in (("old", 7200), ("young", 60), ("new", 0)):
        storage.write_text(s3 / name, name * 200)
        kept.append(storage.local(s3 / name))
        os.utime(kept[-1], (0, kept[-1].stat().st_mtime - age_s))
    assert [file.exists() for file in kept] == [False, True, True]


def refusal(args: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as end:
        main(args)
    assert end.value.code == 2
    return " ".join(capsys.readouterr().err.replace("|", " ").replace("│", " ").split())


def test_storage_that_cannot_be_reached_is_named(
    here: Path, s3: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    train = ["train", "byov", "--preset", "debug", "--debug", "--data.catalog"]
    for uri, said in (
        ("s3://no-such-bucket/catalog", "s3://no-such-bucket/catalog: no catalog here"),
        ("gs://bucket/catalog", "pip install 'crossview[gcs]'"),
        ("nowhere://a/b", "no storage that fsspec knows"),
    ):
        assert said in refusal([*train, uri], capsys)
    monkeypatch.setenv("CROSSVIEW_PATIENCE_S", "300")  # what waiting cannot mend is told at once
    folder = ["prepare", "folder", "--root", str(here), "--csv", str(here / "videos.csv"), "--out"]
    assert "s3://no-such-bucket/x" in refusal([*folder, "s3://no-such-bucket/x"], capsys)
    assert "s3://no-such-bucket/" in refusal(
        [*train, str(here / "catalog"), "--runs", "s3://no-such-bucket/runs", "--name", "x"], capsys
    )
    assert "must be on a disk" in refusal(["reproduce", "byov:synthetic", "--out", str(s3)], capsys)
    import s3fs

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    s3fs.S3FileSystem.clear_instance_cache()
    assert "credentials" in refusal([*folder, str(s3)], capsys)
    s3fs.S3FileSystem.clear_instance_cache()


def test_many_threads_fetch_one_file_without_harm(s3: Path) -> None:
    storage.write(s3 / "big.bin", lambda partial: partial.write_bytes(bytes(3_000_000)))
    found: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: found.append(storage.local(s3 / "big.bin").read_bytes())) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [bytes(3_000_000)] * 4
