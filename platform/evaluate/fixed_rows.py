"""Scores of the baselines that training does not change: computed once per run, and read from then on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from crossview import storage
from crossview.downstream.task import Task
from crossview.platform.config import to_dict
from crossview.platform.evaluate.parts import Reader
from crossview.platform.evaluate.result_store import FOLDER
from crossview.platform.run_folder import provenance, write_json

Lines = list[dict[str, object]]


@dataclass(frozen=True)
class Row:
    """One row of one task."""

    scores: dict[str, float]
    items: int
    details: dict[str, Lines]


class FixedRows:
    """The rows of one task on one split that every checkpoint of a run shares, in `evaluations/<split>-<task>-fixed`.

    They are read as long as the data, the run's configuration, the task's options and the code are the same.
    """

    def __init__(self, reader: Reader, name: str, task: Task[Any, Any]) -> None:
        run, facts = reader.run, reader.facts
        self.file: Path = run.path / FOLDER / f"{facts.split}-{name}-fixed.json"
        code = provenance()
        decides = [
            code["commit"],
            code["versions"]["crossview"],
            to_dict(run.method, run.experiment),
            asdict(task.options),
            run.protocol,
            facts.fit_split if task.options.fitted else None,
            sorted(facts.seen),
            sorted(facts.actions),
            reader.data_keys,
        ]
        self._key = hashlib.blake2b(json.dumps(decides).encode(), digest_size=16).hexdigest()

    def read(self) -> dict[str, Row]:
        """By name; {} if there are none, or not of this data and code."""
        if not storage.is_file(self.file):
            return {}
        values = storage.read_json(self.file, "delete it: an evaluation makes it again")
        return {name: Row(**row) for name, row in values["rows"].items()} if values["key"] == self._key else {}

    def write(self, rows: Mapping[str, Row]) -> None:
        """Replace them."""
        storage.make_folder(self.file.parent)
        values = {name: asdict(row) for name, row in rows.items()}
        plain = json.loads(json.dumps({"key": self._key, "rows": values}, default=lambda number: number.item()))
        write_json(self.file, plain)
