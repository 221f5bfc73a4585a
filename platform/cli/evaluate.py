"""`crossview embed` and `crossview evaluate`. No torch, no ray before a command runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, make_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from crossview.errors import UserError
from crossview.platform.cli.options import parse
from crossview.platform.config import Data
from crossview.platform.evaluate.tasks import check_names, given_options, option_fields, task_names

Run = Annotated[Path, tyro.conf.Positional]


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Score a run by downstream tasks, beside its baselines."""

    run: Run
    """The run folder."""
    split: str = "val"
    """Choose models on val; run test once."""
    fit_split: str = "train"
    """Split to fit classifiers on."""
    tasks: tuple[str, ...] | None = None
    """Downstream tasks, by name; each has options of its own below. None scores a downstream trainer by its own task,
    and a method by the default ones."""
    checkpoint: str = "latest"
    """The run's checkpoint: latest, best (by the metric of its --every.best), or a step."""
    actors: int = 1
    """Ray actors that decode and embed; each takes one CPU, and one GPU on cuda."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to compute on; auto uses a GPU if there is one."""
    debug: bool = False
    """Run in this process, without Ray."""


def evaluate(args: Sequence[str]) -> None:
    """Score a run by downstream tasks, beside its baselines."""
    kind: Any = make_dataclass("Evaluate", option_fields(), bases=(Evaluate,), frozen=True, kw_only=True)
    about = f"{Evaluate.__doc__} Tasks: {', '.join(task_names())}."
    given = parse(kind, args=args, prog="crossview evaluate", description=about)
    if given.tasks is not None:
        check_names(given.tasks)
    from crossview.platform.evaluate.runner import evaluate as score

    score(
        given.run,
        split=given.split,
        fit_split=given.fit_split,
        tasks=given.tasks,
        checkpoint=given.checkpoint,
        options=given_options(given),
        actors=given.actors,
        device=given.device,
        in_process=given.debug,
    )


def embed(
    run: Run,
    /,
    split: str = "val",
    checkpoint: str = "latest",
    baselines: bool = False,
    catalog: Path | None = None,
    out: Path | None = None,
    weights: str = "hub",
    size_px: int | None = None,
    actors: int = 1,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    debug: bool = False,
) -> None:
    """Save the embeddings of every frame of a split as Parquet, or a backbone's features as a catalog.

    Args:
        run: The run folder; or timm:NAME, any timm model, which writes the features of --catalog as a catalog to --out.
        split: Split of the run's catalog.
        checkpoint: The run's checkpoint: latest, best (by the metric of its --every.best), or a step.
        baselines: Also save the embeddings of the baselines.
        catalog: Embed all recordings of this catalog instead of a split of the run's own.
        out: File of --catalog's table, by default RUN/embeddings/CATALOG.parquet; folder of a backbone's features.
        weights: Of a backbone: "hub", "random", or a .safetensors or .pt file.
        size_px: Of a backbone: frame size; by default what its weights were trained with.
        actors: Ray actors that decode and embed; each takes one CPU, and one GPU on cuda.
        device: Device to compute on; auto uses a GPU if there is one.
        debug: Run in this process, without Ray.

    """
    if str(run).startswith("timm:"):
        _embed_backbone(str(run).removeprefix("timm:"), weights, size_px, catalog, out, actors, device, debug)
        return
    if weights != "hub" or size_px is not None:
        raise UserError("--weights and --size-px: they are a backbone's; a run has its own: leave them out")
    if catalog is None and out is not None:
        raise UserError(f"--out {out}: it names the table of another catalog; give --catalog with it")
    if catalog is not None and baselines:
        raise UserError("--baselines: they are of a split of the run's own catalog; leave out --catalog or --baselines")
    from crossview.datasets.catalog import Catalog
    from crossview.platform.evaluate.frame_embeddings import embed as write
    from crossview.platform.evaluate.frame_embeddings import export
    from crossview.platform.evaluate.opened import open_run

    opened = open_run(run, checkpoint=checkpoint, in_process=debug, actors=actors, device=device)
    if catalog is None:
        for row, path in write(opened, split=split, baselines="all" if baselines else "none").items():
            print(f"{row}: {path}")
        return
    file = out or run / "embeddings" / f"{catalog.resolve().name}.parquet"
    print(f"trained: {export(opened, Catalog.load(catalog), file)}")


def _embed_backbone(
    name: str,
    weights: str,
    size_px: int | None,
    catalog: Path | None,
    out: Path | None,
    actors: int,
    device: str,
    debug: bool,
) -> None:
    """`crossview embed timm:NAME`."""
    if catalog is None or out is None:
        raise UserError(f"timm:{name}: say which videos and where to with --catalog CATALOG --out FOLDER")
    from crossview.datasets.catalog import Catalog
    from crossview.platform.cluster.map_recordings import Where
    from crossview.platform.data.backbone_features import backbone, write_features
    from crossview.platform.evaluate.opened import device_name

    where = Where(debug, actors, device_name(device))
    found = write_features(backbone(name, weights, size_px), Catalog.load(catalog), out, where, Data(catalog=catalog))
    print(f"Features of {len(found.recordings)} recordings are saved to {out}; train on them with --data.catalog {out}")
