"""View-invariant video representation learning on Ray."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

_ROOT = Path(__file__).resolve().parent.parent
if (_ROOT / "pyproject.toml").is_file():  # a checkout, where the packages stand beside this folder
    __path__.append(str(_ROOT))

if TYPE_CHECKING:
    from crossview.platform.encoder import load

    __version__: str

__all__ = ["__version__", "load"]


def __getattr__(name: str) -> Any:
    """`load` and the version on first use, so that `import crossview` needs no torch."""
    if name == "load":
        from crossview.platform.encoder import load

        return load
    if name == "__version__":
        from importlib.metadata import version

        return version("crossview")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
