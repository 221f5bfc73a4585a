"""What a reader of scores has to know about the classes of both splits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def class_notes(kind: str, train: np.ndarray, test: np.ndarray, names: Sequence[str] = ()) -> list[str]:
    """A sentence where a split shows a single class of a kind, and where the scored one shows some that training lacks.

    Class numbers of all that is fitted on and scored, int64 (N,) and (M,); those below 0 are no labels. `names` are by
    number.
    """
    fitted, scored = (np.unique(labels[labels >= 0]) for labels in (train, test))

    def named(classes: np.ndarray) -> str:
        found = [names[c] if c < len(names) else str(c) for c in classes[:5].tolist()]
        return ", ".join([*found, *(["..."] if len(classes) > 5 else [])])

    said = []
    if len(fitted) == 1:
        said.append(f"All that is fitted on is of one {kind} class, {named(fitted)}: there is nothing to tell apart.")
    if len(scored) == 1:
        said.append(f"All that is scored is of one {kind} class, {named(scored)}: always predicting it is right.")
    if len(new := np.setdiff1d(scored, fitted)):
        share = float(np.isin(test[test >= 0], new).mean())
        said.append(
            f"{len(new)} of {len(scored)} scored {kind} classes never occur in training ({named(new)}), and have "
            f"{share:.1%} of the labels: these cannot be right but by chance."
        )
    return said
