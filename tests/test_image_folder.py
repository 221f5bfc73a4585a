"""Folders of images as videos: order, numbers, times, pixels and what is wrong with them."""

from __future__ import annotations

import re
from pathlib import Path

import image_folders
import numpy as np
import pytest
import videos
from PIL import Image

from crossview.datasets.video.conversion import Pixels
from crossview.datasets.video.decode import decode, read_clips
from crossview.datasets.video.frames import UnreadableVideo
from crossview.datasets.video.framing import Framing
from crossview.datasets.video.image_folder import Images, scan_folder
from crossview.datasets.video.image_listing import is_image_folder, listing
from crossview.datasets.video.source import Source, Wanted


def read(
    path: Path,
    frames: list[int],
    *,
    index: Path | None = None,
    size: int | None = None,
    pixels: Pixels = "rgb",
    first: int = 0,
) -> np.ndarray:
    clip = Wanted(np.array(frames), Framing(size=None if size is None else (size, size)))
    return read_clips(Source(path, "frames", index, first), [clip], pixels=pixels)[0]


@pytest.mark.parametrize("name", ["frame_{}.jpg", "{:010}.png", "AB12-{:06}.JPEG", "frame_{}_tc_{}00_rgb.jpg"])
def test_frames_are_in_the_order_of_their_numbers(tmp_path: Path, name: str) -> None:
    for k, n in enumerate(numbers := [3, 9, 10, 11]):
        image_folders.save(tmp_path / name.format(n, 10 - k), videos.picture(k))
    info, index = scan_folder(tmp_path, Images(30))
    assert listing(tmp_path).numbers.tolist() == numbers
    assert [videos.barcode(image) for image in read(tmp_path, [0, 1, 2, 3])] == [0, 1, 2, 3]
    assert [videos.barcode(image) for image in read(tmp_path, [1, 1, 3])] == [1, 1, 3]
    assert [videos.barcode(image) for image in read(tmp_path, [0, 2], first=1)] == [1, 3]
    assert (info.num_frames, info.height_px, info.width_px) == (4, 64, 96)
    assert index.pts.tolist() == [0, 6, 7, 8]


def test_times_are_those_of_the_numbers(tmp_path: Path) -> None:
    image_folders.write(tmp_path, [4, 5, 6, 9])
    info, index = scan_folder(tmp_path, Images(10, 1))
    assert index.times_s == pytest.approx([0.3, 0.4, 0.5, 0.8])
    assert (info.first_s, info.constant_rate, info.fps) == (pytest.approx(0.3), False, 10)


def test_every_fifth_frame_is_a_constant_rate(tmp_path: Path) -> None:
    image_folders.write(tmp_path, [0, 5, 10])
    info, index = scan_folder(tmp_path, Images(50))
    assert listing(tmp_path).gaps() is None
    assert (info.fps, info.constant_rate) == (10, True)
    assert index.times_s == pytest.approx([0, 0.1, 0.2])


def test_one_image_is_a_video(tmp_path: Path) -> None:
    image_folders.write(tmp_path, [167])
    info, _ = scan_folder(tmp_path, Images(30))
    assert (info.num_frames, info.first_s) == (1, 0)
    assert videos.barcode(read(tmp_path, [0])[0]) == 0


@pytest.mark.parametrize("pixels", ["rgb", "yuv420"])
def test_pixels_are_those_of_the_video_that_the_images_were_taken_from(tmp_path: Path, pixels: Pixels) -> None:
    video = videos.write(tmp_path / "video.mp4", frames=6, x264="qp=0")
    shown = decode(video, np.arange(6))
    for k, image in enumerate(shown):
        image_folders.save(tmp_path / "jpg" / f"{k}.jpg", image)
        image_folders.save(tmp_path / "png" / f"{k}.png", image)
    for size in (None, 32):
        expected = decode(video, np.arange(6), size_px=size, pixels=pixels).astype(int)
        for folder in ("jpg", "png"):
            found = read(tmp_path / folder, list(range(6)), size=size, pixels=pixels)
            assert found.shape == expected.shape
            assert np.abs(found - expected).mean() < 2  # with limited range taken for full it would be 12 or more


