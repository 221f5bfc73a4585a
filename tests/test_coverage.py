"""What training can never draw is named with its cause: clocks that do not agree, cameras that stop, no partner."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import videos
from synchronized import camera

from crossview.datasets.catalog import Catalog, Recording
from crossview.datasets.sampling.coverage import clock_warnings, plan_warnings
from crossview.datasets.sampling.mixture import Mixture
from crossview.datasets.sampling.plan import Plan
from crossview.datasets.sampling.spec import Pairing, Sampling, View
from crossview.methods.mv2mae.config import Config
from crossview.methods.recipe import Optim
from crossview.platform.cli.main import main
from crossview.platform.config import Compute, Data, Experiment
from crossview.platform.train.resolve import check_new

CLIP = View(perspective="ego", frames=4, fps=5.0)


def sampling(pairing: Pairing, exo: int = 1) -> Sampling:
    return Sampling(views={"ego": CLIP, "exo": replace(CLIP, perspective="exo", count=exo)}, pairing=pairing)


def plan(pairing: Pairing, recordings: list[Recording], exo: int = 1) -> Plan:
    return Plan(Catalog(Path("root"), tuple(recordings)), sampling(pairing, exo), 0)


def take(scene: str = "s", frames: int = 600, **offsets_s: float) -> list[Recording]:
    """Cameras of one scene at 10 Hz, by the offset of each."""
    return [
        camera(view, scene=scene, fps=10.0, num_frames=frames, start_offset_s=offset_s)
        for view, offset_s in offsets_s.items()
    ]


def stopped_early(scene: str = "s") -> list[Recording]:
    """A minute by an ego and three exo cameras, of which c stops after two seconds."""
    cameras = take(scene, ego=0.0, a=0.0, b=0.0, c=0.0)
    return [*cameras[:-1], replace(cameras[-1], num_frames=20)]


def test_a_camera_that_stops_early_is_named_where_all_cameras_of_an_instant_are_drawn() -> None:
    found = plan("group", stopped_early(), exo=3)
    latest = max(int(c.frames[-1]) for i in range(50) for window in found.row(i).clips for c in window if c)
    assert latest == 19
    (warning,) = plan_warnings(found)
    assert re.search(r"scene 's': camera c \(s_c\.mp4\) ends at 1\.9 s of a take of 59\.9 s: 97% of the take", warning)
    (early,) = clock_warnings(stopped_early())
    assert warning.splitlines()[1:] == early.splitlines()[1:]
    assert not plan_warnings(plan("synchronized", stopped_early()))  # which draws the rest with other cameras
    assert not plan_warnings(plan("paired", stopped_early()))


def test_surplus_cameras_take_turns_so_that_one_that_stops_early_limits_only_its_own_rows() -> None:
    found = plan("group", stopped_early(), exo=2)
    assert max(int(c.frames[-1]) for i in range(100) for window in found.row(i).clips for c in window if c) > 500
    assert not plan_warnings(found)


def test_a_pair_of_which_one_stops_early_is_named_under_synchronized_too() -> None:
    ego, exo = take(ego=0.0, a=0.0)
    (warning,) = plan_warnings(plan("synchronized", [replace(ego, num_frames=20), exo]))
    assert re.search(r"camera ego \(s_ego\.mp4\) ends at 1\.9 s of a take of 59\.9 s: 97% of", warning)
    (warning,) = plan_warnings(plan("synchronized", [ego, replace(exo, start_offset_s=50.0)]))
    assert re.search(r"camera (ego|a) \(.*\) (starts at 50\.0|ends at 59\.9) s of a take of 109\.9 s: 91% of", warning)


def test_instants_that_several_pairs_show_count_once() -> None:
    ego, *exo = take(ego=0.0, a=0.0, b=0.0)
    (warning,) = plan_warnings(plan("synchronized", [ego, *(replace(r, num_frames=300) for r in exo)]))
    assert "50% of the take is never drawn" in warning


@pytest.mark.parametrize("offsets_s", [{"ego": 0.0, "a": 0.0, "b": 0.0}, {"ego": 0.0, "a": 6.0, "b": 0.4}])
def test_cameras_that_share_most_of_the_take_are_not_mentioned(offsets_s: dict[str, float]) -> None:
    assert not clock_warnings(take(**offsets_s))
    for pairing in ("group", "synchronized"):
        assert not plan_warnings(plan(pairing, take(**offsets_s), exo=2 if pairing == "group" else 1))


@pytest.mark.parametrize(
    ("offsets_s", "cause"),
    [
        ({"ego": 0.0, "a": 400.0}, r"camera a \(s_a\.mp4\) runs from 400\.0 to 459\.9 s, ego from 0\.0 to 59\.9 s; "
                                   r"start_offset_s counts seconds: is 400 in milliseconds, and 0\.4 meant\?$"),
        ({"ego": 5000.0, "a": 5400.0}, r"camera a .*: is 5400 in milliseconds, and 5\.4 meant\?$"),
        ({"ego": 0.0, "a": 0.0, "b": -1250.0}, r"camera b .* ego, a from .*is -1250 in milliseconds, and -1\.25 meant"),
        ({"ego": 0.0, "a": 400000.0}, r"camera a .* from 0\.0 to 59\.9 s$"),  # nor would 400 s be right
    ],
)  # fmt: skip
def test_an_offset_in_milliseconds_is_recognised(offsets_s: dict[str, float], cause: str) -> None:
    found = take(**offsets_s)
    (warning,) = clock_warnings([*found, *take("t", ego=0.0, a=0.0)])
    heading, named = warning.splitlines()
    assert heading.startswith("1 of 2 scenes with several cameras: a camera never runs while another does")
    assert re.search(cause, named)
    (warning,) = plan_warnings(plan("synchronized", [*found, *take("t", ego=0.0, a=0.0)]))
    assert re.search(r"^1 of 2 scenes: cameras without a partner", warning)
    assert ("milliseconds" in warning) == ("milliseconds" in named)
    with pytest.raises(ValueError, match=r"have no common instant.*correct start_offset_s") as error:
        plan("group", found, exo=2)
    assert ("milliseconds" in str(error.value)) == ("milliseconds" in named)
    if len(found) == 2:
        with pytest.raises(ValueError, match=r"no scene has two cameras .* that run at one time") as error:
            plan("synchronized", found)
        assert ("milliseconds" in str(error.value)) == ("milliseconds" in named)
        assert "unpaired" not in str(error.value)


def test_scenes_are_counted_and_not_their_cameras_and_spans_with_a_gap_stay_apart() -> None:
    (warning,) = clock_warnings(take(ego=0.0, a=400.0, b=1442.1))
    lines = warning.splitlines()
    assert lines[0].startswith("1 of 1 scenes with several cameras: a camera never runs")
    assert len(lines) == 4
    assert (
        "camera ego (s_ego.mp4) runs from 0.0 to 59.9 s, a from 400.0 to 459.9 s, b from 1442.1 to 1502.0 s" in lines[1]
    )
    warning, _ = clock_warnings(take(ego=0.0, a=400.0, b=430.0))
    assert "runs from 0.0 to 59.9 s, a, b from 400.0 to 489.9 s" in warning


@pytest.mark.parametrize("pairing", ["synchronized", "paired"])
def test_scenes_of_one_camera_are_counted_and_the_worst_three_named(pairing: Pairing) -> None:
    lonely = [r for k in range(5) for r in take(f"alone{k}", ego=0.0)]
    (warning,) = plan_warnings(plan(pairing, [*take(ego=0.0, a=0.0), *lonely]))
    lines = warning.splitlines()
    assert lines[0] == f"5 of 6 scenes: cameras without a partner, which {pairing!r} never draws:"
    assert re.search(r"scene 'alone0': ego \(alone0_ego\.mp4\) has no partner: it has ego camera ego, and a", lines[1])
    assert lines[4:] == ["  ... and 2 more"]


def test_an_action_without_a_partner_is_left_out_of_unpaired_with_a_warning() -> None:
    found = plan("unpaired", [*take(ego=0.0, a=0.0), replace(take("t", a=0.0)[0], action="nod")])
    assert {c.recording for i in range(10) for w in found.row(i).clips for c in w if c} == {0, 1}
    (warning,) = plan_warnings(found)
    assert "action 'nod' has 0 for ego and 1 for exo (such as t_a.mp4)" in warning


def test_a_mixture_warns_of_each_of_its_plans() -> None:
    other = [replace(r, dataset="e", path=f"e/{r.path}") for r in stopped_early("t")]
    both = Mixture([plan("group", stopped_early(), exo=3), plan("group", other, exo=3)], [0.5, 0.5], 0)
    assert len(plan_warnings(both)) == 2


def test_prepare_and_train_print_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Names may hold brackets, which the console must not take for markup."""
    monkeypatch.chdir(tmp_path)
    rows = ["path,split,scene,view,perspective"]
    for view, frames in (("head", 600), ("[a]", 600), ("[b]", 600), ("[c]", 20)):
        if not (made := tmp_path / f"{frames}.mp4").exists():
            videos.write(made, frames=frames, fps=10, height=48, width=72)
        shutil.copy(made, tmp_path / f"{view}.mp4")
        rows.append(f"{view}.mp4,train,[s],{view},{'ego' if view == 'head' else 'exo'}")
    (tmp_path / "v.csv").write_text("\n".join(rows))
    main(["prepare", "folder", "--root", ".", "--csv", "v.csv", "--out", "catalog"])
    said = capsys.readouterr().out
    assert re.search(r"warning: 1 of 1 scenes .*\n  scene '\[s\]': camera \[c\] \(\[c\]\.mp4\) ends at 1\.9 s", said)
    # Of a pair of cameras, chosen for training, each has to run.
    data = Data(catalog=tmp_path / "catalog", views=("head", "[c]"))
    experiment = Experiment(method=Config(), data=data, optim=Optim(steps=1, batch=1), compute=Compute(device="cpu"))
    with monkeypatch.context() as patched:
        patched.setattr("crossview.platform.train.resolve.initialised", lambda *_: SimpleNamespace(model=None))
        patched.setattr("crossview.platform.train.resolve.check_blocks", lambda *_: None)
        check_new("mv2mae", experiment, print)
    assert "97% of the take is never drawn" in capsys.readouterr().out
