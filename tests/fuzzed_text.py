"""Text files with some bytes in them replaced by others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hypothesis import strategies as st


def damage(file: Path, data: st.DataObject, words: Sequence[bytes]) -> None:
    """Replace up to nine bytes anywhere by any others, or by one of `words`, which mean something there."""
    whole = file.read_bytes()
    first = data.draw(st.integers(0, len(whole)))
    new = data.draw(st.binary(max_size=6) | st.sampled_from(words))
    file.write_bytes(whole[:first] + new + whole[first + data.draw(st.integers(0, 9)) :])
