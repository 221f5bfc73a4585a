"""`crossview prepare`: from files on disk to a catalog that everything else reads."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import importlib.util
import os
import pkgutil
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

import tyro

import crossview.datasets
from crossview import storage
from crossview.datasets.catalog import Catalog
from crossview.datasets.catalog.catalog import INDICES
from crossview.datasets.catalog.probing import Prober, check_share
from crossview.datasets.catalog.spans import Part, check_splits
from crossview.datasets.sampling.coverage import clock_warnings
from crossview.errors import UserError
from crossview.platform.cli.options import parse
from crossview.platform.cli.outputs import check_folder
from crossview.platform.cli.teachers import teachers
from crossview.platform.data import probing
from crossview.platform.progress import Progress, console, ticking, warn

Own = TypeVar("Own")


@dataclass(frozen=True, kw_only=True)
class Request(Generic[Own]):
    """A dataset's own options, and those of every dataset."""

    options: Annotated[Own, tyro.conf.arg(name="")]
    out: Path
    """Folder for the catalog."""
    max_quarantined: float = 0.05
    """Largest share of videos that may be unreadable, or have another number of frames than labels."""
    probe: Literal["exact", "quick"] = "exact"
    """exact decodes every video once. quick takes the number of frames and the rate from its container where this
    states a constant one; the video is then decoded, to be sought in, when it is first used."""
    actors: int | None = None
    """Read files by so many Ray actors, on all nodes of the cluster; by default by the cores of this machine."""

    def __post_init__(self) -> None:
        _require_share(self.max_quarantined)
        _require_actors(self.actors)


def _require_actors(actors: int | None) -> None:
    if actors is not None and actors < 1:
        raise UserError(f"--actors is {actors}; at least 1 file is read at a time: pass 1 or more, or leave it out")


def _require_share(max_quarantined: float) -> None:
    if not 0 <= max_quarantined <= 1:
        raise UserError(f"max_quarantined is {max_quarantined:g}; it is a share and must be in [0, 1]")


def dataset_names() -> list[str]:
    """The modules of `datasets/`, each of which is a dataset."""
    found = pkgutil.iter_modules(crossview.datasets.__path__)
    return sorted(m.name for m in found if not m.ispkg and not m.name.startswith("_"))


def dataset(name: str, args: Sequence[str]) -> None:
    """Catalog a dataset by its module: `Options`, `PROTOCOLS`, `PAIRINGS` and `catalog(options, prober=...)`."""
    module = importlib.import_module(f"crossview.datasets.{name}")
    if lacking := [part for part in ("Options", "PROTOCOLS", "PAIRINGS", "catalog") if not hasattr(module, part)]:
        raise UserError(
            f"{module.__file__}: a dataset's module defines {lacking[0]}, see docs/adding-a-dataset.md; add it"
        )
    request = parse(
        Request[module.Options],  # type: ignore[name-defined]
        args=args,
        prog=f"crossview prepare {name}",
        description=f"{module.__doc__}\n\nPairings that its recordings allow: {', '.join(module.PAIRINGS)}.",
    )
    check_folder(request.out)
    with ticking("reading") as tick:
        spread = probing.on_ray(request.actors) if request.actors else None
        prober = Prober(request.out / INDICES, tick, quick=request.probe == "quick", spread=spread)
        made = module.catalog(request.options, prober=prober)
    check_share(made, request.max_quarantined)
    _check_protocols(made, module.PROTOCOLS, f"dataset {name}")
    _save(made, request.out)


def _check_protocols(catalog: Catalog, declared: Sequence[str], what: str) -> None:
    """Raise ValueError where protocols are not among those declared, are empty, or have a part of a file in two splits.

    A partial download may leave out some.
    """
    if not catalog.protocols or list(catalog.protocols) != [name for name in declared if name in catalog.protocols]:
        raise UserError(
            f"{what}: its catalog has the protocols {', '.join(catalog.protocols) or 'none'}, its module declares "
            f"{', '.join(declared)}; the catalog must have some of these, in this order"
        )
    for name, of in catalog.protocols.items():
        members = [
            (of[r.id], Part(r.path, r.first_frame, r.first_frame + r.num_frames))
            for r in catalog.recordings
            if r.id in of
        ]
        if not members:
            raise UserError(
                f"{what}: protocol {name!r} has none of the {len(catalog.recordings)} recordings; it must give some a "
                "split by their ids dataset/scene/view"
            )
        check_splits(catalog.root, members, f"{what}, protocol {name!r}")


def run(args: Sequence[str]) -> None:
    """One of the datasets, the synthetic world, or an operation on a catalog, by name."""
    names = dataset_names()
    if not args or args[0].startswith("-"):
        _overview(names, ok=bool({"--help", "-h"} & set(args)))
    name, rest = args[0], args[1:]
    if name in names:
        dataset(name, rest)
    elif name in COMMANDS:
        parse(COMMANDS[name], args=rest, prog=f"crossview prepare {name}")
    else:
        raise UserError(f"dataset {name!r} is unknown; choose from {', '.join((*names, *COMMANDS))}")


