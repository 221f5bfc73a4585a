"""The catalogs of a paper's table: the user's, or synthetic exports in their place; checked before anything is run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from crossview.datasets.sampling.feature_plan import FeaturePlan
from crossview.datasets.sampling.spec import Sampling
from crossview.datasets.synthetic.stand_ins import random_teachers, stand_in
from crossview.datasets.teachers.store import FOLDER, check_store
from crossview.errors import UserError
from crossview.methods.paper_table import PaperTable
from crossview.platform.data.plan_builder import build_plan, load_catalogs
from crossview.platform.evaluate.preflight import preflight
from crossview.platform.evaluate.tasks import make, options_from
from crossview.platform.progress import ticking
from crossview.platform.reproduce.prepare_command import prepare_command
from crossview.platform.reproduce.runs import Planned
from crossview.platform.reproduce.stage_recipes import recipe_of
from crossview.storage import Location, as_path


def by_dataset(table: PaperTable, option: str, words: Sequence[str]) -> dict[str, str]:
    """What --catalog or --data.protocol says of each dataset: NAME=VALUE, or VALUE alone for a table's only one.

    Raises ValueError for a name that the table does not have, and for a value alone where it has several.
    """
    found: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            if len(table.data) > 1:
                raise UserError(
                    f"--{option} {word}: this table reads {len(table.data)} datasets; say which one it is, as "
                    f"{next(iter(table.data))}={word} (of {', '.join(table.data)})"
                )
            name, value = next(iter(table.data)), word
        if name not in table.data or not value:
            raise UserError(f"--{option} {word}: the table's datasets are {', '.join(table.data)}; pass NAME=VALUE")
        found[name] = value
    return found


def own_catalogs(spec: str, table: PaperTable, words: Sequence[str]) -> dict[str, Location]:
    """The user's catalogs by dataset; raises ValueError that says how to make all that are missing."""
    given = {name: as_path(folder) for name, folder in by_dataset(table, "catalog", words).items()}
    missing = [name for name in table.data if name not in given]
    if missing:
        lines = "".join(f"\n  {name}: {prepare_command(table.data[name])}" for name in missing)
        form = "CATALOG" if len(table.data) == 1 else "NAME=CATALOG"
        raise UserError(
            f"{spec} needs {'a catalog' if len(missing) == 1 else f'{len(missing)} catalogs'} that --catalog does not "
            f"name; make each and pass --catalog {form}, or pass --synthetic for a scaled-down run:{lines}"
        )
    return given


def stand_ins(table: PaperTable, folder: Path) -> dict[str, Location]:
    """A synthetic export of each dataset, below `folder`, with random outputs of the teachers that its stages read."""
    found: dict[str, Location] = {}
    with ticking("rendering stand-ins") as tick:
        for name, of in table.data.items():
            found[name] = stand_in(of.adapter, of.options, folder, features=of.features, tick=tick)
    for stage in table.stages.values():
        sampling = recipe_of(stage, "synthetic").method.sampling()
        if isinstance(sampling, Sampling):
            random_teachers(found[stage.data], sampling.scores, boxes=sampling.boxes > 0)
    return found


def check(planned: Iterable[Planned]) -> None:
    """Raise ValueError that lists all that the catalogs lack of what any run needs."""
    problems = dict.fromkeys(problem for one in planned for problem in _problems(one))
    if len(problems) == 1:
        raise UserError(next(iter(problems)))
    if problems:
        lines = "".join(f"\n{k}. {problem}" for k, problem in enumerate(problems, 1))
        raise UserError(f"{len(problems)} things are missing for this table:{lines}")


def _problems(one: Planned) -> list[str]:
    """What a run lacks: its catalogs, protocols, cameras and labels first, then what its tasks need."""
    experiment = one.experiment
    try:
        catalogs = load_catalogs(experiment.data)
        plan = build_plan(experiment, catalogs)
        if not isinstance(plan, FeaturePlan):
            check_store(experiment.data.catalog / FOLDER, plan.sampling.scores, plan.sampling.boxes)
        if one.tasks:
            options = {name: options_from(name, values) for name, values in one.tasks.items()}
            preflight(make(tuple(one.tasks), options), one.method, experiment, catalogs[0], one.split, "train")
    except UserError as error:
        return [str(error)]
    return []
