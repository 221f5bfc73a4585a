"""`crossview prepare teachers`: what other models say of a catalog's recordings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from crossview.datasets.catalog import Catalog
from crossview.errors import UserError
from crossview.platform.progress import console, ticking


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Score every recording with a trained run or an image classifier."""

    catalog: Path
    """Folder of the catalog; the scores go into its folder `teachers`."""
    task: str
    """Name that methods ask for, e.g. ego or object."""
    run: Path | None = None
    """A trained run with a classifier; its clip logits are averaged."""
    backbone: str | None = None
    """timm:NAME, an image classifier; its frame logits are averaged."""
    weights: str = "hub"
    """Of the backbone: a .safetensors or .pt file, or hub."""
    classes: int = 1000
    """Of the backbone."""
    kind: str | None = None
    """Label kind of the run's classifier, where it has several."""
    clips: int = 10
    """Evenly spaced clips (of a run) or frames (of a backbone) per recording."""
    root: Path | None = None
    """Current folder of the catalog's files, if it has moved since the catalog was made."""
    actors: int = 1
    device: Literal["auto", "cpu", "cuda"] = "auto"
    debug: bool = False
    """Run in this process, without Ray."""


@dataclass(frozen=True, kw_only=True)
class Import:
    """Import published teacher outputs."""

    catalog: Path
    """Folder of the catalog; the tables go into its folder `teachers`."""
    format: Literal["score-pickle", "object-arrays", "epic-pickles"]
    """score-pickle: a dict of video path to scores; object-arrays: a folder of NAME.npy with (objects, hands) of each
    frame; epic-pickles: a folder of VIDEO.pkl with EPIC-KITCHENS' detections."""
    source: Path
    """The file, or the folder of files."""
    task: str | None = None
    """Name of the scores, e.g. ego or object."""
    scores: Literal["logits", "log_probs", "probs"] = "logits"
    """What the pickle's numbers are."""
    coordinates: Literal["pixel", "unit"] | None = None
    """Of the boxes; by default pixel in object-arrays and unit in epic-pickles."""
    first: int | None = None
    """Number of a video's first frame; by default 0 in object-arrays (EPIC-KITCHENS has 1) and 1 in epic-pickles."""
    fps: float | None = None
    """Rate of the frame numbers; by default the recording's in object-arrays and 60 in epic-pickles."""
    frame_px: tuple[int, int] | None = None
    """Width and height that pixels refer to; by default the recording's."""
    min_score: float | None = None
    """Boxes below it are left out; by default 0 in object-arrays and 0.5 in epic-pickles."""


def teachers(
    what: Annotated[
        Annotated[Scores, tyro.conf.subcommand("scores")] | Annotated[Import, tyro.conf.subcommand("import")],
        tyro.conf.arg(name=""),
    ],
) -> None:
    """Save teachers' outputs for a catalog's recordings, for methods that distil them."""
    from crossview.datasets.teachers.store import FOLDER, write_scores

    catalog = Catalog.load(what.catalog, what.root if isinstance(what, Scores) else None)
    folder = what.catalog / FOLDER
    if isinstance(what, Import):
        _import(what, catalog, folder)
        return
    if (what.run is None) == (what.backbone is None):
        raise UserError(f"--run is {what.run} and --backbone {what.backbone}; give exactly one of them")
    from crossview.platform.evaluate.teacher_scores import scores_of_classifier, scores_of_run

    where: dict[str, Any] = {"in_process": what.debug, "actors": what.actors, "device": what.device}
    if what.run is not None:
        scores = scores_of_run(what.run, catalog, folder, kind=what.kind, clips=what.clips, **where)
    else:
        name = str(what.backbone).removeprefix("timm:")
        scores = scores_of_classifier(
            name, what.weights, catalog, folder, classes=what.classes, frames=what.clips, **where
        )
    write_scores(folder, what.task, scores)
    _tell(len(scores), len(catalog.recordings), f"scores of task {what.task}", folder)


def _import(what: Import, catalog: Catalog, folder: Path) -> None:
    from crossview.datasets.teachers import importers
    from crossview.datasets.teachers.store import write_detections, write_scores

    if (what.format == "score-pickle") == (what.task is None):
        raise UserError(f"--task is {what.task} with --format {what.format}; score-pickle needs one, boxes have none")
    if what.task is not None:
        scores = importers.score_pickle(what.source, catalog)
        write_scores(folder, what.task, scores, kind=what.scores)
        _tell(len(scores), len(catalog.recordings), f"scores of task {what.task}", folder)
        return
    names = ("coordinates", "first", "fps", "frame_px", "min_score")
    options = {name: getattr(what, name) for name in names if getattr(what, name) is not None}
    read = importers.object_arrays if what.format == "object-arrays" else importers.epic_pickles
    with ticking("reading") as tick:
        found = read(what.source, catalog, tick=tick, **options)
    write_detections(folder, found)
    boxes = sum(len(d.frame) for d in found.values())
    _tell(len(found), len(catalog.recordings), f"{boxes} boxes", folder)


def _tell(count: int, total: int, what: str, folder: Path) -> None:
    console.print(f"{count} of {total} recordings: {what}\nTeacher tables are saved to {folder}", highlight=False)
