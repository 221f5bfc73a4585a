from __future__ import annotations

import base64
import io
import json
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from tiny_run import train, write_catalog

from crossview.downstream.results import SCHEMA
from crossview.errors import UserError
from crossview.platform.cli import main
from crossview.platform.report import comparison
from crossview.platform.report.comparison import compare, group
from crossview.platform.report.comparison_plots import Curve, curves
from crossview.storage.tables import read_table, write_table


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    write_catalog(folder)
    return train(folder / "run", folder)


def variant(trained: Path, folder: Path, seed: int, scores: dict[str, float] | None = None, lr: float = 1e-2) -> Path:
    """A copy of the run with another seed, learning rate and scores, as `crossview evaluate` would record them."""
    folder.mkdir(parents=True)
    info = json.loads((trained / "run.json").read_text())
    info["experiment"]["seed"] = seed
    info["experiment"]["optim"]["lr"] = lr
    (folder / "run.json").write_text(json.dumps(info))
    shutil.copy(trained / "metrics.parquet", folder)
    if scores is not None:
        write_table(results(scores), folder / "results.parquet")
    return folder


def results(scores: dict[str, float]) -> pa.Table:
    """Of rows and metrics, "trained/accuracy"; an error is better when it is low."""
    lines = [
        {
            "dataset": "clips",
            "protocol": "default",
            "split": "val",
            "fit_split": "train",
            "task": "toy",
            "views": "all",
            "row": name.partition("/")[0],
            "seed": 0,
            "metric": name.partition("/")[2],
            "value": value,
            "mode": "min" if name.endswith("error") else "max",
            "n": 10,
            "checkpoint": "step-000004",
            "commit": None,
            "evaluated_at": datetime(2026, 1, 1, tzinfo=UTC),
        }
        for name, value in scores.items()
    ]
    return pa.Table.from_pylist(lines, schema=SCHEMA)


def two_arms(trained: Path, folder: Path, seeds: int = 5) -> list[Path]:
    """The second is better in accuracy by 0.2, in error by nothing but noise, and above its baseline in neither."""
    noise = np.random.default_rng(0).normal(0, 0.01, (2, seeds, 2))
    runs = []
    for arm, (accuracy, error) in enumerate(((0.5, 0.3), (0.7, 0.3))):
        for seed in range(seeds):
            of = noise[arm, seed]
            scores = {
                "trained/accuracy": accuracy + of[0],
                "trained/error": error + of[1],
                "time only/accuracy": 0.6,
                "time only/error": 0.4,
            }
            runs.append(variant(trained, folder / f"{'ab'[arm]}-seed{seed}", seed, scores, lr=1e-2 * (arm + 1)))
    return runs


def test_runs_that_differ_in_the_seed_alone_are_one_arm(trained: Path, tmp_path: Path) -> None:
    runs = two_arms(trained, tmp_path)
    arms, notes = group([*runs, runs[0]])
    assert [(arm.letter, arm.name, list(arm.runs)) for arm in arms] == [
        ("A", "a", [0, 1, 2, 3, 4]),
        ("B", "b", [0, 1, 2, 3, 4]),
    ]
    assert notes == []
    assert comparison._differences(arms) == [("optim.lr", ["0.01", "0.02"])]
    with pytest.raises(UserError, match=r"has the configuration and the seed \(0\) of"):
        group([runs[0], variant(trained, tmp_path / "again", 0)])
    with pytest.raises(UserError, match=r"run\.json is missing"):
        group([runs[0], tmp_path])


def test_only_what_the_test_decides_is_said(trained: Path, tmp_path: Path) -> None:
    page = compare(two_arms(trained, tmp_path), tmp_path / "page.html").read_text()
    rows = dict(re.findall(r"<tr><td>(accuracy|error)(?: \(lower is better\))?</td>(.*?)</tr>", page, re.S))
    assert re.search(r"B beats A: \+0\.(19|20)\d \(95 % interval", rows["accuracy"])
    assert "5 seeds" in rows["accuracy"]
    assert " A: " not in rows["error"]
    assert "error (lower is better)" in page
    assert list(re.findall(r'class="(below|)">', rows["accuracy"])) == ["below", ""]
    assert list(re.findall(r'class="(below|)">', rows["error"])) == ["", ""]
    assert re.search(r"0\.\d{3} ± 0\.0\d\d", rows["accuracy"])


