"""`crossview view`: a look at a catalog."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from crossview.errors import UserError
from crossview.platform.cli.outputs import check_file

if TYPE_CHECKING:
    from crossview.datasets.catalog import Catalog, Recording
    from crossview.datasets.synchrony.residuals import Residual
    from crossview.platform.report.dataset_page import Seen


def view(
    catalog: Annotated[Path, tyro.conf.Positional],
    /,
    scene: str | None = None,
    out: Path = Path("dataset.html"),
    instants: int = 8,
    scenes: int = 3,
    method: str | None = None,
    preset: str | None = None,
    check_sync: bool = False,
    max_offset_s: float = 10.0,
) -> None:
    """Write a page that shows what a catalog holds, or a scene's cameras as a picture, to check their clocks.

    Args:
        catalog: Folder that `crossview prepare` wrote.
        scene: Show this scene alone.
        out: The page to write, .html, or the contact sheet of one scene, .png.
        instants: Pictures of each camera.
        scenes: Scenes that the page shows.
        method: Show pictures as this method embeds them.
        preset: Its preset; the first by default.
        check_sync: Estimate from motion and sound how far the cameras of the shown scenes are apart in time.
        max_offset_s: Largest offset that is looked for.

    """
    check_file(out)
    if out.suffix.lower() not in (".html", ".png"):
        raise UserError(f"--out {out}: it must end in .html, for a page, or in .png, for one scene's contact sheet")
    for option, value in (("instants", instants), ("scenes", scenes)):
        if value < 1:
            raise UserError(f"--{option} is {value}; it must be at least 1")
    if not max_offset_s > 0:
        raise UserError(f"--max-offset-s is {max_offset_s:g}; it must be above 0")
    if preset and not method:
        raise UserError(f"--preset {preset}: a preset is one of a method; name it with --method")

    from crossview.datasets.catalog import Catalog
    from crossview.platform.report.contact_sheet import contact_sheet
    from crossview.platform.report.dataset_facts import chosen_scenes, of_scene
    from crossview.platform.report.dataset_page import page

    seen, loaded = _seen(method, preset), Catalog.load(catalog)
    picture = out.suffix.lower() == ".png"
    shown = [of_scene(loaded, scene)] if scene else chosen_scenes(loaded, 1 if picture else scenes)
    if picture and not shown:
        raise UserError(f"catalog {loaded.place}: it holds no recording, so there is no scene to draw; name a page")
    offsets = _offsets(loaded, shown, max_offset_s) if check_sync else []
    if picture:
        contact_sheet(loaded, shown[0], out, instants, seen.sampling if seen else None)
        print(f"The contact sheet is saved to {out}")
    else:
        page(loaded, shown, out, instants=instants, seen=seen, offsets=offsets)
        print(f"The page is saved to {out}")


def _seen(method: str | None, chosen: str | None) -> Seen | None:
    """Whose pictures are shown; raises UserError for an unknown method or preset."""
    if method is None:
        return None
    from crossview.platform.config import preset, presets
    from crossview.platform.report.dataset_page import Seen

    name = chosen or next(iter(presets(method)))
    return Seen(f"{method}, preset {name},", preset(method, name).method.sampling())


def _offsets(
    catalog: Catalog, scenes: Sequence[Sequence[Recording]], max_offset_s: float
) -> list[list[Residual] | str]:
    """What is found of each scene, or why nothing is; prints the cameras that are off, and counts the others."""
    from crossview.datasets.synchrony.residuals import residuals
    from crossview.platform.progress import Progress

    found: list[list[Residual] | str] = []
    with Progress("offsets", len(scenes), "scenes") as line:
        for scene in scenes:
            try:
                found.append(residuals(catalog, scene, max_offset_s))
            except UserError as error:
                found.append(str(error))
            line.advance()
    checked = [r for of in found if not isinstance(of, str) for r in of]
    for text in (of for of in found if isinstance(of, str)):
        print(f"not checked: {text}")
    for r in checked:
        if r.late_s is not None and r.off:
            frames = abs(r.late_s) / r.frame_s
            print(
                f"scene {r.recording.scene}: view {r.recording.view} shows everything {abs(r.late_s):.3f} s "
                f"({frames:.1f} frames) {'later' if r.late_s > 0 else 'earlier'} than {r.reference.view}, found by "
                f"{r.means} with certainty {r.certainty:.4f}; its start_offset_s should be "
                f"{r.recording.start_offset_s - r.late_s:.3f}, not {r.recording.start_offset_s:.3f}"
            )
    off, uncertain = sum(r.off for r in checked), sum(r.late_s is None for r in checked)
    print(
        f"Of {len(checked)} views compared with another of their scene, {off} are more than a frame apart, "
        f"{uncertain} uncertain, {len(checked) - off - uncertain} within a frame."
    )
    return found
