"""Results append: nothing is overwritten, and readers take the newest of every score."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from synchronized import SEEN, write_synchronized
from tiny_run import train

from crossview.downstream import results
from crossview.downstream.baselines import margin
from crossview.downstream.retrieval.config import Options
from crossview.platform.evaluate import result_store
from crossview.platform.evaluate.runner import evaluate
from crossview.platform.report.run_report import report

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def line(value: float, minutes: int = 0, **changes: object) -> dict[str, object]:
    return {
        "dataset": "d",
        "protocol": "default",
        "split": "val",
        "fit_split": "train",
        "task": "t",
        "views": "all",
        "row": "trained",
        "seed": 0,
        "metric": "m",
        "value": value,
        "mode": "max",
        "n": 3,
        "checkpoint": "step-1",
        "commit": None,
        "evaluated_at": NOW + timedelta(minutes=minutes),
        **changes,
    }


def table(*lines: dict[str, object]) -> pa.Table:
    return pa.Table.from_pylist(list(lines), schema=results.SCHEMA)


def test_the_newest_line_of_every_score_is_taken_whatever_the_order() -> None:
    found = results.latest(table(line(2.0, 5), line(1.0, 1), line(3.0, 0, row="random init"), line(4.0, 0, metric="n")))
    assert [(x["row"], x["metric"], x["value"]) for x in found.to_pylist()] == [
        ("trained", "m", 2.0),
        ("random init", "m", 3.0),
        ("trained", "n", 4.0),
    ]


@pytest.mark.parametrize("key", ["protocol", "split", "task", "views", "row", "metric"])
def test_scores_that_differ_in_a_key_are_different_scores(key: str) -> None:
    assert results.latest(table(line(1.0), line(2.0, 1, **{key: "another"}))).num_rows == 2
    assert results.latest(table(line(1.0), line(2.0, 1, checkpoint="step-2", seed=1, n=4))).num_rows == 1


def test_evaluations_are_counted_by_their_time_and_view_sets_are_sorted() -> None:
    whole = table(line(1.0, 0, split="test"), line(2.0, 0, split="test", metric="n"), line(1.0, 1, split="test"))
    assert results.evaluations(whole, "test") == 2
    assert results.evaluations(whole, "val") == 0
    assert results.view_set(None) == "all"
    assert results.view_set(("exo2", "ego")) == "ego+exo2"


def test_the_best_baseline_is_the_lowest_where_less_is_better() -> None:
    rows = {"trained": {"error": 0.2, "f1": 0.5}, "a": {"error": 0.3, "f1": 0.6}, "b": {"error": 0.9, "f1": 0.1}}
    found = margin(rows, lower=results.lower_is_better(table(line(0.2, metric="error", mode="min"))))
    assert (found["error"].baseline, found["error"].mean) == ("a", pytest.approx(0.1))
    assert (found["f1"].baseline, found["f1"].mean) == ("a", pytest.approx(-0.1))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_synchronized(tmp_path_factory.mktemp("synchronized")).root
    return train(tmp_path_factory.mktemp("runs") / "tiny", root, views=SEEN)


def test_a_second_evaluation_adds_and_readers_see_both(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = evaluate(run, tasks=("retrieval",), in_process=True)
    assert not result_store.has_scores(run, "val", ("retrieval", "action_probe"))
    second = evaluate(run, tasks=("action_probe",), in_process=True)
    assert pq.read_table(run / "results.parquet").equals(pa.concat_tables([first, second]))
    assert result_store.has_scores(run, "val", ("retrieval", "action_probe"))
    facts = first.to_pylist()[0]
    assert (facts["dataset"], facts["protocol"], facts["split"], facts["views"]) == ("d", "default", "val", "all")
    assert (facts["task"], facts["fit_split"], facts["seed"], facts["checkpoint"]) == (
        "retrieval",
        None,
        3,
        "step-00000004",
    )
    assert second["fit_split"][0].as_py() == "train"
    assert facts["n"] == 48  # 12 recordings, 4 clips each
    text = (run / "evaluations" / "val.md").read_text()
    assert "| retrieval/R@1/seen |" in text
    assert "| action_probe/knn/seen |" in text
    assert "Action probes fitted on" in text
    assert "| query | gallery |" in text
    page = report(run).read_text()
    assert "retrieval/R@1/seen" in page
    assert "action_probe/knn/seen" in page
    shown = capsys.readouterr().out
    again = evaluate(run, tasks=("retrieval",), options={"retrieval": Options(clips_per_scene=2)}, in_process=True)
    assert pq.read_table(run / "results.parquet").num_rows == 2 * first.num_rows + second.num_rows
    newest = result_store.latest_scores(run, split="val", task="retrieval")
    assert newest == results.scores(again)
    assert newest != results.scores(first)
    assert "retrieval/R@1/seen" in shown


def test_scores_of_several_checkpoints_are_said_to_be(run: Path) -> None:
    whole = table(line(1.0), line(2.0, row="random init", checkpoint="step-2"))
    notes = result_store.notes_of(whole, results.latest(whole), "val", {})
    assert any("several checkpoints (step-1, step-2)" in note for note in notes)
    assert not any("checkpoints" in note for note in result_store.notes_of(whole[:1], whole[:1], "val", {}))


def test_a_run_scored_by_an_earlier_version_asks_to_be_scored_again(run: Path, tmp_path: Path) -> None:
    shutil.copy(run / "run.json", tmp_path)
    (tmp_path / "evaluations").mkdir()
    old = pa.table({"row": ["trained"], "metric": ["m"], "seed": [0], "value": [0.5]})
    facts = json.dumps({"split": "val", "notes": []})
    pq.write_table(old.replace_schema_metadata({"crossview": facts}), tmp_path / "evaluations" / "val.parquet")
    page = report(tmp_path).read_text()
    assert "scored by an earlier version" in page
    assert "crossview evaluate RUN" in page
    assert "not been evaluated yet" not in page
