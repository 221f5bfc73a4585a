"""What a cluster has room for, from its nodes and from the description that `ray up` leaves behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from crossview.platform.cluster import resources
from crossview.platform.cluster.resources import DECODE_CPUS, check_room, fitting, planned_decoders
from crossview.platform.config import Compute, Data, Experiment, preset
from crossview.platform.train.resolve import ResolvedRun


def test_what_the_cluster_cannot_place_is_refused() -> None:
    two = {"CPU": 2.0}
    check_room(Compute(workers=2), 1, two, gpu=False)
    with pytest.raises(ValueError, match=r"compute.workers 3 with data.decode_actors 1 .*has 2: 2 such workers fit"):
        check_room(Compute(workers=3), 1, two, gpu=False)
    with pytest.raises(ValueError, match=r"compute.workers 1 with data.decode_actors 8 .*: 0 such workers fit"):
        check_room(Compute(), 8, two, gpu=False)
    with pytest.raises(ValueError, match=r"the cluster has 1; pass --compute.workers 1"):
        check_room(Compute(workers=2), 1, {"CPU": 8.0, "GPU": 1.0}, gpu=True)


def test_decoders_must_fit_on_the_nodes_meant_for_them() -> None:
    resources = {"CPU": 64.0, "GPU": 8.0, DECODE_CPUS: 2.0}
    check_room(Compute(workers=8), 1, resources, gpu=True)
    with pytest.raises(ValueError, match=r"claim 4 CPUs for decoding, but the nodes .*'decode' have 2"):
        check_room(Compute(workers=8), 2, resources, gpu=True)


def test_fewer_workers_are_enough_where_that_is_allowed() -> None:
    elastic = Compute(workers=4, min_workers=2)
    check_room(elastic, 1, {"CPU": 2.0}, gpu=False)
    with pytest.raises(ValueError, match=r"compute.min_workers 2 with .*: 1 such workers fit"):
        check_room(elastic, 1, {"CPU": 1.0}, gpu=False)
    assert fitting([4, 2, 1], 1, {"CPU": 2.9}, gpu=False) == 2
    assert fitting([4, 2, 1], 1, {"CPU": 8.0, "GPU": 1.0}, gpu=True) == 1
    assert fitting([4, 2], 1, {"CPU": 0.5}, gpu=False) == 0


def test_an_autoscaler_counts_with_what_it_may_add(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    assert resources._most(file) == []
    described = {
        "max_workers": 6,
        "head_node_type": "head",
        "available_node_types": {
            "head": {"resources": {"CPU": 2}},
            "gpu": {"resources": {"CPU": 8, "GPU": 1}, "max_workers": 4},
            "cpu": {"resources": {"CPU": 16, "decode": 1000}, "max_workers": 10},
        },
    }
    file.write_text(yaml.safe_dump(described))
    most = resources.total(resources._most(file))
    assert most == {"CPU": 2 + 4 * 8 + 6 * 16, "GPU": 4, "decode": 6000, DECODE_CPUS: 96}


def test_decoders_are_planned_from_what_training_leaves() -> None:
    assert planned_decoders(1, {"CPU": 2.0}, gpu=False) == 1
    assert planned_decoders(4, {"CPU": 64.0}, gpu=False) == 1  # its own threads train on the others
    assert planned_decoders(4, {"CPU": 32.0, "GPU": 4.0}, gpu=True) == 7
    assert planned_decoders(1, {"CPU": 64.0, "GPU": 1.0}, gpu=True) == 8
    assert planned_decoders(8, {"CPU": 4.0, "GPU": 8.0}, gpu=True) == 1
    assert planned_decoders(4, {"CPU": 80.0, "GPU": 4.0, "decode CPU": 12.0}, gpu=True) == 3


@pytest.mark.parametrize(
    ("given", "cluster", "actors", "said"),
    [
        (None, {"CPU": 32.0, "GPU": 4.0}, 7, "decoding: 7 Ray actors per worker, on the cluster's nodes\n"),
        (None, {"CPU": 80.0, "GPU": 4.0, DECODE_CPUS: 4.0}, 1,
         "decoding: 1 Ray actor per worker, on nodes with the resource 'decode'\n"),
        (2, {"CPU": 32.0, "GPU": 4.0}, 2, "decoding: 2 Ray actors per worker, on the cluster's nodes\n"),
    ],
)  # fmt: skip
def test_the_number_of_decoders_is_printed_and_taken(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    given: int | None,
    cluster: dict[str, float],
    actors: int,
    said: str,
) -> None:
    from crossview.platform.train import driver

    monkeypatch.setattr(resources, "capacity", lambda: cluster)
    recipe = preset("byov", "debug")
    data = Data(catalog=Path("unused"), decode_actors=given)
    asked: Experiment[Any] = Experiment(data=data, method=recipe.method, optim=recipe.optim, compute=Compute(workers=4))
    run = ResolvedRun(Path("unused"), "byov", asked, (), None, {})  # type: ignore[arg-type]
    found, count = driver._with_decoders(run, gpu=True, planned=False)
    assert found.experiment.data.actors == count == actors
    assert capsys.readouterr().out == said
    assert driver._with_decoders(run, gpu=True, planned=True)[1] == (given or 1)  # a search has planned its own
    assert not capsys.readouterr().out
