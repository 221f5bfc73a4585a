"""Downstream tasks by the names of their folders. No torch: the command line lists them and their options."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from typing import Any

import dacite

import crossview.downstream
from crossview.downstream.task import Task, TaskOptions
from crossview.errors import UserError
from crossview.platform.config import is_trainer


def task_names() -> list[str]:
    """The folders under `downstream/`."""
    return sorted(m.name for m in pkgutil.iter_modules(crossview.downstream.__path__) if m.ispkg)


def options_class(name: str) -> type[TaskOptions]:
    """`Options` of `downstream/<name>/config.py`; raises ValueError for an unknown task."""
    if name not in task_names():
        raise UserError(f"task {name!r} is unknown; choose from {', '.join(task_names())}")
    found: type[TaskOptions] = importlib.import_module(f"crossview.downstream.{name}.config").Options
    return found


def default_tasks(name: str | None = None) -> tuple[str, ...]:
    """The tasks that score a method if none is named, or the one of a trainer of this name."""
    if name is not None and is_trainer(name):
        return (name,)
    return tuple(task for task in task_names() if options_class(task).default)


def check_names(names: Sequence[str]) -> None:
    """Raise ValueError unless these are known tasks, at least one and each once."""
    known = task_names()
    if not names or len(set(names)) < len(names) or not set(names) <= set(known):
        raise UserError(f"tasks is {', '.join(names) or 'empty'}; name some of {', '.join(known)}, each once")


def option_fields() -> list[tuple[str, Any, Any]]:
    """A field per task that holds its options, as `dataclasses.make_dataclass` takes them."""
    classes = {name: options_class(name) for name in task_names()}
    return [(name, cls, dataclasses.field(default_factory=cls)) for name, cls in classes.items()]


def given_options(parsed: Any) -> dict[str, TaskOptions]:
    """The options of every task, by name, from an object with the fields of `option_fields`, or without any of them."""
    return {name: getattr(parsed, name) for name in task_names() if hasattr(parsed, name)}


def options_from(name: str, values: Mapping[str, Any]) -> TaskOptions:
    """A task's options from plain values; raises ValueError for one that is unknown or of another type."""
    cls = options_class(name)
    for field in dataclasses.fields(cls):
        value = values.get(field.name)
        if isinstance(value, str) and "tuple" in str(field.type):  # else its letters would be the list
            raise UserError(f"options of task {name}: {field.name} is {value!r}; it must be a list")
    try:
        return dacite.from_dict(cls, dict(values), dacite.Config(strict=True, cast=[tuple]))
    except dacite.DaciteError as error:
        raise UserError(f"options of task {name}: {error}") from error


def make(names: Sequence[str], options: Mapping[str, TaskOptions] | None = None) -> dict[str, Task[Any, Any]]:
    """The tasks by name, each with its options or their defaults; raises ValueError as `check_names` does."""
    check_names(names)
    given = options or {}
    return {
        name: importlib.import_module(f"crossview.downstream.{name}.task").Task(
            given.get(name) or options_class(name)()
        )
        for name in names
    }
