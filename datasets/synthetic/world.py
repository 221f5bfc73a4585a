"""`write`: the synchronized world with its truth, as video files and a catalog."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from crossview import storage
from crossview.datasets.catalog import Catalog, Classes, Recording, Segment, one_protocol
from crossview.datasets.catalog.catalog import INDICES
from crossview.datasets.catalog.classes import natural_order
from crossview.datasets.catalog.probing import Prober
from crossview.errors import UserError

from .cameras import is_ego, view_names
from .config import PHASES, SPLITS, WorldConfig
from .film import film
from .take import Take, TakeName

DATASET = "synthetic"
Progress = Callable[[int, int], None]
"""Called with takes done and takes in all."""


@dataclass(frozen=True)
class Job:
    """One take to film: `files` and `recordings` by view, `truth` without suffix."""

    config: WorldConfig
    name: TakeName
    files: dict[str, Path]
    recordings: dict[str, str]
    truth: Path

    @property
    def done(self) -> bool:
        """Whether every file of the take is there."""
        return self.truth.with_name(f"{self.truth.name}.json").is_file() and all(
            f.is_file() for f in self.files.values()
        )

    def summary(self) -> dict[str, object]:
        """Subject, handedness and labels, as filmed."""
        return dict(json.loads(self.truth.with_name(f"{self.truth.name}.json").read_text()))


def _run(job: Job) -> None:
    film(Take(job.config, job.name), job.files, job.recordings, job.truth)


def run(jobs: list[Job], workers: int, progress: Progress | None = None) -> None:
    """Film the jobs that are not done, in `workers` processes."""
    open_jobs = [job for job in jobs if not job.done]
    done = len(jobs) - len(open_jobs)
    if progress:
        progress(done, len(jobs))
    with ExecutorOrNone(min(workers, len(open_jobs))) as pool:
        results: Iterable[None] = pool.map(_run, open_jobs) if pool else map(_run, open_jobs)
        for _ in results:
            done += 1
            if progress:
                progress(done, len(jobs))


class ExecutorOrNone:
    """A process pool for two workers or more, else None (this process)."""

    def __init__(self, workers: int) -> None:
        self._pool = ProcessPoolExecutor(workers, get_context("spawn")) if workers > 1 else None

    def __enter__(self) -> ProcessPoolExecutor | None:
        return self._pool

    def __exit__(self, *error: object) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)


def claim(config: WorldConfig, out: Path) -> None:
    """Mark `out` as this world's folder; raises ValueError if it has another config's files."""
    mine = {k: v for k, v in json.loads(json.dumps(asdict(config))).items() if k != "workers"}
    path = out / "world.json"
    if path.is_file():
        theirs = storage.read_json(path, "take another folder, or delete this one")
        differing = sorted(k for k in mine if theirs.get(k) != mine[k])
        if differing:
            k = differing[0]
            raise UserError(
                f"{path}: this folder holds a world with {k}={theirs.get(k)}, asked for is {k}={mine[k]}; "
                "a folder holds one world: take another folder or delete this one"
            )
    out.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".world.{os.getpid()}.part")
    part.write_text(json.dumps(mine, indent=2) + "\n")
    part.replace(path)


def take_names(config: WorldConfig) -> Iterator[TakeName]:
    """Every take of the world, split by split."""
    for split in SPLITS:
        for action in config.actions:
            for number in range(config.takes(split)):
                yield TakeName(split, action, number)


def phase_segments(recording: str, labels: np.ndarray, action: str, fps: float) -> list[Segment]:
    """The action's one segment and one per phase."""
    edges = [0, *(np.flatnonzero(np.diff(labels)) + 1).tolist(), len(labels)]
    phases = [Segment(recording, a / fps, b / fps, "phase", PHASES[action][labels[a]]) for a, b in pairwise(edges)]
    return [Segment(recording, 0.0, len(labels) / fps, "action", action), *phases]


