"""The resolved configuration of a run: one object for a command line, a saved run and a trial. No torch, no ray."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

import dacite
import tyro

from crossview import storage
from crossview.datasets.sampling.geometry import SQUASH
from crossview.datasets.sampling.spec import View
from crossview.errors import UserError
from crossview.methods.recipe import MethodConfig, Optim, Recipe
from crossview.storage import Location, as_path

M = TypeVar("M", bound=MethodConfig)


@dataclass(frozen=True, kw_only=True)
class Source:
    """A further catalog to train on."""

    catalog: Location
    share: float
    """Of all rows; the first catalog has what is left."""
    pairing: Literal["single", "synchronized", "paired", "unpaired", "group"] | None = None
    """In place of the method's own, such as "paired" where its views run one after the other."""
    protocol: str | None = None
    """Which of this catalog's protocols makes the splits; None is the only one."""

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise UserError(f"data.mix: share is {self.share} for {self.catalog}; it must be between 0 and 1")


@dataclass(frozen=True, kw_only=True)
class Data:
    """Where clips come from and how they are decoded."""

    catalog: Location
    """Folder that `crossview prepare` wrote."""
    root: Location | None = None
    """Where the catalog's files are now, if they were moved since it was made."""
    split: str = "train"
    protocol: str | None = None
    """Which of the catalog's protocols makes the splits, in training and evaluations; None is the only one."""
    views: tuple[str, ...] | None = None
    """Training cameras, by name; None takes all. One that is left out is a held-out camera in evaluations."""
    actions: tuple[str, ...] | None = None
    """Training actions, by name; None takes all. Evaluations see the others too, as new tasks."""
    mix: tuple[Source, ...] = ()
    """Further catalogs to draw rows from, each with its share of them."""
    cache_frames: bool = False
    """Keep each recording's frames beside the catalog as they are decoded at the method's size, and read those."""
    cache_features: bool = False
    """Compute the method's frozen features once per recording and train on those."""
    decoder: Literal["pyav", "decord", "torchcodec"] = "pyav"
    """What reads videos: pyav reads every file; decord only H.264 without B-frames, as prepared copies are; torchcodec
    (extra `torchcodec`) most, but not MPEG-TS. The latter two give RGB, which is more bytes than pyav's planes."""
    decode_actors: int | None = None
    """Ray actors that decode, per training worker; None plans them from the CPUs that training leaves."""
    store_share: float = 0.5
    """Largest share of the cluster's object store that decoded clips on their way to training may take."""
    time_limit_s: float = 60.0
    """Seconds for decoding up to 1800 frames (a minute of video), more in proportion; above, a file is quarantined."""
    max_quarantined: float = 0.05
    """Largest share of recordings that may be unreadable before the run stops."""

    def __post_init__(self) -> None:
        if self.decode_actors is not None and self.decode_actors < 1:
            raise UserError(f"data.decode_actors is {self.decode_actors}; it must be at least 1")
        if not 0 < self.store_share <= 1:
            raise UserError(f"data.store_share is {self.store_share}; it is a share and must be in (0, 1]")
        if self.time_limit_s <= 0:
            raise UserError(f"data.time_limit_s is {self.time_limit_s}; it must be above 0 seconds")
        for name, what in (("views", "camera"), ("actions", "action")):
            if getattr(self, name) == ():
                raise UserError(f"data.{name} is empty; name at least one {what}, or leave it out to take all")
        if sum(source.share for source in self.mix) >= 1:
            raise UserError(
                f"data.mix: the shares {[source.share for source in self.mix]} leave nothing for the first catalog; "
                "their sum must be below 1"
            )
        if not 0 <= self.max_quarantined <= 1:
            raise UserError(f"data.max_quarantined is {self.max_quarantined}; it is a share and must be in [0, 1]")

    @property
    def actors(self) -> int:
        """`decode_actors`, or one while they are not planned."""
        return self.decode_actors or 1

    def pixels(self, view: View) -> Literal["rgb", "yuv420"]:
        """How the view's frames travel."""
        return "yuv420" if self.decoder == "pyav" and not view.geometry.via_px else "rgb"


