"""How a user makes the catalogs of a table."""

from __future__ import annotations

import shlex

from crossview.methods.paper_table import Dataset


def prepare_command(dataset: Dataset) -> str:
    """What catalogs the user's copy; FOLDER and CATALOG are theirs to name."""
    files = "--features FOLDER --packed FOLDER --annotations FOLDER" if dataset.features else "--root FOLDER"
    own = [word for name, value in dataset.options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    return f"crossview prepare {shlex.join([dataset.adapter, *own])} {files} --out CATALOG"
