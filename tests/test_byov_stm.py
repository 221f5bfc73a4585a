"""BYOV's selective token merging: how many patches, which ones, and recordings in chunks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crossview.methods.byov.stm import merge, merge_stream, num_selected, selected


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.mark.parametrize(("patches", "kept"), [(196, 59), (256, 77), (49, 15)])
def test_stm_keeps_thirty_percent_of_the_patches(patches: int, kept: int) -> None:
    assert num_selected(0.3, patches) == kept
    assert selected(torch.randn(2, 3, patches, 4), 0.3).shape == (2, 3, kept)


def test_stm_keeps_at_least_one_patch() -> None:
    assert num_selected(0.01, 49) == 1
    assert merge(torch.randn(1, 2, 49, 4), 0.01).isfinite().all()


@pytest.mark.parametrize("ratio", [0.3, None])
def test_stm_of_half_precision_tokens_computes_in_single_precision(ratio: float | None) -> None:
    tokens = torch.randn(2, 12, 196, 16).half()
    merged = merge(tokens, ratio)
    assert merged.dtype == torch.float32
    assert torch.equal(merged, merge(tokens.float(), ratio))


def test_stm_selects_a_patch_that_moves_and_reuses_the_last_ranking() -> None:
    tokens = torch.randn(1, 1, 196, 8).expand(1, 6, 196, 8) + 1e-3 * torch.randn(1, 6, 196, 8)
    tokens[0, 3, 77] += 5
    index = selected(tokens, 0.3)
    assert 77 in index[0, 3]
    assert 77 in index[0, 2]
    assert torch.equal(index[:, -1], index[:, -2])


def test_stm_off_is_the_mean_of_all_patches() -> None:
    tokens = torch.randn(2, 4, 9, 5)
    torch.testing.assert_close(merge(tokens, None), tokens.mean(2))
    torch.testing.assert_close(merge(tokens[:, :1], None), tokens[:, :1].mean(2))


@pytest.mark.parametrize("gap", [1, 3])
def test_stm_of_a_single_frame_is_the_mean_of_all_patches(gap: int) -> None:
    tokens = torch.randn(2, 1, 9, 4)
    torch.testing.assert_close(merge(tokens, 0.3, gap), tokens.mean(2))
    torch.testing.assert_close(merge_stream([tokens], 0.3, gap), tokens.mean(2))
    assert selected(tokens, 0.3).shape == (2, 1, 9)


@settings(deadline=None, max_examples=30)
@given(frames=st.integers(2, 23), chunk=st.integers(1, 9), gap=st.integers(1, 5), ratio=st.sampled_from([0.3, None]))
def test_stm_of_chunks_equals_stm_of_the_whole(frames: int, chunk: int, gap: int, ratio: float | None) -> None:
    gap = min(gap, frames - 1)
    tokens = torch.randn(2, frames, 16, 4, generator=torch.Generator().manual_seed(frames))
    assert torch.equal(merge_stream(tokens.split(chunk, dim=1), ratio, gap), merge(tokens, ratio, gap))
