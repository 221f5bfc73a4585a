"""The tasks "retrieval" and "actions": scores of clip embeddings between cameras, subjects and scenes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from crossview.downstream.action_probe import action_probe, majority
from crossview.downstream.clip_retrieval import Pair, clip_retrieval
from crossview.downstream.clips import ClipEmbeddings
from crossview.platform.evaluate.clip_embeddings import embed_clips
from crossview.platform.evaluate.embedding_store import TRAINED
from crossview.platform.evaluate.task import Answer, Question, Scores
from crossview.platform.progress import Progress
from crossview.storage.tables import read_table

CHANCE, MAJORITY = "chance", "majority"


def retrieval(question: Question) -> Answer:
    """Cross-view retrieval of every row; the table holds each pair of cameras."""
    seen = question.seen_views()
    rows: Scores = {}
    pairs: dict[str, list[Pair]] = {}
    files = _files(question, question.split)
    with Progress("retrieval", len(files), "rows") as line:
        for row, file in files.items():
            found = clip_retrieval(_read(file), seen)
            rows[row], chance, pairs[row] = found.scores, found.chance, found.pairs
            line.advance(1, row)
    rows[CHANCE] = chance
    lines = [_line(row, pair) for row, of in pairs.items() for pair in of]
    notes = [_size(question.split, _read(files[TRAINED]), seen)]
    return Answer(rows, notes, {"retrieval": pa.Table.from_pylist(lines)}, _markdown(pairs[TRAINED]))


def actions(question: Question) -> Answer:
    """Action probes of every row, fitted on the fit split's clips from cameras that were trained on."""
    seen = question.seen_views()
    rows: Scores = {}
    fit_files, files = _files(question, question.fit_split), _files(question, question.split)
    with Progress("action probes", len(files), "rows") as line:
        for row, file in files.items():
            rows[row] = action_probe(_read(fit_files[row]), _read(file), seen)
            line.advance(1, row)
    fit, test = _read(fit_files[TRAINED]), _read(files[TRAINED])
    rows[MAJORITY] = majority(fit, test, seen)
    notes = [f"Action probes fitted on {_size(question.fit_split, fit.of_views(seen), seen)}"]
    notes.append(f"Action probes scored on {_size(question.split, test, seen)}")
    shared = np.intersect1d(fit.subject, test.subject)
    if len(shared):
        notes.append(f"The splits share {len(shared)} subjects, so these probes are not of held-out people.")
    return Answer(rows, notes)


def _files(question: Question, split: str) -> dict[str, Path]:
    q = question
    return embed_clips(
        q.run,
        split=split,
        per_scene=q.clips_per_scene,
        baselines=q.baselines,
        in_process=q.in_process,
        actors=q.actors,
        device=q.device,
    )


def _read(file: Path) -> ClipEmbeddings:
    return ClipEmbeddings.from_table(read_table(file))


def _size(split: str, e: ClipEmbeddings, seen: set[str]) -> str:
    """How much was scored, and which cameras were new."""
    new = [view for view in e.views() if view not in seen]
    cameras = f"held-out cameras: {', '.join(new)}" if new else "all cameras trained on"
    return (
        f"split {split}: {len(e)} clips of {len(np.unique(e.recording))} recordings, {len(np.unique(e.scene))} scenes "
        f"and {len(np.unique(e.subject))} subjects; {cameras}."
    )


def _line(row: str, pair: Pair) -> dict[str, object]:
    return {
        "row": row,
        "query": pair.query,
        "gallery": pair.gallery,
        "seen": pair.seen,
        "queries": pair.queries,
        "clips": pair.clips,
        **{f"R@{k}": value for k, value in pair.recall.items()},
        "median_rank": pair.median_rank,
        "R@1/within_scene": pair.within_scene,
        "chance R@1": pair.chance[1],
    }


def _markdown(pairs: list[Pair]) -> str:
    """The trained row, a line per ordered pair of cameras."""
    recalls = [f"R@{k}" for k in pairs[0].recall]
    text = [
        f"\n| query | gallery | cameras | queries | clips | {' | '.join(recalls)} | median rank | R@1 within scene |",
        f"|---|---|---|---:|---:|{'---:|' * (len(recalls) + 2)}",
    ]
    for p in pairs:
        recall = " | ".join(f"{value:.3f}" for value in p.recall.values())
        kind = "seen" if p.seen else "held out"
        text.append(
            f"| {p.query} | {p.gallery} | {kind} | {p.queries} | {p.clips} | {recall} | {p.median_rank:g} | "
            f"{p.within_scene:.3f} |"
        )
    return "\n".join(text) + "\n"
