"""Runs side by side on one page: scores over seeds, what differs in their configurations, and their curves."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from crossview.downstream import results
from crossview.downstream.baselines import margin
from crossview.downstream.paired import Verdict, decide
from crossview.downstream.table import cell
from crossview.errors import UserError
from crossview.platform.config import flat, saved, to_dict
from crossview.platform.evaluate.opened import TRAINED
from crossview.platform.evaluate.result_store import read_results
from crossview.platform.report import html
from crossview.platform.report.comparison_plots import Curve, curves
from crossview.platform.report.plots import embedded
from crossview.platform.run_folder import require
from crossview.platform.train.metrics import read_metrics
from crossview.platform.train.settings import SCORES

ABSENT = "–"
Scores = dict[str, dict[str, float]]
"""By row and metric."""
Split = tuple[str, str]
"""Its name and the protocol's."""


@dataclass
class Arm:
    """Runs whose configurations differ in the seed alone."""

    method: str
    options: dict[str, Any]
    """By path, such as "optim.lr"."""
    runs: dict[int, Path] = field(default_factory=dict)
    """By seed."""
    letter: str = ""

    @property
    def name(self) -> str:
        """What the runs' names have in common, or the first one's."""
        names = [run.name for run in self.runs.values()]
        alike = "".join(a for a, *others in zip(*names, strict=False) if all(a == b for b in others))
        return alike.rstrip("-_. ").removesuffix("seed").rstrip("-_. ") or names[0]


@dataclass(frozen=True)
class Line:
    """One metric of a table of scores."""

    metric: str
    lower: bool
    """Whether lower is better."""
    cells: list[tuple[str, bool]]
    """By arm: the text, and whether the mean is better than that of the arm's best baseline, or there is none."""
    said: list[str]
    """What the test decides on arms against the first."""


@dataclass(frozen=True)
class Section:
    """The scores of one split."""

    split: str
    protocol: str
    claims: int
    lines: list[Line]


def compare(runs: Sequence[Path], target: Path) -> Path:
    """Write one self-contained page on these runs; returns its file.

    Runs whose configurations differ in the seed alone are one arm, in the order in which they are given; the first arm
    is what the others are compared with. Raises UserError where a folder is no run, is named twice, or has the
    configuration and seed of another.
    """
    arms, notes = group(runs)
    scored = {run: _scores(run) for arm in arms for run in arm.runs.values()}
    notes += _unscored(arms, scored)
    figures = [
        {"uri": embedded(curves(title, lines)), "caption": _caption(title, lines)}
        for title, lines in _curves(arms, notes).items()
    ]
    return html.write(
        target,
        "report/comparison.html.j2",
        arms=arms,
        options=_differences(arms),
        sections=list(_sections(arms, scored)),
        figures=figures,
        notes=notes,
    )


def group(runs: Sequence[Path]) -> tuple[list[Arm], list[str]]:
    """The arms, and what a reader has to know about how they came to be."""
    arms: dict[str, Arm] = {}
    for run in dict.fromkeys(runs):
        found = saved(require(run))
        values = to_dict(found.method, found.experiment)
        seed = values.pop("seed")
        options = dict(flat(values))
        arm = arms.setdefault(json.dumps(options, sort_keys=True), Arm(found.method, options))
        if seed in arm.runs:
            raise UserError(
                f"{run}: it has the configuration and the seed ({seed}) of {arm.runs[seed]}; a seed counts once, so "
                "leave one of the two out"
            )
        arm.runs[seed] = run
    for number, arm in enumerate(arms.values()):
        arm.letter = _letters(number)
    seeds = [set(arm.runs) for arm in arms.values()]
    notes = []
    if any(of != seeds[0] for of in seeds):
        notes.append("The arms have different seeds: only those that two arms share are compared.")
    if len(arms) == 1:
        notes.append("All runs have one configuration, so there is nothing to compare but their seeds.")
    return list(arms.values()), notes


