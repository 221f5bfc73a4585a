"""Action probes of every row, fitted on one split's clips from cameras that were trained on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from crossview.downstream import task
from crossview.downstream.action_probe import probes
from crossview.downstream.action_probe.config import Options
from crossview.downstream.clip_table import ClipTable
from crossview.downstream.task import Facts, TablePart

Predictions = dict[str, np.ndarray]
"""Actions (N,) by probe."""


class Task(task.Task[Options, TablePart]):
    """A linear classifier and nearest neighbours."""

    def check(self, facts: Facts) -> Iterator[str]:
        """Two actions and two people on seen cameras of the split to fit on, and every evaluated action there."""
        mine = [r for r in facts.train if r.view in facts.seen]
        if not mine:
            yield (
                f"action probe: split {facts.fit_split!r} has no recording of the cameras "
                f"{', '.join(sorted(facts.seen))} that were trained on; fit on another split, or leave the task "
                "'action_probe' out"
            )
            return
        actions = sorted({r.action for r in mine})
        yield from probes.single_action(actions, f"{len(mine)} recordings")
        yield from probes.unknown_actions([r.action for r in facts.test], actions)
        yield from probes.single_subject([r.subject for r in mine], "recordings")

    def fit(self, train: TablePart) -> object:
        """Both probes, on the clips of seen cameras."""
        return probes.fit_probes(ClipTable.from_table(train.table), train.seen)

    def predict(self, fitted: object, test: TablePart) -> Predictions:
        """Of every clip."""
        assert isinstance(fitted, probes.Probes)
        return fitted.predict(ClipTable.from_table(test.table))

    def score(self, predictions: Predictions, test: TablePart) -> dict[str, float]:
        """Balanced accuracies, and how often two cameras' clips of one instant are taken for the same action."""
        clips = ClipTable.from_table(test.table)
        return probes.accuracies(predictions, clips, test.seen) | probes.agreement(predictions, clips)

    def items(self, predictions: Predictions, test: TablePart) -> int:
        """Clips."""
        del predictions
        return int(test.table.num_rows)

    def baselines(self) -> Mapping[str, Task]:
        """The commonest action."""
        return {"majority": Majority(self.options)}

    def notes(self, predictions: Predictions, train: TablePart | None, test: TablePart) -> list[str]:
        """How much was fitted on and scored, and whether people are in both splits."""
        del predictions
        assert train is not None
        fit, scored = ClipTable.from_table(train.table), ClipTable.from_table(test.table)
        notes = [f"Action probes fitted on {fit.of_views(train.seen).size(train.split, train.seen)}"]
        notes.append(f"Action probes scored on {scored.size(test.split, test.seen)}")
        shared = np.intersect1d(fit.subject, scored.subject)
        if len(shared):
            notes.append(f"The splits share {len(shared)} subjects, so these probes are not of held-out people.")
        return notes


class Majority(Task):
    """Always the action that most clips to fit on show."""

    fixed = True

    def fit(self, train: TablePart) -> object:
        """The clips of seen cameras."""
        return probes.to_fit(ClipTable.from_table(train.table), train.seen)

    def predict(self, fitted: object, test: TablePart) -> Predictions:
        """The same of every clip."""
        assert isinstance(fitted, ClipTable)
        return probes.majority(fitted, ClipTable.from_table(test.table))