def test_lower_is_better_where_it_is(trained: Path, tmp_path: Path) -> None:
    runs = []
    for arm, error in enumerate((0.3, 0.6)):
        for seed in range(5):
            scores = {"trained/error": error + 0.001 * seed * (1 + arm)}
            runs.append(variant(trained, tmp_path / f"{arm}-{seed}", seed, scores, lr=0.01 + arm))
    assert "B is WORSE than A: -0.3" in compare(runs, tmp_path / "page.html").read_text()


def test_seeds_that_one_arm_lacks_are_left_out_and_told(trained: Path, tmp_path: Path) -> None:
    runs = two_arms(trained, tmp_path)
    page = compare(runs[:8], tmp_path / "page.html").read_text()
    assert "The arms have different seeds" in page
    assert "3 of 5 seeds" in page
    alone = compare([runs[0], runs[5]], tmp_path / "alone.html").read_text()
    assert "beats" not in alone  # one seed decides nothing
    assert "WORSE" not in alone


def test_runs_without_scores_and_with_broken_losses_have_a_page(trained: Path, tmp_path: Path) -> None:
    bare = variant(trained, tmp_path / "bare", 0)
    broken = variant(trained, tmp_path / "broken", 1, {"trained/accuracy": float("nan")})
    rows = read_table(broken / "metrics.parquet").to_pylist()
    rows[1]["loss"] = float("nan")
    write_table(pa.Table.from_pylist(rows), broken / "metrics.parquet")
    fresh = variant(trained, tmp_path / "fresh", 2, lr=0.5)
    (fresh / "metrics.parquet").unlink()
    page = compare([bare, broken, fresh], tmp_path / "page.html").read_text()
    assert "2 runs have no scores (bare, fresh)" in page
    assert "The loss of broken is not finite at some steps" in page
    assert ">undefined</td>" in page
    nothing = compare([bare, fresh], tmp_path / "nothing.html").read_text()
    assert "None of these runs has been evaluated yet" in nothing


def test_two_hundred_runs_fit_on_a_page(trained: Path, tmp_path: Path) -> None:
    runs = [
        variant(trained, tmp_path / f"run-{k}", 0, {"trained/accuracy": 0.5 + k / 1000}, lr=1e-4 * (k + 1))
        for k in range(200)
    ]
    file = compare(runs, tmp_path / "page.html")
    page = file.read_text()
    assert file.stat().st_size < 1e7
    assert "<b>GR</b> run-199" in page
    assert "194 more" in [text.get_text() for text in _legend(200)]


def _legend(arms: int) -> list[object]:
    figure = curves("loss", [Curve(f"arm {k}", k, [1, 2], [k, k + 1]) for k in range(arms)])
    return list(figure.legends[0].get_texts())


def test_names_cannot_become_markup_and_nothing_is_loaded(trained: Path, tmp_path: Path) -> None:
    odd = variant(trained, tmp_path / "<script>alert(1)<", 0, {"trained/accuracy": 0.5}, lr=0.3)
    page = compare([trained, odd], tmp_path / "page.html").read_text()
    assert "&lt;script&gt;alert(1)" in page
    assert "<script" not in page
    assert not re.search(r"(src|href)=\"(?!data:)", page)


def test_curves_of_all_runs_are_drawn(trained: Path, tmp_path: Path) -> None:
    page = compare(two_arms(trained, tmp_path), tmp_path / "page.html").read_text()
    (picture,) = re.findall(r"data:image/png;base64,([^\"]+)", page)
    with Image.open(io.BytesIO(base64.b64decode(picture))) as image:
        assert np.asarray(image.convert("L")).std() > 5
    assert "10 runs of 2 arms, a line per seed" in page
    figure = curves("loss", [Curve("a", 0, [1, 2, 3], [1.0, float("nan"), 2.0]), Curve("b", 1, [5], [1.0])])
    lines = {line.get_label(): line for line in figure.axes[0].get_lines()}
    assert np.isnan(lines["a"].get_ydata()[1])
    assert lines["b"].get_marker() == "o"


def test_the_command_compares_and_names_what_is_missing(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = two_arms(trained, tmp_path, seeds=2)
    main.report(tuple(runs))
    assert f"The comparison is saved to {tmp_path / 'comparison.html'}" in capsys.readouterr().out
    assert (tmp_path / "comparison.html").is_file()
    with pytest.raises(UserError, match=r"name the folder of a run"):
        main.report(())
    with pytest.raises(UserError, match=r"one run's page is report\.html in its folder"):
        main.report((trained,), tmp_path / "x.html")
