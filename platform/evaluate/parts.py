"""What a task gets for each row of the result: tables, encoders or samples of both splits."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from crossview.datasets.catalog import Catalog
from crossview.datasets.catalog.labels import Labels
from crossview.datasets.sampling.plan import Plan
from crossview.downstream.task import (
    ClipOptions,
    EncoderPart,
    Facts,
    Part,
    PredictionOptions,
    PredictionPart,
    Recorded,
    SampleOptions,
    SamplePart,
    TablePart,
    Task,
)
from crossview.downstream.test_views import ClassifierOptions
from crossview.methods.method import Batch, Method
from crossview.platform.config import is_trainer
from crossview.platform.data.loader import Shard, Stream
from crossview.platform.evaluate.clip_embeddings import clip_windows, embed_clips
from crossview.platform.evaluate.clip_reader import ClipFiles
from crossview.platform.evaluate.embedding_store import data_key, on_features
from crossview.platform.evaluate.facts import ordered, recorded, wanted
from crossview.platform.evaluate.frame_embeddings import embed
from crossview.platform.evaluate.opened import RANDOM_INIT, TRAINED, Baselines, OpenRun
from crossview.platform.evaluate.predictions import predictions
from crossview.storage.tables import read_table

SEED = 0
"""Seed of the plan that draws samples, so that every run is measured on the same ones."""

Parts = tuple[Part | None, Part]
"""Part of the split that is fitted on, if the task fits something, and of the evaluated split."""
Rows = dict[str, Callable[[], Parts]]
"""By row, the trained one first; each is called when its turn comes."""


@dataclass(frozen=True)
class Reader:
    """Provides the parts of one evaluation."""

    run: OpenRun
    facts: Facts
    baselines: Baselines
    """Which rows there are beside the trained one."""

    @cached_property
    def data_keys(self) -> list[str]:
        """Hashes of the recordings, files and labels of the evaluated split and of the one that is fitted on."""
        splits = dict.fromkeys((self.facts.split, *([self.facts.fit_split] if self.facts.train else ())))
        return [data_key(ordered(self.run.catalog.select(split))) for split in splits]

    def rows(self, task: Task[Any, Any], known: Collection[str] = ()) -> Rows:
        """The rows that the platform has for the task, without those whose scores are `known`."""
        return {row: parts for row, parts in self._rows(task).items() if row not in known}

    def _rows(self, task: Task[Any, Any]) -> Rows:
        options, splits = task.options, self._splits(task)
        if options.reads == "frames":
            return self._tables([embed(self.run, split=split, baselines=self.baselines) for split in splits], splits)
        if options.reads == "clips":
            assert isinstance(options, ClipOptions)
            found = [
                embed_clips(self.run, split=split, per_scene=options.clips_per_scene, baselines=self.baselines)
                for split in splits
            ]
            return self._tables(found, splits)
        if options.reads == "encoder":
            return self._encoders(task, splits)
        if options.reads == "predictions":
            return self._predictions(task, splits)
        return self._samples(task)

    def _splits(self, task: Task[Any, Any]) -> list[str]:
        """The evaluated split last."""
        return [*([self.facts.fit_split] if task.options.fitted else []), self.facts.split]

    def _tables(self, files: list[dict[str, Path]], splits: list[str]) -> Rows:
        def parts(row: str) -> Parts:
            found = [
                TablePart(
                    split=split, recordings=self._recordings(split), seen=self.facts.seen, table=read_table(of[row])
                )
                for of, split in zip(files, splits, strict=True)
            ]
            return found[0] if len(found) > 1 else None, found[-1]

        return {row: partial(parts, row) for row in files[-1]}

    def _encoders(self, task: Task[Any, Any], splits: list[str]) -> Rows:
        assert isinstance(task.options, ClipOptions)
        catalogs, readers = [], []
        for split in splits:
            whole = ordered(self.run.catalog.select(split))
            windows = clip_windows(whole, self.run.experiment.method.sampling(), task.options.clips_per_scene)
            catalogs.append(on_features(self.run, wanted(task, whole, self.facts), 64))
            readers.append(ClipFiles(self.run, catalogs[-1], windows))

        def parts(encoder: Callable[[], Method]) -> Parts:
            found = [
                EncoderPart(
                    split=split, recordings=recorded(catalog), seen=self.facts.seen, encoder=encoder(), clips=reader
                )
                for split, catalog, reader in zip(splits, catalogs, readers, strict=True)
            ]
            return found[0] if len(found) > 1 else None, found[-1]

        return self._models(parts)

    def _samples(self, task: Task[Any, Any]) -> Rows:
        assert isinstance(task.options, SampleOptions)
        if task.options.fitted:
            raise ValueError("a task that reads samples fits nothing: the batch is from the evaluated split only")
        chosen = wanted(task, self.run.catalog.select(self.facts.split), self.facts)
        batch = sample_batch(self.run, chosen, task.options.samples)

        def parts(encoder: Callable[[], Method]) -> Parts:
            part = SamplePart(
                split=self.facts.split,
                recordings=recorded(chosen),
                seen=self.facts.seen,
                encoder=encoder(),
                batch=batch,
            )
            return None, part

        return self._models(parts)

    def _predictions(self, task: Task[Any, Any], splits: list[str]) -> Rows:
        """The trained run, a method's before its training, and the runs that a trainer's `controls` hold."""
        assert isinstance(task.options, PredictionOptions)
        run, options, (*fitted, split) = self.run, task.options, splits
        test = options.test if isinstance(options, ClassifierOptions) else None
        train: PredictionPart | None = None

        def part(of: OpenRun, name: str, row: str | None) -> PredictionPart:
            chosen = options.views if name == split else None
            return predictions(of, run.catalog, name, row, self._recordings(name), self.run.seen, chosen, test)

        def parts(of: OpenRun, row: str = TRAINED) -> Parts:
            nonlocal train
            if fitted and train is None:
                train = part(run, fitted[0], None)
            return train, part(of, split, row)

        rows: Rows = {TRAINED: lambda: parts(run)}
        if self.baselines != "none" and not is_trainer(run.method):
            rows[RANDOM_INIT] = lambda: parts(run, RANDOM_INIT)
        if self.baselines == "all":
            rows |= {name: partial(parts, control) for name, control in run.controls().items()}
        return rows

    def _models(self, parts: Callable[[Callable[[], Method]], Parts]) -> Rows:
        rows: Rows = {TRAINED: lambda: parts(lambda: self.run.trained)}
        if self.baselines != "none":
            rows[RANDOM_INIT] = lambda: parts(lambda: self.run.random_init)
        return rows

    def _recordings(self, split: str) -> tuple[Recorded, ...]:
        return self.facts.test if split == self.facts.split else self.facts.train


def is_whole(part: Part) -> bool:
    """Whether every recording of the part could be read."""
    if isinstance(part, TablePart):
        column = "video" if "video" in part.table.column_names else "recording"
        return len(pc.unique(part.table[column])) == len(part.recordings)
    if isinstance(part, PredictionPart):
        return not part.left_out
    return not (isinstance(part, EncoderPart) and isinstance(part.clips, ClipFiles) and part.clips.unreadable)


def sample_batch(run: OpenRun, catalog: Catalog, samples: int) -> Batch:
    """Up to `samples` samples of the recordings, drawn as in training but for their centre, decoded in this process."""
    sampling = run.experiment.method.sampling().evaluated()
    labels = Labels(run.catalog, sampling.labels, sampling.label_options)  # of all splits, as in training
    plan = Plan(on_features(run, catalog, 64), sampling, SEED, labels)
    rows = max(1, min(samples // sampling.windows, plan.rows_per_epoch))
    shard = Shard(start_step=0, stop_step=1, batch=rows, micro_batch=rows)
    data = run.experiment.data
    with Stream(plan, data, shard, device=run.device, run_dir=None, in_process=True, prefetch=0) as stream:
        return next(iter(stream))
