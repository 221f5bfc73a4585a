"""The HTML page of a catalog: what it holds, and some of its scenes as a method sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from crossview import storage
from crossview.datasets.catalog import Catalog, Recording
from crossview.datasets.sampling.coverage import clock_warnings
from crossview.datasets.sampling.spec import Sampling
from crossview.datasets.sampling.windows import run_together
from crossview.errors import UserError
from crossview.platform.report import dataset_facts, html
from crossview.platform.report.contact_sheet import (
    MOST_CAMERAS,
    Strip,
    at_common_instants,
    at_equal_shares,
    in_order,
    sheet,
    strip,
)
from crossview.platform.report.dataset_facts import Table
from crossview.platform.report.dataset_plots import lengths, timeline
from crossview.platform.report.plots import embedded

if TYPE_CHECKING:
    from crossview.datasets.synchrony.residuals import Residual

FIGURE_BYTES = 150_000
SHEET_BYTES = 350_000
"""Of a scene's pictures."""


@dataclass(frozen=True)
class Seen:
    """Whose pictures the contact sheets show."""

    name: str
    """Such as "byov, preset break_eggs"."""
    sampling: Sampling


@dataclass
class Scene:
    """A part of the page."""

    title: str
    facts: str
    figures: list[dict[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    offsets: Table | None = None


def page(
    catalog: Catalog,
    scenes: Sequence[Sequence[Recording]],
    out: Path,
    *,
    instants: int = 8,
    seen: Seen | None = None,
    offsets: Sequence[Sequence[Residual] | str] = (),
) -> Path:
    """Write the page, self-contained: pictures are embedded, and it loads nothing; returns its file.

    `offsets` has for each scene what `synchrony.residuals` found, or why it found nothing.
    """
    durations = {
        perspective: dataset_facts.durations_s(r for r in catalog.recordings if r.perspective == perspective)
        for perspective in ("ego", "exo")
    }
    parts = [_scene(catalog, in_order(scene), instants, seen) for scene in scenes]
    for part, found in zip(parts, offsets, strict=False):
        if isinstance(found, str):
            part.notes.append(found)
        else:
            part.offsets = offset_table(found)
    storage.make_folder(out.parent)
    return html.write(
        out,
        "report/dataset.html.j2",
        name=catalog.place.name,
        datasets=", ".join(sorted({r.dataset for r in catalog.recordings})[:4]) or "no recordings",
        summary=dataset_facts.summary(catalog),
        notes=[*catalog.notes, *clock_warnings(catalog.recordings)],
        protocols=dataset_facts.protocols(catalog),
        views=dataset_facts.views(catalog),
        classes=dataset_facts.classes(catalog),
        frames=dataset_facts.frame_classes(catalog),
        lengths=embedded(lengths(durations), FIGURE_BYTES) if catalog.recordings else None,
        seen=seen,
        scenes=parts,
        quarantined=dataset_facts.quarantined(catalog),
    )


def offset_table(found: Sequence[Residual]) -> Table:
    """What was found of the offsets of one scene, as a table."""
    rows = []
    for r in found:
        offset, frames, kept = "uncertain", "", ""
        if r.late_s is not None:
            frames = f"{r.late_s / r.frame_s:+.1f}"
            offset = f"{r.late_s:+.3f}" if r.off else "within a frame"
            kept = f"{r.recording.start_offset_s - r.late_s:.3f}" if r.off else ""
        means = r.means or r.reason
        rows.append([r.recording.view, r.reference.view, offset, frames, f"{r.certainty:.3f}", means, kept])
    head = ["view", "compared with", "late by s", "frames", "certainty", "found by", "start_offset_s should be"]
    return Table(head, rows)


def _scene(catalog: Catalog, recordings: list[Recording], instants: int, seen: Seen | None) -> Scene:
    """One scene: its cameras' pictures, if they have any, and its labels over time."""
    first = recordings[0]
    splits = sorted({of[r.id] for of in catalog.protocols.values() for r in recordings if r.id in of})
    facts = {
        "dataset": first.dataset,
        "action": first.action,
        "subject": first.subject,
        "split": ", ".join(splits),
        "recordings": str(len(recordings)),
    }
    part = Scene(first.scene, ", ".join(f"{name} {value}" for name, value in facts.items() if value))
    if first.has_pixels:
        _show(part, catalog, recordings, instants, seen)
    else:
        part.notes.append("Its recordings are features, which have no pictures.")
    figure, note = timeline(catalog, recordings)
    part.figures.append(
        {"uri": embedded(figure, FIGURE_BYTES), "caption": "When its cameras run, and what is labelled when."}
    )
    if note:
        part.notes.append(note)
    return part


def _show(part: Scene, catalog: Catalog, recordings: list[Recording], instants: int, seen: Seen | None) -> None:
    """Add the contact sheet, with every camera that can be read."""
    try:
        if run_together(recordings):
            heads, frames = at_common_instants(catalog, recordings, instants)
            when = "at common instants of the scene's clock"
        else:
            heads, frames = at_equal_shares(recordings, instants)
            when = "at equal shares of the way through each recording, since they have no instant in common"
    except UserError as error:
        part.notes.append(f"Not shown: {error}")
        return
    strips: list[Strip] = []
    for recording, of in list(zip(recordings, frames, strict=True))[:MOST_CAMERAS]:
        try:
            strips.append(strip(catalog, recording, of, seen.sampling if seen else None))
        except UserError as error:
            part.notes.append(f"Not shown: {error}")
    if len(recordings) > MOST_CAMERAS:
        part.notes.append(f"{len(recordings) - MOST_CAMERAS} more cameras are not shown.")
    if strips:
        caption = f"{len(strips)} of {len(recordings)} recordings {when}{_sizes(recordings, seen)}."
        uri = embedded(sheet(strips, heads, ""), SHEET_BYTES)
        part.figures.append({"uri": uri, "caption": caption})


def _sizes(recordings: Sequence[Recording], seen: Seen | None) -> str:
    """Squares of which size a method makes of them, and how."""
    if seen is None:
        return ""
    texts = []
    for perspective in dict.fromkeys(r.perspective for r in recordings):
        view = seen.sampling.view_for(perspective)
        how = {"crop": "the centre is cut out", "squash": "squashed", "pad": "between black bars"}[view.geometry.fit]
        texts.append(f"{perspective} {view.size_px} x {view.size_px} px, {how}")
    return f", as {seen.name} embeds them: {'; '.join(texts)}"