@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_grey_images_have_the_full_range(tmp_path: Path, ending: str) -> None:
    ramp = np.tile(np.arange(0, 256, 2, dtype=np.uint8), (64, 1))
    Image.fromarray(ramp).save(tmp_path / f"1.{ending}")
    assert np.abs(read(tmp_path, [0])[0].astype(int) - ramp[..., None]).max() <= 3


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, -1), (8, 1)])
@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_images_are_turned_as_they_say(tmp_path: Path, orientation: int, turns: int, ending: str) -> None:
    image = videos.picture(5)
    image_folders.save(tmp_path / f"1.{ending}", image, orientation=orientation)
    upright = np.rot90(image, turns)
    info, _ = scan_folder(tmp_path, Images(30))
    found = read(tmp_path, [0])[0]
    assert (info.height_px, info.width_px) == upright.shape[:2] == found.shape[:2]
    assert np.abs(found.astype(int) - upright).mean() < 4


def test_a_mirrored_image_is_refused(tmp_path: Path) -> None:
    image_folders.save(tmp_path / "1.jpg", videos.picture(5), orientation=2)
    with pytest.raises(UnreadableVideo, match=r"1\.jpg: its EXIF orientation \(2\) mirrors it"):
        read(tmp_path, [0])


def test_a_pattern_chooses_among_several_series(tmp_path: Path) -> None:
    image_folders.write(tmp_path, [1, 2], name="frame_{}_rgb.jpg")
    image_folders.write(tmp_path, [1, 2, 3], name="frame_{}_depth.png")
    (tmp_path / "frame_1_rgb.txt").write_text("0")
    assert is_image_folder(tmp_path / "*_rgb.jpg")
    assert is_image_folder(tmp_path)
    assert not is_image_folder(tmp_path / "frame_1_rgb.txt")
    assert not is_image_folder(tmp_path / "no" / "*.jpg")
    assert listing(tmp_path / "*_rgb*").names == ("frame_1_rgb.jpg", "frame_2_rgb.jpg")
    assert scan_folder(tmp_path / "*_depth.png", Images(30))[0].num_frames == 3
    assert videos.barcode(read(tmp_path / "*_depth.png", [2])[0]) == 2


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("notes.txt", r"it holds 'notes\.txt', which is no image, beside 2 images.*, such as \w+/\*\.jpg"),
        ("frame_3.png", r"'frame_1\.jpg' and 'frame_3\.png' differ in more than their numbers"),
        ("frame_01.jpg", r"'frame_01\.jpg' and 'frame_1\.jpg' both have the number 1"),
    ],
)
def test_names_that_count_no_frames_are_refused(tmp_path: Path, extra: str, message: str) -> None:
    image_folders.write(tmp_path, [1, 2])
    (tmp_path / extra).write_bytes((tmp_path / "frame_1.jpg").read_bytes())
    with pytest.raises(UnreadableVideo, match=message):
        scan_folder(tmp_path, Images(30))


def test_a_pattern_that_chooses_one_series_is_named(tmp_path: Path) -> None:
    image_folders.write(tmp_path / "two", [1, 2], name="head_{}.jpg")
    image_folders.write(tmp_path / "two", [1, 2], name="left_{}.jpg")
    with pytest.raises(UnreadableVideo, match=r"by a pattern in path, such as two/head_\*\.jpg"):
        listing(tmp_path / "two")
    assert listing(tmp_path / "two" / "head_*.jpg").names == ("head_1.jpg", "head_2.jpg")
    image_folders.write(tmp_path / "no", ["a", "b"])  # type: ignore[list-item]
    with pytest.raises(UnreadableVideo, match="not frames of one video; number the images"):
        listing(tmp_path / "no")


def test_brackets_in_a_pattern_are_those_of_the_names(tmp_path: Path) -> None:
    image_folders.write(tmp_path, [1, 2], name="take[1]_{}.jpg")
    assert len(listing(tmp_path / "take[1]_*.jpg").names) == 2


def test_hidden_files_are_no_frames(tmp_path: Path) -> None:
    image_folders.write(tmp_path, [1, 2])
    for name in (".DS_Store", "Thumbs.db", "._frame_3.jpg"):
        (tmp_path / name).write_bytes(b"0")
    assert scan_folder(tmp_path, Images(30))[0].num_frames == 2


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableVideo, match="it holds no JPEG or PNG image"):
        listing(tmp_path)
    with pytest.raises(UnreadableVideo, match=r"no JPEG or PNG image that matches '\*_rgb\.jpg'"):
        listing(tmp_path / "*_rgb.jpg")
    with pytest.raises(UnreadableVideo, match="gone: No such file"):
        listing(tmp_path / "gone")
    image_folders.save(tmp_path / "first.jpg", videos.picture(0))
    with pytest.raises(UnreadableVideo, match=r"no number in the name 'first\.jpg' counts the frames"):
        listing(tmp_path)