@dataclass(frozen=True, kw_only=True)
class Compute:
    """What a run executes on."""

    workers: int = 1
    """Training processes (ranks)."""
    min_workers: int | None = None
    """Continue with as few as these while nodes are missing, at the same global batch; None waits for all `workers`."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """ddp keeps the whole model on each worker; fsdp a part of each trained parameter, its gradient and its moments."""
    micro_batch: int | None = None
    """Samples per forward pass on one worker; None takes its share of the global batch, else gradients accumulate."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Autocast type of the forward pass; float16 scales the loss."""
    compile: bool = False
    """Compile the model's blocks with torch.compile, which makes the first steps slow."""
    activation_checkpointing: bool = False
    """Keep only the input of each block for the backward pass, which computes the rest again: slower, less memory."""
    profile: int | None = None
    """Trace this many steps with torch's profiler, after a warm-up; None traces none. Written to RUN/profile/."""
    threads: int | None = None
    """Torch threads per worker; None shares the cores among the workers."""
    async_checkpoint: bool = True
    """Train on while a checkpoint is written, from a copy in the host memory of rank 0."""
    max_failures: int = 2
    """Worker failures after which the run gives up."""

    def __post_init__(self) -> None:
        for name in ("workers", "min_workers", "micro_batch", "profile", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"compute.{name} is {value}; it must be at least 1")
        if self.min_workers is not None and self.min_workers > self.workers:
            raise UserError(
                f"compute.min_workers is {self.min_workers}; it must not exceed compute.workers {self.workers}"
            )
        if self.max_failures < 0:
            raise UserError(f"compute.max_failures is {self.max_failures}; it must be 0 or more")


@dataclass(frozen=True, kw_only=True)
class Cadence:
    """How often, in optimiser steps."""

    log: int = 10
    checkpoint: int = 200
    keep: int = 3
    """Latest checkpoints to keep."""
    evaluate: int | None = None
    """Score the run by downstream tasks (`--tasks`) each time; None or 0 only at its end, and only if tasks are
    named."""
    best: str | None = None
    """Metric of these tasks, such as retrieval/R@1/seen: the checkpoint that is best by it is kept besides the latest
    ones."""

    def __post_init__(self) -> None:
        for name in ("log", "checkpoint", "keep"):
            if getattr(self, name) < 1:
                raise UserError(f"every.{name} is {getattr(self, name)}; it must be at least 1")
        if self.evaluate is not None and self.evaluate < 0:
            raise UserError(f"every.evaluate is {self.evaluate}; it must be a number of steps, or 0 to leave it out")
        if self.best is not None and not self.evaluate:
            raise UserError(
                f"every.best is {self.best}, but every.evaluate is {self.evaluate}; only checkpoints that are scored "
                "can be compared: pass --every.evaluate STEPS"
            )


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """The trained method that a downstream trainer builds on."""

    run: Location | None = None
    """Its run or checkpoint folder; None trains on the catalog's features by themselves."""
    weights: Literal["trained", "random", "input"] = "trained"
    """trained; random: the same network before its first step; input: what it is compared with, its first baseline,
    such as the frozen features that it reads."""
    saved: Annotated[dict[str, Any] | None, tyro.conf.Suppress] = None
    """Name and configuration of the method, as `run` has them when training starts: a run is loaded without it."""

    def method(self) -> tuple[str, Any]:
        """The method's name and configuration."""
        assert self.saved is not None, "a run's encoder is settled before it is built"
        return self.saved["name"], _method_config(self.saved["name"], self.saved["method"])

    @property
    def cameras(self) -> dict[str, list[str]] | None:
        """What its weights were trained on, by dataset; None where that is not known."""
        found: dict[str, list[str]] | None = (self.saved or {}).get("cameras")
        return {} if self.weights == "random" else found


