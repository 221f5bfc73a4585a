"""Offsets between cameras are found from motion and sound within a frame, or said to be uncertain."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import pytest

from crossview.datasets import folder
from crossview.datasets.catalog import Catalog, Recording
from crossview.datasets.synchrony.energy import Energy, motion_energy, sound_energy
from crossview.datasets.synchrony.lag import FEWEST, Lag, lag_between
from crossview.datasets.synchrony.residuals import CERTAIN, _joined, _Pair, residuals
from crossview.datasets.synthetic.config import WorldConfig
from crossview.datasets.synthetic.world import write
from crossview.datasets.video.decode import read_clips
from crossview.datasets.video.source import Wanted
from crossview.platform.cli.main import main

WORLD = WorldConfig(
    actions=("crack_egg", "strike_peg"), train_takes=1, val_takes=0, test_takes=0, exo_cameras=2, size_px=64,
    min_frames=110, max_frames=120, cut="whole",
)  # fmt: skip
FPS = WORLD.fps


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    return write(WORLD, tmp_path_factory.mktemp("world"))


def scene(catalog: Catalog, action: str) -> list[Recording]:
    return [r for r in catalog.recordings if r.action == action]


def later(recording: Recording, frames: int) -> Recording:
    """The recording without its first frames, as if it had none and nobody had noticed."""
    return dataclasses.replace(recording, first_frame=frames, num_frames=recording.num_frames - frames)


def film(path: Path, pictures: np.ndarray, *, fps: int = FPS, sound: np.ndarray | None = None, gop: int = 8) -> None:
    """Encode uint8 (T, H, W, 3) with a key frame every `gop`, and 16 kHz mono sound, float32 (n,)."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=fps)
        video.height, video.width, video.pix_fmt = *pictures.shape[1:3], "yuv420p"
        video.options = {"crf": "20", "preset": "veryfast", "g": str(gop), "bf": "0", "x264-params": "scenecut=0"}
        audio = None
        if sound is not None:
            audio = container.add_stream("aac", rate=16000, layout="mono")
        for picture in pictures:
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(video.encode(None))
        if audio is not None and sound is not None:
            for at in range(0, len(sound) - 1023, 1024):
                frame = av.AudioFrame.from_ndarray(sound[None, at : at + 1024], format="fltp", layout="mono")
                frame.sample_rate, frame.pts = 16000, at
                container.mux(audio.encode(frame))
            container.mux(audio.encode(None))


def still(seed: int, frames: int = 150) -> np.ndarray:
    """A scene in which nothing moves, with a sensor's noise: uint8 (T, 64, 64, 3)."""
    rng = np.random.default_rng(seed)
    scene = rng.integers(40, 200, (16, 16, 3)).repeat(4, 0).repeat(4, 1)
    return (scene + rng.normal(0, 3, (frames, 64, 64, 3))).clip(0, 255).astype(np.uint8)


def clatter(seed: int, seconds: float) -> np.ndarray:
    """Bursts of noise at irregular times, at 16 kHz: float32 (n,)."""
    rng = np.random.default_rng(seed)
    level = np.zeros(int(seconds * 16000))
    for at in rng.uniform(0, seconds, int(3 * seconds)):
        burst = np.exp(-np.arange(3000) / 600) * rng.uniform(0.1, 0.5)
        first = int(at * 16000)
        level[first : first + 3000] += burst[: len(level) - first]
    return (level * rng.normal(0, 1, len(level))).clip(-1, 1).astype(np.float32)


def folder_of(root: Path, names: Sequence[str]) -> Catalog:
    lines = [f"{name}.mp4,train,s,{name},{'ego' if name == 'head' else 'exo'}" for name in names]
    (root / "v.csv").write_text("\n".join(["path,split,scene,view,perspective", *lines]) + "\n")
    found = folder.catalog(folder.Options(root=root, csv=root / "v.csv"))
    assert not found.quarantined
    return found.save(root / "catalog")


