"""Ego-Exo4D's keysteps, from the dataset as it lies on disk to scores of its ego camera."""

from __future__ import annotations

from pathlib import Path

import presets_on_layouts as published
import pytest

from crossview.datasets.catalog import Catalog
from crossview.downstream import results
from crossview.platform.cli.main import main
from crossview.platform.evaluate.opened import open_run
from crossview.platform.evaluate.result_store import read_results

CPU = ["--debug", "--compute.device", "cpu", "--compute.threads", "1", "--optim.batch", "4"]
TEST = ["--recognition.views", "ego", "--recognition.test.clips", "1"]


@pytest.fixture(scope="module")
def data(films: Path) -> list[str]:
    """The synthetic world as Ego-Exo4D, as `crossview prepare synthetic --layout egoexo4d` writes it."""
    return ["--data.catalog", str(published.catalog_of("egoexo4d", films)), "--data.protocol", "keystep"]


@pytest.fixture(scope="module")
def encoder(data: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("encoder")
    few = ["--optim.steps", "1", "--runs", str(runs), "--name", "mv2mae"]
    main(["train", "mv2mae", "--preset", "debug", *few, *data, *CPU])
    return runs / "mv2mae"


@pytest.mark.parametrize(("perspective", "group"), [("ego", "seen"), ("exo", "held_out"), ("any", "seen")])
def test_they_are_trained_on_either_side_and_tested_on_the_ego_camera(
    perspective: str, group: str, data: list[str], encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fewer = ["--method.classes.keystep", "7", "--method.frames", "8", "--method.size-px", "64"]
    few = ["--optim.epochs", "None", "--optim.steps", "1", "--no-controls", "--runs", str(tmp_path), "--name", "run"]
    ours = ["--encoder.run", str(encoder), "--method.perspective", perspective]
    main(["train", "recognition", "--preset", "keystep", *ours, *fewer, *few, *data, *TEST, *CPU])
    main(["evaluate", str(tmp_path / "run"), "--tasks", "recognition", *TEST, "--debug", "--device", "cpu"])
    assert "recognition/top1 [ego]" in capsys.readouterr().out
    catalog = Catalog.load(Path(data[1])).under("keystep")
    steps = [
        (catalog.split_of(r), r.view)
        for r in catalog.recordings
        for s in catalog.segments
        if s.recording == r.id and s.name == "keystep"
    ]
    sides = {r.view: r.perspective for r in catalog.recordings if catalog.split_of(r) == "train"}
    assert open_run(tmp_path / "run").seen == {v for v, side in sides.items() if perspective in ("any", side)}
    table = read_results(tmp_path / "run")
    assert table is not None
    assert set(table["n"].to_pylist()) == {steps.count(("val", "ego"))}
    found = results.scores(results.latest(table))
    assert list(found) == ["trained", "majority", "chance"]
    for measure in ("top1", "top5", "mean_class", f"top1/{group}"):
        assert 0 <= found["trained"][f"recognition/{measure} [ego]"] <= 1
    assert found["chance"]["recognition/top1 [ego]"] == pytest.approx(1 / 7)
    with pytest.raises(SystemExit):
        main(["evaluate", str(tmp_path / "run"), *TEST, "--split", "test", "--debug"])
    assert "nothing here is labelled with segments: take a split that is" in capsys.readouterr().err
