"""Tables of papers: their numbers against the papers' own arithmetic, what is planned, and the four forms."""

from __future__ import annotations

import dataclasses
import importlib
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from crossview.datasets.synthetic.stand_ins import stand_in
from crossview.errors import UserError
from crossview.methods.byov.config import Config as Byov
from crossview.methods.byov.tables import tables as byov_tables
from crossview.methods.evgap.tables import tables as evgap_tables
from crossview.methods.paper_table import Column, Cost, Dataset, PaperTable, Row, Stage, percent
from crossview.methods.recipe import Optim, Recipe
from crossview.platform import progress
from crossview.platform.cli.main import main
from crossview.platform.config import method_names, preset
from crossview.platform.reproduce import paper_data, paper_result, paper_runs
from crossview.platform.reproduce.paper_list import tables
from crossview.platform.reproduce.paper_result import Line, Result
from crossview.platform.reproduce.paper_runs import Request
from crossview.platform.reproduce.stage_recipes import changed, recipe_of

SPECS = tuple(tables())
METHODS = frozenset(method_names())
TABLE_1 = {  # the deltas that table 1 of EVGAP prints
    "single-view": {
        "(a) + random": (-0.1, 0.2, 0.4, -0.1, 0.1, 0.1),
        "(b) + step 1": (0.0, 0.2, 1.1, 0.6, 0.1, 0.3),
        "(c) + step 2": (0.3, 0.8, 1.0, 1.1, 0.3, 0.7),
        "(d) + both": (0.4, 0.9, 0.5, 1.0, 0.8, 0.9),
    },
    "two-view": {
        "(a) + random": (1.2, 0.9, -0.2, 0.3, 0.6, 0.4),
        "(b) + step 1": (1.6, 1.2, 0.0, 0.2, 0.3, 0.9),
        "(c) + step 2": (1.8, 1.9, 1.5, 1.2, 1.0, 1.5),
        "(d) + both": (2.2, 2.5, 1.7, 1.5, 1.4, 1.9),
    },
}
LAST_DELTAS = {  # of the last row of each group over its first
    "table2": {
        "ASFormer": (0.5, 0.8, 1.1, 0.8, 1.0, 0.8),
        "C2F-TCN": (0.4, 0.9, 1.5, 1.0, 0.8, 0.9),
        "LTContext": (0.6, 1.2, 1.7, 0.6, 1.3, 1.1),
    },
    "table3": {"Ego": (1.6, 1.4, 0.9, 1.3), "Exo": (2.4, 1.7, 1.3, 1.8), "Ego+Exo": (2.3, 1.2, 1.4, 1.6)},
    "table4": {
        "eg1": (2.3, 2.2, 2.4, 0.8, 1.4, 1.8),
        "eg2": (2.7, 1.9, 2.3, 1.5, 2.0, 2.1),
        "ex1": (2.2, 2.7, 1.5, 1.1, 1.2, 1.7),
        "ex2": (2.9, 2.4, 2.2, 1.5, 1.7, 2.3),
    },
    "table5": {
        "eg1": (2.9, 2.6, 2.0, 2.5),
        "eg2": (2.3, 1.8, 1.6, 1.9),
        "ex1": (2.6, 2.4, 1.9, 2.3),
        "ex2": (2.7, 2.3, 1.3, 2.1),
    },
}
MISPRINTED = {
    ("table1", "single-view", "(d) + both", 2): 1.5,
    ("table1", "two-view", "(a) + random", 0): 1.3,
    ("table1", "two-view", "(a) + random", 4): -0.6,
    ("table4", "ex2", "+EVGAP", 4): 2.3,
    ("table5", "eg1", "+EVGAP", 1): 2.5,
}
"""What the rows give where the paper prints another delta."""


def numbers(table: PaperTable, group: str) -> dict[str, np.ndarray]:
    return {row.label: np.array(row.paper, float) for row in table.rows if row.group == group}