# --- motion -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("first", "second"), [(0, 0), (7, 0), (0, 19), (11, 4), (1, 2)])
@pytest.mark.parametrize("action", WORLD.actions)
def test_planted_offsets_are_found_within_a_frame(world: Catalog, action: str, first: int, second: int) -> None:
    head, *exo = scene(world, action)
    cut = [later(r, k) for r, k in zip(exo, (first, second), strict=True)]
    found = residuals(world, [head, *cut])
    assert [r.reference.view for r in found] == ["head", "head"]
    for r, planted in zip(found, (-first, -second), strict=True):
        assert r.late_s is not None, r
        assert r.certainty >= CERTAIN
        assert r.means == "motion"
        assert abs(r.late_s * FPS - planted) < 0.5
        assert r.off == (abs(planted) > 1) or abs(planted) == 1


def test_a_wrong_clock_is_told_from_the_right_one(world: Catalog) -> None:
    head, left, right = scene(world, "crack_egg")
    wrong = dataclasses.replace(left, start_offset_s=0.8)
    found = {r.recording.view: r for r in residuals(world, [head, wrong, right])}
    assert found["exo1"].late_s == pytest.approx(0.8, abs=0.5 / FPS)
    assert found["exo1"].off
    assert found["exo2"].late_s == pytest.approx(0.0, abs=0.5 / FPS)
    assert not found["exo2"].off
    right_again = dataclasses.replace(wrong, start_offset_s=wrong.start_offset_s - (found["exo1"].late_s or 0))
    assert not any(r.off for r in residuals(world, [head, right_again, right]))


def test_copies_with_other_key_frames_and_another_rate_are_compared(world: Catalog, tmp_path: Path) -> None:
    head, left, _ = scene(world, "crack_egg")
    pictures = {r.view: read_clips(world.source(r), [Wanted(np.arange(r.num_frames))])[0] for r in (head, left)}
    film(tmp_path / "head.mp4", pictures["head"])
    film(tmp_path / "left.mp4", pictures["exo1"][10:], gop=11)  # begins 10 frames late
    film(tmp_path / "twice.mp4", pictures["exo1"].repeat(2, 0), fps=2 * FPS, gop=1000)
    catalog = folder_of(tmp_path, ["head", "left", "twice"])
    found = {r.recording.view: r for r in residuals(catalog, catalog.recordings)}
    assert found["left"].late_s == pytest.approx(-10 / FPS, abs=1 / FPS)
    assert found["twice"].late_s == pytest.approx(0.0, abs=1 / FPS)
    assert found["twice"].frame_s == pytest.approx(1 / FPS)


def test_cameras_of_different_takes_are_uncertain(world: Catalog) -> None:
    head, left, _ = scene(world, "crack_egg")
    _, other, _ = scene(world, "strike_peg")
    found = {r.recording.id: r for r in residuals(world, [head, left, other])}
    assert found[other.id].late_s is None
    assert found[other.id].certainty < CERTAIN
    assert not found[other.id].off
    assert found[left.id].late_s == pytest.approx(0.0, abs=0.5 / FPS)
    (alone,) = residuals(world, [head, other])
    assert alone.late_s is None


def test_still_scenes_are_uncertain_although_their_key_frames_coincide(tmp_path: Path) -> None:
    for seed, name in enumerate(("head", "left", "right")):
        film(tmp_path / f"{name}.mp4", still(seed))
    catalog = folder_of(tmp_path, ["head", "left", "right"])
    assert [r.late_s for r in residuals(catalog, catalog.recordings)] == [None, None]
    blank = np.full((150, 64, 64, 3), 120, np.uint8)
    for name in ("head", "left"):
        film(tmp_path / f"{name}.mp4", blank)
    catalog = folder_of(tmp_path, ["head", "left"])
    (found,) = residuals(catalog, catalog.recordings)
    assert (found.late_s, found.certainty) == (None, 0.0)


def test_the_change_to_a_key_frame_is_not_taken_for_motion(tmp_path: Path) -> None:
    film(tmp_path / "head.mp4", still(0))
    catalog = folder_of(tmp_path, ["head"])
    (recording,) = catalog.recordings
    measured = motion_energy(catalog, recording, (0.0, 10.0))
    plain = motion_energy(catalog, dataclasses.replace(recording, index=""), (0.0, 10.0))
    assert measured is not None
    assert plain is not None
    into_key = np.arange(1, len(plain.values) + 1) % 8 == 0
    assert plain.values[into_key].mean() > 1.5 * plain.values[~into_key].mean()  # there is something to be replaced
    assert measured.values[into_key].mean() == pytest.approx(measured.values[~into_key].mean(), rel=0.1)
    assert np.array_equal(measured.values[~into_key], plain.values[~into_key])