@dataclass(frozen=True, kw_only=True)
class Experiment(Generic[M]):
    """Everything that decides a run's result."""

    data: Data
    method: M
    optim: Optim
    compute: Compute = field(default_factory=Compute)
    every: Cadence = field(default_factory=Cadence)
    seed: int = 0
    init_from: Location | None = None
    """A run or checkpoint whose weights training starts from."""
    track: Literal["wandb", "mlflow"] | None = None
    """Also log metrics there, beside TensorBoard; needs `pip install 'crossview[wandb]'` or `'crossview[mlflow]'`."""
    encoder: Annotated[Encoder, tyro.conf.Suppress] = field(default_factory=Encoder)
    """Of a downstream trainer."""

    def sampling(self) -> Any:
        """What a sample is: `Sampling`, or what a downstream trainer asks of recordings of features."""
        return self.method.sampling()

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise UserError(f"seed is {self.seed}; it must be 0 or more")
        if self.track not in (None, "wandb", "mlflow"):
            raise UserError(f"track is {self.track!r}; it must be 'wandb' or 'mlflow', or left out for neither")


@dataclass(frozen=True, kw_only=True)
class TrainerExperiment(Experiment[M]):
    """Everything that decides the result of a downstream trainer's run."""

    encoder: Encoder = field(default_factory=Encoder)

    def sampling(self) -> Any:
        """Of all frames where an encoder embeds them."""
        trainer: Any = self.method
        return trainer.sampling(encoded=self.encoder.run is not None)


PARTS: dict[str, type[Any]] = {"data": Data, "optim": Optim, "compute": Compute, "every": Cadence}


def config_class(method: str) -> type[MethodConfig]:
    """The `Config` of a method or trainer; raises ValueError for an unknown one."""
    return _module(method).Config


def name_of(config: Any) -> str:
    """The method or trainer whose `Config` it is."""
    return type(config).__module__.split(".")[-2]


def experiment_class(method: str) -> type[Experiment[Any]]:
    """What configures a run of a method, or of a trainer, which has an encoder."""
    return TrainerExperiment if is_trainer(method) else Experiment


def presets(method: str) -> dict[str, Any]:
    """Functions that return a `Recipe`, by name."""
    return _module(method).presets()


def preset(method: str, name: str) -> Recipe:
    """One preset's recipe; raises ValueError for an unknown name."""
    known = presets(method)
    if name not in known:
        raise UserError(f"--preset {name}: {method} has no such preset; choose from {', '.join(known)}")
    return known[name]()


def method_names() -> list[str]:
    """The folders under `methods/`, found without importing torch."""
    import crossview.methods

    return sorted(m.name for m in pkgutil.iter_modules(crossview.methods.__path__) if m.ispkg)


def trainer_names() -> list[str]:
    """The folders under `downstream/` that hold a model to train."""
    import crossview.downstream

    folders = [Path(folder) for folder in crossview.downstream.__path__]
    return sorted({file.parent.name for folder in folders for file in folder.glob("*/model.py")})


def is_trainer(name: str) -> bool:
    """Whether it is a downstream trainer, and no method."""
    return name in trainer_names()


def _module(name: str) -> Any:
    if name in method_names():
        return importlib.import_module(f"crossview.methods.{name}.config")
    if is_trainer(name):
        return importlib.import_module(f"crossview.downstream.{name}.config")
    raise UserError(
        f"method {name!r} is unknown; choose from {', '.join(method_names())}, or of downstream trainers from "
        f"{', '.join(trainer_names())}"
    )