def deltas() -> list[tuple[str, str, str, str, tuple[float, ...]]]:
    """(table, group, row, base row, printed delta)."""
    first = [("table1", g, row, "Base", d) for g, rows in TABLE_1.items() for row, d in rows.items()]
    found = []
    for name, groups in LAST_DELTAS.items():
        for group, printed in groups.items():
            labels = list(numbers(evgap_tables()[name], group))
            found.append((name, group, labels[-1], labels[0], printed))
    return first + found


@pytest.mark.parametrize(("name", "group", "row", "base", "printed"), deltas())
def test_rows_of_evgap_give_its_deltas(name: str, group: str, row: str, base: str, printed: tuple[float, ...]) -> None:
    of = numbers(evgap_tables()[name], group)
    right = [MISPRINTED.get((name, group, row, k), value) for k, value in enumerate(printed)]
    average = len(right) - 1  # a mean of unrounded numbers
    found = of[row] - of[base]
    assert np.abs(found - right)[:average].max() < 1e-9
    assert abs(found[average] - right[average]) < 0.1 + 1e-9


@pytest.mark.parametrize("name", evgap_tables())
def test_averages_of_evgap_are_means_or_remarked_on(name: str) -> None:
    table = evgap_tables()[name]
    off = {
        (row.group, row.label): round(float(np.mean(row.paper[:-1])), 2)  # type: ignore[arg-type]
        for row in table.rows
        if abs(np.mean(row.paper[:-1]) - row.paper[-1]) > 0.0501  # type: ignore[arg-type, operator]
    }
    known = {
        "table1": {("single-view", "(b) + step 1"): 30.70, ("two-view", "(b) + step 1"): 30.38},
        "table4": {("eg2", "+EVGAP"): 20.54},
        "table2": {("ASFormer", "+EVGAP*"): 30.56, ("ASFormer", "+EVGAP"): 30.96},
    }
    assert off == known.get(name, {})
    said = " ".join(table.remarks)
    for value in off.values():
        assert f"{value:.2f}" in said


def test_columns_average_what_the_paper_averages() -> None:
    for table in evgap_tables().values():
        *single, average = table.columns
        assert average.metrics == tuple(metric for column in single for metric in column.metrics)


def test_byovs_ablations_start_from_its_main_table() -> None:
    main_rows = {(row.group, row.label): np.array(row.paper, float) for row in byov_tables()["ae2"].rows}
    full = main_rows["break_eggs", "BYOV"]
    means = [full[:3].mean(), full[3:6].mean(), *full[6:]]
    ablated = byov_tables()["ablations"].rows[0].paper
    np.testing.assert_allclose(np.array(ablated, float), means, atol=0.006)


@pytest.mark.parametrize(
    ("label", "means"),
    [  # of four sets, as a later paper prints them
        ("AE2", (75.96, 71.00, 76.44, 75.78, 72.58, 71.25, 0.480, 0.562)),
        ("CLIP features", (55.83, 39.39, 37.46, 53.70, 47.35, 41.27, -1.212, 0.020)),
        ("BYOV", (82.34, 81.60, 79.96, 79.57, 80.44, 78.26, 0.7472, 0.7455)),
    ],
)
def test_four_sets_have_the_known_means(label: str, means: tuple[float, ...]) -> None:
    rows = np.array([row.paper for row in byov_tables()["ae2"].rows if row.label == label], float)
    assert len(rows) == 4
    np.testing.assert_allclose(rows.mean(0), means, atol=0.006)