def _overview(names: Sequence[str], *, ok: bool) -> None:
    """Print what can be prepared, without importing a dataset; exits with status 0 if `ok`, else 2."""
    first = {name: _first_line(name) for name in names}
    first |= {name: (function.__doc__ or "").splitlines()[0] for name, function in COMMANDS.items()}
    lines = ["usage: crossview prepare DATASET [options]"]
    for title, listed in (("Datasets", (*names, *MADE)), ("Operations on a catalog", OPERATIONS)):
        lines += ["", f"{title}:", *(f"  {name:13} {first[name].rstrip('.')}" for name in listed)]
    lines += ["", "Run `crossview prepare DATASET --help` for its options."]
    print("\n".join(lines), file=sys.stdout if ok else sys.stderr)
    raise SystemExit(0 if ok else 2)


def _first_line(name: str) -> str:
    spec = importlib.util.find_spec(f"crossview.datasets.{name}")
    if spec is None or spec.origin is None:
        return ""
    said = ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))) or ""
    return said.partition("\n")[0]


SYNTHETIC = ("synchronized", "ae2-csv", "ae2-folders")
"""Layouts of the synthetic world's own, beside those of datasets."""


def synthetic(
    out: Path,
    layout: str = "synchronized",
    actions: tuple[str, ...] = (),
    takes: tuple[int, int, int] = (16, 4, 6),
    size_px: int = 256,
    ego_cameras: int = 1,
    exo_cameras: int = 4,
    seed: int = 0,
    workers: int | None = None,
    teachers: bool = False,
) -> None:
    """Render the synthetic world and catalog it; an interrupted export is resumed.

    Args:
        out: Folder for the videos, their truth and the catalog (out/catalog, or out/catalog-ACTION in an AE2 layout).
        layout: synchronized: all views of each take. ae2-csv, ae2-folders: AE2's own folders with unpaired ego and exo
            videos. The name of another dataset: its own files, in out/NAME.
        actions: Which of the world's actions; all by default.
        takes: Takes per action in train, val and test.
        size_px: Frames are size_px x size_px.
        ego_cameras: Cameras on the subject (1 to 4).
        exo_cameras: Cameras around the table (1 to 8).
        seed: Equal seeds give equal pixels and truth.
        workers: Processes that render; one per core by default.
        teachers: Also write the world's truth as a teacher store: detections, and scores "object".

    """
    from crossview.datasets.synthetic import layouts
    from crossview.datasets.synthetic import teachers as truth
    from crossview.datasets.synthetic.ae2_layout import export_ae2, exported_catalog
    from crossview.datasets.synthetic.config import PHASES, WorldConfig
    from crossview.datasets.synthetic.world import write

    known = (*SYNTHETIC, *layouts.names())
    if layout not in known:
        raise UserError(f"--layout is {layout!r}; choose from {', '.join(known)}")
    if teachers and layout != "synchronized":
        raise UserError(f"--teachers with --layout {layout}: the store belongs to a catalog of layout synchronized")
    train, val, test = takes
    config = WorldConfig(
        seed=seed,
        actions=actions or tuple(PHASES),
        train_takes=train,
        val_takes=val,
        test_takes=test,
        exo_cameras=exo_cameras,
        ego_cameras=ego_cameras,
        size_px=size_px,
        workers=workers or os.cpu_count() or 1,
    )
    check_folder(out)
    with ticking("rendering") as tick, storage.staged(out) as here:
        if not layout.startswith("ae2-"):
            made = write(config, here, tick)
        else:
            export_ae2(config, here, layout="csv" if layout == "ae2-csv" else "folders", progress=tick)
    if layout in layouts.names():
        _as_dataset(layout, Catalog.load(out, out), out)
        return
    if layout == "synchronized":
        made = Catalog.load(out, out)
        made.save(out)
        _save(made, out / "catalog")
        if teachers:
            truth.write(made, out, out / "catalog")
        return
    for action in config.actions:
        folder = out / f"catalog-{action}"
        _save(exported_catalog(out, action, Prober(folder / INDICES)), folder)


def _as_dataset(name: str, world: Catalog, out: Path) -> None:
    """Write a world as a dataset lies on disk, and catalog it as the dataset's own command does."""
    from crossview.datasets.synthetic import layouts

    options = layouts.export(name, world, out / name)
    module, folder = importlib.import_module(f"crossview.datasets.{name}"), out / "catalog"
    with ticking("reading") as tick:
        made = module.catalog(options, prober=Prober(folder / INDICES, tick))
    _save(made, folder)
    command = shlex.join(["crossview", "prepare", name, *_arguments(options), "--out", str(folder)])
    console.print(f"The same by the dataset's own command: {command}", highlight=False, markup=False, soft_wrap=True)


