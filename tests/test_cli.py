"""Bad input through the command line: status 2, one message that says what to change, and nothing lost."""

from __future__ import annotations

import dataclasses
import json
import pickle
import sys
from pathlib import Path

import image_folders
import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny_run
import torch
import videos
from datasets_on_disk import make_ae2, make_folder
from feature_catalog import write_feature_catalog

from crossview.datasets.catalog import Catalog
from crossview.datasets.video.frame_index import FrameIndex
from crossview.platform import checkpoint
from crossview.platform.cli.main import main
from crossview.platform.data import unreadable


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_feature_catalog(tmp_path_factory.mktemp("features"), train=2, val=1, frames=18)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on small videos that have no labels."""
    root = tmp_path_factory.mktemp("unlabelled")
    tiny_run.write_catalog(root, labels=False)
    return tiny_run.train(root / "runs" / "first", root)


def refused(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    """What the command says on stderr, its lines joined."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        main([str(arg) for arg in args])
    said = capsys.readouterr().err
    assert exit_.value.code == 2
    assert "Traceback" not in said
    ours = sum(line.startswith("error: ") for line in said.splitlines())
    assert ours == 1 or (ours == 0 and said.count("For full helptext") == 1), said
    return " ".join(said.split())


def contents(folder: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def small(features: Path, tmp_path: Path, *options: object) -> tuple[object, ...]:
    """A training command that only its options can spoil."""
    first = ("train", "byov", "--preset", "debug", "--data.catalog", features, "--debug", "--runs", tmp_path / "runs")
    return (*first, "--optim.steps", "1", *options)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("frobnicate", "command 'frobnicate' is unknown; choose from prepare, train,"),
        ("prepare dvds", "dataset 'dvds' is unknown; choose from ae2, "),
        ("train dreams --data.catalog x", "method 'dreams' is unknown; choose from byov"),
        ("train byov --preset huge --data.catalog x", "--preset huge: byov has no such preset; choose from break_eggs"),
        ("train byov --preset debug", "--data.catalog PATH"),
        ("train byov --from nowhere", "nowhere: no saved configuration here; pass a run folder"),
        ("train byov --data.catalog nowhere", "nowhere: no catalog here (catalog.json is missing); make one with"),
        ("reproduce byov:dream", "study 'byov:dream' is unknown; choose from byov:"),
        ("resume nowhere", "nowhere: not a run folder (run.json is missing); pass a folder that"),
        ("embed nowhere", "nowhere: not a run folder"),
        ("evaluate nowhere", "nowhere: not a run folder"),
        ("report nowhere", "nowhere: not a run folder"),
        ("view nowhere", "nowhere: no catalog here"),
        ("evaluate nowhere --nonsense", "Unrecognized options: --nonsense"),
        ("prepare ae2 --root nowhere --set chop --out out", "nowhere/chop: the folder is missing"),
        ("prepare folder --root nowhere --csv a.csv --out out", "nowhere: the folder is missing; pass the folder"),
        ("prepare copies --catalog nowhere --out out", "nowhere: no catalog here"),
        (
            "prepare synthetic --out out --actions juggle",
            "error: world: actions is juggle; choose at least one of crack_egg",
        ),
        ("prepare synthetic --out out --takes 0 0 0", "takes is 0 in every split; give at least one"),
        ("prepare synthetic --out out --layout ae3", "--layout is 'ae3'; choose from synchronized, ae2-csv"),
    ],
)
def test_unknown_names_and_missing_folders(
    args: str, message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in refused(capsys, *args.split())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--optim.lrr 3", "Unrecognized options: --optim.lrr, 3 "),
        ("--optim.lr high", "--optim.lr: could not convert string to float: 'high'"),
        ("--optim.optimizer lion", "invalid choice 'lion' for argument '--optim.optimizer'"),
        ("--optim.epochs 2", "epochs is 2 and steps is 1; give exactly one of them"),
        ("--optim.batch 0", "optim.batch is 0; it must be above 0"),
        (
            "--compute.micro-batch 3",
            "compute.micro_batch 3 does not divide a worker's share 8 of optim.batch 8; choose",
        ),
        ("--compute.micro-batch 0", "compute.micro_batch is 0; it must be at least 1"),
        ("--compute.workers 3", "optim.batch 8 does not divide among compute.workers 3; make it a multiple"),
        ("--compute.workers 0", "compute.workers is 0; it must be at least 1"),
        ("--compute.device cpu --compute.precision float16", "compute.precision float16 needs a GPU; pass"),
        ("--data.split holdout", "split 'holdout' holds no recording; splits here: train, val"),
        ("--data.max-quarantined 2", "data.max_quarantined is 2.0; it is a share and must be in [0, 1]"),
        ("--data.decode-actors 0", "data.decode_actors is 0; it must be at least 1"),
        ("--data.time-limit-s 0", "data.time_limit_s is 0.0; it must be above 0"),
        ("--every.checkpoint 0", "every.checkpoint is 0; it must be at least 1"),
        ("--seed -1", "seed is -1; it must be 0 or more"),
        ("--method.msm-ratio 0.01", "msm_ratio is 0.01 with 16 frames; it must lie between 0 and 1 and leave at least"),
        ("--method.encoder.heads 7", "heads 7, mlp_ratio 4.0; all must be above 0 and heads must divide the width"),
        ("--init-from nowhere", "nowhere: no checkpoint here; pass a run folder"),
        ("--method.base.model nonsense", "nonsense"),
        ("--method.base.weights nowhere.pt", "nowhere.pt"),
    ],
)
def test_impossible_options_of_training(
    options: str, message: str, features: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert message in refused(capsys, *small(features, tmp_path, *options.split()))
    assert not list(tmp_path.glob("runs/*"))


def test_a_decoder_that_is_not_installed(
    features: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    said = refused(capsys, *small(features, tmp_path, "--data.decoder", "torchcodec"))
    assert "decoder 'torchcodec' needs the package torchcodec (it is not installed); install it with" in said
    assert not list(tmp_path.glob("runs/*"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there(features: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    said = refused(capsys, *small(features, tmp_path, "--compute.device", "cuda"))
    assert "compute.device is cuda, but torch sees no GPU here; pass --compute.device cpu or auto" in said


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON (Expecting"),
        ("[]", "it holds a list in JSON in place of an object"),
        ('{"seed": 1}', "the configuration lacks 'name'"),
    ],
)
def test_a_broken_configuration(text: str, message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text(text)
    said = refused(capsys, "train", "byov", "--from", tmp_path / "mine.json")
    assert f"mine.json: {message}" in said


def test_training_needs_both_views(features: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    whole = Catalog.load(features)
    exo = tuple(r for r in whole.recordings if r.perspective == "exo")
    dataclasses.replace(whole, recordings=exo, frame_labels={}).save(tmp_path / "exo")
    said = refused(capsys, *small(tmp_path / "exo", tmp_path))
    assert "ego" in said
    assert not (tmp_path / "runs").exists()


def test_cameras_that_are_chosen_are_named_where_they_are_the_cause(
    features: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    said = refused(capsys, *small(features, tmp_path, "--data.views", "ego"))
    assert (
        "--data.views ego: with these recordings alone nothing can be drawn for the views ego (ego), exo (exo)" in said
    )
    assert "name more of its cameras, which are ego (ego), exo (exo)" in said
    assert "perspective column" not in said
    whole = Catalog.load(features)
    ego = dataclasses.replace(whole, recordings=tuple(r for r in whole.recordings if r.perspective == "ego"))
    dataclasses.replace(ego, frame_labels={}).save(tmp_path / "ego")
    said = refused(capsys, *small(tmp_path / "ego", tmp_path, "--data.views", "ego"))
    assert f"catalog {tmp_path / 'ego'}: view 'exo' asks for 'exo' recordings" in said


def test_a_used_name(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(trained)
    args = ("train", "byov", "--from", trained, "--debug", "--runs", trained.parent, "--name", "first")
    said = refused(capsys, *args)
    assert "--name first:" in said
    assert "a name is used once. Choose another, or resume that run with `crossview resume" in said
    assert contents(trained) == before


def test_evaluation_needs_labels_and_another_split(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(trained)
    assert "have no frame labels named 'phase'" in refused(capsys, "evaluate", trained, "--debug")
    said = refused(capsys, "evaluate", trained, "--split", "train", "--debug")
    assert "--split is 'train' and --fit-split 'train'" in said
    assert "pass --split val" in said
    said = refused(capsys, "evaluate", trained, "--phases.k", "0", "--debug")
    assert "k is 0; frame retrieval needs at least 1" in said
    assert "split 'dev' holds no recording" in refused(capsys, "embed", trained, "--split", "dev", "--debug")
    assert contents(trained) == before


def test_any_catalog_is_embedded(trained: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    other = tiny_run.write_catalog(tmp_path, labels=False)
    args = ("embed", trained, "--catalog", tmp_path / "catalog", "--debug", "--device", "cpu")
    main([str(arg) for arg in (*args, "--out", tmp_path / "new" / "all.parquet")])
    assert str(tmp_path / "new" / "all.parquet") in capsys.readouterr().out
    videos_found = set(pq.read_table(tmp_path / "new" / "all.parquet")["video"].to_pylist())
    assert videos_found == {r.id for r in other.recordings}
    assert "leave out --catalog or --baselines" in refused(capsys, *args, "--baselines")
    assert "give --catalog with it" in refused(capsys, "embed", trained, "--out", tmp_path / "x.parquet", "--debug")
    assert "actors is 0; it must be at least 1" in refused(capsys, *args, "--actors", "0")
    said = refused(capsys, "evaluate", trained, "--fit-split", "test", "--debug")
    assert "--fit-split 'test'" in said
    assert "pass --fit-split train" in said


def test_a_broken_checkpoint(trained: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    newest = checkpoint.latest(trained)
    assert newest is not None
    (run / "checkpoints" / newest.name).mkdir(parents=True)
    for file in newest.iterdir():
        (run / "checkpoints" / newest.name / file.name).write_bytes(file.read_bytes()[:50])
    (run / "run.json").write_bytes((trained / "run.json").read_bytes())
    assert newest.name in refused(capsys, "embed", run, "--debug")


def test_splits_labels_and_rows_of_ae2(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    base = make_ae2(tmp_path, "lists")
    args = ("prepare", "ae2", "--root", tmp_path, "--set", "chop", "--out", tmp_path / "catalog")
    main([str(arg) for arg in args])
    assert "videos: 12 of 12 listed are here" in capsys.readouterr().out
    before = contents(tmp_path / "catalog")
    good = (base / "exo" / "val.csv").read_text()
    (base / "exo" / "val.csv").write_text("")
    assert "exo/val.csv: the split is empty; list at least one video" in refused(capsys, *args)
    (base / "exo" / "val.csv").write_text(good + "one.mp4,two.mp4\n")
    assert "exo/val.csv, line 3: 'one.mp4,two.mp4' is broken" in refused(capsys, *args)
    (base / "exo" / "val.csv").write_text(good)
    labels = pickle.loads((base / "label.pickle").read_bytes())
    (base / "label.pickle").write_bytes(pickle.dumps(labels | {"S1_exo_1": np.zeros(3, int)}))
    assert "label.pickle, key 'S1_exo_1', holds 3 labels, but" in refused(capsys, *args)
    (base / "label.pickle").write_bytes(b"nonsense")
    assert "label.pickle: " in refused(capsys, *args)
    assert contents(tmp_path / "catalog") == before


def test_labels_and_rows_of_a_folder(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    lines = make_folder(tmp_path)
    args = ("prepare", "folder", "--root", tmp_path, "--csv", tmp_path / "list.csv", "--out", tmp_path / "catalog")
    (tmp_path / "list.csv").write_text("\n".join(lines).replace("exo,,b.npy", "side,,b.npy"))
    assert "list.csv, line 3, column 'perspective': 'side' is unknown; write ego or exo" in refused(capsys, *args)
    (tmp_path / "list.csv").write_text("\n".join(lines))
    (tmp_path / "a.txt").write_text("0 1 1")
    assert "a.txt holds 3 labels, but a.mp4 decodes to 5 frames" in refused(capsys, *args)
    assert not (tmp_path / "catalog" / "catalog.json").exists()


def test_unreadable_videos_are_set_aside_and_listed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    lines = [make_folder(tmp_path)[0]]
    for k in range(6):
        videos.write(tmp_path / f"{k}.mp4", frames=20)
        lines.append(f"{k}.mp4,train,take{k},cam,exo,,")
    videos.truncate(tmp_path / "1.mp4")
    videos.corrupt(tmp_path / "4.mp4")
    (tmp_path / "list.csv").write_text("\n".join(lines))
    args = ("prepare", "folder", "--root", tmp_path, "--csv", tmp_path / "list.csv", "--out", tmp_path / "catalog")
    said = refused(capsys, *args)
    assert "2 of 6 videos cannot be used, more than the share max_quarantined = 0.05" in said
    assert "1.mp4" in said
    assert "4.mp4" in said
    assert not (tmp_path / "catalog" / "catalog.json").exists()
    main([str(arg) for arg in (*args, "--max-quarantined", "0.4")])
    printed = capsys.readouterr().out
    assert "quarantined: 1.mp4: " in printed
    assert "quarantined: 4.mp4: " in printed
    catalog = Catalog.load(tmp_path / "catalog")
    assert [q.path for q in catalog.quarantined] == ["1.mp4", "4.mp4"]
    assert len(catalog.recordings) == 4


def test_a_video_that_breaks_after_it_was_catalogued(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    catalog = tiny_run.write_catalog(tmp_path)
    first = tiny_run.train(tmp_path / "runs" / "first", tmp_path)
    broken = catalog.file(catalog.recordings[0])
    videos.truncate(broken)
    args = ("train", "byov", "--from", first, "--debug", "--runs", tmp_path / "runs")
    main([str(arg) for arg in (*args, "--name", "tolerant", "--data.max-quarantined", "0.5")])
    assert [f["path"] for f in unreadable.read(tmp_path / "runs" / "tolerant").values()] == [str(broken)]
    assert "1 files quarantined" in capsys.readouterr().out
    said = refused(capsys, *args, "--name", "strict")
    assert "1 of 4 recordings are unreadable, at most 5% may be (--data.max-quarantined): fix or remove" in said
    assert str(broken) in said
    assert unreadable.read(tmp_path / "runs" / "strict")
    info = json.loads((tmp_path / "runs" / "strict" / "run.json").read_text())
    assert info["experiment"]["data"]["max_quarantined"] == 0.05


def test_warnings_about_files_are_lines_that_are_printed_once(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Files in which seeking is off are read forward, for every clip; and a folder of images lacks some numbers."""
    for view in ("head", "left"):
        videos.write(tmp_path / f"{view}.mp4", frames=90)
    image_folders.write(tmp_path / "images", (1, 2, 5))
    rows = "head.mp4,train,1,head,ego,\nleft.mp4,train,1,left,exo,\nimages,val,2,head,ego,30\n"
    (tmp_path / "v.csv").write_text("path,split,scene,view,perspective,fps\n" + rows)
    main(["prepare", "folder", "--root", str(tmp_path), "--csv", str(tmp_path / "v.csv"), "--out", str(tmp_path / "c")])
    said = capsys.readouterr()
    assert "warning: images are shown at the times that their numbers give, with gaps" in said.out
    assert "UserWarning" not in said.out + said.err
    for file in (tmp_path / "c" / "frame_index").iterdir():
        index = FrameIndex.read(file)
        dataclasses.replace(index, checks=np.roll(index.checks, 1)).write(file)
    steps = ["--optim.steps", "2", "--optim.warmup-steps", "0", "--compute.device", "cpu", "--debug"]
    places = ["--data.catalog", str(tmp_path / "c"), "--runs", str(tmp_path), "--name", "r"]
    main(["train", "byov", "--preset", "debug", *steps, *places])
    said = capsys.readouterr()
    lines = [line for line in (said.out + said.err).splitlines() if "read from its start" in line]
    assert sorted(lines) == [
        f"warning: {tmp_path / name}: seeking gives other pictures than a sequential decode did; the file is read from "
        "its start"
        for name in ("head.mp4", "left.mp4")
    ]


@pytest.mark.parametrize("kind", [Exception, RuntimeError])
def test_a_ray_that_does_not_start_is_said_in_a_sentence(
    kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    from crossview.platform.cluster.connect import connect

    tries = []

    def late(**_: object) -> None:
        tries.append(kind)
        raise kind("The current node timed out during startup.\nMore of it.")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", late)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(OSError, match=r"Ray did not start .*timed out during startup\.\); .*--debug"):
        connect()
    assert len(tries) == 3
