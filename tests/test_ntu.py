"""NTU RGB+D 60 and 120: official sizes of all protocols and groups, names, and what is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
import videos

from crossview.datasets import ntu
from crossview.errors import UserError


def pairs(setups: range, subjects: list[int], even: int, odd: int) -> Iterator[tuple[int, int]]:
    """Setups and subjects that were filmed together, as many in even and in odd setups as asked."""
    every = list(product(setups, subjects))
    yield from [pair for pair in every if pair[0] % 2 == 0][:even]
    yield from [pair for pair in every if pair[0] % 2 == 1][:odd]


@pytest.fixture(scope="module")
def samples() -> list[ntu.Sample]:
    """As many names as the dataset has of each setup's parity, kind of subject, action and camera.

    A subject does every action of its setup twice before three cameras; actions 1 to 60 belong to setups 1 to 17.
    """
    train_60 = sorted(ntu.TRAIN_60)
    test_60 = sorted(set(range(1, 41)) - ntu.TRAIN_60)
    train_new = sorted(ntu.TRAIN_120 - ntu.TRAIN_60)
    test_new = sorted(set(range(41, 107)) - ntu.TRAIN_120)
    of_60 = [*pairs(range(1, 18), train_60, 52, 60), *pairs(range(1, 18), test_60, 20, 26)]
    others = [*pairs(range(18, 33), train_new, 30, 34), *pairs(range(18, 33), test_new, 50, 46)]
    names = [
        f"S{setup:03d}C{camera:03d}P{subject:03d}R{replication:03d}A{action:03d}_rgb.avi"
        for filmed, actions in ((of_60, range(1, 61)), (others, range(61, 121)))
        for (setup, subject), replication, action, camera in product(filmed, (1, 2), actions, (1, 2, 3))
    ]
    matches = [ntu.NAME.fullmatch(name) for name in names]
    return [ntu.Sample(*map(int, match.groups())) for match in matches if match]


def test_official_sizes(samples: list[ntu.Sample]) -> None:
    assert len(set(samples)) == 114_480
    assert sum(sample.in_60 for sample in samples) == 56_880
    sizes = {name: Counter(ntu.split_of(sample, name) for sample in samples) for name in ntu.PROTOCOLS}
    assert sizes == {
        "xsub60": {"train": 40_320, "test": 16_560, None: 57_600},
        "xview60": {"train": 37_920, "test": 18_960, None: 57_600},
        "xsub120": {"train": 63_360, "test": 51_120},
        "xset120": {"train": 54_720, "test": 59_760},
    }
    per_class = Counter(sample.action for sample in samples)
    assert {action: count for action, count in per_class.items() if count != (948 if action <= 60 else 960)} == {}


def test_official_groups(samples: list[ntu.Sample]) -> None:
    groups: dict[tuple[int, ...], set[int]] = {}
    for sample in samples:
        groups.setdefault((sample.setup, sample.subject, sample.replication, sample.action), set()).add(sample.camera)
    assert len(groups) == 38_160
    assert sum(setup <= 17 and action <= 60 for setup, _, _, action in groups) == 18_960
    assert {frozenset(cameras) for cameras in groups.values()} == {frozenset((1, 2, 3))}


def test_official_subjects() -> None:
    assert len(ntu.TRAIN_60) == 20
    assert len(ntu.TRAIN_120) == 53
    assert set(range(1, 41)) - ntu.TRAIN_60 == {
        3, 6, 7, 10, 11, 12, 20, 21, 22, 23, 24, 26, 29, 30, 32, 33, 36, 37, 39, 40,
    }  # fmt: skip
    assert ntu.TRAIN_120 & set(range(1, 41)) == ntu.TRAIN_60
    assert max(ntu.TRAIN_120) <= 106


def name(setup: int, camera: int, subject: int, action: int, replication: int = 1) -> str:
    return f"S{setup:03d}C{camera:03d}P{subject:03d}R{replication:03d}A{action:03d}"


def test_a_small_root_by_hand(tmp_path: Path) -> None:
    root = tmp_path / "ego_C001"  # a root's name says nothing
    for camera in (1, 2, 3):
        videos.write(root / "s001" / "nturgb+d_rgb" / f"{name(1, camera, 1, 1)}_rgb.avi", frames=4)
    videos.write(root / "again" / f"{name(2, 2, 3, 60)}.MP4", frames=5)  # re-encoded, and cameras are missing
    videos.write(root / f"{name(18, 1, 45, 120)}_rgb.avi", frames=4)
    (root / "readme.txt").write_text("foreign\n")
    made = ntu.catalog(ntu.Options(root=root))
    assert [(r.id, r.perspective, r.subject, r.action) for r in made.recordings] == [
        ("ntu/S018P045R001A120/C001", "exo", "P045", "A120"),
        ("ntu/S002P003R001A060/C002", "exo", "P003", "A060"),
        ("ntu/S001P001R001A001/C001", "exo", "P001", "A001"),
        ("ntu/S001P001R001A001/C002", "exo", "P001", "A001"),
        ("ntu/S001P001R001A001/C003", "exo", "P001", "A001"),
    ]
    by_protocol = {protocol: [of.get(r.id) for r in made.recordings] for protocol, of in made.protocols.items()}
    assert by_protocol == {
        "xsub60": [None, "test", "train", "train", "train"],
        "xview60": [None, "train", "test", "train", "train"],
        "xsub120": ["train", "test", "train", "train", "train"],
        "xset120": ["train", "train", "test", "test", "test"],
    }
    assert made.classes["action"].index("A120") == 119
    assert made.notes == (
        "NTU-60: 4 of 56,880 videos are here; NTU-120: 5 of 114,480",
        "the catalog is of NTU-120, with 5 videos; --version chooses",
        "groups of three cameras: 1 of the 3 that are here in part",
    )


def test_versions(tmp_path: Path) -> None:
    videos.write(tmp_path / f"{name(18, 1, 45, 61)}_rgb.avi", frames=4)
    made = ntu.catalog(ntu.Options(root=tmp_path))
    assert list(made.protocols) == ["xsub120", "xset120"]
    assert len(made.classes["action"]) == 120
    with pytest.raises(UserError, match=r"it holds no video of NTU-60; pass --version 120"):
        ntu.catalog(ntu.Options(root=tmp_path, version=60))
    old = videos.write(tmp_path / "60" / f"{name(1, 1, 1, 1)}_rgb.avi", frames=4)
    for options, count in ((ntu.Options(root=tmp_path, version=60), 60), (ntu.Options(root=old.parent), 60),
                           (ntu.Options(root=old.parent, version=120), 120)):  # fmt: skip
        made = ntu.catalog(options)
        assert [r.scene for r in made.recordings] == ["S001P001R001A001"]
        assert list(made.protocols) == list(ntu.PROTOCOLS[: count // 30])
        assert made.classes["action"] == ntu.ACTIONS[:count]


def test_samples_are_left_out_by_a_list(tmp_path: Path) -> None:
    for camera in (1, 2):
        videos.write(tmp_path / f"{name(1, camera, 1, 1)}_rgb.avi", frames=4)
    bad = tmp_path / "missing.txt"
    bad.write_bytes(b"\xef\xbb\xbf" + name(1, 2, 1, 1).encode() + b".skeleton\r\n\r\n" + name(9, 1, 1, 1).encode())
    made = ntu.catalog(ntu.Options(root=tmp_path, leave_out=bad))
    assert [r.view for r in made.recordings] == ["C001"]
    assert made.notes[-1] == f"left out: 1 videos, of 2 that {bad} lists"
    bad.write_text(f"{name(1, 1, 1, 1)}\n{name(1, 2, 1, 1)}\n")
    with pytest.raises(UserError, match=r"missing\.txt: it leaves out every video under .*; correct the list"):
        ntu.catalog(ntu.Options(root=tmp_path, leave_out=bad))


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ((), r"no file is named as NTU RGB\+D's RGB videos are, such as S001.*_rgb\.avi; it holds no file: pass the"),
        (("S001C001P001R001A001.skeleton",), r"it holds S001C001P001R001A001\.skeleton, \.\.\.: pass the folder"),
        (
            (f"{name(1, 1, 1, 121)}_rgb.avi",),
            r"A121_rgb\.avi: actions are 1 to 120 and cameras 1 to 3; correct its name",
        ),
        ((f"{name(1, 4, 1, 1)}_rgb.avi",), r"C004.*: actions are 1 to 120 and cameras 1 to 3"),
        (
            (f"a/{name(1, 1, 1, 1)}_rgb.avi", f"b/{name(1, 1, 1, 1)}.mp4"),
            r"b/S001C001P001R001A001\.mp4: a/S001C001P001R001A001_rgb\.avi is the same sample; remove one of them",
        ),
    ],
)
def test_what_is_refused(tmp_path: Path, names: tuple[str, ...], said: str) -> None:
    for file in names:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    with pytest.raises(UserError, match=said):
        ntu.catalog(ntu.Options(root=tmp_path))
    with pytest.raises(UserError, match=r"nowhere: the folder is missing; pass the folder that holds the dataset's"):
        ntu.catalog(ntu.Options(root=tmp_path / "nowhere"))