def _arguments(options: Any) -> Iterator[str]:
    """The words on the command line that give a dataset's options, but for defaults."""
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if value != field.default:
            yield f"--{field.name.replace('_', '-')}"
            yield from map(str, value if isinstance(value, tuple) else (value,))


def copies(
    catalog: Path,
    out: Path,
    size_px: int = 256,
    gop: int = 8,
    crf: int = 20,
    max_quarantined: float = 0.05,
    actors: int | None = None,
    debug: bool = False,
) -> None:
    """Copy a catalog's videos to small, verified H.264 files that decode fast.

    Frames keep their numbers and times; sound is left out. If interrupted, run it again: it makes what is missing.

    Args:
        catalog: Folder of the catalog whose files are to be copied.
        out: Folder for the copies and their catalog.
        size_px: Short side of the copies; smaller videos keep their size.
        gop: Frames from one key frame to the next.
        crf: Quality: x264's constant rate factor, 0 (lossless) to 51.
        max_quarantined: Largest share of videos that may be unreadable.
        actors: Copies made at a time, on a CPU each; by default one for each CPU of the cluster.
        debug: Run in threads of this process, without Ray.

    """
    from crossview.datasets.video.copies import Encoding, copy_all, in_threads
    from crossview.platform.data.copying import on_ray

    _require_share(max_quarantined)
    _require_actors(actors)
    encoding = Encoding(size_px, gop, crf)
    source = Catalog.load(catalog)
    check_folder(out)
    with Progress("copying", 0, "videos") as line:

        def tick(done: int, total: int) -> None:
            line.update(done) if line.total else line.begin(done, total)

        maker = in_threads if debug else on_ray(actors)
        done = copy_all(source, out, encoding, maker=maker, max_quarantined=max_quarantined, tick=tick)
    _describe(done.catalog, out)
    if done.left_out:
        warn([f"{done.left_out} recordings are not videos, have no copies and are not in the catalog of the copies"])
    share = f" ({100 * done.copy_bytes / done.source_bytes:.1f} %)" if done.source_bytes else ""
    console.print(
        f"{done.files - done.quarantined} of {done.files} files have copies, {done.found} from an earlier call; "
        f"quarantined: {done.quarantined}\n"
        f"copies: {_megabytes(done.copy_bytes)}, their sources: {_megabytes(done.source_bytes)}{share}",
        highlight=False,
        soft_wrap=True,
    )


def _megabytes(count: int) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e10 else f"{count / 1e6:,.1f} MB"


def _save(catalog: Catalog, out: Path) -> None:
    catalog.save(out)
    _describe(catalog, out)


def _describe(catalog: Catalog, out: Path) -> None:
    for name, of in catalog.protocols.items():
        which = f"protocol {name}, " if len(catalog.protocols) > 1 else ""
        for split in sorted({of[r.id] for r in catalog.recordings if r.id in of}):
            part = catalog.select(split, name).recordings
            ego = sum(r.perspective == "ego" for r in part)
            frames = sum(r.num_frames for r in part)
            said = f"{which}{split}: {ego} ego and {len(part) - ego} exo recordings, {frames} frames"
            console.print(said, highlight=False)
        if without := sum(r.id not in of for r in catalog.recordings):
            console.print(f"{which}without a split: {without} recordings, which take no part", highlight=False)
        warn(_one_sided(catalog, of, which))
    kinds = {recording.perspective for recording in catalog.recordings}
    if len(kinds) == 1:
        warn(
            [f"every recording is {kinds.pop()}: methods and tasks that need both perspectives cannot use this catalog"]
        )
    for broken in catalog.quarantined:
        console.print(f"quarantined: {broken.path}: {broken.reason}", highlight=False, markup=False)
    for note in catalog.notes:
        console.print(note, highlight=False, markup=False, soft_wrap=True)
    warn(clock_warnings(catalog.recordings))
    console.print(f"The catalog is saved to {out}", highlight=False, markup=False, soft_wrap=True)


def _one_sided(catalog: Catalog, of: Mapping[str, str], which: str) -> Iterator[str]:
    """Perspectives that some split of a protocol lacks."""
    there = {(of[r.id], r.perspective) for r in catalog.recordings if r.id in of}
    splits = sorted({split for split, _ in there})
    for perspective in sorted({recording.perspective for recording in catalog.recordings}):
        if lacking := [split for split in splits if (split, perspective) not in there]:
            yield (
                f"{which}no {perspective} recording in {', '.join(lacking)}: methods and tasks that need both "
                "perspectives cannot use it; if there should be some, correct the column 'perspective'"
            )


MADE: dict[str, Callable[..., None]] = {"synthetic": synthetic}
OPERATIONS: dict[str, Callable[..., None]] = {"copies": copies, "teachers": teachers}
COMMANDS = {**MADE, **OPERATIONS}
