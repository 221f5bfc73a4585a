"""Files of torch.save are read as torch reads them, and nothing in them is run."""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crossview.datasets.features.torch_tensors import tensors_in
from crossview.errors import UserError


def load(file: Path) -> np.ndarray:
    (tensor,) = tensors_in(file).values()
    found = tensor.read()
    assert (found.shape, found.dtype) == (tensor.shape, tensor.dtype)
    return found


@pytest.mark.parametrize(
    "dtype",
    [torch.float16, torch.float32, torch.float64, torch.int64, torch.uint8, torch.bool, torch.complex64],
)
@pytest.mark.parametrize("view", ["whole", "transposed", "part", "empty", "scalar"])
def test_tensors_are_what_torch_reads(tmp_path: Path, dtype: torch.dtype, view: str) -> None:
    whole = torch.arange(60).reshape(5, 12).to(dtype)
    tensor = {"whole": whole, "transposed": whole.T, "part": whole[1:4, 2::3], "empty": whole[:0],
              "scalar": whole[2, 3]}[view]  # fmt: skip
    torch.save(tensor, tmp_path / "x.pt")
    found = load(tmp_path / "x.pt")
    expected = torch.load(tmp_path / "x.pt", weights_only=True).numpy()
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def test_bfloat16_is_read_as_float32(tmp_path: Path) -> None:
    tensor = torch.rand(3, 4).bfloat16()
    torch.save(tensor.T, tmp_path / "x.pt")
    found = load(tmp_path / "x.pt")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, tensor.float().T.numpy())


def test_tensors_of_a_dict(tmp_path: Path) -> None:
    tensors = {"a": torch.rand(3, 2), "b": torch.nn.Parameter(torch.rand(4)), "mask": torch.zeros(3, dtype=torch.bool)}
    torch.save({**tensors, "fps": 10, 7: torch.zeros(1)}, tmp_path / "x.pt")
    found = tensors_in(tmp_path / "x.pt")
    assert [*found] == ["a", "b", "mask", "7"]
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(found[name].read(), tensor.detach().numpy())


class Opener:
    def __reduce__(self) -> Any:
        return open, ("ran", "w")


@pytest.mark.parametrize("saved", [Opener(), {"a": torch.zeros(2, 2), "b": Opener()}])
def test_nothing_that_a_file_names_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saved: Any) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(saved, tmp_path / "x.pt")
    with pytest.raises(UserError, match=r"x\.pt: it names .*open, which could run code"):
        tensors_in(tmp_path / "x.pt")
    assert not (tmp_path / "ran").exists()


def test_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.pt"
    with pytest.raises(UserError, match=r"x\.pt: it cannot be read \(No such file"):
        tensors_in(file)
    torch.save([1.0, 2.0], file)
    with pytest.raises(UserError, match=r"x\.pt: it holds a list; save a tensor"):
        tensors_in(file)
    torch.save(torch.zeros(3, 2), file, _use_new_zipfile_serialization=False)
    with pytest.raises(UserError, match=r"x\.pt: it is cut, or was saved before torch 1\.6"):
        tensors_in(file)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x/y.txt", "no tensor")
    with pytest.raises(UserError, match=r"x\.pt: it is not a file of torch\.save"):
        tensors_in(file)


def rewritten(file: Path, change: Callable[[str, bytes], bytes], compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(file) as archive:
        entries = {name: change(name.rpartition("/")[2], archive.read(name)) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)


def test_archives_that_say_more_than_they_hold(tmp_path: Path) -> None:
    file, tensor = tmp_path / "x.pt", torch.zeros(30, 20)
    torch.save(tensor, file)
    rewritten(file, lambda name, data: data[:-4] if name == "0" else data)
    with pytest.raises(UserError, match=r"x\.pt: its storage 0 is not 600 numbers in 2400 bytes"):
        tensors_in(file)
    torch.save(tensor, file)
    rewritten(file, lambda _, data: data, zipfile.ZIP_DEFLATED)
    with pytest.raises(UserError, match=r"x\.pt: its storage 0 is not 600 numbers"):
        tensors_in(file)
    torch.save(tensor, file)
    rewritten(file, lambda name, data: data.replace(b"K\x1eK\x14", b"K\x1fK\x14") if name == "data.pkl" else data)
    with pytest.raises(UserError, match=r"x\.pt: a tensor \(31, 20\) reaches beyond its 600 numbers"):
        tensors_in(file)
    torch.save(tensor, file)
    rewritten(file, lambda name, data: b"big" if name == "byteorder" else data)
    with pytest.raises(UserError, match=r"x\.pt: its numbers are big-endian"):
        tensors_in(file)


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
        assert all(tensor.read().size <= 12 for tensor in tensors_in(file).values())
