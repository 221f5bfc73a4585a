"""What of a catalog training never draws, and the cause: warnings for whoever wrote the catalog."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

from crossview.datasets.catalog import Recording
from crossview.datasets.sampling.feature_plan import FeaturePlan
from crossview.datasets.sampling.mixture import Mixture
from crossview.datasets.sampling.pairing import clock_error, fits
from crossview.datasets.sampling.plan import Plan
from crossview.datasets.sampling.spec import Sampling
from crossview.datasets.sampling.units import RECORDING
from crossview.datasets.sampling.windows import overlap, run_together

TOLERATED = 0.2
"""Share of a take that may be outside the instants of all its cameras without a warning."""
NAMED = 3


@dataclass(frozen=True)
class _Finding:
    """A scene, or a camera of one, or an action, and why it is not drawn."""

    of: Hashable
    """Which scene or action."""
    cause: str
    lost: float
    """Share of it that is never drawn."""


def clock_warnings(recordings: Sequence[Recording]) -> list[str]:
    """Scenes whose cameras have no common instant, or share little of the take, for any pairing that needs a clock."""
    scenes = _scenes(r for r in recordings if not r.own_clock)
    apart, short = [], []
    for cameras in scenes:
        loners = _loners(cameras)
        others = {camera.id: [r for r in cameras if r is not camera] for camera in loners}
        apart += [_Finding(camera.take, clock_error(camera, others[camera.id]), 1.0) for camera in loners]
        together = [r for r in cameras if r not in loners]
        if len(together) > 1:
            short += _lost(together, [overlap(together)])
    several = sum(len(cameras) > 1 for cameras in scenes)
    return [
        *_listed(
            apart,
            f"of {several} scenes with several cameras: a camera never runs while another does; 'synchronized' leaves "
            "it out, and 'group' refuses the scene",
        ),
        *_listed(
            short,
            f"of {several} scenes with several cameras: they run together for less than {1 - TOLERATED:.0%} of the "
            "take, and a clip of several cameras is drawn only while all of them run",
        ),
    ]


def plan_warnings(plan: Plan | Mixture | FeaturePlan) -> list[str]:
    """Actions, scenes and parts of scenes that no row of the plan can show."""
    if isinstance(plan, FeaturePlan):
        return _undrawn(plan)
    plans = plan.plans if isinstance(plan, Mixture) else [plan]
    return [line for part in plans for line in _of_plan(part)]


def _of_plan(plan: Plan) -> list[str]:
    sampling = plan.sampling
    wanted = [r for r in plan.catalog.recordings if any(fits(r, view) for view in sampling.views.values())]
    drawn = {plan.catalog.recordings[i].id for i in plan.drawn}
    if sampling.unit != RECORDING:
        left = [r for r in wanted if r.id not in drawn]
        names = ", ".join(r.id for r in left[:NAMED]) + (", ..." if len(left) > NAMED else "")
        what = f"of {len(wanted)} recordings have no segment of kind {sampling.unit!r} that can be drawn"
        return [f"{len(left)} {what}: {names}"] if left else []
    if sampling.pairing == "unpaired":
        left_out = [_Finding((action,), _alone(plan, action), 1.0) for action in _without(wanted, drawn)]
        return _listed(left_out, "of the catalog's actions: no two files to pair, so 'unpaired' leaves them out")
    if sampling.pairing == "single":
        return []
    scenes = _scenes(wanted)
    missed, short = [], []
    for cameras in scenes:
        shown = [r for r in cameras if r.id in drawn]
        if left := [r for r in cameras if r.id not in drawn]:
            missed.append(_Finding(cameras[0].take, _unpaired(left, cameras, sampling), len(left) / len(cameras)))
        if sampling.pairing == "group" and len(shown) > 1:
            short += _lost(shown, _group_spans(shown, sampling))
        if sampling.pairing == "synchronized" and len(shown) > 1:
            short += _lost(shown, _pair_overlaps(shown, sampling))
    count, pairing = len(scenes), sampling.pairing
    return [
        *_listed(missed, f"of {count} scenes: cameras without a partner, which {pairing!r} never draws"),
        *_listed(
            short,
            f"of {count} scenes: more than {TOLERATED:.0%} of the take is never drawn, since {pairing!r} takes "
            "instants that all cameras of a clip show",
        ),
    ]


def _undrawn(plan: FeaturePlan) -> list[str]:
    left = [r.id for i, r in enumerate(plan.catalog.recordings) if i not in plan.drawn]
    names = ", ".join(left[:NAMED]) + (", ..." if len(left) > NAMED else "")
    kinds = ", ".join(plan.spec.labels)
    what = f"of {len(plan.catalog.recordings)} recordings have no sample: no label of kind {kinds}, or no other camera"
    return [f"{len(left)} {what}: {names}"] if left else []


def _listed(findings: list[_Finding], heading: str) -> list[str]:
    """One warning: how many scenes or actions, and the worst findings by name."""
    if not findings:
        return []
    worst = sorted(findings, key=lambda finding: -finding.lost)[:NAMED]
    more = [f"  ... and {len(findings) - NAMED} more"] if len(findings) > NAMED else []
    return [
        "\n".join(
            [
                f"{len({finding.of for finding in findings})} {heading}:",
                *(f"  {finding.cause}" for finding in worst),
                *more,
            ]
        )
    ]


def _scenes(recordings: Iterable[Recording]) -> list[list[Recording]]:
    found: dict[tuple[str, bool, str], list[Recording]] = {}
    for recording in recordings:
        found.setdefault(recording.take, []).append(recording)
    return list(found.values())


def _loners(cameras: list[Recording]) -> list[Recording]:
    """Cameras that run while no other does; of two, the one whose clock is further off."""
    if len(cameras) == 2 and not run_together(cameras):
        return [max(cameras, key=lambda r: abs(r.start_offset_s))]
    return [r for r in cameras if len(cameras) > 1 and not any(run_together([r, o]) for o in cameras if o is not r)]


def _lost(cameras: list[Recording], shown_s: list[tuple[float, float]]) -> list[_Finding]:
    """The share of a take outside the spans that are drawn, and the camera that is the cause; none if it is small."""
    take_s = max(r.end_s for r in cameras) - min(r.start_s for r in cameras)
    covered_s, until_s = 0.0, float("-inf")
    for first_s, last_s in sorted(shown_s):
        covered_s += max(0.0, last_s - max(first_s, until_s))
        until_s = max(until_s, last_s)
    lost = 1 - covered_s / take_s if take_s > 0 else 0.0
    if lost <= TOLERATED:
        return []

    def without(camera: Recording) -> float:
        first_s, last_s = overlap([r for r in cameras if r is not camera])
        return last_s - first_s

    cause = max(cameras, key=without)
    others = overlap([r for r in cameras if r is not cause])
    late_s, early_s = cause.start_s - others[0], others[1] - cause.end_s
    what = f"starts at {cause.start_s:.1f} s" if late_s > early_s else f"ends at {cause.end_s:.1f} s"
    return [
        _Finding(
            cause.take,
            f"scene {cause.scene!r}: camera {cause.view} ({cause.path}) {what} of a take of {take_s:.1f} s: "
            f"{lost:.0%} of the take is never drawn",
            lost,
        )
    ]


def _group_spans(cameras: list[Recording], sampling: Sampling) -> list[tuple[float, float]]:
    """Spans in which some row's cameras all run: every camera of a view, or `View.count` of more cameras than that."""
    views = list(sampling.views.values())
    filled = [next(v for v, view in enumerate(views) if fits(r, view)) for r in cameras]
    wanted = [min(view.count, filled.count(v)) for v, view in enumerate(views)]
    bounds = sorted({instant for r in cameras for instant in (r.start_s, r.end_s)})

    def drawn(first_s: float, last_s: float) -> bool:
        running = [v for v, r in zip(filled, cameras, strict=True) if r.start_s <= first_s and last_s <= r.end_s]
        return all(running.count(v) >= count for v, count in enumerate(wanted))

    return [span for span in itertools.pairwise(bounds) if drawn(*span)]


