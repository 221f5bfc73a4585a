"""The synthetic world's truth in the place of teachers: what a perfect detector and object classifier would say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from crossview import storage
from crossview.datasets.catalog import Catalog
from crossview.datasets.synthetic.parts import PARTS
from crossview.datasets.teachers.store import FOLDER, Detections, as_logits, write_detections, write_scores

HANDS = ("right_hand", "left_hand")
OBJECTS = tuple(part for part in PARTS if part not in HANDS)
"""Classes of the object scores."""
FULL_PX = 9
"""Visible pixels, per 96 x 96 of the frame, from which on a thing counts as certainly seen."""
DOUBT = 0.01
"""Share that every object gets beside its own, as no classifier is certain of what is not there."""


def write(catalog: Catalog, world: Path, folder: Path) -> None:
    """Write detections and scores "object" of every recording to `folder`/teachers, from `world`/boxes.parquet.

    A thing's score is certain (1) from `FULL_PX` visible pixels on and falls with fewer. A recording's object
    distribution is each object's share of all visible object pixels over its frames, with some `DOUBT`.
    """
    table = pq.read_table(
        storage.local(world / "boxes.parquet"), filters=pc.field("recording").isin([r.id for r in catalog.recordings])
    )
    encoded = table["recording"].combine_chunks().dictionary_encode()
    ids, code = encoded.dictionary.to_pylist(), encoded.indices.to_numpy()
    of_name = table["name"].combine_chunks().dictionary_encode()
    part = np.array([PARTS.index(n) for n in of_name.dictionary.to_pylist()])[of_name.indices.to_numpy()]
    corners = np.stack([table[c].to_numpy() for c in ("left_px", "top_px", "right_px", "bottom_px")], axis=1)
    visible, frame = table["visible_px"].to_numpy(), table["frame"].to_numpy()
    side = {r.id: r.width_px for r in catalog.recordings}
    detections: dict[str, Detections] = {}
    shares: dict[str, np.ndarray] = {}
    order = np.argsort(code, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(code[order])) + 1):
        name = ids[code[rows[0]]]
        area = visible[rows] * (96 / side[name]) ** 2
        is_hand = part[rows] < len(HANDS)
        detections[name] = Detections(
            frame[rows], np.where(is_hand, 1, 2), corners[rows] / side[name], np.minimum(area / FULL_PX, 1)
        )
        pixels = np.bincount(part[rows][~is_hand] - len(HANDS), area[~is_hand], minlength=len(OBJECTS))
        doubtful = pixels / max(pixels.sum(), 1) + DOUBT
        shares[name] = doubtful / doubtful.sum()
    write_detections(folder / FOLDER, detections)
    logits = as_logits(np.stack(list(shares.values())), "probs", "synthetic world")
    write_scores(folder / FOLDER, "object", dict(zip(shares, logits, strict=True)), kind="log_probs")
