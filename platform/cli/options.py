"""`crossview train` and `crossview tune` as typed: which method, which recipe, changed by which options. No torch."""

from __future__ import annotations

import argparse
import contextlib
import functools
import inspect
import io
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import tyro

from crossview.errors import UserError
from crossview.methods.recipe import MethodConfig
from crossview.platform.config import (
    Data,
    Experiment,
    TrainerExperiment,
    config_class,
    experiment_class,
    is_trainer,
    method_names,
    preset,
    presets,
    saved,
    trainer_names,
)
from crossview.platform.evaluate.tasks import default_tasks
from crossview.platform.train.settings import Validation
from crossview.platform.train.settings import with_task_options as scored_by_tasks
from crossview.platform.tune.settings import Settings, with_task_options
from crossview.storage import Location, as_path

M = TypeVar("M", bound=MethodConfig)


@dataclass(frozen=True, kw_only=True)
class Launch(Generic[M]):
    """Train one method on a catalog."""

    experiment: Annotated[Experiment[M], tyro.conf.arg(name="")]
    preset: str
    """Recipe to start from; further options change it."""
    from_: Annotated[Location | None, tyro.conf.arg(name="from")] = None
    """A run folder or configuration file to start from, instead of a preset."""
    name: str | None = None
    """Name of the run; must not be in use."""
    runs: Path = Path("runs")
    """Parent folder of run folders."""
    validation: Annotated[Validation, tyro.conf.arg(name="")] = field(default_factory=Validation)
    debug: bool = False
    """Plan, decode and train in this process, without Ray, so that breakpoints in a method's forward work."""


@dataclass(frozen=True, kw_only=True)
class LaunchSearch(Generic[M]):
    """Search options of one method by a downstream metric; every trial is an ordinary run."""

    experiment: Annotated[Experiment[M], tyro.conf.arg(name="")]
    settings: Annotated[Settings, tyro.conf.arg(name="")] = field(default_factory=Settings)
    preset: str
    """Recipe that every trial changes, and that the winner is compared with."""
    from_: Annotated[Location | None, tyro.conf.arg(name="from")] = None
    """A run folder or configuration file to start from, instead of a preset."""
    name: str | None = None
    """Name of the search; must not be in use."""
    runs: Path = Path("runs")
    """Parent folder of search folders."""


@dataclass(frozen=True, kw_only=True)
class LaunchTrainer(Launch[M]):
    """Train one downstream trainer on a catalog."""

    experiment: Annotated[TrainerExperiment[M], tyro.conf.arg(name="")]
    controls: bool = True
    """Afterwards also train what its result is compared with, such as a random encoder by the same recipe, in
    RUN/controls."""


@dataclass(frozen=True, kw_only=True)
class LaunchTrainerSearch(LaunchSearch[M]):
    """Search options of one downstream trainer by a metric of its own; every trial is an ordinary run."""

    experiment: Annotated[TrainerExperiment[M], tyro.conf.arg(name="")]


def parse_train(args: Sequence[str]) -> tuple[str, Launch[Any]]:
    """The method or trainer, and what to train; wrong options end the process with status 2, as tyro does."""
    return _parse((Launch, LaunchTrainer), "train", args, validation=scored_by_tasks())


def parse_tune(args: Sequence[str]) -> tuple[str, LaunchSearch[Any]]:
    """The method and what to search."""
    return _parse((LaunchSearch, LaunchTrainerSearch), "tune", args, settings=with_task_options())


def _parse(kinds: tuple[Any, Any], command: str, args: Sequence[str], **defaults: Any) -> tuple[str, Any]:
    if not args or args[0].startswith("-"):
        names = [*method_names(), *trainer_names()]
        usage(
            f"crossview {command} NAME [options]",
            "methods, and downstream trainers",
            names,
            ok=bool({"--help", "-h"} & set(args)),
        )
    method, rest = args[0], list(args[1:])
    known = presets(method)
    kind = kinds[is_trainer(method)]
    early = argparse.ArgumentParser(f"crossview {command} {method}", add_help=False, allow_abbrev=False)
    early.add_argument("--preset", default=next(iter(known)))
    early.add_argument("--from", dest="from_")
    chosen, _ = early.parse_known_args(rest)
    begin = None if chosen.from_ is None else as_path(chosen.from_)
    if begin is not None:
        found = saved(begin)
        if found.method != method:
            raise UserError(
                f"--from {chosen.from_}: this configures {found.method!r}, not {method!r}; {command} {found.method} "
                "instead"
            )
        default = found.experiment
        if "validation" in defaults:
            defaults["validation"] = scored_by_tasks(found.info.get("validation"))
    else:
        if "validation" in defaults and is_trainer(method):
            defaults["validation"] = replace(defaults["validation"], tasks=default_tasks(method))
        recipe = preset(method, chosen.preset)
        begun = experiment_class(method)
        default = begun(data=Data(catalog=tyro.MISSING), method=recipe.method, optim=recipe.optim)
    launch = parse(
        kind[config_class(method)],
        default=kind(experiment=default, preset=chosen.preset, from_=begin, **defaults),
        args=rest,
        prog=f"crossview {command} {method}",
        description=f"Presets: {', '.join(known)}.",
    )
    return method, launch


def parse(command: Any, **options: Any) -> Any:
    """What `tyro.cli` gives, where every path may be a URI; raises the UserError of a value that is refused.

    tyro takes it for one of its own errors, ends the process (SystemExit) and draws a box, which is held back for that.
    """
    registry = tyro.constructors.ConstructorRegistry()
    registry.primitive_rule(_path)
    runs, box = inspect.isfunction(command), io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            found = tyro.cli(_bound(command) if runs else command, registry=registry, **options)
    except SystemExit as end:
        if refused := _refusal(end):
            raise refused from None
        sys.stderr.write(box.getvalue())
        raise
    return found() if runs else found


def _bound(command: Callable[..., Any]) -> Callable[..., Callable[[], Any]]:
    """The command with its options, which is then called outside of tyro."""

    @functools.wraps(command)
    def bound(*args: Any, **options: Any) -> Callable[[], Any]:
        return functools.partial(command, *args, **options)

    return bound


def _refusal(end: BaseException) -> UserError | None:
    """The UserError that led to it."""
    cause = end.__context__
    while cause is not None and not isinstance(cause, UserError):
        cause = cause.__context__
    return cause


def _path(asked: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec[Path] | None:
    if asked.type not in (Path, Location):
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="PATH",
        instance_from_str=lambda texts: as_path(texts[0]),
        is_instance=lambda value: isinstance(value, Location),
        str_from_instance=lambda path: [str(path)],
    )


def usage(line: str, what: str, names: Sequence[str] | Mapping[str, Any], *, ok: bool) -> None:
    """Print how a command is called, and end with status 0 where that was asked for, else 2."""
    text = f"usage: {line}\n{what}: {', '.join(names)}"
    print(text, file=sys.stdout if ok else sys.stderr)
    raise SystemExit(0 if ok else 2)
