"""`crossview prepare teachers`: scores of runs and classifiers, imports, and the synthetic world's truth."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from egoexo_tiny import PLAIN
from safetensors.torch import save_file

from crossview.datasets.catalog import Catalog, Recording
from crossview.datasets.synthetic import teachers as truth
from crossview.datasets.synthetic.config import WorldConfig
from crossview.datasets.synthetic.world import write
from crossview.datasets.teachers.store import FOLDER, Teachers
from crossview.methods.egoexo.config import Config, presets
from crossview.methods.recipe import Recipe
from crossview.methods.study import Study, TeacherTraining
from crossview.platform import checkpoint
from crossview.platform.cli.main import main
from crossview.platform.config import Compute, Data, Experiment
from crossview.platform.reproduce.synthetic_teachers import teach
from crossview.platform.train.launcher import start


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two actions, two takes each, three cameras, with the truth as teachers."""
    out = tmp_path_factory.mktemp("world")
    config = WorldConfig(
        actions=("pour_milk", "strike_peg"), train_takes=2, val_takes=1, test_takes=0, size_px=64, exo_cameras=2,
        min_frames=20, max_frames=24, held_out_cameras=False,
    )  # fmt: skip
    truth.write(write(config, out), out, out)
    return out


@pytest.fixture(scope="module")
def run(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ego-vs-exo classifier of a few steps, as an ordinary run."""
    method = replace(PLAIN, stage="pretrain", classes={"perspective": 2}, fps=5.0)
    optim = replace(presets()["ego_teacher"]().optim, epochs=None, steps=3, batch=4)
    experiment = Experiment(
        data=Data(catalog=world), method=method, optim=optim, compute=Compute(device="cpu", workers=1)
    )
    folder = tmp_path_factory.mktemp("runs") / "ego"
    start(folder, "egoexo", experiment, in_process=True)
    return folder


def test_the_worlds_truth_names_what_is_seen(world: Path) -> None:
    teachers = Teachers.load(world / FOLDER)
    for recording in Catalog.load(world).recordings:
        logits = teachers.scores(recording.id, "object")
        assert logits is not None
        seen = {truth.OBJECTS[i] for i in np.flatnonzero(np.exp(logits) > 0.05)}
        assert seen & ({"cup", "pitcher"} if recording.action == "pour_milk" else {"block", "mallet", "peg"})
        assert not seen & ({"cup", "pitcher"} if recording.action == "strike_peg" else {"block", "mallet", "peg"})
        boxes = teachers.boxes(recording.id, np.arange(recording.num_frames), 8)
        assert boxes is not None
        assert {1.0, 2.0} <= set(np.unique(boxes[..., 0]))


def test_a_runs_scores_are_the_mean_of_its_clip_logits(world: Path, run: Path) -> None:
    options = ["--catalog", str(world), "--task", "ego", "--run", str(run), "--clips", "3", "--debug"]
    main(["prepare", "teachers", "scores", *options])
    teachers, catalog = Teachers.load(world / FOLDER), Catalog.load(world)
    found = [teachers.scores(r.id, "ego") for r in catalog.recordings]
    assert all(v is not None and v.shape == (2,) and np.isfinite(v).all() for v in found)
    assert len({tuple(v.tolist()) for v in found if v is not None}) > 1
    model = checkpoint.load(run)
    assert set(model.class_logits(torch.zeros(1, 8, 3, 64, 64, dtype=torch.uint8))) == {"perspective"}


def test_a_study_trains_its_ego_teacher_once(tmp_path: Path) -> None:
    small = WorldConfig(
        actions=("pour_milk",), train_takes=1, val_takes=1, test_takes=0, size_px=64, exo_cameras=1, min_frames=20,
        max_frames=22,
    )  # fmt: skip
    write(small, tmp_path / "data").save(tmp_path / "catalog")
    method = replace(PLAIN, stage="pretrain", classes={"perspective": 2}, fps=5.0)
    optim = replace(presets()["ego_teacher"]().optim, epochs=None, steps=2, batch=2)
    teachers = TeacherTraining(world=replace(small, seed=9), recipe=Recipe(method=method, optim=optim), clips=2)
    teach(teachers, tmp_path / "catalog", tmp_path)
    store = tmp_path / "catalog" / FOLDER
    written = {f.name: f.stat().st_mtime_ns for f in store.glob("*.parquet")}
    found = Teachers.load(store)
    for recording in Catalog.load(tmp_path / "catalog").recordings:
        assert found.scores(recording.id, "ego") is not None
        assert found.scores(recording.id, "object") is not None
    teach(teachers, tmp_path / "catalog", tmp_path)
    assert {f.name: f.stat().st_mtime_ns for f in store.glob("*.parquet")} == written
    with pytest.raises(ValueError, match="teachers with world seed 0 "):
        Study(
            world=small, layout="synchronized", variants={"a": teachers.recipe}, seeds=1, claims=(),
            teachers=replace(teachers, world=small),
        )  # fmt: skip


def test_a_run_distils_what_the_teachers_say(world: Path, run: Path, tmp_path: Path) -> None:
    """From the tables through the stream into every loss."""
    options = ["--catalog", str(world), "--task", "ego", "--run", str(run), "--clips", "1", "--debug"]
    main(["prepare", "teachers", "scores", *options])
    recipe = presets()["debug"]()
    assert isinstance(recipe.method, Config)
    method = replace(recipe.method, classes={"action": 2}, perspective="exo")
    experiment = Experiment(
        data=Data(catalog=world),
        method=method,
        optim=replace(recipe.optim, steps=2, batch=4),
        compute=Compute(device="cpu"),
    )
    start(tmp_path / "run", "egoexo", experiment, in_process=True)
    assert (tmp_path / "run" / "metrics.parquet").exists()


def test_an_image_classifier_scores_recordings(world: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = timm.create_model("resnet10t", num_classes=6)
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    options = ["--catalog", str(world), "--task", "things", "--backbone", "timm:resnet10t", "--classes", "6"]
    options += ["--weights", str(tmp_path / "w.safetensors"), "--clips", "2", "--debug"]
    main(["prepare", "teachers", "scores", *options])
    teachers = Teachers.load(world / FOLDER)
    assert teachers.classes("things") == 6
    assert teachers.scores(Catalog.load(world).recordings[0].id, "things") is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give exactly one of them"),
        (["--backbone", "timm:no_such_net"], "timm has no such model"),
        (["--backbone", "timm:resnet10t", "--weights", "missing.pt"], "these weights do not fit timm:resnet10t"),
        (["--run", "missing"], "missing"),
    ],
)
def test_impossible_sources_of_scores_are_refused(
    world: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["prepare", "teachers", "scores", "--catalog", str(world), "--task", "x", "--debug", *options])
    assert message in capsys.readouterr().err


def test_released_files_are_imported_by_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recording = Recording(
        dataset="d", scene="v", view="exo", perspective="exo", subject="", action="", path="a/v.mp4",
        kind="video", fps=30.0, num_frames=2, height_px=50, width_px=100,
    )  # fmt: skip
    Catalog(tmp_path, (recording,)).save(tmp_path)
    (tmp_path / "ego.pkl").write_bytes(pickle.dumps({"a/v.mp4": [0.25, 0.75]}))
    call = ["prepare", "teachers", "import", "--catalog", str(tmp_path)]
    scores = [*call, "--format", "score-pickle", "--source", str(tmp_path / "ego.pkl")]
    with pytest.raises(SystemExit):
        main([*scores, "--task", "ego"])
    assert "these are probabilities" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(scores)
    assert "--task is None" in capsys.readouterr().err
    main([*scores, "--task", "ego", "--scores", "probs"])
    entries = np.empty(2, object)
    entries[0], entries[1] = (np.array([[10, 10, 20, 20, 0.9]]), None), (None, None)
    np.save(tmp_path / "v.npy", entries)
    main([*call, "--format", "object-arrays", "--source", str(tmp_path), "--min-score", "0.5"])
    teachers = Teachers.load(tmp_path / FOLDER)
    assert teachers.scores("d/v/exo", "ego") is not None
    boxes = teachers.boxes("d/v/exo", np.arange(2), 1)
    assert boxes is not None
    np.testing.assert_allclose(boxes[0, 0], [2, 0.1, 0.2, 0.2, 0.4, 0.9], rtol=1e-6)