def gather(jobs: list[Job], out: Path, files_of: Callable[[Job, str], Recording]) -> Catalog:
    """Catalog and truth tables of finished jobs, saved in `out`."""
    members: list[tuple[Recording, str]] = []
    segments: list[Segment] = []
    labels: dict[str, np.ndarray] = {}
    for job in jobs:
        values = np.asarray(job.summary()["labels"], np.int32)
        for view in job.files:
            recording = files_of(job, view)
            members.append((recording, job.name.split))
            labels[recording.id] = values
            segments += phase_segments(recording.id, values, job.name.action, job.config.fps)
    catalog = Catalog(
        out,
        tuple(recording for recording, _ in members),
        tuple(segments),
        {"phase": labels},
        protocols=one_protocol(members),
        classes=classes_of(jobs[0].config) if jobs else {},
    )
    catalog.save(out)
    for kind in ("boxes", "cameras"):
        pq.write_table(pa.concat_tables([_truth(job, kind) for job in jobs]), out / f"{kind}.parquet")
    people = [{"scene": j.name.scene, **{k: j.summary()[k] for k in ("subject", "handedness")}} for j in jobs]
    pq.write_table(pa.Table.from_pylist(people), out / "subjects.parquet")
    return catalog


def _truth(job: Job, kind: str) -> pa.Table:
    """One take's boxes or cameras, under its recordings' ids, whatever a past version called them."""
    table = pq.read_table(job.truth.with_name(f"{job.truth.name}.{kind}.parquet"))
    ids = [job.recordings[name.rpartition("/")[2]] for name in table["recording"].to_pylist()]
    place = table.schema.get_field_index("recording")
    return table.set_column(place, table.schema.field(place), pa.array(ids, table.schema.field(place).type))


def classes_of(config: WorldConfig) -> Classes:
    """The world's classes: its actions, all of their phases, and each action's phases as frame labels number them."""
    return {
        "action": natural_order(config.actions),
        "phase": natural_order(phase for action in config.actions for phase in PHASES[action]),
        **{f"phase/{action}": tuple(PHASES[action]) for action in config.actions},
    }


def recording_id(name: TakeName, view: str) -> str:
    """Of one camera of a take."""
    return f"{DATASET}/{name.scene}/{view}"


def recording_of(job: Job, view: str, out: Path) -> Recording:
    """The catalog's row for one view of a filmed job."""
    summary, config = job.summary(), job.config
    return Recording(
        dataset=DATASET,
        scene=job.name.scene,
        view=view,
        perspective="ego" if is_ego(view) else "exo",
        subject=str(summary["subject"]),
        action=job.name.action,
        path=job.files[view].relative_to(out).as_posix(),
        kind="video",
        fps=float(config.fps),
        num_frames=len(summary["labels"]),  # type: ignore[arg-type]
        height_px=config.size_px,
        width_px=config.size_px,
    )


def write(config: WorldConfig, out: Path, progress: Progress | None = None) -> Catalog:
    """Film the whole world into `out`, every view of a take from the same instants; finished takes are kept.

    Beside the catalog's tables: boxes.parquet, cameras.parquet, subjects.parquet (handedness), world.json (the config).
    """
    claim(config, out)
    views = view_names(config.ego_cameras, config.exo_cameras)
    jobs = [
        Job(
            config,
            name,
            {v: out / "videos" / name.split / name.scene / f"{v}.mp4" for v in views},
            {v: recording_id(name, v) for v in views},
            out / "truth" / name.scene,
        )
        for name in take_names(config)
    ]
    run(jobs, config.workers, progress)
    paths = [file.relative_to(out).as_posix() for job in jobs for file in job.files.values()]
    infos, unreadable = Prober(out / INDICES).probe(out, paths)
    if unreadable:
        raise UserError(f"{unreadable[0].reason}; remove the file and run the same command again")

    def row(job: Job, view: str) -> Recording:
        recording = recording_of(job, view, out)
        return replace(recording, **infos[recording.path].columns())

    return gather(jobs, out, row)