def test_gains_that_are_known_of_the_other_papers() -> None:
    found = tables()
    charades = {(r.group, r.label): r.paper[0] or 0.0 for r in found["egoexo:charades_ego"].rows}
    gains = [
        round(charades[group, label] - charades[group, "third-person"], 2)
        for group, label in charades
        if label != "third-person"
    ]
    assert gains == [1.91, 1.76, 2.84, 1.22, 2.66]
    epic = {(r.group, r.label): np.array(r.paper, float) for r in found["egoexo:epic"].rows}
    for size, plain, star in (("R50", (-0.15, 1.30), (0.75, 1.52)), ("R101", (1.60, 1.90), (2.07, 1.96))):
        for label, gain in (("Ego-Exo", plain), ("Ego-Exo*", star)):
            of = epic[f"EPIC-100, {size}", label] - epic[f"EPIC-100, {size}", "third-person"]
            np.testing.assert_allclose(of[[0, 2]], gain, atol=1e-9)
    transfer = np.array([row.paper for row in found["mv2mae:transfer"].rows], float).reshape(3, 2)
    np.testing.assert_allclose(np.diff(transfer)[:, 0], (8.5, 2.8, 2.0), atol=1e-9)
    benchmark = np.array([row.paper for row in found["mv2mae:pretraining"].rows], float).reshape(5, 2)
    np.testing.assert_allclose(np.diff(benchmark)[:, 0], (1.8, 0.3, 0.8, np.nan, 1.4), atol=1e-9)


@pytest.mark.parametrize("spec", SPECS)
def test_every_table_has_what_the_list_says(spec: str) -> None:
    table = tables()[spec]
    assert table.cost.hours > 0
    assert re.search(r"\d", table.cost.arithmetic)
    assert table.seeds == 3
    scored = {row.stage for row in table.rows} - {None}
    assert scored == {name for name, stage in table.stages.items() if stage.tasks}
    assert len({(row.group, row.label) for row in table.rows}) == len(table.rows)


@pytest.mark.parametrize("spec", SPECS)
def test_presets_of_methods_resolve_at_both_scales(spec: str) -> None:
    for name, stage in tables()[spec].stages.items():
        if stage.trains not in METHODS:
            continue
        paper, small = recipe_of(stage, "paper"), recipe_of(stage, "synthetic")
        assert small.optim.steps is not None, name
        assert small.optim.steps <= 5, name
        if not stage.options:
            assert paper == preset(stage.trains, stage.preset), name


def test_options_of_one_stage_are_set_together() -> None:
    start = Recipe(method=Byov(), optim=Optim(epochs=3))
    made = changed(start, {"optim.epochs": None, "optim.steps": 7, "method.weights.msm_ego": 0.0, "method.frames": 8})
    assert made.optim == Optim(steps=7)
    assert isinstance(made.method, Byov)
    assert (made.method.weights.msm_ego, made.method.weights.msm_exo, made.method.frames) == (0.0, 1.0, 8)
    with pytest.raises(UserError, match=r"option method\.weights\.msm_eg is unknown; did you mean .*msm_ego"):
        changed(start, {"method.weights.msm_eg": 0.0})


