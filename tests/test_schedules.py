from __future__ import annotations

import dataclasses

import pytest
import torch

from crossview.methods.recipe import Optim
from crossview.platform.train.lr_schedule import learning_rate, total_steps
from crossview.platform.train.state import optimizer_for


def test_a_warm_up_may_start_at_any_rate_and_be_a_share_of_the_run() -> None:
    optim = Optim(lr=6e-4, warmup_share=0.1, warmup_lr=0.0, min_lr=4e-5, steps=1000)
    assert learning_rate(optim, 0, 1000) == 0
    assert learning_rate(optim, 50, 1000) == pytest.approx(3e-4)
    assert learning_rate(optim, 100, 1000) == pytest.approx(6e-4)
    assert learning_rate(optim, 1000, 1000) == pytest.approx(4e-5)


def test_a_run_in_epochs_takes_all_their_samples_but_the_last_incomplete_batch() -> None:
    assert total_steps(Optim(lr=0.1, epochs=3, batch=4), 10) == 7
    assert total_steps(Optim(lr=0.1, steps=5, batch=4), 10) == 5


def test_steps_multiply_the_rate_at_shares_of_the_run() -> None:
    optim = Optim(optimizer="sgd", lr=0.02, schedule="steps", milestones=(20 / 30, 25 / 30), epochs=30)
    rates = {epoch: learning_rate(optim, epoch * 10, 300) for epoch in (0, 19, 20, 24, 25, 29)}
    assert [round(rate, 6) for rate in rates.values()] == [0.02, 0.02, 0.002, 0.002, 0.0002, 0.0002]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"warmup_share": 1.0}, r"warmup_share is 1.0"),
        ({"warmup_share": 0.1, "warmup_steps": 5}, r"set one of them"),
        ({"warmup_lr": 2.0}, r"warmup_lr is 2.0; it must be between 0 and optim.lr"),
        ({"milestones": (0.5,)}, r"milestones is \(0.5,\) with schedule 'cosine'"),
        ({"schedule": "steps"}, r"milestones is \(\) with schedule 'steps'"),
        ({"schedule": "steps", "milestones": (20.0,)}, r"shares of the run"),
        ({"momentum": 1.0}, r"momentum is 1.0"),
    ],
)
def test_impossible_schedules_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(Optim(steps=10), **changes)


def test_sgd_is_nesterovs_with_the_groups_of_the_method() -> None:
    from crossview.methods.method import build
    from crossview.platform.config import preset

    model = build("byov", preset("byov", "debug").method)
    optimizer = optimizer_for(model, Optim(optimizer="sgd", lr=0.1, weight_decay=1e-4, steps=1))
    assert isinstance(optimizer, torch.optim.SGD)
    assert all(g["nesterov"] and g["momentum"] == 0.9 and g["weight_decay"] == 1e-4 for g in optimizer.param_groups)


def test_schedule_warms_up_and_ends_at_min_lr() -> None:
    optim = Optim(lr=1.0, warmup_steps=10, min_lr=0.1, steps=110)
    assert learning_rate(optim, 0, 110) == pytest.approx(0.1)
    assert learning_rate(optim, 9, 110) == pytest.approx(1.0)
    assert learning_rate(optim, 60, 110) == pytest.approx(0.55)
    assert learning_rate(optim, 110, 110) == pytest.approx(0.1)
    assert learning_rate(dataclasses.replace(optim, schedule="constant"), 109, 110) == 1.0


def test_an_epoch_without_a_step_is_refused() -> None:
    with pytest.raises(ValueError, match=r"less than one batch"):
        total_steps(Optim(epochs=1, batch=16), 10)
