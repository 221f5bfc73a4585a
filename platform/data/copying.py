"""Making prepared copies on a cluster: a pool of Ray actors, each of which encodes one video at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from crossview.datasets.video.copies import Maker, Outcome, Work
from crossview.errors import UserError

if TYPE_CHECKING:
    from crossview.platform.cluster.map_recordings import Arrays


def on_ray(actors: int | None) -> Maker:
    """Makes copies on this many CPUs of the cluster; None is all of them, with those that its autoscaler may add."""

    def make(work: Work, numbers: Sequence[int]) -> Iterator[Outcome]:
        # Here, since a call that finds every copy in place needs neither Ray nor torch.
        from crossview.platform.cluster.connect import connect
        from crossview.platform.cluster.map_recordings import Where, each
        from crossview.platform.cluster.resources import capacity

        connect()
        where = Where(actors=actors or max(1, int(capacity().get("CPU", 1))))
        for done in each(len(numbers), _Copier, {"work": work, "numbers": list(numbers)}, where):
            number = numbers[done.index]
            if done.unreadable is not None:
                yield number, done.unreadable
                continue
            job = work.jobs[number]
            made = work.find(job)
            if made is None:  # its process had no error
                raise UserError(
                    f"{job.copy}: it was made by another process and is not here; every node of the cluster must see "
                    "the same folder: pass an --out in shared storage, for example s3://BUCKET/COPIES"
                )
            yield number, made

    return make


class _Copier:
    """Makes one copy per call."""

    def __init__(self, work: Work, numbers: list[int]) -> None:
        self.work, self.numbers = work, numbers

    def __call__(self, index: int) -> Arrays:
        self.work.make(self.work.jobs[self.numbers[index]])
        return {}