def tiny_table(**changes: Any) -> PaperTable:
    """Two runs of BYOV on Break Eggs, the second from the first's weights, and a row that is not run."""
    stage = byov_tables()["ablations"].stages["full"]
    given: dict[str, Any] = {
        "title": "A_table 100 %",
        "paper": "Some & others",
        "number": "Table 9",
        "data": {"eggs": Dataset(adapter="ae2", options={"set": "break_eggs"}, holds="eggs")},
        "columns": (percent("F1", "phase_f1/regular"), Column(heading="τ", metrics=("kendall_tau",), digits=4)),
        "stages": {
            "first": dataclasses.replace(stage, data="eggs", tasks={}),
            "second": dataclasses.replace(stage, data="eggs", start="first"),
        },
        "rows": (
            Row(label="theirs*", paper=(50.0, None)),
            Row(label="ours", group="g_1", paper=(60.25, 0.5), stage="second"),
            Row(label="clock", group="g_1", paper=(None, None), stage="second", of="time only"),
        ),
        "seeds": 2,
        "cost": Cost(hours=1, hardware="a GPU", arithmetic="1 x 1 h"),
        "remarks": ("Read [this] first.",),
    }
    return PaperTable(**given | changes)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs, beside whose tables lie their stand-ins."""
    return tmp_path_factory.mktemp("runs")


def request(runs: Path, name: str = "tiny", **given: Any) -> Request:
    return Request(out=runs / name, synthetic=True, **given)


def test_stages_with_seeds_become_runs_that_wait_for_another(runs: Path) -> None:
    table = tiny_table()
    planned = paper_runs.plan("byov:tiny", table, request(runs, seeds=2))
    assert [one.run.name for one in planned] == ["first-seed0", "second-seed0", "first-seed1", "second-seed1"]
    assert [one.experiment.seed for one in planned] == [0, 0, 1, 1]
    assert [one.after for one in planned] == [None, planned[0].run, None, planned[2].run]
    assert [one.experiment.init_from for one in planned] == [one.after for one in planned]
    assert [bool(one.tasks) for one in planned] == [False, True, False, True]
    assert [one.baselines for one in planned] == [False, True, False, True]  # a row is of one
    paper_data.check(planned)
    again = paper_runs.plan("byov:tiny", table, request(runs))  # one seed; nothing is rendered again
    assert again == planned[:2]


def test_all_that_catalogs_lack_is_said_at_once(runs: Path, tmp_path: Path) -> None:
    eggs = stand_in("ae2", {"set": "break_eggs"}, runs / "stand-ins")
    stage = tiny_table().stages["first"]
    stages = {
        "camera": dataclasses.replace(stage, views=("drone",)),
        "labels": Stage(trains="egoexo", preset="charades_ego", data="eggs"),
        "protocol": dataclasses.replace(stage, protocol="xsub60"),
    }
    stages = {name: dataclasses.replace(of, tasks={"measures": {}}) for name, of in stages.items()}
    rows = tuple(Row(label=name, paper=(None, None), stage=name) for name in stages)
    own = Request(out=tmp_path / "out", catalogs=(str(eggs),))
    planned = paper_runs.plan("byov:tiny", tiny_table(stages=stages, rows=rows, seeds=1), own)
    with pytest.raises(UserError) as refused:
        paper_data.check(planned)
    text = str(refused.value)
    assert text.startswith("3 things are missing for this table:\n1. ")
    assert "drone" in text
    assert "157" in text
    assert "xsub60" in text
    other = dataclasses.replace(own, protocols=("default",))
    assert {one.experiment.data.protocol for one in paper_runs.plan("x", tiny_table(), other)} == {"default"}
    assert len(paper_runs.plan("x", tiny_table(), own)) == 4  # the table's own number of seeds


def test_catalogs_are_asked_for_with_the_commands_that_make_them() -> None:
    table = tables()["byov:ae2"]
    with pytest.raises(UserError) as refused:
        paper_data.own_catalogs("byov:ae2", table, ["pour_milk=here"])
    text = str(refused.value)
    assert "3 catalogs" in text
    assert "tennis_forehand: crossview prepare ae2 --set tennis_forehand --root FOLDER --out CATALOG" in text
    assert "pour_milk:" not in text
    with pytest.raises(UserError, match=r"reads 4 datasets; say which one it is, as break_eggs=here"):
        paper_data.by_dataset(table, "catalog", ["here"])
    with pytest.raises(UserError, match=r"--catalog eggs=here: the table's datasets are break_eggs, pour_milk"):
        paper_data.by_dataset(table, "catalog", ["eggs=here"])


def test_a_folder_holds_one_table_on_one_kind_of_data(tmp_path: Path) -> None:
    asked = request(tmp_path)
    paper_runs._claim(asked, tiny_table())
    paper_runs._claim(asked, tiny_table(seeds=5))  # further seeds belong to it
    with pytest.raises(UserError, match="holds another table, or this one on other data"):
        paper_runs._claim(dataclasses.replace(asked, catalogs=("other",)), tiny_table())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"stages": {"second": tiny_table().stages["second"]}}, r"stage 'second' needs 'first'; list that before it"),
        ({"data": {}}, r"stage 'first' reads 'eggs'"),
        ({"rows": (Row(label="r", paper=(1.0,)),)}, r"row 'r' has 1 numbers for 2 columns"),
        ({"rows": (Row(label="r", paper=(1.0, 2.0), stage="first"),)}, r"of stage 'first', which is not scored"),
        ({"rows": (Row(label="r", paper=(1.0, 2.0)),)}, r"nothing uses the stages second"),
        ({"seeds": 0}, r"seeds is 0"),
    ],
)
def test_a_table_that_does_not_fit_together_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        tiny_table(**changes)


def result(*, synthetic: bool = True) -> Result:
    table = tiny_table()
    ours = ((), ()), ((50.0, 52.0), (0.25, 0.75)), ((10.0, 10.0), ())
    lines = tuple(Line(row, of) for row, of in zip(table.rows, ours, strict=True))
    return Result("byov:tiny", table, lines, 2, "crossview reproduce byov:tiny", synthetic=synthetic)


def test_rows_show_paper_ours_and_difference() -> None:
    assert [(row.label, kind, cells) for row, kind, cells in paper_result.lines_of(result())] == [
        ("theirs*", "paper", ["50.00", "not reported"]),
        ("ours", "paper", ["60.25", "0.5000"]),
        ("ours", "ours", ["51.00 ± 1.41", "0.5000 ± 0.3536"]),
        ("ours", "difference", ["-9.25", "+0.0000"]),
        ("clock", "paper", ["not reported", "not reported"]),
        ("clock", "ours", ["10.00 ± 0.00", "undefined"]),
    ]


def test_a_number_keeps_the_papers_decimals() -> None:
    column = percent("Avg", "x", digits=1)
    assert [paper_result._number(value, column) for value in (30.44, 31.0, 0.5)] == ["30.44", "31.0", "0.5"]


def test_latex_is_escaped_and_balanced() -> None:
    text = paper_result.latex(result())
    assert r"A\_table 100 \%" in text
    assert r"Some \& others" in text
    assert r"{[}synthetic] g\_1, ours & ours & \textbf{51.00 $\pm$ 1.41}" in text
    assert "& difference & $-$9.25 & +0.0000 \\\\" in text
    assert text.count(r"\begin{") == text.count(r"\end{")
    body = re.sub(r"\\[&%$#_{}]", "", text.split("\n", 1)[1])  # without the comment and what is escaped
    assert body.count("{") == body.count("}")
    assert body.count("$") % 2 == 0
    assert not re.search(r"[#%~^]|[^\x00-\x7f]", body)
    rows = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert {line.count("&") for line in rows} == {3}
    assert len(rows) == 7


def test_every_row_of_every_file_says_synthetic(tmp_path: Path) -> None:
    paper_result.publish(result(), tmp_path)
    page = (tmp_path / "table.html").read_text()
    cells = [cell for row in _rows(page) for cell in row[:1]]
    assert len(cells) == 1 + 1 + 6  # the heading, a group, the lines
    assert all(cell.startswith("[synthetic]") for cell in cells[1:])
    assert "http" not in page
    lines = (tmp_path / "table.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith("| ") and not line.startswith("| row")]
    assert len(rows) == 6
    assert all(line.startswith("| [synthetic] ") for line in rows)
    assert r"theirs\*" in rows[0]
    assert all(name.startswith("[synthetic] ") for name in pq.read_table(tmp_path / "table.parquet")["row"].to_pylist())
    paper_result.publish(result(synthetic=False), tmp_path)
    for form in ("html", "md", "tex"):
        assert "ynthetic" not in (tmp_path / f"table.{form}").read_text()


def _rows(page: str) -> list[list[str]]:
    """The cells of every row of a page."""

    class Reader(HTMLParser):
        rows: list[list[str]] = []  # noqa: RUF012

        def handle_starttag(self, tag: str, attrs: Any) -> None:
            if tag == "tr":
                self.rows.append([])
            if tag in ("td", "th"):
                self.rows[-1].append("")

        def handle_data(self, data: str) -> None:
            if self.rows and self.rows[-1]:
                self.rows[-1][-1] += data.strip()

    reader = Reader()
    reader.rows = []
    reader.feed(page)
    return reader.rows


def test_the_terminal_splits_what_is_too_wide() -> None:
    table = byov_tables()["ae2"]
    lines = tuple(Line(row, tuple((50.0, 51.0) if row.stage else () for _ in table.columns)) for row in table.rows)
    whole = Result("byov:ae2", table, lines, 2, "", synthetic=False)
    for width, parts in ((200, 1), (100, 2)):
        console = Console(width=width, file=io.StringIO())
        shown = paper_result.terminal(whole, width)
        assert len(shown) == parts
        for part in shown:
            console.print(part)
        assert "…" not in console.file.getvalue()  # type: ignore[attr-defined]
        assert console.file.getvalue().count("F1 ego2exo") == 1  # type: ignore[attr-defined]


def test_every_line_is_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=file, width=40))
    with progress.marked("[synthetic] "):
        progress.console.print("one\ntwo " + "word " * 12)
        progress.console.file.write("\x1b[2K\rbar 1\rbar 2\n\n")
    progress.console.print("after")
    lines = [line for line in re.split(r"[\n\r]", file.getvalue()) if line not in ("", "\x1b[2K")]
    assert lines[-1] == "after"
    assert all(line.startswith("[synthetic] ") for line in lines[:-1])
    assert max(map(len, lines)) <= 40
    assert [line for line in lines if "bar" in line] == ["[synthetic] bar 1", "[synthetic] bar 2"]


def test_the_list_names_every_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    main(["reproduce", "--list"])
    said = capsys.readouterr().out
    assert len(SPECS) == 13
    for spec in SPECS:
        assert spec in said
    assert "crossview prepare ntu --version 120 --root FOLDER --out CATALOG" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["byov:ae2", "--train-base"], "byov:ae2 is a table"),
        (["byov:synthetic", "--seeds", "2"], "--seeds: only tables take it"),
        (["byov:ablations", "--synthetic", "--catalog", "here"], "--synthetic makes its own catalogs"),
        (["byov:ablations"], "byov:ablations needs a catalog"),
        ([], "reproduce --list"),
    ],
)
def test_words_that_do_not_fit_are_refused(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["reproduce", *words])
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.ray
def test_a_table_runs_from_its_data_to_its_page_and_goes_on(
    runs: Path, ray_cluster: None, capsys: pytest.CaptureFixture[str]
) -> None:
    table, asked = tiny_table(), request(runs, "whole", jobs=2)
    out = paper_runs.run_table("byov:tiny", table, asked)
    said = [line for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert said
    assert all(line.startswith("[synthetic] ") for line in said)
    rows = pq.read_table(out / "table.parquet").to_pylist()
    assert [row["ours"] is None for row in rows] == [True, True, False, False, False, False]
    before = {file: file.stat().st_mtime_ns for file in out.glob("*/checkpoints/*/model.safetensors")}
    assert len(before) == 2
    (out / "second-seed0" / "results.parquet").unlink()
    paper_runs.run_table("byov:tiny", table, asked)
    assert {file: file.stat().st_mtime_ns for file in out.glob("*/checkpoints/*/model.safetensors")} == before
    assert pq.read_table(out / "table.parquet").to_pylist() == rows


@pytest.mark.long
@pytest.mark.ray
@pytest.mark.parametrize(
    "name",
    [
        "byov:ae2",
        "byov:charades_ego",
        "egoexo:charades_ego",
        "egoexo:epic",
        "evgap:table1",
        "evgap:table4",
        "mv2mae:pretraining",
        "mv2mae:transfer",
    ],
)
def test_a_tables_command_runs_on_synthetic_exports(
    name: str, tmp_path_factory: pytest.TempPathFactory, ray_cluster: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Tables of one dataset share its export."""
    folder = tmp_path_factory.getbasetemp() / "tables"
    method, _, table = name.partition(":")
    found = importlib.import_module(f"crossview.methods.{method}.tables").tables()[table]
    request = paper_runs.Request(out=folder / f"{method}-{table}", synthetic=True, jobs=2)
    out = paper_runs.run_table(name, found, request)
    said = [line for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert all(line.startswith("[synthetic] ") for line in said)
    rows = pq.read_table(out / "table.parquet").to_pylist()
    assert len(rows) == len(found.rows) * len(found.columns)
    stages = np.repeat([bool(row.stage) for row in found.rows], len(found.columns))  # the others only quote the paper
    assert [row["ours"] is not None for row in rows] == stages.tolist()
