from __future__ import annotations

import dataclasses

import pytest

from crossview.methods.recipe import Optim
from crossview.platform.config import Compute
from crossview.platform.train.batch_layout import shares, worker_counts


def test_accumulation_follows_from_batch_workers_and_micro_batch() -> None:
    assert shares(Optim(batch=8, steps=1), Compute(workers=2, micro_batch=2)) == (2, 2)
    assert shares(Optim(batch=8, steps=1), Compute(workers=2)) == (4, 1)
    with pytest.raises(ValueError, match=r"compute.workers 3"):
        shares(Optim(batch=8, steps=1), Compute(workers=3))
    with pytest.raises(ValueError, match=r"compute.micro_batch 3"):
        shares(Optim(batch=8, steps=1), Compute(micro_batch=3))


def test_fewer_workers_keep_what_a_sample_is_compared_with() -> None:
    optim, four = Optim(batch=24, steps=1), Compute(workers=4, min_workers=1, micro_batch=3)
    assert [shares(optim, four, n, "sample") for n in (4, 3, 2, 1)] == [(3, 2), (2, 4), (3, 4), (3, 8)]
    assert [shares(optim, four, n, "pass") for n in (4, 2, 1)] == [(3, 2), (3, 4), (3, 8)]
    assert [shares(optim, four, n, "workers") for n in (4, 3, 2, 1)] == [(3, 2), (4, 2), (6, 2), (12, 2)]
    assert worker_counts(optim, four, "pass") == [4, 2, 1]
    assert worker_counts(optim, four, "workers") == [4, 3, 2, 1]
    assert worker_counts(optim, dataclasses.replace(four, min_workers=None), "sample") == [4]
    with pytest.raises(ValueError, match=r"batch 24 does not divide among 3 of compute.workers 4 in passes of 3"):
        shares(optim, four, 3, "pass")
    with pytest.raises(ValueError, match=r"compute.min_workers is 5"):
        Compute(workers=4, min_workers=5)
