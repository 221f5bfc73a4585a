"""The report of a finished search: a table on the terminal, files, and one static page."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from crossview import storage
from crossview.downstream.table import cell
from crossview.errors import UserError
from crossview.platform.progress import console
from crossview.platform.report.plots import save
from crossview.platform.report.run_report import html
from crossview.platform.report.score_table import number
from crossview.platform.tune import spec
from crossview.platform.tune.confirm import PRESET, WINNER, Confirmed, confirmed, winner
from crossview.platform.tune.plots import figures, name
from crossview.platform.tune.ranking import best_baseline, ranked, table, write_best
from crossview.platform.tune.spec import Search
from crossview.platform.tune.trial_store import Journal, Trial
from crossview.storage.tables import write_table

SHOWN = 10
"""Trials shown on the terminal, besides the preset; the files have all."""


def publish(folder: Path) -> Path:
    """Write trials.parquet, best.json, figures and report.html, and print the best trials; returns the page."""
    search, journal = spec.read(folder), Journal(folder)
    trials = journal.trials()
    best = winner(search, trials)
    if best is None:
        raise UserError(f"{folder}: no trial has a score yet; resume with: crossview tune --resume {folder}")
    found = table(search, trials)
    write_table(found, folder / "trials.parquet")
    configuration = write_best(search, best, folder / "best.json")
    said = verdict(search, journal, best)
    target = _page(folder, search, trials, best, said, configuration)
    console.print(_terminal(search, trials))
    for line in said:
        console.print(line, highlight=False, soft_wrap=True)
    console.print(
        f"The report is saved to {target}, all trials to {folder / 'trials.parquet'}\n"
        f"Train with the winner's options: crossview train {search.method} --from {configuration}",
        highlight=False,
        soft_wrap=True,
    )
    return target


def verdict(search: Search, journal: Journal, best: Trial) -> list[str]:
    """Whether the search has found something, in sentences."""
    if best.number == 0:
        said = [f"No trial has a better {search.metric} than the preset: keep the preset."]
    else:
        options = ", ".join(f"{name(path)} {_short(value)}" for path, value in best.options.items())
        said = [f"Trial {best.number} has the best {search.metric} on {search.split}, {best.objective:.4f}: {options}."]
    fresh = [both for split in (search.split, "test") if (both := confirmed(search, journal, split)) is not None]
    claims = sum(both.claims for both in fresh)
    said += [_compared(search, both, claims) for both in fresh]
    if claims:
        said.append(
            f"{claims} claim{'s' if claims > 1 else ''} decided together: a difference counts if its two-sided 95 % t "
            f"interval, paired by seed and corrected for {claims} (Bonferroni), leaves out 0."
        )
    if not search.confirm:
        said.append("One value per trial decides nothing, and the best of many is flattered: check with --confirm 5.")
    return said


def _compared(search: Search, both: Confirmed, claims: int) -> str:
    """The winner against the preset and its baselines; the preset against its own if it has won."""
    where = f"On {both.split}, {search.confirm} fresh seeds in full"
    if both.failures:
        return f"{where}: NOT compared, since {len(both.failures)} runs failed, the first one: {both.failures[0]}."
    preset = cell(both.values(PRESET, search.metric), 4)
    if WINNER not in both.scores:
        return f"{where}: the preset has {search.metric} {preset}{_against(search, both, PRESET, claims)}."
    found = both.over_preset(search, claims)
    return (
        f"{where}: the winner {found.verdict.compares} the preset: {search.metric} "
        f"{cell(both.values(WINNER, search.metric), 4)} against {preset}, gain {found.hardest.text(4)}"
        f"{_against(search, both, WINNER, claims)}."
    )


def _against(search: Search, both: Confirmed, variant: str, claims: int) -> str:
    found = both.over_baselines(search, variant, claims)
    if found is None:
        return ""
    hardest = found.hardest
    mean = cell(both.values(variant, search.metric, hardest.rival), 4)
    return f". It {found.verdict.compares} its hardest baseline, {hardest.rival} ({mean}): gain {hardest.text(4)}"


def _terminal(search: Search, trials: list[Trial]) -> Table:
    columns = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for text in _heads(search):
        columns.add_column(text.replace("/", "\n"), justify="left" if text == "status" else "right", no_wrap=True)
    best = ranked(search, trials)
    for trial in [*best[:SHOWN], *(trial for trial in best[SHOWN:] if trial.number == 0)]:
        columns.add_row(*_cells(search, trial), style="bold" if trial.number == 0 else "")
    if len(trials) > SHOWN:
        columns.caption = f"the best {SHOWN} of {len(trials)}"
    return columns


def _heads(search: Search) -> list[str]:
    return ["trial", "status", search.metric, "best baseline", "minutes"]


def _cells(search: Search, trial: Trial) -> list[str]:
    baseline = best_baseline(search, trial)
    ended = trial.status or "running"
    return [
        str(trial.number) if trial.number else "preset",
        f"stopped at {len(trial.reports)}/{search.evaluations}" if ended == "stopped" else ended,
        f"{trial.objective:.4f}" if math.isfinite(trial.objective) else "",
        f"{number(baseline[1])} {baseline[0]}" if baseline else "",
        f"{trial.reports[-1].seconds / 60:.1f}" if trial.reports else "",
    ]


def _options(search: Search, trial: Trial) -> list[str]:
    return [_short(trial.options.get(path)) for path in search.domains]


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else "" if value is None else str(value)


def _page(folder: Path, search: Search, trials: list[Trial], best: Trial, said: list[str], configuration: Path) -> Path:
    drawn = folder / "figures"
    storage.make_folder(drawn)
    pictures = []
    for title, (figure, caption) in figures(search, trials, best).items():
        pictures.append({"uri": html.picture(save(figure, drawn / f"{title}.png")), "caption": caption})
    facts = storage.read_json(folder / spec.FILE, "restore it from a copy")
    return html.write(
        folder / "report.html",
        "tune/search.html.j2",
        name=folder.name,
        search=search,
        facts=facts,
        said=said,
        heads=[*_heads(search), *(name(path) for path in search.domains)],
        lines=[
            (_cells(search, trial) + _options(search, trial), trial.number == best.number)
            for trial in ranked(search, trials)
        ],
        failures=[trial for trial in trials if trial.status == "failed"],
        figures=pictures,
        domains={name(path): text for path, text in search.domains.items()},
        seconds=sum(trial.reports[-1].seconds for trial in trials if trial.reports),
        config=json.dumps(json.loads(configuration.read_text()), indent=2),
    )
