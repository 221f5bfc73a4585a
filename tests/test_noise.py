"""Random numbers of a sample: uniform, independent of the batch, different between samples and streams."""

import math

import torch
from scipy import stats

from crossview.methods.noise import uniform


def test_numbers_lie_in_the_unit_interval_and_are_uniform() -> None:
    for stream in range(4):
        x = uniform(torch.arange(2_000), 50, stream)
        assert x.shape == (2_000, 50)
        assert x.dtype == torch.float32
        assert float(x.min()) >= 0
        assert float(x.max()) < 1
        counts = torch.histc(x, bins=64, min=0, max=1).numpy()
        assert stats.chisquare(counts).pvalue > 1e-4


def test_a_samples_numbers_do_not_depend_on_its_batch() -> None:
    seeds = torch.tensor([7, -3, 2**62, 0, -(2**63)])
    together = uniform(seeds, 33, 1)
    for i, seed in enumerate(seeds):
        assert torch.equal(uniform(seed[None], 33, 1)[0], together[i])
    assert torch.equal(uniform(seeds.flip(0), 33, 1), together.flip(0))


def test_a_longer_draw_starts_with_the_shorter_one() -> None:
    seeds = torch.arange(5)
    assert torch.equal(uniform(seeds, 40, 2)[:, :10], uniform(seeds, 10, 2))


def test_samples_streams_and_positions_are_uncorrelated() -> None:
    n = 20_000
    x = [uniform(torch.arange(n), 2, stream) for stream in range(3)]
    bound = 5 / math.sqrt(n)
    pairs = [(x[0][:, 0], x[1][:, 0]), (x[1][:, 0], x[2][:, 0]), (x[0][:, 0], x[0][:, 1]), (x[0][1:, 0], x[0][:-1, 0])]
    for a, b in pairs:
        assert abs(float(torch.corrcoef(torch.stack([a, b]))[0, 1])) < bound


def test_values_are_pinned() -> None:
    """A change here changes every mask of every run: resumed runs would no longer equal uninterrupted ones."""
    x = uniform(torch.tensor([0, 1]), 2, 0)
    assert [round(float(v), 6) for v in x.flatten()] == PINNED


PINNED = [0.141396, 0.833705, 0.450296, 0.253302]