def to_dict(method: str, experiment: Experiment[Any]) -> dict[str, Any]:
    """JSON-ready form that `from_dict` reads back as an equal object."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [plain(v) for v in value]
        return str(value) if isinstance(value, Location) else value

    values = plain(dataclasses.asdict(experiment))
    if not is_trainer(method):
        del values["encoder"]
    return {"name": method, **values}


def flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Nested values by dotted name, such as "optim.lr"."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def from_dict(values: dict[str, Any]) -> tuple[str, Experiment[Any]]:
    """The method's name and its experiment; raises ValueError that names an unknown, missing or ill-typed option."""
    if not isinstance(values, dict):
        raise UserError(f"the experiment is a {type(values).__name__}; it must be an object of options")
    required = {"name": str, "method": dict, **dict.fromkeys(PARTS, dict), "seed": int, "init_from": str | None}
    optional: dict[str, Any] = {"track": str | None, "encoder": dict}
    for name, kind in (required | optional).items():
        if name in required and name not in values:
            raise UserError(f"the configuration lacks {name!r}; take one that `crossview train` wrote")
        if name in values and (not isinstance(values[name], kind) or values[name] is True):
            raise UserError(f"the configuration's {name!r} is {values[name]!r}; it must be {_kind(kind)}")
    method = values["name"]
    if unknown := values.keys() - (required | optional).keys():
        raise UserError(f"configuration of {method}: unknown option {', '.join(sorted(unknown))}")
    try:
        config = _method_config(method, values["method"])
        parts: dict[str, Any] = {name: dacite.from_dict(kind, values[name], _OPTIONS) for name, kind in PARTS.items()}
        encoder = dacite.from_dict(Encoder, values.get("encoder", {}), _OPTIONS)
    except dacite.DaciteError as error:
        raise UserError(f"configuration of {method}: {error}; correct that option") from error
    except TypeError as error:  # a value that cannot be made a tuple
        raise UserError(f"configuration of {method}: an option that takes a list has no list ({error})") from error
    begin = values["init_from"]
    facts = {"seed": values["seed"], "init_from": as_path(begin) if begin else None, "track": values.get("track")}
    return method, experiment_class(method)(method=config, encoder=encoder, **facts, **parts)


def _method_config(method: str, values: dict[str, Any]) -> Any:
    cls: Any = config_class(method)
    if "geometry" not in values and "geometry" in {part.name for part in dataclasses.fields(cls)}:
        values = values | {"geometry": dataclasses.asdict(SQUASH)}  # written before there was another
    if hasattr(cls, "upgraded"):
        values = cls.upgraded(values)
    return dacite.from_dict(cls, values, _OPTIONS)


def _kind(kind: Any) -> str:
    return {str: "a text", int: "a whole number", dict: "an object"}.get(kind, "a text or null")


def _number(value: Any) -> Any:
    """JSON has one kind of number: 1 is a float where a float is asked for; anything else is dacite's to refuse."""
    return float(value) if type(value) is int else value


_OPTIONS = dacite.Config(strict=True, cast=[tuple, Location], type_hooks={float: _number})


@dataclass(frozen=True)
class Saved:
    """What a run folder, its `run.json`, or a bare configuration file holds."""

    method: str
    experiment: Experiment[Any]
    info: dict[str, Any]
    """All of run.json; of a bare file, the experiment under "experiment"."""


def saved(path: Path) -> Saved:
    """Read a configuration; raises ValueError that names the file and what is wrong with it."""
    file = path / "run.json" if path.is_dir() else path
    if not storage.is_file(file):
        raise UserError(
            f"{file}: no saved configuration here; pass a run folder or a JSON file that `crossview train` wrote"
        )
    values = storage.read_json(file, "restore it, or pass a configuration that `crossview train` wrote")
    info = values if "experiment" in values else {"experiment": values}
    try:
        return Saved(*from_dict(info["experiment"]), info)
    except UserError as error:
        raise UserError(f"{file}: {error}") from error


def read(path: Path) -> tuple[str, Experiment[Any]]:
    """The method and the experiment of `saved`."""
    found = saved(path)
    return found.method, found.experiment