def _pair_overlaps(cameras: list[Recording], sampling: Sampling) -> list[tuple[float, float]]:
    """Spans that some pair shows, one camera per view."""
    first, second = sampling.views.values()
    pairs = [[a, b] for a in cameras for b in cameras if a is not b and fits(a, first) and fits(b, second)]
    return [overlap(pair) for pair in pairs if run_together(pair)]


def _unpaired(left: list[Recording], cameras: list[Recording], sampling: Sampling) -> str:
    """Why cameras of a scene are in no pair."""
    first = max(left, key=lambda r: abs(r.start_offset_s))
    names = ", ".join(r.view for r in left[:NAMED]) + (", ..." if len(left) > NAMED else "")
    views = list(sampling.views.values())
    partners = [
        r for r in cameras if r is not first
        and any(fits(first, a) and fits(r, b) for a, b in (views, views[::-1]))
    ]  # fmt: skip
    if partners and sampling.pairing == "synchronized":
        return clock_error(first, partners)
    here = ", ".join(sorted({f"{r.perspective} camera {r.view}" for r in cameras})[:NAMED])
    asked = " and ".join(view.perspective for view in views)
    return f"scene {first.scene!r}: {names} ({first.path}) has no partner: it has {here}, and a pair is {asked}"


def _without(recordings: Iterable[Recording], drawn: set[str]) -> list[str]:
    shown: dict[str, bool] = {}
    for recording in recordings:
        shown[recording.action] = shown.get(recording.action, False) or recording.id in drawn
    return [action for action, any_drawn in shown.items() if not any_drawn]


def _alone(plan: Plan, action: str) -> str:
    of = [r for r in plan.catalog.recordings if r.action == action]
    counts = [f"{sum(fits(r, view) for r in of)} for {name}" for name, view in plan.sampling.views.items()]
    return f"action {action!r} has {' and '.join(counts)} (such as {of[0].path})"
