from __future__ import annotations

import numpy as np
import pytest

from crossview.platform.data.row_decoder import Shard


@pytest.mark.parametrize("world", [1, 2, 4])
def test_ranks_take_the_micro_batches_of_each_step_in_turn(world: int) -> None:
    """What is together in a pass is the same for any number of ranks, and all rows of a step are in it."""
    shards = [Shard(start_step=3, stop_step=5, batch=16, micro_batch=2, rank=r, world=world) for r in range(world)]
    assert [shard.length for shard in shards] == [32 // world] * world
    rows = np.stack([shard.rows(np.arange(shard.length)) for shard in shards])  # (world, rows of both steps)
    passes = rows.reshape(world, -1, 2)  # (world, passes, micro batch)
    expected = np.arange(48, 80).reshape(-1, world, 2).swapaxes(0, 1)
    assert np.array_equal(passes, expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rank": 2}, "rank 2 of 2"),
        ({"start_step": 6}, "steps 6 to 5"),
        ({"micro_batch": 3}, "does not divide into 2 workers x micro batches of 3"),
    ],
)
def test_impossible_shards_are_refused(changes: dict[str, int], message: str) -> None:
    options = {"start_step": 3, "stop_step": 5, "batch": 16, "micro_batch": 2, "rank": 0, "world": 2}
    with pytest.raises(ValueError, match=message):
        Shard(**(options | changes))
