"""The trace that --compute.profile writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from feature_run import experiment, losses

from crossview.platform.train.launcher import resume, start
from crossview.platform.train.profiler import WAIT, WARM_UP

STEPS, TRACED = WAIT + WARM_UP + 3, 2


def test_a_run_is_traced_once_after_the_warm_up(
    features: Path, straight: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Stopped within the traced steps it leaves nothing; resumed, it is traced; and not once more."""
    options = {"compute__profile": TRACED, "optim__steps": 3 * STEPS}
    run = start(tmp_path / "run", "byov", experiment(features, **options), in_process=True, until=WAIT + WARM_UP + 1)
    assert not (run / "profile").exists()
    resume(run, in_process=True, until=2 * STEPS)
    events = json.loads((run / "profile" / "trace.json").read_text())["traceEvents"]
    steps = {event["name"] for event in events if str(event.get("name", "")).startswith("ProfilerStep#")}
    assert steps == {f"ProfilerStep#{WAIT + WARM_UP + k}" for k in range(TRACED)}
    assert sum(event.get("name") == "wait for data" for event in events) >= TRACED
    assert "aten::" in (run / "profile" / "operators.txt").read_text()
    said = capfd.readouterr()
    assert "USDT" not in said.err + said.out
    assert "failed with code" not in said.err + said.out  # there is no GPU to be found
    before = (run / "profile" / "trace.json").stat().st_mtime_ns
    resume(run, in_process=True)
    assert (run / "profile" / "trace.json").stat().st_mtime_ns == before
    assert len(losses(run)) == 3 * STEPS


def test_without_the_option_there_is_no_trace(straight: Path) -> None:
    assert not (straight / "profile").exists()


def test_a_run_that_is_too_short_is_refused(features: Path, tmp_path: Path) -> None:
    short = experiment(features, compute__profile=TRACED, optim__steps=WAIT + WARM_UP + TRACED - 1)
    with pytest.raises(ValueError, match=r"compute.profile is 2, but the run has 6 steps"):
        start(tmp_path / "run", "byov", short, in_process=True)
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match=r"compute.profile is 0; it must be at least 1"):
        experiment(features, compute__profile=0)
