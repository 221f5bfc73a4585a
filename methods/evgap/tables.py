"""EVGAP's five tables on Assembly101: temporal action segmentation, anticipation, and novel views."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from crossview.methods.evgap.config import Encoder
from crossview.methods.paper_table import Column, Cost, Dataset, PaperTable, Row, Stage, percent

PAPER = "EVGAP"
DATA = "assembly101"
EGO, EXO = ("e1", "e2", "e3", "e4"), tuple(f"v{k}" for k in range(1, 9))
SMALL: dict[str, Any] = {
    "method.encoder": Encoder(width=16, depth=2, heads=2, hidden=16),
    "method.clips_per_video": 2,
    "method.window_stride": 10,
    "optim.epochs": None,
    "optim.steps": 3,
    "optim.batch": 2,
}
SCALED_DOWN: dict[str, Any] = {"optim.epochs": None, "optim.steps": 3, "optim.batch": 2}
"""Of every downstream stage."""
SMALL_STEPS: dict[str, Any] = SCALED_DOWN | {
    "method.chunk": 4,
    "method.chunk_range": None,
    "method.max_steps": 16,
    "method.classes": 8,
}
SMALL_PAST: dict[str, Any] = SCALED_DOWN | {
    "method.observed.spanning_s": 0.4,
    "method.observed.recent_s": (0.4, 0.2),
    "method.observed.horizon_s": 0.1,
    "method.observed.least_s": 0.1,
    "method.network.latent": 8,
    "method.network.width": 8,
    "method.verbs": 2,
    "method.nouns": 8,
    "method.actions": 16,
    "method.window": 4,
}
SEGMENTATION = ("F1@10", "F1@25", "F1@50", "Edit", "Acc")
RECALLS = ("verb", "object", "action")
FIXED: dict[str, Any] = {}
"""A trainer keeps its encoder frozen unless it is told otherwise."""
TUNED: dict[str, Any] = {"method.encoder_lr": 0.1}
TWO_VIEWS: dict[str, Any] = {"method.views": ("ego", "exo"), "method.test_views": ("e1", "v1")}
Numbers = tuple[float, ...]


def tables() -> dict[str, PaperTable]:
    """Tables 1 to 5."""
    return {
        "table1": _table1(),
        "table2": _table2(),
        "table3": _table3(),
        "table4": _table4(),
        "table5": _table5(),
    }


def _table1() -> PaperTable:
    numbers: dict[str, tuple[Numbers, Numbers]] = {
        "Base": ((33.0, 28.7, 20.6, 31.5, 37.7, 30.3), (31.5, 27.4, 20.0, 30.7, 39.0, 29.7)),
        "(a) + random": ((32.9, 28.9, 21.0, 31.4, 37.8, 30.4), (32.8, 28.3, 19.8, 31.0, 38.4, 30.1)),
        "(b) + step 1": ((33.0, 28.9, 21.7, 32.1, 37.8, 30.6), (33.1, 28.6, 20.0, 30.9, 39.3, 30.6)),
        "(c) + step 2": ((33.3, 29.5, 21.6, 32.6, 38.0, 31.0), (33.3, 29.3, 21.5, 31.9, 40.0, 31.2)),
        "(d) + both": ((33.4, 29.6, 22.1, 32.5, 38.5, 31.2), (33.7, 29.9, 21.7, 32.2, 40.4, 31.6)),
    }
    stages = _both_steps() | {"step 2 alone": _step("paper_step2")}
    rows = []
    for group, column, views in (("single-view", 0, {}), ("two-view", 1, TWO_VIEWS)):
        for label, printed in numbers.items():
            name = f"{group}: {label}"
            encoder, weights = {
                "Base": ("step 1", "input"),
                "(a) + random": ("step 1", "random"),
                "(b) + step 1": ("step 1", "trained"),
                "(c) + step 2": ("step 2 alone", "trained"),
                "(d) + both": ("step 2", "trained"),
            }[label]
            tuned = {} if weights == "input" else TUNED
            stages[name] = _segmentation("c2f-tcn", encoder, weights, views | tuned)
            rows.append(Row(group=group, label=label, paper=printed[column], stage=name))
    return PaperTable(
        title="C2F-TCN on Assembly101, ablation of EVGAP's steps",
        paper=PAPER,
        number="Table 1",
        data=_features(),
        columns=_segmentation_columns(),
        stages=stages,
        rows=tuple(rows),
        cost=Cost(
            hours=402.0,
            hardware="one data-centre GPU with 315 GB of features on its disk",
            arithmetic="3 seeds x (step 1: 6 h, step 2 twice: 2 x 10 h; single-view C2F-TCN, 200 epochs: 6 h on "
            "features, 4 x 12 h with the encoder in training; two-view likewise 54 h); an estimate, not measured",
        ),
        remarks=(
            "The deltas that the paper prints disagree with its rows in three places: (d) single-view F1@50 is +1.5 "
            "(printed +0.5), (a) two-view F1@10 +1.3 (printed +1.2), (a) two-view Acc -0.6 (printed +0.6).",
            "The averages of (b) compute to 30.70 and 30.38; 30.6 is printed for both.",
            *_SEGMENTATION_REMARKS,
            "How two views are fused is not stated; ours concatenates one ego and one exo view, all pairs in training, "
            "e1 and v1 in testing.",
        ),
    )


def _table2() -> PaperTable:
    numbers: dict[str, tuple[Numbers, Numbers, Numbers]] = {
        "ASFormer": (
            (33.1, 28.4, 20.5, 31.2, 37.4, 30.1),
            (33.4, 28.9, 21.0, 31.7, 37.8, 30.5),
            (33.6, 29.2, 21.6, 32.0, 38.4, 30.9),
        ),
        "C2F-TCN": (
            (33.0, 28.7, 20.6, 31.5, 37.7, 30.3),
            (33.2, 29.2, 20.9, 30.9, 38.0, 30.44),
            (33.4, 29.6, 22.1, 32.5, 38.5, 31.2),
        ),
        "LTContext": (
            (33.6, 28.4, 20.5, 32.2, 38.4, 30.6),
            (33.8, 29.1, 21.2, 32.4, 39.2, 31.14),
            (34.2, 29.6, 22.2, 32.8, 39.7, 31.7),
        ),
    }
    stages = dict(_both_steps())
    rows = []
    for group, printed in numbers.items():
        preset = {"ASFormer": "asformer", "C2F-TCN": "c2f-tcn", "LTContext": "ltcontext"}[group]
        for label, paper, weights, options in _three(printed):
            stages[f"{group}: {label}"] = _segmentation(preset, "step 2", weights, options)
            rows.append(Row(group=group, label=label, paper=paper, stage=f"{group}: {label}"))
    return PaperTable(
        title="Temporal action segmentation on Assembly101",
        paper=PAPER,
        number="Table 2",
        data=_features(),
        columns=_segmentation_columns(),
        stages=stages,
        rows=tuple(rows),
        cost=Cost(
            hours=309.0,
            hardware="one data-centre GPU with 315 GB of features on its disk",
            arithmetic="3 seeds x (16 h for both steps; three models x (8 h on features, 8 h on fixed tokens, 13 h "
            "with the encoder in training)); an estimate, not measured",
        ),
        remarks=(
            "* keeps the encoder fixed. With it C2F-TCN loses Edit (30.9 against 31.5), against the paper's text.",
            "ASFormer's averages compute to 30.56 (printed 30.5) and 30.96 (printed 30.9).",
            "The extracted text scattered this table; its grouping here agrees with every printed delta.",
            "Input rate and learning rate of ASFormer and the input rate of LTContext are not stated.",
            *_SEGMENTATION_REMARKS,
        ),
    )


def _table3() -> PaperTable:
    numbers: dict[str, tuple[Numbers, Numbers, Numbers]] = {
        "Ego": ((51.7, 21.5, 5.3, 26.2), (52.5, 22.1, 6.0, 26.9), (53.3, 22.9, 6.2, 27.5)),
        "Exo": ((56.8, 33.2, 10.2, 33.4), (57.6, 33.8, 10.9, 34.1), (59.2, 34.9, 11.5, 35.2)),
        "Ego+Exo": ((55.1, 26.9, 8.9, 30.3), (56.7, 27.6, 9.5, 31.3), (57.4, 28.1, 10.3, 31.9)),
    }
    parts = {"Ego": "ego", "Exo": "exo", "Ego+Exo": "all"}
    stages = dict(_both_steps())
    for label, _, weights, options in _three(numbers["Ego"], "TempAgg"):
        stages[label] = _anticipation("step 2", weights, options)
    return PaperTable(
        title="Action anticipation on Assembly101, TempAgg",
        paper=PAPER,
        number="Table 3",
        data=_features(),
        columns=_anticipation_columns("{part}"),
        stages=stages,
        rows=tuple(
            Row(group=view, label=label, paper=paper, stage=label, part=parts[view])
            for view, printed in numbers.items()
            for label, paper, _, _ in _three(printed, "TempAgg")
        ),
        cost=Cost(
            hours=228.0,
            hardware="one data-centre GPU with 315 GB of features on its disk",
            arithmetic="3 seeds x (16 h for both steps; TempAgg 15 epochs of some 0.6 million (segment, view) rows at "
            "batch 32: 280,000 steps, 12 h on features, 16 h on fixed tokens, 32 h with the encoder); an estimate",
        ),
        remarks=(
            "* keeps the encoder fixed. Every (segment, view) is an instance of its own: the paper's verb row is the "
            "1:2 mix of its ego and exo rows, which fits that protocol.",
            "Class-mean top-5 recall; classes that the split does not show are left out.",
            *_COMMON_REMARKS,
        ),
    )


def _table4() -> PaperTable:
    numbers: dict[str, tuple[Numbers, Numbers]] = {
        "eg1": ((21.0, 16.7, 10.6, 23.4, 23.7, 19.1), (23.3, 18.9, 13.0, 24.2, 25.1, 20.9)),
        "eg2": ((20.7, 16.6, 10.1, 22.1, 22.8, 18.5), (23.4, 18.5, 12.4, 23.6, 24.8, 20.6)),
        "ex1": ((34.7, 30.1, 21.8, 32.3, 39.4, 31.7), (36.9, 32.8, 23.3, 33.4, 40.6, 33.4)),
        "ex2": ((32.8, 29.0, 20.5, 32.2, 38.0, 30.5), (35.7, 31.4, 22.7, 33.7, 40.3, 32.8)),
    }
    return _novel_view(
        "Table 4",
        "Segmentation of views that were left out of training, C2F-TCN",
        numbers,
        _segmentation_columns(),
        Cost(
            hours=408.0,
            hardware="one data-centre GPU with 315 GB of features on its disk",
            arithmetic="4 held-out views x 3 seeds x (16 h for both steps, C2F-TCN 6 h on features and 12 h with the "
            "encoder in training); an estimate, not measured",
        ),
        (
            "The last digits of the averages of ex1 and ex2 are cut off in the text and are computed here.",
            "The Acc delta of ex2 is +2.3; +1.7 is printed.",
            "The average of eg2 with EVGAP computes to 20.54; 20.6 is printed.",
            "The introduction's gain of 2.3 is not this table's mean of 1.97.",
            *_SEGMENTATION_REMARKS,
        ),
    )


def _table5() -> PaperTable:
    numbers: dict[str, tuple[Numbers, Numbers]] = {
        "eg1": ((50.9, 20.3, 5.1, 25.4), (53.8, 22.8, 7.1, 27.9)),
        "eg2": ((51.2, 21.8, 5.9, 26.3), (53.5, 23.6, 7.5, 28.2)),
        "ex1": ((57.4, 32.8, 11.3, 33.8), (60.0, 35.2, 13.2, 36.1)),
        "ex2": ((56.1, 32.6, 11.7, 33.5), (58.8, 34.9, 13.0, 35.6)),
    }
    return _novel_view(
        "Table 5",
        "Anticipation in views that were left out of training, TempAgg",
        numbers,
        _anticipation_columns("all"),
        Cost(
            hours=720.0,
            hardware="one data-centre GPU with 315 GB of features on its disk",
            arithmetic="4 held-out views x 3 seeds x (16 h for both steps, TempAgg 12 h on features and 32 h with the "
            "encoder in training); an estimate, not measured",
        ),
        (
            "The object delta of eg1 is +2.5; +2.6 is printed.",
            "The introduction's gain of 2.5 is not this table's mean of 2.20.",
            *_COMMON_REMARKS,
        ),
    )


_COMMON_REMARKS = (
    "Charades-Ego's part of step 1 is left out: features of the same kind are not public for it.",
    "No seeds or spreads are reported, and the split that is scored also selects the model: gains below about 0.5 are "
    "noise until repeated over seeds.",
)
_SEGMENTATION_REMARKS = (
    "Scores pool the frames and segments of all (sequence, view) samples; which aggregation the paper uses is not "
    "stated, but its base row equals the pooled one of Assembly101's own code.",
    *_COMMON_REMARKS,
)


def _novel_view(
    number: str,
    title: str,
    numbers: Mapping[str, tuple[Numbers, Numbers]],
    columns: tuple[Column, ...],
    cost: Cost,
    remarks: tuple[str, ...],
) -> PaperTable:
    """Each view in turn is left out of pre-training and of training, and tested on alone."""
    segments = number == "Table 4"
    stages: dict[str, Stage] = {}
    rows = []
    for name, printed in numbers.items():
        held_out = f"{'e' if name.startswith('eg') else 'v'}{name[-1]}"
        views = tuple(view for view in (*EGO, *EXO) if view != held_out)
        first, second = f"step 1 without {name}", f"step 2 without {name}"
        stages |= _both_steps(views, (first, second))
        for label, paper, weights in zip(("base", "+EVGAP"), printed, ("input", "trained"), strict=True):
            key = f"{name}: {label}"
            options = {} if weights == "input" else TUNED
            made = _segmentation("c2f-tcn", second, weights, options, views, held_out) if segments else None
            stages[key] = made or _anticipation(second, weights, options, views, held_out)
            rows.append(Row(group=name, label=label, paper=paper, stage=key, part=held_out))
    return PaperTable(
        title=title,
        paper=PAPER,
        number=number,
        data=_features(),
        columns=tuple(_of_held_out(column) for column in columns),
        stages=stages,
        rows=tuple(rows),
        cost=cost,
        remarks=(
            "Whether the paper's pre-training also leaves the view out is not stated; here it does.",
            *remarks,
        ),
    )


def _of_held_out(column: Column) -> Column:
    """The same scores of the tested view alone."""
    names = tuple(f"{name} [{{part}}]" for name in column.metrics)
    return Column(heading=column.heading, metrics=names, factor=column.factor, digits=column.digits)


def _three(
    printed: tuple[Numbers, Numbers, Numbers], base: str = "base"
) -> tuple[tuple[str, Numbers, str, Mapping[str, Any]], ...]:
    """Label, numbers, encoder weights and options of the base and of both ways to use the encoder."""
    return (
        (base, printed[0], "input", {}),
        ("+EVGAP*", printed[1], "trained", FIXED),
        ("+EVGAP", printed[2], "trained", TUNED),
    )


def _features() -> dict[str, Dataset]:
    holds = "TSM features of 265 recordings, 12 views each: 315 GB"
    return {DATA: Dataset(adapter="assembly101", features=True, holds=holds)}


def _both_steps(
    views: tuple[str, ...] | None = None, names: tuple[str, str] = ("step 1", "step 2")
) -> dict[str, Stage]:
    first, second = names
    return {first: _step("paper_step1", views=views), second: _step("paper_step2", start=first, views=views)}


def _step(preset: str, *, start: str | None = None, views: tuple[str, ...] | None = None) -> Stage:
    return Stage(trains="evgap", preset=preset, data=DATA, small=SMALL, start=start, views=views)


def _segmentation(
    preset: str,
    encoder: str,
    weights: Any,
    options: Mapping[str, Any],
    views: tuple[str, ...] | None = None,
    scored: str | None = None,
) -> Stage:
    made = _downstream("segmentation", preset, encoder, weights, options, views, SMALL_STEPS)
    return made if scored is None else replace(made, tasks={"segmentation": {"views": [scored]}})


def _anticipation(
    encoder: str,
    weights: Any,
    options: Mapping[str, Any],
    views: tuple[str, ...] | None = None,
    scored: str | None = None,
) -> Stage:
    made = _downstream("anticipation", "tempagg", encoder, weights, options, views, SMALL_PAST)
    return made if scored is None else replace(made, tasks={"anticipation": {"views": [scored]}})


def _downstream(
    trains: str,
    preset: str,
    encoder: str,
    weights: Any,
    options: Mapping[str, Any],
    views: tuple[str, ...] | None,
    small: Mapping[str, Any],
) -> Stage:
    return Stage(
        trains=trains,
        preset=preset,
        options=options,
        small=small,
        data=DATA,
        views=views,
        encoder=None if weights == "input" else encoder,  # features are what the encoder would read
        encoder_weights="trained" if weights == "input" else weights,
        tasks={trains: {}},
        split="val",
    )


def _segmentation_columns() -> tuple[Column, ...]:
    metrics = tuple(f"segmentation/{name}" for name in ("f1@10", "f1@25", "f1@50", "edit", "accuracy"))
    each = tuple(
        Column(heading=name, metrics=(metric,), digits=1) for name, metric in zip(SEGMENTATION, metrics, strict=True)
    )
    return (*each, Column(heading="Avg", metrics=metrics, digits=1))


def _anticipation_columns(views: str) -> tuple[Column, ...]:
    """Of ego, exo or all cameras' views of a segment, each by itself."""
    metrics = tuple(f"anticipation/overall/{name}/{views}" for name in ("verb", "noun", "action"))
    named = zip(RECALLS, metrics, strict=True)
    return (*(percent(heading, metric, digits=1) for heading, metric in named), percent("Avg", *metrics, digits=1))
