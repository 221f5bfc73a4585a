"""Prepared copies: every frame at its source's time, and every copy made once, whatever dies in between."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import clock_videos as clock
import numpy as np
import pytest
import seek_videos
import videos

from crossview import storage
from crossview.datasets.catalog import Catalog, Recording
from crossview.datasets.catalog.probing import Prober
from crossview.datasets.video import copies
from crossview.datasets.video.copies import Encoding, copy_all, prepare
from crossview.datasets.video.decode import probe, read_clips
from crossview.datasets.video.frame_index import FrameIndex, fingerprint
from crossview.datasets.video.indexing import scan
from crossview.datasets.video.source import Source, Wanted
from crossview.platform.cli.main import main
from crossview.platform.data.copying import on_ray

STEADY = np.arange(24) / 30
UNEVEN = np.cumsum(np.random.default_rng(0).integers(1, 90, 24)) / 1000
GAPS = np.delete(np.arange(60) / 30, np.r_[5:25, 30:46])  # two dropped bursts


def catalog_of(root: Path, *names: str, **facts: object) -> Catalog:
    infos, broken = Prober(root / "indices").probe(root, names)
    assert not broken
    found = [
        Recording(
            dataset="d", scene=name, view="v", perspective="exo", subject="", action="", path=name, kind="video",
            **(infos[name].columns() | facts),  # type: ignore[arg-type]
        )
        for name in names
    ]  # fmt: skip
    return Catalog(root, tuple(found))


def add_sound(file: Path, out: Path, start_s: float) -> Path:
    """The video without encoding, beside 2 s of sound from `start_s` on."""
    with av.open(str(file)) as source, av.open(str(out), "w") as container:
        picture = source.streams.video[0]
        stream = container.add_stream_from_template(picture)
        sound = container.add_stream("pcm_s16le" if out.suffix == ".mkv" else "mp2", rate=48000)
        packets = []
        for k in range(100):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 2 * 960), np.int16), format="s16", layout="stereo")
            frame.sample_rate, frame.pts = 48000, round(start_s * 48000) + 960 * k
            frame.time_base = Fraction(1, 48000)
            packets += sound.encode(frame)
        packets += sound.encode(None)
        for packet in source.demux(picture):
            if packet.size:
                packet.stream = stream
                packets.append(packet)
        for packet in sorted(packets, key=lambda p: p.dts * p.time_base):
            container.mux(packet)
    return out


def source(root: Path, kind: str) -> Path:
    """A file whose frames show their numbers, under `root`."""
    numbers = range(len(STEADY))
    if kind == "steady.mp4":
        times_s = np.arange(24) * 1001 / 30000
        return clock.write(root / kind, times_s, show=numbers, ticks=30000, options={"bf": "2", "crf": "14"})
    if kind == "uneven.mkv":
        return clock.write(root / kind, UNEVEN, show=numbers, ticks=1000)
    if kind == "gaps.mp4":
        return clock.write(root / kind, GAPS, show=numbers)
    if kind == "late.ts":
        return clock.write(root / kind, STEADY, show=numbers, first_pts_s=1.5)
    if kind == "fine.nut":
        return clock.write(root / kind, UNEVEN, show=numbers, ticks=70_000_001)
    if kind == "timeless.h264":
        return clock.write(root / kind, STEADY, show=numbers)
    late = clock.write(root / "late.mp4", STEADY, show=numbers, first_pts_s=0.7, ticks=15360)
    return add_sound(late, root / kind, 0.2)


def times_of(file: Path) -> list[Fraction]:
    """Presentation times as the file states them."""
    with av.open(str(file)) as container:
        return [(frame.pts or 0) * Fraction(frame.time_base) for frame in container.decode(video=0)]


def index_of(out: Path, copy: str) -> FrameIndex:
    """The frame index of a copy."""
    found = [FrameIndex.read(file) for file in (out / "frame_index").iterdir()]
    return next(index for index in found if index.fingerprint == fingerprint(out / copy))


EXACT = ["steady.mp4", "uneven.mkv", "gaps.mp4", "late.ts", "sound_first.mkv", "sound_first.ts"]


@pytest.mark.parametrize("kind", [*EXACT, "fine.nut"])
def test_a_copy_shows_every_frame_at_its_sources_time(tmp_path: Path, kind: str) -> None:
    file = source(tmp_path / "from", kind)
    catalog, out = catalog_of(file.parent, kind, start_offset_s=2.5), tmp_path / "to"
    prepared = prepare(catalog, out, size_px=48, gop=4)
    (made,) = prepared.recordings
    assert made == replace(catalog.recordings[0], path=made.path, height_px=48, width_px=72, index=made.index)
    for found in (prepared, Catalog.load(out)):
        instants = found.instants(made, np.arange(24))
        np.testing.assert_allclose(instants, catalog.instants(catalog.recordings[0], np.arange(24)), atol=1e-6)
    copy = out / made.path
    stated, wanted = times_of(copy), times_of(file)
    assert stated[0] == 0
    apart = [float(abs(a - (b - wanted[0]))) for a, b in zip(stated, wanted, strict=True)]
    assert max(apart) <= (0.5e-6 if kind == "fine.nut" else 0)
    with av.open(str(copy)) as container:
        assert [stream.type for stream in container.streams] == ["video"]
    index, of_source = index_of(out, made.path), scan(file, time_limit_s=60)[1]
    np.testing.assert_allclose(index.times_s, of_source.times_s, atol=1e-6)
    assert (of_source.times_s[0] > 0.4) == kind.startswith("sound_first")
    assert index.entry_frames.tolist() == [0, 4, 8, 12, 16, 20]
    asked = np.array([3, 9, 10, 22])
    (clip,) = read_clips(prepared.source(made), [Wanted(asked)])
    assert [clock.read(picture) for picture in clip] == asked.tolist()


@pytest.mark.parametrize("kind", seek_videos.KINDS)
def test_a_copy_of_every_kind_of_file_has_its_frames_and_times(tmp_path: Path, kind: str) -> None:
    file = seek_videos.KINDS[kind](tmp_path)
    catalog = catalog_of(tmp_path, file.name)
    prepared = prepare(catalog, tmp_path / "to")
    of_file, of_copy = catalog.recordings[0], prepared.recordings[0]
    every = np.arange(of_file.num_frames)
    (clip,) = read_clips(prepared.source(of_copy), [Wanted(every)])
    assert seek_videos.numbers(file, clip) == every.tolist()
    apart_s = prepared.instants(of_copy, every) - catalog.instants(of_file, every)
    assert np.abs(apart_s).max() < 1e-6
    index = index_of(tmp_path / "to", of_copy.path)
    assert np.abs(index.times_s - of_file.first_s - every / of_file.fps).max() < 1e-3 or not of_file.constant_rate


def test_a_video_without_time_stamps_is_shown_at_the_catalogs_rate(tmp_path: Path) -> None:
    file = source(tmp_path / "from", "timeless.h264")
    catalog = catalog_of(file.parent, file.name)
    assert times_of(file)[5] == 0
    rated = replace(catalog, recordings=(replace(catalog.recordings[0], fps=12.5),))
    (made,) = prepare(rated, tmp_path / "to", size_px=96).recordings
    assert times_of(tmp_path / "to" / made.path) == [Fraction(2 * k, 25) for k in range(24)]


@pytest.mark.parametrize("fault", ["frames", "times", "entries"])
def test_a_copy_that_is_not_what_was_encoded_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    def faulty(copy: Path, *, time_limit_s: float) -> object:
        info, index = scan(copy, time_limit_s=time_limit_s)
        if fault == "frames":
            return info, replace(index, pts=index.pts[:-1])
        if fault == "times":
            return info, replace(index, pts=index.pts + (np.arange(24) == 7))
        return info, replace(index, entry_frames=index.entry_frames[:-1])

    monkeypatch.setattr("crossview.datasets.video.transcode.scan", faulty)
    file = source(tmp_path / "from", "gaps.mp4")
    prepared = prepare(catalog_of(file.parent, file.name), tmp_path / "to", max_quarantined=1.0)
    said = {"frames": "has 23 frames instead of 24", "times": "shows frame 7 at another time", "entries": "be sought"}
    assert said[fault] in prepared.quarantined[0].reason
    assert not list((tmp_path / "to").rglob("*.mp4*"))


def test_spans_of_a_file_share_its_copy(tmp_path: Path) -> None:
    file = source(tmp_path / "from", "gaps.mp4")
    whole = catalog_of(file.parent, file.name)
    parts = [
        replace(whole.recordings[0], scene=str(first), first_frame=first, num_frames=count, first_s=0.0)
        for first, count in ((3, 5), (10, 14))
    ]
    spans = replace(whole, recordings=tuple(parts))
    result = copy_all(spans, tmp_path / "to", Encoding(size_px=96))
    assert result.files == 1
    for part, copy in zip(parts, result.catalog.recordings, strict=True):
        (clip,) = read_clips(result.catalog.source(copy), [Wanted(np.arange(5))])
        assert [clock.read(picture) for picture in clip] == list(range(part.first_frame, part.first_frame + 5))
        frames = np.arange(part.num_frames)
        np.testing.assert_allclose(result.catalog.instants(copy, frames), spans.instants(part, frames))


def test_a_source_that_has_changed_has_no_copy(tmp_path: Path) -> None:
    catalog = many(tmp_path / "from", 2, frames=9)
    prepare(catalog, tmp_path / "to")
    videos.write(tmp_path / "from" / "1.mp4", frames=9, gop=3)
    result = copy_all(catalog, tmp_path / "to", Encoding(), max_quarantined=0.5)
    assert result.found == 1
    assert "1.mp4: it has changed since it was catalogued" in result.catalog.quarantined[0].reason
    longer = replace(catalog.recordings[0], num_frames=10, index="")  # as in catalogs without indices
    result = copy_all(replace(catalog, recordings=(longer,)), tmp_path / "to", Encoding(), max_quarantined=1.0)
    assert "0.mp4: 9 frames, but the catalog says 10" in result.catalog.quarantined[0].reason


def many(root: Path, count: int, frames: int = 120) -> Catalog:
    one = videos.write(root / "0.mp4", frames=frames)
    for k in range(1, count):
        (root / f"{k}.mp4").write_bytes(one.read_bytes())
    return catalog_of(root, *(f"{k}.mp4" for k in range(count)))


def in_place(out: Path) -> dict[str, int]:
    """Copies by their name, with the time at which they were written."""
    return {file.name: file.stat().st_mtime_ns for file in out.glob("[!.]*.mp4")}


def partial(out: Path) -> Iterator[re.Match[str]]:
    """Copies that are being written, with the number of the process."""
    for file in out.iterdir() if out.is_dir() else ():
        if match := re.fullmatch(r"\.(\d+\.mp4)\.(\d+)", file.name):
            yield match


def wait_for(what: object, process: subprocess.Popen[bytes]) -> None:
    while not what():  # type: ignore[operator]
        assert process.poll() is None, "it ended by itself"
        time.sleep(0.002)


def test_after_every_kill_only_what_is_missing_is_made(tmp_path: Path) -> None:
    catalog, out = many(tmp_path / "from", 12), tmp_path / "to"
    catalog.save(tmp_path / "catalog")
    command = ["prepare", "copies", "--catalog", str(tmp_path / "catalog"), "--out", str(out), "--debug"]
    run = [sys.executable, "-c", "import sys; from crossview.platform.cli.main import main; main(sys.argv[1:])"]
    kept: dict[str, int] = {}
    for count in (0, 2, 5):  # killed while a copy is written, with at least so many in place
        process = subprocess.Popen([*run, *command], stdout=subprocess.DEVNULL)
        wait_for(lambda n=count: len(in_place(out)) >= n and any(partial(out)), process)
        process.kill()
        process.wait()
        assert kept.items() <= in_place(out).items()
        kept = in_place(out)
        assert not (out / "catalog.json").exists()
    assert 0 < len(kept) < 12
    result = copy_all(catalog, out, Encoding())
    assert result.found == len(kept)
    assert kept.items() <= in_place(out).items()
    assert [r.path for r in Catalog.load(out).recordings] == [f"{k}.mp4" for k in range(12)]
    assert not list(partial(out))
    for recording in Catalog.load(out).recordings:
        copy = out / recording.path
        index = FrameIndex.read(out / str(recording.index))
        assert index.fingerprint == fingerprint(copy)
        _, whole = scan(copy, time_limit_s=60.0)
        assert np.array_equal(index.checks, whole.checks)  # each picture is the one that was verified
        (shown,) = read_clips(Source(copy), [Wanted(np.arange(120))])
        assert [videos.barcode(picture) for picture in shown] == list(range(120))


@pytest.mark.ray
def test_copies_of_a_killed_actor_are_made_by_another(ray_cluster: None, tmp_path: Path) -> None:
    catalog, out = many(tmp_path / "from", 6, frames=200), tmp_path / "to"
    videos.truncate(tmp_path / "from" / "4.mp4")
    killed: list[int] = []

    def kill() -> None:
        while not killed:
            for match in partial(out):
                killed.append(int(match[2]))
                os.kill(killed[-1], signal.SIGKILL)
                return
            time.sleep(0.001)

    threading.Thread(target=kill, daemon=True).start()
    result = copy_all(catalog, out, Encoding(size_px=32), maker=on_ray(2), max_quarantined=0.5)
    assert killed
    assert [q.path for q in result.catalog.quarantined] == ["4.mp4"]
    assert sorted(in_place(out)) == ["0.mp4", "1.mp4", "2.mp4", "3.mp4", "5.mp4"]
    assert not list(partial(out))
    before = in_place(out)
    (out / "2.mp4").unlink()
    again = copy_all(catalog, out, Encoding(size_px=32), maker=on_ray(None), max_quarantined=0.5)
    assert (again.found, again.quarantined) == (4, 1)
    assert {k: v for k, v in before.items() if k != "2.mp4"}.items() <= in_place(out).items()


def test_copies_that_other_nodes_keep_to_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from crossview.platform.cluster import map_recordings

    file = source(tmp_path / "from", "gaps.mp4")
    monkeypatch.setattr("crossview.platform.cluster.connect.connect", lambda: None)
    monkeypatch.setattr(map_recordings, "each", lambda *_: [map_recordings.Done(0, {})])
    with pytest.raises(ValueError, match=r"gaps\.mp4: it was made by another process and is not here; .*pass an --out"):
        copy_all(catalog_of(file.parent, file.name), tmp_path / "to", Encoding(), maker=on_ray(1))


def test_copies_in_an_object_store_are_found_again(s3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog, out = many(tmp_path / "from", 2, frames=10), s3 / "copies"
    first = copy_all(catalog, out, Encoding())
    written = [storage.state(out / f"{k}.mp4") for k in range(2)]
    assert first.copy_bytes == sum(size for size, _ in written)
    assert copy_all(catalog, out, Encoding()).found == 2
    assert [storage.state(out / f"{k}.mp4") for k in range(2)] == written
    (out / "0.mp4").unlink()
    (out / "1.mp4").write_bytes(b"something else")
    again = copy_all(catalog, out, Encoding())
    assert (again.found, again.copy_bytes) == (0, first.copy_bytes)


def test_what_the_command_prints_at_its_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    catalog = many(tmp_path / "from", 3, frames=10)
    other = replace(catalog.recordings[0], view="features", kind="features")
    replace(catalog, recordings=(*catalog.recordings, other)).save(tmp_path / "catalog")
    command = ["prepare", "copies", "--catalog", str(tmp_path / "catalog"), "--out", str(tmp_path / "to"), "--debug"]
    (tmp_path / "from" / "2.mp4").write_bytes(b"no video")
    main([*command, "--max-quarantined", "0.5", "--crf", "30", "--gop", "5", "--size-px", "32"])
    said = capsys.readouterr().out
    sources, made = (sum((tmp_path / f / f"{k}.mp4").stat().st_size for k in range(2)) for f in ("from", "to"))
    assert "warning: 1 recordings are not videos, have no copies" in said
    assert "2 of 3 files have copies, 0 from an earlier call; quarantined: 1\n" in said
    assert (
        f"copies: {made / 1e6:.1f} MB, their sources: {sources / 1e6:.1f} MB ({100 * made / sources:.1f} %)\n" in said
    )
    assert index_of(tmp_path / "to", "0.mp4").entry_frames.tolist() == [0, 5]
    assert probe(tmp_path / "to" / "0.mp4").height_px == 32


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--size-px 33", "size_px is 33; the short side of a copy must be even and at least 16: pass for example 32"),
        ("--size-px 0", "size_px is 0; the short side of a copy must be even and at least 16: pass for example 16"),
        ("--gop 0", "gop is 0; a key frame comes every 1 or more frames: pass for example 8"),
        ("--crf 52", "crf is 52; x264's constant quality is in 0..51, from lossless to worst: pass for example 20"),
        ("--actors 0", "--actors is 0; at least 1 file is read at a time: pass 1 or more, or leave it out"),
    ],
)
def test_bad_options(tmp_path: Path, capsys: pytest.CaptureFixture[str], options: str, said: str) -> None:
    many(tmp_path / "from", 1, frames=2).save(tmp_path / "catalog")
    with pytest.raises(SystemExit) as ended:
        main(
            [
                "prepare",
                "copies",
                "--catalog",
                str(tmp_path / "catalog"),
                "--out",
                str(tmp_path / "to"),
                *options.split(),
            ]
        )
    assert ended.value.code == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_two_sources_of_one_copy_are_refused(tmp_path: Path) -> None:
    catalog = many(tmp_path, 2, frames=2)
    names = ("a.mkv", "a.mkv.mp4")
    both = tuple(replace(r, path=name) for r, name in zip(catalog.recordings, names, strict=True))
    with pytest.raises(ValueError, match=r"the copies of a\.mkv and a\.mkv\.mp4 would both be a\.mkv\.mp4; rename one"):
        copies.plan(replace(catalog, recordings=both), tmp_path / "to", Encoding())


def test_nothing_but_copies_is_replaced(tmp_path: Path) -> None:
    """Neither the catalog that is copied, nor the originals of copies that are copied once more."""
    many(tmp_path / "from", 2, frames=9).save(tmp_path / "catalog")
    catalog = Catalog.load(tmp_path / "catalog")
    with pytest.raises(ValueError, match=r"catalog, the catalog's own folder; name another, or this catalog would be"):
        prepare(catalog, tmp_path / "from" / ".." / "catalog")
    made = prepare(catalog, tmp_path / "to", size_px=32)
    before = {file: file.read_bytes() for file in (tmp_path / "from").glob("*.mp4")}
    assert len(before) == 2
    for saved_there in (False, True):
        if saved_there:
            catalog.save(tmp_path / "from")
        with pytest.raises(ValueError, match=r"from/\w+\.mp4: this file is in the way of a copy.*name another folder"):
            prepare(made, tmp_path / "from", size_px=32)
    assert {file: file.read_bytes() for file in before} == before
    assert not list((tmp_path / "from").glob(".*"))
    assert prepare(catalog, tmp_path / "to", size_px=48).recordings[0].height_px == 48  # copies are made again


def test_copies_of_earlier_versions_are_made_again(tmp_path: Path) -> None:
    """They have no frame index, but a comment that says how they were made."""
    catalog = many(tmp_path / "from", 1, frames=9)
    (tmp_path / "to").mkdir()
    with av.open(str(tmp_path / "from" / "0.mp4")) as whole, av.open(str(tmp_path / "to" / "0.mp4"), "w") as old:
        old.metadata["comment"] = '{"bytes": 1, "crf": 20, "frames": 9, "gop": 8}'
        stream = old.add_stream_from_template(whole.streams.video[0])
        for packet in whole.demux(video=0):
            if packet.size:
                packet.stream = stream
                old.mux(packet)
    assert prepare(catalog, tmp_path / "to", size_px=32).recordings[0].height_px == 32


def test_a_smaller_video_keeps_its_size(tmp_path: Path) -> None:
    copy = prepare(many(tmp_path / "from", 1, frames=9), tmp_path / "to").recordings[0]
    assert (copy.height_px, copy.width_px) == (64, 96)
    assert probe(tmp_path / "to" / "0.mp4").height_px == 64
