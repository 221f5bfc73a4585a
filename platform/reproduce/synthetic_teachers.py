"""The teacher store of a study on the synthetic world."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from crossview.datasets.catalog import Catalog
from crossview.datasets.synthetic import teachers as truth
from crossview.datasets.synthetic.world import write
from crossview.datasets.teachers.store import FOLDER, Teachers, write_scores
from crossview.methods.study import TeacherTraining
from crossview.platform import run_folder
from crossview.platform.config import Cadence, Compute, Data, Experiment, name_of
from crossview.platform.evaluate.teacher_scores import scores_of_run
from crossview.platform.progress import ticking
from crossview.platform.train import launcher

EGO = "ego"


def teach(teachers: TeacherTraining, catalog: Path, out: Path) -> None:
    """Write detections and scores "object" from the truth in `out`/data, and "ego" by a classifier trained here.

    What is there already is kept, so that an interrupted study can be resumed.
    """
    folder, known = catalog / FOLDER, Catalog.load(catalog)
    if Teachers.load(folder).classes("object") is None:
        truth.write(known, out / "data", catalog)
    if Teachers.load(folder).classes(EGO) is not None:
        return
    run = out / "ego-teacher"
    _train(teachers, run, out)
    write_scores(folder, EGO, scores_of_run(run, known, folder, clips=teachers.clips, in_process=True))


def _train(teachers: TeacherTraining, run: Path, out: Path) -> None:
    if (run / "run.json").exists():
        launcher.resume(run, in_process=True)
        return
    catalog = out / "teacher-catalog"
    if not (catalog / "catalog.json").exists():
        with ticking("rendering for the ego teacher") as tick:
            write(teachers.world, out / "teacher-data", tick).save(catalog)
    experiment: Experiment[Any] = Experiment(
        data=Data(catalog=catalog, cache_frames=True),
        method=teachers.recipe.method,
        optim=teachers.recipe.optim,
        compute=Compute(device="auto"),
        every=Cadence(log=20, checkpoint=500, keep=1),
    )
    method = name_of(teachers.recipe.method)
    launcher.start(run, method, experiment, in_process=True, command=run_folder.training_command(run, method))
