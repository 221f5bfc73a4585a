"""Files of torch.save are read as torch reads them, and nothing in them is run."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crossview.datasets.catalog import tensor_file
from crossview.errors import UserError


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64, torch.int64, torch.uint8])
@pytest.mark.parametrize("view", ["whole", "transposed", "part", "empty", "scalar"])
def test_tensors_are_what_torch_reads(tmp_path: Path, dtype: torch.dtype, view: str) -> None:
    whole = torch.arange(60).reshape(5, 12).to(dtype)
    tensor = {"whole": whole, "transposed": whole.T, "part": whole[1:4, 2::3], "empty": whole[:0],
              "scalar": whole[2, 3]}[view]  # fmt: skip
    torch.save(tensor, tmp_path / "x.pt")
    found = tensor_file.load(tmp_path / "x.pt")
    expected = torch.load(tmp_path / "x.pt", weights_only=True).numpy()
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch ran",)


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        ({"features": torch.zeros(3, 2)}, r"it holds a dict, not a tensor"),
        (Evil(), r"it names posix\.system, and only a tensor of plain numbers is read"),
        (torch.zeros(3, 2, dtype=torch.bfloat16), r"it names torch\.BFloat16Storage"),
    ],
)
def test_other_things_are_refused(tmp_path: Path, monkeypatch: Any, saved: Any, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(saved, tmp_path / "x.pt")
    with pytest.raises(UserError, match=message):
        tensor_file.load(tmp_path / "x.pt")
    assert not (tmp_path / "ran").exists()


def test_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"x\.pt: the file is missing"):
        tensor_file.load(tmp_path / "x.pt")
    torch.save(torch.zeros(3, 2), tmp_path / "x.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(UserError, match=r"x\.pt: not a readable file of torch\.save"):
        tensor_file.load(tmp_path / "x.pt")


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10_000), st.binary(min_size=1, max_size=4))
def test_a_damaged_file_is_refused_or_read(tmp_path_factory: pytest.TempPathFactory, at: int, put: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "damaged.pt"
    torch.save(torch.arange(12.0).reshape(4, 3), file)
    data = bytearray(file.read_bytes())
    at %= len(data)
    data[at : at + len(put)] = put
    file.write_bytes(data)
    with contextlib.suppress(UserError):
        assert tensor_file.load(file).size <= 12


def test_repacking_keeps_what_is_whole_and_new(tmp_path: Path) -> None:
    source, target = tmp_path / "x.pt", tmp_path / "out" / "x.npy"
    torch.save(torch.rand(6, 4), source)
    assert tensor_file.repacked(source, target) == (6, 1, 4)
    expected = torch.load(source, weights_only=True).half().numpy()
    np.testing.assert_array_equal(np.load(target)[:, 0], expected)
    before = target.stat().st_mtime_ns
    tensor_file.repacked(source, target)
    assert target.stat().st_mtime_ns == before
    target.write_bytes(target.read_bytes()[:-10])
    tensor_file.repacked(source, target)
    np.testing.assert_array_equal(np.load(target)[:, 0], expected)
    torch.save(torch.rand(2, 3, 4), source)
    later = target.stat().st_mtime_ns + 10**9
    os.utime(source, ns=(later, later))
    assert tensor_file.repacked(source, target) == (2, 3, 4)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.full((2, 2), 1e6), r"exceed float16"),
        (torch.full((2, 2), float("nan")), r"not finite"),
        (torch.zeros(5), r"of shape \(5,\); features are"),
        (torch.zeros(0, 5), r"of shape \(0, 5\)"),
    ],
)
def test_features_that_cannot_be_repacked(tmp_path: Path, tensor: torch.Tensor, message: str) -> None:
    torch.save(tensor, tmp_path / "x.pt")
    with pytest.raises(UserError, match=message):
        tensor_file.repacked(tmp_path / "x.pt", tmp_path / "x.npy")
    assert not (tmp_path / "x.npy").exists()
