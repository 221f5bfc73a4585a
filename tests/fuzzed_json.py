"""JSON with one value in it replaced by any other."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from crossview.errors import UserError

ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | st.text(st.characters(), max_size=5)
    | st.sampled_from(["\ud800", "a\0b", "../x", "/x", "0:1", "x" * 400]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


def changed(data: st.DataObject, whole: Any) -> Any:
    """A copy in which the value at some place, at whatever depth, is another or is missing."""
    whole = copy.deepcopy(whole)
    here = whole
    while True:
        places = list(here) if isinstance(here, dict) else list(range(len(here)))
        if not places:
            return data.draw(ANY)
        place = data.draw(st.sampled_from(places))
        if isinstance(here[place], dict | list) and here[place] and data.draw(st.booleans()):
            here = here[place]
            continue
        if data.draw(st.integers(0, 4)):
            here[place] = data.draw(ANY)
        else:
            del here[place]
        return whole


def check_names(error: UserError, file: Path) -> None:
    """An error is one line that names the file."""
    assert file.name in str(error)