def _letters(number: int) -> str:
    """A to Z, then AA to ZZ and so on."""
    before = "" if number < 26 else _letters(number // 26 - 1)
    return before + chr(ord("A") + number % 26)


def _differences(arms: Sequence[Arm]) -> list[tuple[str, list[str]]]:
    """Each option that is not the same in all arms, and its value by arm."""
    found = []
    for path in dict.fromkeys(path for arm in arms for path in arm.options):
        values = [json.dumps(arm.options[path]) if path in arm.options else ABSENT for arm in arms]
        if len(set(values)) > 1:
            found.append((path, [value.strip('"') for value in values]))
    return found


def _scores(run: Path) -> dict[Split, tuple[Scores, frozenset[str]]]:
    """The latest scores of each split, and the metrics where lower is better."""
    table = read_results(run)
    if table is None:
        return {}
    splits = sorted(set(zip(table["split"].to_pylist(), table["protocol"].to_pylist(), strict=True)))
    found = {}
    for split, protocol in splits:
        newest = results.latest(results.select(table, split=split, protocol=protocol))
        found[split, protocol] = (results.scores(newest), results.lower_is_better(newest))
    return found


def _unscored(arms: Sequence[Arm], scored: Mapping[Path, Mapping[Split, Any]]) -> list[str]:
    without = [run.name for arm in arms for run in arm.runs.values() if not scored[run]]
    if not without:
        return []
    few = ", ".join(without[:5]) + (" and others" if len(without) > 5 else "")
    return [f"{len(without)} runs have no scores ({few}): `crossview evaluate RUN` makes them."]


def _sections(
    arms: Sequence[Arm], scored: Mapping[Path, Mapping[Split, tuple[Scores, frozenset[str]]]]
) -> Iterator[Section]:
    """A table per split that any run is scored on."""
    for split in sorted({split for of in scored.values() for split in of}):
        rows = [{seed: scored[run][split][0] for seed, run in arm.runs.items() if split in scored[run]} for arm in arms]
        lower = {metric for of in scored.values() if split in of for metric in of[split][1]}
        metrics = dict.fromkeys(m for of in rows for scores in of.values() for m in scores.get(TRAINED, {}))
        claims = max(1, sum(_pairs(rows[0], other, metric) for metric in metrics for other in rows[1:]))
        lines = [_line(arms, rows, metric, metric in lower, claims) for metric in metrics]
        yield Section(*split, claims, lines)


def _value(scores: Scores, metric: str) -> float:
    return scores.get(TRAINED, {}).get(metric, math.nan)


def _pairs(first: Mapping[int, Scores], other: Mapping[int, Scores], metric: str) -> bool:
    """Whether two arms have two seeds or more in common that both have a score of."""
    shared = [
        s for s in first if s in other and np.isfinite([_value(first[s], metric), _value(other[s], metric)]).all()
    ]
    return len(shared) > 1


def _line(arms: Sequence[Arm], rows: Sequence[Mapping[int, Scores]], metric: str, lower: bool, claims: int) -> Line:
    sign = -1 if lower else 1
    seeds = sorted({seed for of in rows for seed in of})
    signed = [[sign * _value(of.get(seed, {}), metric) for seed in seeds] for of in rows]
    said = []
    for arm, values in zip(arms[1:], signed[1:], strict=True):
        decision = decide(values, {arms[0].letter: signed[0]}, claims)
        if decision.verdict in (Verdict.HOLDS, Verdict.REVERSED):
            said.append(f"{arm.letter} {decision.verdict.compares} {arms[0].letter}: {decision.hardest.text()}")
    return Line(metric, lower, [_cell(of, metric, lower) for of in rows], said)


def _cell(of: Mapping[int, Scores], metric: str, lower: bool) -> tuple[str, bool]:
    """Mean and deviation over the seeds that have the score, and whether that is better than the best baseline."""
    known = {seed: scores for seed, scores in of.items() if math.isfinite(_value(scores, metric))}
    if not known:
        return ("undefined" if any(metric in scores.get(TRAINED, {}) for scores in of.values()) else ABSENT), True
    names = dict.fromkeys(row for scores in known.values() for row in scores)
    by_row = {row: {metric: [s[row][metric] for s in known.values() if metric in s.get(row, {})]} for row in names}
    by_row = {row: scores for row, scores in by_row.items() if np.isfinite(scores[metric]).all() and scores[metric]}
    above = True
    if len(by_row) > 1:
        above = margin(by_row, lower={metric} if lower else ())[metric].mean > 0
    return cell(by_row[TRAINED][metric]), above


def _curves(arms: Sequence[Arm], notes: list[str]) -> dict[str, list[Curve]]:
    """The loss, if all arms minimise the same, and every score during training, by title."""
    rows = {run: read_metrics(run) for arm in arms for run in arm.runs.values()}
    names = list(dict.fromkeys(n for of in rows.values() for row in of for n in row if n.startswith(SCORES)))
    if len({arm.method for arm in arms}) == 1:
        names.insert(0, "loss")
    else:
        notes.append("The losses of different methods are of different things, so they are not drawn over each other.")
    broken = [run.name for run, of in rows.items() if any(not math.isfinite(row.get("loss", 0)) for row in of)]
    if broken:
        notes.append(
            f"The loss of {', '.join(broken[:5])} is not finite at some steps, where its curve is interrupted."
        )
    found = {}
    for name in names:
        lines = [
            Curve(f"{arm.letter} {arm.name}", number, [row["step"] for row in of], [row[name] for row in of])
            for number, arm in enumerate(arms)
            for run in arm.runs.values()
            if (of := [row for row in rows[run] if name in row])
        ]
        if lines:
            found[name] = lines
    return found


def _caption(title: str, lines: Collection[Curve]) -> str:
    what = "Training loss" if title == "loss" else f"{title.removeprefix(SCORES)} on the validation split"
    arms = len({line.arm for line in lines})
    return f"{what} over optimiser steps: {len(lines)} runs of {arms} arm{'s' if arms > 1 else ''}, a line per seed."
