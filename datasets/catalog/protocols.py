"""Protocols: by name, which split each recording belongs to. A recording without a split takes no part in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from crossview.datasets.catalog.recording import Recording
from crossview.errors import UserError

DEFAULT = "default"
"""Name of a dataset's protocol where it has but one."""
Protocols = dict[str, dict[str, str]]
"""protocols[name][recording id] is a split."""


def one_protocol(members: Iterable[tuple[Recording, str]], name: str = DEFAULT) -> Protocols:
    """The protocols of a dataset with one, from each recording and its split."""
    return {name: {recording.id: split for recording, split in members}}


def protocols_of(
    names: Iterable[str], recordings: Sequence[Recording], split_of: Callable[[Recording, str], str | None]
) -> Protocols:
    """The protocols `names`, in which `split_of` gives each recording its split; one that has none is left out."""
    made = {name: {r.id: split for r in recordings if (split := split_of(r, name)) is not None} for name in names}
    return {name: of for name, of in made.items() if of}


def choose(protocols: Mapping[str, Any], asked: str | None, what: str) -> str:
    """The protocol asked for, or the only one; raises ValueError that starts with `what` and lists the names."""
    if asked is None and len(protocols) == 1:
        return next(iter(protocols))
    known = ", ".join(protocols) or "none"
    if asked is None and not protocols:
        raise UserError(f"{what}: it has no protocol, so no recording has a split; make it again with one")
    if asked is None:
        raise UserError(f"{what}: it has {len(protocols)} protocols ({known}); choose one with --data.protocol")
    if asked not in protocols:
        raise UserError(f"{what}: protocol {asked!r} is unknown; protocols here: {known}")
    return asked


def protocol_rows(protocols: Protocols, recordings: Iterable[Recording]) -> list[dict[str, str]]:
    """Rows of protocols.parquet, for the recordings that are there, in their order."""
    ids = [recording.id for recording in recordings]
    return [
        {"protocol": name, "recording": recording, "split": of[recording]}
        for name, of in protocols.items()
        for recording in ids
        if recording in of
    ]


def protocols_from(rows: Iterable[Mapping[str, str]], file: Path) -> Protocols:
    """What `protocol_rows` gave; raises ValueError if a recording has two splits in one protocol."""
    protocols: Protocols = {}
    for row in rows:
        of = protocols.setdefault(row["protocol"], {})
        known = of.setdefault(row["recording"], row["split"])
        if known != row["split"]:
            raise UserError(
                f"{file}: protocol {row['protocol']!r} has {row['recording']!r} in split {known!r} and in split "
                f"{row['split']!r}; a recording has one split per protocol: make the catalog again"
            )
    return protocols
