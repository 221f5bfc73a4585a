"""View-invariant video representation learning on Ray."""

from __future__ import annotations

from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
if (_ROOT / "pyproject.toml").is_file():  # a checkout, where the packages stand beside this folder
    __path__.append(str(_ROOT))