# --- sound ------------------------------------------------------------------------------------------------------------


def test_sound_shows_the_offset_of_cameras_in_which_nothing_moves(tmp_path: Path) -> None:
    sound = clatter(0, 12.0)
    film(tmp_path / "head.mp4", still(0), sound=sound[16000:][: 16000 * 10])
    rng = np.random.default_rng(1)
    quiet = (0.3 * sound[int(16000 * 0.4) :] + rng.normal(0, 0.003, 1)).astype(np.float32)
    film(tmp_path / "left.mp4", still(1), sound=quiet[: 16000 * 10])
    catalog = folder_of(tmp_path, ["head", "left"])
    (found,) = residuals(catalog, catalog.recordings)
    assert found.means == "sound"
    assert found.late_s == pytest.approx(0.6, abs=0.5 / FPS)
    span = catalog.recordings[0].start_s, catalog.recordings[0].end_s
    assert sound_energy(catalog, catalog.recordings[0], span) is not None


def test_a_part_of_the_sound_is_found_by_seeking(tmp_path: Path) -> None:
    film(tmp_path / "head.mp4", still(0), sound=clatter(0, 10.0))
    catalog = folder_of(tmp_path, ["head"])
    (whole,) = catalog.recordings
    last = dataclasses.replace(whole, first_frame=110, num_frames=40, start_offset_s=100.0)
    of_whole, of_span = sound_energy(catalog, whole, (0, 20)), sound_energy(catalog, last, (0, 200))
    assert of_whole is not None
    assert of_span is not None
    assert of_span.edges_s[0] == 100.0
    first = round(110 / FPS * 100)
    expected = of_whole.values[first : first + len(of_span.values)]
    assert len(expected) > 200
    assert np.corrcoef(of_span.values[: len(expected)], expected)[0, 1] > 0.9
    assert sound_energy(catalog, dataclasses.replace(whole, kind="frames"), (0, 20)) is None


def test_other_sounds_and_silence_are_uncertain(tmp_path: Path) -> None:
    film(tmp_path / "head.mp4", still(0), sound=clatter(0, 10.0))
    film(tmp_path / "left.mp4", still(1), sound=clatter(1, 10.0))
    film(tmp_path / "right.mp4", still(2), sound=np.zeros(160000, np.float32))
    catalog = folder_of(tmp_path, ["head", "left", "right"])
    assert [r.late_s for r in residuals(catalog, catalog.recordings)] == [None, None]


# --- the estimate -----------------------------------------------------------------------------------------------------


def bursty(rng: np.random.Generator, count: int) -> np.ndarray:
    """A correlated series with bursts, above 0: float64 (n,)."""
    out, level = np.empty(count), 0.0
    for k in range(count):
        level = 0.8 * level + rng.normal() * (4.0 if rng.random() < 0.05 else 0.6)
        out[k] = np.exp(level / 3)
    return out


def energy(values: np.ndarray, start_s: float = 0.0, rate: float = 30.0) -> Energy:
    return Energy(start_s + np.arange(len(values) + 1) / rate, values, 1e-3)


def test_the_estimate_has_the_right_sign_and_size() -> None:
    rng = np.random.default_rng(0)
    values = bursty(rng, 600)
    noisy = values * np.exp(rng.normal(0, 0.3, 600))
    for late in (-90, -7, 0, 31):
        found = lag_between(energy(values), energy(noisy, late / 30), rate=30, max_lag_s=5, frame_s=1 / 30)
        assert found.certainty >= CERTAIN
        assert found.seconds * 30 == pytest.approx(late, abs=0.5)
    beyond = lag_between(energy(values), energy(noisy, 8.0), rate=30, max_lag_s=5, frame_s=1 / 30)
    assert beyond.certainty < CERTAIN


