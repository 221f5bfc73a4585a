"""A title that fits its figure."""

from __future__ import annotations

import textwrap

from matplotlib.figure import Figure

CHARACTERS_PER_INCH = 9
"""Of matplotlib's default title."""


def title(figure: Figure, text: str) -> None:
    """Put a title over the whole figure, broken into lines no wider than that."""
    figure.suptitle("\n".join(textwrap.wrap(text, max(10, int(figure.get_figwidth() * CHARACTERS_PER_INCH)))))
