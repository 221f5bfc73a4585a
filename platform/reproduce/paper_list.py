"""The tables of papers that can be reproduced, and what each takes. No torch: `--list` answers at once."""

from __future__ import annotations

import importlib
import importlib.util

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from crossview.methods.paper_table import PaperTable
from crossview.platform.config import method_names
from crossview.platform.reproduce.prepare_command import prepare_command


def tables() -> dict[str, PaperTable]:
    """By PAPER:TABLE, the paper being the method's name."""
    found: dict[str, PaperTable] = {}
    for method in method_names():
        if importlib.util.find_spec(f"crossview.methods.{method}.tables") is not None:
            of = importlib.import_module(f"crossview.methods.{method}.tables").tables()
            found |= {f"{method}:{name}": table for name, table in of.items()}
    return found


def listing() -> Group:
    """Every table: its name, what it is, which data it takes and how that is prepared, how long it takes."""
    shown = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    shown.add_column("table", no_wrap=True)
    shown.add_column("what it is", ratio=2)
    shown.add_column("data", ratio=3)
    shown.add_column("GPU hours", justify="right", no_wrap=True)
    commands: dict[str, None] = {}
    for spec, table in tables().items():
        what = f"{table.title} ({table.number}): {len(table.rows)} rows, {len(table.stages)} runs x {table.seeds} seeds"
        data = "\n".join(f"{name}: {of.holds}" for name, of in table.data.items())
        commands |= dict.fromkeys(prepare_command(of) for of in table.data.values())
        shown.add_row(spec, Text(what), Text(data), f"{table.cost.hours:,.0f}")
    below = [
        "",
        "GPU hours are estimates for all rows and seeds on one data-centre GPU; methods/PAPER/tables.py says how they "
        "are counted. `--synthetic` runs a table scaled down, in about a minute and without any data.",
        "",
        "Catalogs:",
        *(f"  {command}" for command in commands),
    ]
    return Group(shown, *(Text(line) for line in below))
