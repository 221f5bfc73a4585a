from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import tiny_run

from crossview.platform.cluster.job_client import shipped
from crossview.platform.config import Cadence, Compute, Data, Experiment
from crossview.platform.run_folder import create
from crossview.platform.train.metrics import read_metrics

STEPS = 2


def test_a_breakpoint_in_a_methods_forward_is_hit_and_the_run_goes_on(tmp_path: Path) -> None:
    """The line is written into the method, and what would be typed at pdb's prompt comes by a pipe."""
    tiny_run.write_catalog(tmp_path / "videos")
    experiment = Experiment(
        data=Data(catalog=tmp_path / "videos" / "catalog"),
        method=tiny_run.method_config(),
        optim=tiny_run.Optim(lr=1e-2, batch=2, steps=STEPS),
        compute=Compute(device="cpu", threads=1),
        every=Cadence(log=1, checkpoint=STEPS),
    )
    saved = tmp_path / "saved"
    create(saved, "byov", experiment)
    with shipped() as package:
        code = shutil.copytree(package, tmp_path / "code" / "crossview")
    model = code / "methods" / "byov" / "model.py"
    text, changes = re.subn(
        r"(    def forward\(self, batch: Batch\).*?:\n)", r"\1        breakpoint()\n", model.read_text()
    )
    assert changes == 1
    model.write_text(text)
    command = "from crossview.platform.cli.main import main; main()"
    args = ["train", "byov", "--from", str(saved), "--debug", "--runs", str(tmp_path), "--name", "run"]
    shapes = "p {view: tuple(video.shape) for view, video in batch.items() if video.ndim == 5}"
    typed = [shapes, "import sys", "p 'workers', 'ray' in sys.modules and sys.modules['ray'].is_initialized()", "c"]
    done = subprocess.run(
        [sys.executable, "-c", command, *args],
        input="\n".join(typed * STEPS) + "\n",
        env={**os.environ, "PYTHONPATH": str(code.parent), "PYTHONBREAKPOINT": "pdb.set_trace"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("'ego': (2, 6, 3, 32, 32)") == STEPS
    assert done.stdout.count("('workers', False)") == STEPS
    assert len(read_metrics(tmp_path / "run")) == STEPS
    assert "Training finished. The run is saved to" in done.stdout
