"""Recordings for `stream.py`: four synchronized cameras as they film, and the copies that `prepare copies` makes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

FPS, HEIGHT, WIDTH = 30, 360, 640
CAMERAS = {"head": "ego", "left": "exo", "front": "exo", "right": "exo"}
LOOP = 240
"""Pictures rendered per camera; a longer recording plays them forwards and backwards."""
SOUND_HZ = 48_000


def footage(cache: Path, seconds: int) -> dict[str, Path]:
    """Folders of the catalogs "original" and "prepared" of a scene of `seconds`, made by the commands once."""
    folder = cache / f"{seconds}s"
    files, original, prepared = folder / "files", folder / "original", folder / "prepared"
    if not prepared.is_dir():
        files.mkdir(parents=True, exist_ok=True)
        lines = ["path,split,scene,view,perspective,action"]
        for k, (camera, perspective) in enumerate(CAMERAS.items()):
            lines.append(f"{camera}.mp4,train,take,{camera},{perspective},drift")
            film(files / f"{camera}.mp4", seconds * FPS, seed=k)
        (folder / "list.csv").write_text("\n".join(lines) + "\n")
        _crossview("prepare", "folder", "--root", files, "--csv", folder / "list.csv", "--out", original)
        _crossview("prepare", "copies", "--catalog", original, "--out", prepared)
    return {"original": original, "prepared": prepared}


def _crossview(*words: str | Path) -> None:
    done = subprocess.run([Path(sys.executable).with_name("crossview"), *words], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"crossview {' '.join(map(str, words))} failed:\n{done.stdout}{done.stderr}")


def film(path: Path, frames: int, seed: int) -> None:
    """H.264 in MP4 as cameras and editors write: a key frame every 250 frames, B-frames, and sound."""
    if path.exists():
        return
    partial = path.with_suffix(".partial")
    shown = list(pictures(seed))
    order = [*range(LOOP), *range(LOOP - 2, 0, -1)]
    with av.open(str(partial), "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=FPS)
        video.height, video.width, video.pix_fmt, video.gop_size = HEIGHT, WIDTH, "yuv420p", 250
        video.options = {"preset": "veryfast", "crf": "23", "bf": "3"}
        video.codec_context.thread_count = 1
        audio = container.add_stream("aac", rate=SOUND_HZ, layout="mono")
        for k in range(frames):
            frame = av.VideoFrame.from_ndarray(shown[order[k % len(order)]], format="yuv420p")
            frame.pts, frame.time_base = k, Fraction(1, FPS)
            container.mux(video.encode(frame))
            container.mux(audio.encode(_sound(k)))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))
    partial.rename(path)


def _sound(k: int) -> av.AudioFrame:
    """A tone as long as picture k is shown."""
    per_picture = SOUND_HZ // FPS
    at = np.arange(k * per_picture, (k + 1) * per_picture)
    frame = av.AudioFrame.from_ndarray(0.1 * np.sin(at * 0.03, dtype=np.float32)[None], format="fltp", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = SOUND_HZ, k * per_picture, Fraction(1, SOUND_HZ)
    return frame


def pictures(seed: int) -> Iterator[np.ndarray]:
    """LOOP pictures, uint8 I420 (H * 3 // 2, W): a sharp texture that the camera pans over, discs that cross it, noise.

    Costs and sizes of its frames are near those of real footage: some 1.2 Mbit/s.
    """
    rng = np.random.default_rng(seed)
    wall = np.zeros((HEIGHT + LOOP, WIDTH + LOOP), np.float32)
    for cell in (64, 24, 8, 3):
        coarse = rng.standard_normal((wall.shape[0] // cell + 2, wall.shape[1] // cell + 2), np.float32)
        wall += np.kron(coarse, np.ones((cell, cell), np.float32))[: wall.shape[0], : wall.shape[1]] * 4 * cell**0.4
    wall = 120 + wall
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    start, speed = rng.uniform(80, 280, (6, 2)), rng.uniform(-1.5, 1.5, (6, 2))
    for k in range(LOOP):
        picture = wall[k // 3 : k // 3 + HEIGHT, k // 2 : k // 2 + WIDTH].copy()
        colour = np.full((2, HEIGHT // 2, WIDTH // 2), 128, np.uint8)
        for n, (top, left) in enumerate(start + speed * k):
            disc = (y - top) ** 2 + (x - 2 * left) ** 2 < (20 + 6 * n) ** 2
            picture[disc] = 60 + 25 * n
            colour[:, disc[::2, ::2]] = np.array([[90 + 12 * n], [170 - 12 * n]], np.uint8)
        picture += rng.normal(0, 3, picture.shape)
        luma = picture.clip(16, 235).astype(np.uint8)
        yield np.concatenate([luma, colour.reshape(HEIGHT // 2, WIDTH)])
