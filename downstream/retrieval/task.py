"""Cross-view retrieval of every row, pair by pair of cameras."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pyarrow as pa

from crossview.downstream import task
from crossview.downstream.clip_table import ClipTable
from crossview.downstream.retrieval.clip_retrieval import Pair, Retrieval, clip_retrieval
from crossview.downstream.retrieval.config import Options
from crossview.downstream.task import Facts, Recorded, TablePart

TOLERANCE_S = 1e-6


class Task(task.Task[Options, TablePart]):
    """Nothing is fitted: every clip of one camera asks among all clips of another."""

    def check(self, facts: Facts) -> Iterator[str]:
        """Two cameras of a scene that show a common instant."""
        scenes: dict[tuple[str, str], list[Recorded]] = {}
        for recording in facts.test:
            scenes.setdefault((recording.dataset, recording.scene), []).append(recording)
        if not any(_together(a, b) for of in scenes.values() for i, a in enumerate(of) for b in of[i + 1 :]):
            cameras = sorted({f"{r.view} ({r.perspective})" for r in facts.test})
            yield (
                f"retrieval: no instant of split {facts.split!r} is shown by two cameras of a scene (cameras: "
                f"{', '.join(cameras)}); retrieval needs synchronized cameras: give the cameras of a take one scene "
                "and clock in the catalog, or leave the task 'retrieval' out"
            )

    def predict(self, fitted: object, test: TablePart) -> Retrieval:
        """Ranks for every ordered pair of cameras."""
        del fitted
        return clip_retrieval(ClipTable.from_table(test.table), test.seen)

    def score(self, predictions: Retrieval, test: TablePart) -> dict[str, float]:
        """Means over pairs of cameras."""
        del test
        return predictions.scores

    def items(self, predictions: Retrieval, test: TablePart) -> int:
        """Clips."""
        del predictions
        return int(test.table.num_rows)

    def baselines(self) -> Mapping[str, Task]:
        """A random order."""
        return {"chance": Chance(self.options)}

    def notes(self, predictions: Retrieval, train: TablePart | None, test: TablePart) -> list[str]:
        """How much was scored."""
        del predictions, train
        return [ClipTable.from_table(test.table).size(test.split, test.seen)]

    def details(self, predictions: Retrieval, test: TablePart) -> dict[str, list[dict[str, object]]]:
        """Each pair of cameras."""
        del test
        return {"pairs": [_line(pair) for pair in predictions.pairs]}

    def markdown(self, details: Mapping[str, pa.Table]) -> str:
        """The first row's pairs, which are the trained model's."""
        lines = details["pairs"].to_pylist()
        lines = [line for line in lines if line["row"] == lines[0]["row"]]
        recalls = [name for name in lines[0] if name.startswith("R@") and "/" not in name]
        columns = ["query", "gallery", "cameras", "queries", "clips", *recalls, "median rank", "R@1 within scene"]
        text = [
            f"\n| {' | '.join(columns)} |",
            f"|---|---|---|---:|---:|{'---:|' * (len(recalls) + 2)}",
        ]
        for p in lines:
            recall = " | ".join(f"{p[name]:.3f}" for name in recalls)
            kind = "seen" if p["seen"] else "held out"
            text.append(
                f"| {p['query']} | {p['gallery']} | {kind} | {p['queries']} | {p['clips']} | {recall} | "
                f"{p['median_rank']:g} | {p['R@1/within_scene']:.3f} |"
            )
        return "\n".join(text) + "\n"


class Chance(Task):
    """The expected scores of a random order."""

    fixed = True

    def score(self, predictions: Retrieval, test: TablePart) -> dict[str, float]:
        """Exact: k over the gallery's size, and one over the scene's clips."""
        del test
        return predictions.chance

    def details(self, predictions: Retrieval, test: TablePart) -> dict[str, list[dict[str, object]]]:
        """Chance is a column of the pairs."""
        del predictions, test
        return {}


def _together(a: Recorded, b: Recorded) -> bool:
    return a.view != b.view and max(a.start_s, b.start_s) <= min(a.end_s, b.end_s) + TOLERANCE_S


def _line(pair: Pair) -> dict[str, object]:
    return {
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
