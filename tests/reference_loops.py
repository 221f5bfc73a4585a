"""The plain loops that methods are timed against, from outside the package."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType


def reference_loops(method: str) -> ModuleType:
    """benchmarks/loops/METHOD.py as a module."""
    file = Path(__file__).parents[1] / "benchmarks" / "loops" / f"{method}.py"
    spec = importlib.util.spec_from_file_location(f"{method}_loops", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
