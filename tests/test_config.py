from __future__ import annotations

import dataclasses
import json
import shlex
import sys
from pathlib import Path

import pytest
from feature_run import experiment

from crossview.platform import run_folder
from crossview.platform.config import from_dict, preset, read, to_dict


def test_configuration_survives_json(features: Path, tmp_path: Path) -> None:
    before = experiment(features, seed=3, optim__clip_norm=0.5)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(to_dict("byov", before)))
    assert read(file) == ("byov", before)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [("optim", {"nonsense": 1}, "nonsense"), ("method", {"msm_ratio": "high"}, "msm_ratio")],
)
def test_a_wrong_option_in_a_file_is_named(features: Path, path: str, value: dict, message: str) -> None:
    values = to_dict("byov", experiment(features))
    values[path] |= value
    with pytest.raises(ValueError, match=message):
        from_dict(values)


def test_weights_by_a_relative_path_are_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    base = dataclasses.replace(preset("byov", "debug").method.base, weights="mine.pt")  # type: ignore[attr-defined]
    assert base.weights == str(tmp_path / "mine.pt")


def test_a_recorded_command_can_be_pasted_into_a_shell(
    features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed = ["train", "byov", "--data.catalog", "my videos/catalog", "--name", "it's"]
    monkeypatch.setattr(sys, "argv", ["/bin/crossview", *typed])
    recorded = run_folder.create(tmp_path / "typed", "byov", experiment(features))["command"]
    assert shlex.split(recorded) == ["crossview", *typed]
    trial = tmp_path / "a trial"
    again = run_folder.training_command(trial, "byov")
    recorded = run_folder.create(trial, "byov", experiment(features), command=again)["command"]
    assert shlex.split(recorded) == ["crossview", "train", "byov", "--from", str(trial)]
