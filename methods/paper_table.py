"""A table of a paper and the runs that make ours; `tables()` in `methods/<name>/tables.py` maps a name to one.

No torch: `crossview reproduce --list` reads every table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from crossview.errors import UserError

TRAINED = "trained"
Weights = Literal["trained", "random", "input"]


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A catalog that a table needs, and how the user makes it."""

    adapter: str
    """What `crossview prepare` calls it."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of the adapter, beside where the files are."""
    features: bool = False
    """Whether it is catalogued as features of others, in place of videos."""
    holds: str
    """What and how much, for the list of tables."""

    def __post_init__(self) -> None:
        if self.features and self.adapter != "assembly101":
            raise UserError(f"dataset {self.adapter!r}: only assembly101 is catalogued as features; leave them out")


@dataclass(frozen=True, kw_only=True)
class Mixed:
    """A further dataset that a stage draws rows from."""

    data: str
    share: float
    pairing: Literal["single", "synchronized", "paired", "unpaired", "group"] | None = None


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One kind of run, trained once per seed; where it names tasks it is scored by them."""

    trains: str
    """A method, or a downstream trainer."""
    preset: str
    """Of its configuration."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Changes of the preset by dotted names, such as "method.masking.ratio"."""
    small: Mapping[str, Any] = field(default_factory=dict)
    """Further changes where the run is scaled down to the synthetic export."""
    data: str
    """Key of `PaperTable.data`."""
    protocol: str | None = None
    views: tuple[str, ...] | None = None
    mix: tuple[Mixed, ...] = ()
    cache_features: bool = False
    """Train on features of the frozen part, computed once per recording for all stages that have the same."""
    start: str | None = None
    """The stage whose weights of the same seed it starts from."""
    encoder: str | None = None
    """The stage whose run of the same seed computes a downstream trainer's inputs."""
    encoder_weights: Weights = "trained"
    """Of `encoder`: random leaves its network untrained, input gives what it would read instead."""
    tasks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """What scores it, with the options of each."""
    split: str = "test"
    """What the tasks score."""

    @property
    def after(self) -> str | None:
        """The stage that must have ended before."""
        return self.start or self.encoder

    def __post_init__(self) -> None:
        if self.start and self.encoder:
            raise UserError(f"a stage starts from {self.start!r} and reads {self.encoder!r}; it waits for one of them")
        if self.encoder is None and self.encoder_weights == "random":
            raise UserError("encoder_weights is 'random' without an encoder; name the stage that has the network")


@dataclass(frozen=True, kw_only=True)
class Column:
    """One number of every row."""

    heading: str
    metrics: tuple[str, ...]
    """Of the tasks; the number is their mean. "{part}" stands for the row's `part`."""
    factor: float = 1.0
    """Of our score, to be on the paper's scale."""
    digits: int = 2

    def names(self, part: str) -> tuple[str, ...]:
        """The metrics of a row."""
        return tuple(name.replace("{part}", part) for name in self.metrics)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table."""

    label: str
    group: str = ""
    """Heading of neighbouring rows, such as a dataset."""
    paper: tuple[float | None, ...]
    """By column; None where it is not reported."""
    stage: str | None = None
    """What makes ours; None for a method of others, which is not run."""
    of: str = TRAINED
    """Which row of the stage's result: the trained one, or a baseline."""
    part: str = ""
    """Stands in the columns' metrics."""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What all rows and seeds take: an estimate, not a measurement."""

    hours: float
    hardware: str
    arithmetic: str
    """How the hours are counted."""


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """A published table, and the stages whose scores are set beside its numbers."""

    title: str
    paper: str
    number: str
    """Of the table in the paper."""
    data: Mapping[str, Dataset]
    columns: tuple[Column, ...]
    stages: Mapping[str, Stage]
    """Each after the one that it starts from."""
    rows: tuple[Row, ...]
    seeds: int = 3
    cost: Cost
    remarks: tuple[str, ...] = ()
    """What a reader of the numbers has to know."""

    def __post_init__(self) -> None:
        done: set[str] = set()
        for name, stage in self.stages.items():
            if stage.after is not None and stage.after not in done:
                raise UserError(f"table {self.title!r}: stage {name!r} needs {stage.after!r}; list that before it")
            for data in (stage.data, *(mixed.data for mixed in stage.mix)):
                if data not in self.data:
                    raise UserError(f"table {self.title!r}: stage {name!r} reads {data!r}; describe it in `data`")
            done.add(name)
        for row in self.rows:
            if len(row.paper) != len(self.columns):
                raise UserError(
                    f"table {self.title!r}: row {row.label!r} has {len(row.paper)} numbers for {len(self.columns)} "
                    "columns; give one for each, None where it is not reported"
                )
            if row.stage is not None and not self.stages[row.stage].tasks:
                raise UserError(
                    f"table {self.title!r}: row {row.label!r} is of stage {row.stage!r}, which is not scored"
                )
        needed = {row.stage for row in self.rows} | {stage.after for stage in self.stages.values()}
        if idle := self.stages.keys() - needed:
            raise UserError(f"table {self.title!r}: nothing uses the stages {', '.join(sorted(idle))}; leave them out")
        if self.seeds < 1:
            raise UserError(f"table {self.title!r}: seeds is {self.seeds}; it must be at least 1")


def percent(heading: str, *metrics: str, digits: int = 2) -> Column:
    """A column of scores in [0, 1] that the paper prints as percent."""
    return Column(heading=heading, metrics=metrics, factor=100.0, digits=digits)
