"""Frame embeddings as a catalog of features, which a downstream trainer reads in place of videos."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa

from crossview import storage
from crossview.datasets.catalog import Catalog
from crossview.errors import UserError
from crossview.platform.data.feature_files import read_features
from crossview.storage.tables import read_table


def embedded_catalog(tables: Iterable[Path], catalog: Catalog, out: Path) -> Catalog:
    """The recordings of tables that `frame_embeddings.embed` wrote, with their vectors as features; saved in `out`.

    `catalog` has their segments, classes and protocols. Frame labels, whose classes have no names, are left out, so
    that a kind of segments of the same name is read. What `out` holds already is kept. Raises UserError for a vector
    that is not finite as float16, or with another number of frames than the recording has.
    """
    if (out / "catalog.json").exists():
        return Catalog.load(out)
    storage.make_folder(out)
    paths = {}
    for file in tables:
        for name, vectors in _by_recording(read_table(file)):
            paths[name] = _written(out, name, vectors, file)
    of = catalog.keep(lambda r: r.id in paths)
    recordings = tuple(
        replace(r, kind="features", path=paths[r.id], first_frame=0, index="", height_px=0, width_px=0)
        for r in of.recordings
    )
    made = replace(of, root=out, recordings=recordings, frame_labels={})
    for recording in recordings:
        read_features(out / recording.path, recording)
    made.save(out)
    return made


def _by_recording(table: pa.Table) -> Iterator[tuple[str, np.ndarray]]:
    """Id and vectors (L, D) of each recording, whose frames are in neighbouring rows."""
    video = table["video"].combine_chunks()
    flat = table["vector"].combine_chunks().flatten().to_numpy()
    vectors, codes = flat.reshape(table.num_rows, -1), video.indices.to_numpy()
    edges = [0, *(np.flatnonzero(np.diff(codes)) + 1).tolist(), len(codes)]
    for first, stop in pairwise(edges):
        yield str(video.dictionary[int(codes[first])]), vectors[first:stop]


def _written(out: Path, name: str, vectors: np.ndarray, table: Path) -> str:
    """The name of the file with the vectors (L, D) of a recording, as float16 (L, 1, D)."""
    values = vectors.astype(np.float16)[:, None]
    if not np.isfinite(values).all():
        raise UserError(
            f"{table}: embeddings of {name} are NaN, infinite or beyond the range of float16; train the run again with "
            "a lower rate, and look at its losses"
        )
    file = f"{name.replace('/', '__')}.npy"
    storage.write(out / file, lambda partial: _save(partial, values), once=True)
    return file


def _save(file: Path, values: np.ndarray) -> None:
    with file.open("wb") as opened:  # of a path that does not end in .npy, numpy would write another
        np.save(opened, values)