def test_a_first_number_beyond_the_first_image_is_refused(tmp_path: Path) -> None:
    image_folders.write(tmp_path, [0, 1])
    with pytest.raises(UnreadableVideo, match=r"frame_0\.jpg, has number 0, less than first_number = 1"):
        scan_folder(tmp_path, Images(30, 1))


def test_images_of_several_sizes_are_refused(tmp_path: Path) -> None:
    image_folders.write(tmp_path, [1, 2])
    image_folders.save(tmp_path / "frame_3.jpg", videos.picture(3, 32, 48))
    message = r"frame_3\.jpg: its size is 48 x 32, and that of frame_[12]\.jpg 96 x 64"
    with pytest.raises(UnreadableVideo, match=message):
        scan_folder(tmp_path, Images(30))
    with pytest.raises(UnreadableVideo, match=message):
        read(tmp_path, [1, 2], size=32)


@pytest.mark.parametrize("ending", ["jpg", "png"])
@pytest.mark.parametrize("kept", [0, 9, 150, -50, -2, -1])
def test_an_image_that_is_cut_off_is_named(tmp_path: Path, ending: str, kept: int) -> None:
    files = image_folders.write(tmp_path, [1, 2, 3], name=f"{{}}.{ending}")
    files[1].write_bytes(files[1].read_bytes()[:kept])
    assert [videos.barcode(image) for image in read(tmp_path, [0, 2])] == [0, 2]
    with pytest.raises(UnreadableVideo, match=rf"2\.{ending}: "):
        read(tmp_path, [0, 1, 2])


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0"])
def test_what_is_no_image_is_named_by_its_header(tmp_path: Path, content: bytes) -> None:
    files = image_folders.write(tmp_path, [1, 2])
    files[1].write_bytes(content)
    with pytest.raises(UnreadableVideo, match=r"frame_2\.jpg: .*(no JPEG or PNG image|cut off .*copy it again)"):
        scan_folder(tmp_path, Images(30))


def test_a_frame_beyond_the_last_is_refused(tmp_path: Path) -> None:
    image_folders.write(tmp_path, [1, 2])
    with pytest.raises(UnreadableVideo, match="frame 2 was asked for, but the folder holds 2 images"):
        read(tmp_path, [0, 2])


@pytest.mark.parametrize("name", ["frame_{}.jpg", "f{{oo_{:04}.jpg", "frame_{}_tc_{}_rgb.jpg"])
def test_images_that_changed_since_they_were_catalogued_are_named(tmp_path: Path, name: str) -> None:
    numbers = [8, 9, 10, 12]
    files = [image_folders.save(tmp_path / "images" / name.format(n, n * 7), videos.picture(n)) for n in numbers]
    index = tmp_path / "index.npz"
    scan_folder(tmp_path / "images", Images(30, 2))[1].write(index)
    image_folders.save(tmp_path / "images" / name.format(11, 77), videos.picture(11))
    shown = read(tmp_path / "images", [0, 1, 2, 3], index=index)
    assert [videos.barcode(image) for image in shown] == numbers  # whatever was added
    image_folders.save(files[1], videos.picture(99))
    changed = re.escape(files[1].name) + r": it has \d+ bytes, and had \d+ bytes when it was catalogued"
    with pytest.raises(UnreadableVideo, match=changed):
        read(tmp_path / "images", [0, 1], index=index)
    files[1].unlink()
    with pytest.raises(UnreadableVideo, match=re.escape(files[1].name) + ": No such file"):
        read(tmp_path / "images", [1, 2], index=index)
    assert videos.barcode(read(tmp_path / "images", [2], index=index)[0]) == 10
    with pytest.raises(UnreadableVideo, match="frame 4 was asked for, but the folder holds 4 images"):
        read(tmp_path / "images", [4], index=index)


def test_padded_names_take_no_place_in_the_index(tmp_path: Path) -> None:
    image_folders.write(tmp_path / "padded", range(1, 12), name="AB12-{:06}.jpg")
    image_folders.write(tmp_path / "plain", range(1, 12), name="{}.jpg")
    image_folders.write(tmp_path / "odd", [1, 2, 12], name="f{0}_{0}.jpg")
    found = {name: scan_folder(tmp_path / name, Images(30))[1].facts["names"] for name in ("padded", "plain", "odd")}
    assert found == {"padded": "AB12-{:06}.jpg", "plain": "{:01}.jpg", "odd": ["f1_1.jpg", "f2_2.jpg", "f12_12.jpg"]}
