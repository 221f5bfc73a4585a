"""A run opened for evaluation: read once, with each of its models built once per process."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch

from crossview.datasets.catalog import Catalog
from crossview.errors import UserError
from crossview.methods.method import Method, model_class
from crossview.methods.trained import Trained
from crossview.platform import checkpoint
from crossview.platform.cluster.map_recordings import Where
from crossview.platform.config import is_trainer, read, saved
from crossview.platform.data.cameras import trained_on
from crossview.platform.data.plan_builder import load_catalog
from crossview.platform.models import build_model
from crossview.platform.run_folder import require

TRAINED, RANDOM_INIT = "trained", "random init"
"""Rows of every result."""
Baselines = Literal["all", "fixed", "none"]
"""Rows beside the trained one: all, or those that training does not change, or none."""


def device_name(device: str) -> str:
    """The device meant by "auto", else itself."""
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device


def control_folder(run: Path, name: str) -> Path:
    """Where a run keeps the one that is trained to be compared with it."""
    return run / "controls" / name.replace(" ", "-")


class OpenRun:
    """A run's configuration, catalog, one of its checkpoints and its models, and the device they run on.

    Pickling leaves out catalog and models; the receiving process builds its own, once.
    """

    def __init__(self, path: Path, where: Where, which: str = "latest") -> None:
        self.path, self.where = require(path), where
        self.method, self.experiment = read(path)
        self.checkpoint = checkpoint.resolve(path, which).resolve()

    @cached_property
    def catalog(self) -> Catalog:
        """All splits of the run's protocol."""
        return load_catalog(self.experiment.data)

    @property
    def protocol(self) -> str:
        """Name of the protocol that splits come from."""
        return next(iter(self.catalog.protocols))

    @property
    def device(self) -> torch.device:
        """The device that models run on."""
        return torch.device(self.where.device)

    @property
    def seen(self) -> frozenset[str]:
        """Names of the cameras that the run trained on."""
        return trained_on(self.experiment, self.catalog)

    @cached_property
    def model(self) -> Trained:
        """The checkpoint's model, in eval mode."""
        return checkpoint.restore(self.checkpoint, self.method, self.experiment, self.device)

    @property
    def trained(self) -> Method:
        """The same of a method's run; raises ValueError for a trainer's, which embeds nothing."""
        if not isinstance(self.model, Method):
            raise UserError(
                f"{self.path}: it is a run of the downstream trainer {self.method!r}, which embeds nothing; pass a "
                "method's"
            )
        return self.model

    @cached_property
    def random_init(self) -> Method:
        """The model before its first step, with the trained one's frozen parameters and statistics, in eval mode."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.experiment.seed)
            model = self._untrained()
        frozen = checkpoint.frozen_state(self.trained)
        model.load_state_dict({n: frozen.get(n, value) for n, value in model.state_dict().items()})
        return model.to(self.device).eval()

    def network(self, row: str) -> Trained:
        """The model of a row that every method's run has: "trained" or "random init"."""
        return self.random_init if row == RANDOM_INIT else self.model

    def _untrained(self) -> Method:
        model = build_model(self.method, self.experiment)
        assert isinstance(model, Method)
        return model

    @property
    def fixed_rows(self) -> frozenset[str]:
        """Baselines whose scores are those of every checkpoint of the run."""
        if is_trainer(self.method):
            return frozenset()
        return model_class(self.method).fixed_baselines | {RANDOM_INIT}

    def rows(self, baselines: Baselines) -> list[str]:
        """Names of the embedded rows: the trained one, the method's baselines, the random init."""
        if baselines == "none":
            return [TRAINED]
        model = self.trained if self.where.in_process else self._untrained()  # whose device may be another machine's
        named = [TRAINED, *model.baselines(), RANDOM_INIT]
        return [row for row in named if baselines == "all" or row in self.fixed_rows or row == TRAINED]

    def controls(self) -> dict[str, OpenRun]:
        """Trained runs by name that a trainer's run is compared with."""
        names = saved(self.path).info.get("controls", [])
        folders = {name: control_folder(self.path, name) for name in names}
        there = {name: folder for name, folder in folders.items() if checkpoint.latest(folder) is not None}
        return {name: OpenRun(folder, self.where) for name, folder in there.items()}

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k not in ("catalog", "model", "random_init")}


def open_run(
    run: Path, *, checkpoint: str = "latest", in_process: bool = False, actors: int = 1, device: str = "auto"
) -> OpenRun:
    """The run at a checkpoint: "latest", "best" or a step; raises ValueError if the folder has no run or none such."""
    return OpenRun(run, Where(in_process, actors, device_name(device)), checkpoint)
