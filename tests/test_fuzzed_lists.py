"""Damaged lists of trimmed-action datasets are read, or refused by the documented error and by nothing else."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crossview.datasets import etri, kinetics, nucla, pku_mmd, rocog
from crossview.errors import UserError

LISTS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "labels": ("6,0,15,2\r\n51,20,20,1\r\n6,30,61,2\r\n", lambda file: pku_mmd.read_labels(file, {})),
    "split": ("Training videos:\nA01N01-L, A01N01-R, \nValidataion videos:\nA01N02-L,\n",
              lambda file: pku_mmd.read_split(file, 2)),
    "names": ("\n".join(f"action {k}" for k in range(51)), pku_mmd.class_names),
    "subjects": ("3, 6, P009\n12 15\n", etri.read_subjects),
    "nucla.txt": ("a01_s01_e00_v01\na02_s04_e02_v03\n",
                  lambda file: nucla.samples_under(nucla.Options(root=file.parent, samples=file))),
    "real_air_test.txt": ("real/air/Halt/a.mp4 4\nreal/air/Rally/b.mp4 2\n",
                          lambda file: rocog.listed(rocog.Options(root=file.parent, lists=file.parent))),
    "train.csv": ('label,youtube_id,time_start,time_end,split\n"hurling (sport)",bbbbbbbbbbb,3,13,train\n',
                  lambda file: kinetics.found_under(kinetics.Options(root=file.parent))),
    "val.csv": ("at_val/val/bbbbbbbbbbb.mp4 7\nk/my clip.mp4,399\n",
                lambda file: kinetics.found_under(kinetics.Options(root=file.parent))),
}  # fmt: skip
"""By the file's name, an intact list and what reads it."""


@pytest.fixture(params=LISTS)
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    for folder, name in (("a01", "v01_s01_e00.avi"), (request.param.removesuffix(".csv"), "bbbbbbbbbbb.mp4")):
        (tmp_path / f"at_{folder}" / folder).mkdir(parents=True)
        (tmp_path / f"at_{folder}" / folder / name).touch()
    return str(request.param)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    at=st.integers(0, 120), drop=st.integers(0, 12),
    put=st.one_of(
        st.binary(max_size=8),
        st.sampled_from([b"\0", b'"', b",", b"\n", b"\r", b"\xff\xfe", b"-1", b"9" * 40, b"../", b"/etc/"]),
    ),
)  # fmt: skip
def test_only_the_documented_error(kind: str, tmp_path: Path, at: int, drop: int, put: bytes) -> None:
    text, read = LISTS[kind]
    whole = text.encode()
    file = tmp_path / kind
    file.write_bytes(whole[:at] + put + whole[at + drop :])
    with suppress(UserError):
        read(file)


def test_the_intact_lists_are_read(kind: str, tmp_path: Path) -> None:
    text, read = LISTS[kind]
    (tmp_path / kind).write_text(text, newline="")
    read(tmp_path / kind)