def test_unrelated_series_are_never_certain() -> None:
    rng = np.random.default_rng(0)
    series = [energy(bursty(rng, 300)) for _ in range(40)]
    certain = [
        lag_between(a, b, rate=30, max_lag_s=4, frame_s=1 / 30).certainty
        for k, a in enumerate(series)
        for b in series[k + 1 :]
    ]
    assert len(certain) == 780
    assert max(certain) < CERTAIN
    assert np.mean(np.array(certain) > 0.9) < 0.05


def test_a_movement_that_repeats_has_no_certain_lag() -> None:
    rng = np.random.default_rng(0)
    beat = np.tile(bursty(rng, 20), 20)
    first, second = (energy(beat * np.exp(rng.normal(0, 0.2, 400))) for _ in range(2))
    assert lag_between(first, second, rate=30, max_lag_s=3, frame_s=1 / 30).certainty < CERTAIN


@pytest.mark.parametrize("count", [0, 1, FEWEST - 1])
def test_what_is_too_short_is_unknown(count: int) -> None:
    values = bursty(np.random.default_rng(0), 300)
    assert lag_between(energy(values), energy(values[:count]), rate=30, max_lag_s=5, frame_s=1 / 30).certainty == 0


def test_cameras_are_joined_by_the_surest_pairs_and_contradictions_are_uncertain(world: Catalog) -> None:
    cameras = [*scene(world, "crack_egg"), scene(world, "strike_peg")[0]]

    def pair(i: int, j: int, seconds: float, certainty: float = 1.0) -> _Pair:
        return _Pair(i, j, Lag(seconds, certainty), "motion", 1 / FPS)

    chain = [pair(0, 1, 0.5, 0.9), pair(0, 2, -0.2, 0.9995), pair(1, 2, 0.3, 0.9999), pair(0, 3, 9.0, 0.5)]
    found = _joined(cameras, chain, [""] * 4)
    assert [r.late_s for r in found] == [pytest.approx(-0.5), pytest.approx(-0.2), None]
    assert [r.certainty for r in found] == [0.9995, 0.9995, 0.5]
    found = _joined(cameras, [pair(0, 1, 0.0), pair(0, 2, 0.0), pair(1, 2, 1.0)], [""] * 4)
    assert [r.late_s for r in found] == [None, None, None]
    assert "contradict" in found[0].reason
    apart = _joined(cameras, [pair(1, 2, 0.1), pair(2, 3, 0.1)], [""] * 4)
    assert [(r.recording.view, r.late_s is None) for r in apart] == [("head", True), ("exo2", False), ("head", False)]
    assert {r.reference.view for r in apart} == {"exo1"}


def test_a_scene_without_a_common_clock_is_refused(world: Catalog) -> None:
    own = [dataclasses.replace(r, own_clock=True) for r in scene(world, "crack_egg")]
    with pytest.raises(ValueError, match=r"0 of its recordings have pictures and share a clock"):
        residuals(world, own)


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_reports_what_is_off_by_more_than_a_frame(
    world: Catalog, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = {"exo1": 0.8, "exo2": 0.5 / FPS}
    recordings = tuple(dataclasses.replace(r, start_offset_s=wrong.get(r.view, 0.0)) for r in scene(world, "crack_egg"))
    dataclasses.replace(world.keep(lambda r: r.action == "crack_egg"), recordings=recordings).save(tmp_path / "catalog")
    main(["view", str(tmp_path / "catalog"), "--out", str(tmp_path / "x.html"), "--instants", "2", "--check-sync"])
    said = capsys.readouterr().out
    line = re.search(r"view exo1 shows everything (\S+) s \((\S+) frames\) later than head.*certainty (\S+);.*", said)
    assert line, said
    assert float(line[1]) == pytest.approx(0.8, abs=0.5 / FPS)
    assert float(line[2]) == pytest.approx(12, abs=0.5)
    assert "view exo2" not in said
    assert "Of 2 views compared with another of their scene, 1 are more than a frame apart, 0 uncertain" in said
    page = (tmp_path / "x.html").read_text()
    assert "Offsets that remain" in page
    assert "<td>within a frame</td>" in page
    assert f"<td>{float(line[1]):+.3f}</td>" in page
