"""What `stream.py` measured, as Markdown: the cells, and which goals they reach."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

Key = tuple[str, str, int]
"""Pattern, kind of file, seconds."""
Row = dict[str, tuple[float, float, float]]
"""By way: CPU s and wall s per clip, MB added."""
NAMES = {
    "peer": "decord per clip, DataLoader",
    "torchcodec": "torchcodec per clip, DataLoader",
    "rows": "Crossview, planes",
    "ours": "Crossview, RGB",
    "ray": "Crossview, RGB through Ray Data",
    "limit": "limit: only decode",
}
TITLES = {
    "groups": "groups: 4 views x 10 windows x 16 frames",
    "unpaired": "unpaired: 32 random frames",
    "pairs": "pairs: 2 x 16 frames",
}


def table(found: dict[Key, Row]) -> str:
    """CPU ms / wall ms per clip / MB."""
    shown = [way for way in NAMES if any(way in row for row in found.values())]
    lines = ["", "CPU ms per clip / wall ms per clip / peak MB above the start", ""]
    lines += ["| pattern | files | length | " + " | ".join(NAMES[way] for way in shown) + " |"]
    lines += ["|---|---|---:|" + "---:|" * len(shown)]
    for (pattern, kind, seconds), row in found.items():
        cells = [
            f"{1e3 * row[way][0]:.1f} / {1e3 * row[way][1]:.1f} / {row[way][2]:.0f}" if way in row else ""
            for way in shown
        ]
        lines.append(f"| {TITLES[pattern]} | {kind} | {seconds} s | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def goals(found: dict[Key, Row], steps: dict[str, float] | None) -> str:
    """A line per goal with its worst cell."""
    lines = ["", "| goal | worst | where | reached |", "|---|---:|---|---|"]

    def line(goal: str, ratios: Iterable[tuple[float, str]], least: float | None, most: float | None) -> None:
        values = list(ratios)
        if values:
            worst, where = min(values) if least is not None else max(values)
            good = worst >= least if least is not None else worst <= (most or 0)
            lines.append(f"| {goal} | {worst:.2f} | {where} | {'yes' if good else 'no'} |")

    def cells(a: str, b: str, kind: str | None = None, pattern: str | None = None) -> Iterator[tuple[float, str]]:
        """CPU of a over CPU of b."""
        for key, row in found.items():
            if a in row and b in row and kind in (None, key[1]) and pattern in (None, key[0]):
                yield row[a][0] / row[b][0], f"{key[0]}, {key[1]}, {key[2]} s"

    line("prepared, groups: >= 8 x the peer's clips per CPU s", cells("peer", "ours", "prepared", "groups"), 8, None)
    line("the same of planes, before RGB", cells("peer", "rows", "prepared", "groups"), 8, None)
    line("prepared: >= 0.7 of the limit", cells("limit", "ours", "prepared"), 0.7, None)
    line("the same of planes, before RGB", cells("limit", "rows", "prepared"), 0.7, None)
    line("original: >= 3 x the peer", cells("peer", "ours", "original"), 3, None)
    line("the same of planes, before RGB", cells("peer", "rows", "original"), 3, None)
    line("Ray Data: <= 1.25 x the cost in process", cells("ray", "ours"), None, 1.25)
    line("longest prepared: <= 1.3 x the cost of the shortest", growth(found), None, 1.3)
    if steps:
        line("first batch: <= 6 CPU s after Ray is up", [(steps["first_cpu_s"], "first stream")], None, 6)
        line("the same of a later stream", [(steps["later_first_cpu_s"], "last stream")], None, 6)
        line("waiting: < 0.03 with steps of 1.3 x decoding", [(steps["wait"], "last stream")], None, 0.03)
    return "\n".join(lines)


def growth(found: dict[Key, Row]) -> Iterator[tuple[float, str]]:
    """Cost of Crossview on the longest recordings over that on the shortest."""
    lengths = sorted({key[2] for key in found})
    for pattern, kind, seconds in found:
        short = found.get((pattern, kind, lengths[0]), {})
        row = found[pattern, kind, seconds]
        if kind == "prepared" and seconds == lengths[-1] > lengths[0] and "ours" in row and "ours" in short:
            yield row["ours"][0] / short["ours"][0], f"{pattern}"
