"""The optimiser's state in a checkpoint belongs to names, whatever the order of groups and parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import resolved
import torch
from torch import Tensor

from crossview.methods.evgap.model import Model
from crossview.methods.example_batch import example_batch
from crossview.platform import checkpoint
from crossview.platform.config import Compute, Data, Experiment, preset
from crossview.platform.train import optimizer_state
from crossview.platform.train.state import Training, Worker

TOTAL = 4


def trained(folder: Path, steps: int) -> Training:
    """EVGAP's debug preset, which has three groups, after some steps, with its checkpoint saved."""
    recipe = preset("evgap", "debug")
    made = Experiment(
        data=Data(catalog=Path("nowhere")), method=recipe.method, optim=recipe.optim, compute=Compute(device="cpu")
    )
    training = Training(resolved.new_without_data(folder, "evgap", made), Worker(torch.device("cpu")))
    advance(training, steps)
    training.save()
    return training


def resumed(folder: Path) -> Training:
    return Training(resolved.without_data(folder), Worker(torch.device("cpu")))


def advance(training: Training, steps: int) -> list[float]:
    found = []
    for _ in range(steps):
        torch.manual_seed(training.step)
        batch = example_batch(training.experiment.method.sampling(), 4)
        values = training.optimise(iter([batch]), training.forward(), 1, TOTAL)
        found += [float(values["loss"]), float(values["grad_norm"])]
    return found


def moments(training: Training) -> dict[str, dict[str, Tensor]]:
    names = {p: n for n, p in training.model.named_parameters()}
    return {names[p]: dict(state) for p, state in training.optimizer.state.items()}


def assert_same_moments(found: Training, expected: Training) -> None:
    one, other = moments(found), moments(expected)
    assert one.keys() == other.keys() == {n for n, p in expected.model.named_parameters() if p.requires_grad}
    for name, state in other.items():
        assert all(torch.equal(one[name][key], value) for key, value in state.items()), name


def rewritten(folder: Path, state: Any) -> None:
    """Put another optimiser state in the place of a checkpoint's."""
    found = checkpoint.latest(folder)
    assert found is not None
    file = found / "train_state.pt"
    torch.save(torch.load(file, weights_only=True) | {"optimizer": state}, file)


def turned(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on EVGAP has its groups, and each group its parameters, in the opposite order."""
    groups = Model.parameter_groups

    def reversed_groups(self: Model, weight_decay: float) -> list[dict[str, Any]]:
        return [{**group, "params": group["params"][::-1]} for group in groups(self, weight_decay)[::-1]]

    monkeypatch.setattr(Model, "parameter_groups", reversed_groups)


def test_another_order_of_groups_keeps_every_parameters_moments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = trained(tmp_path / "run", 2)
    assert len(before.optimizer.param_groups) == 3
    turned(monkeypatch)
    after = resumed(tmp_path / "run")
    assert_same_moments(after, before)
    decays = [group["weight_decay"] for group in before.optimizer.param_groups]
    assert [group["weight_decay"] for group in after.optimizer.param_groups] == decays[::-1]
    assert advance(after, 2) == pytest.approx(advance(before, 2), rel=1e-6)


def test_a_checkpoint_holds_names(tmp_path: Path) -> None:
    training = trained(tmp_path / "run", 1)
    found = checkpoint.latest(tmp_path / "run")
    assert found is not None
    optimizer = checkpoint.read_train_state(found, torch.device("cpu"))["optimizer"]
    names = {n for n, p in training.model.named_parameters() if p.requires_grad}
    assert optimizer["state"].keys() == names
    assert {name for group in optimizer["param_groups"] for name in group["params"]} == names


def test_a_checkpoint_of_crossview_0_4_is_read_by_position(tmp_path: Path) -> None:
    before = trained(tmp_path / "run", 2)
    rewritten(tmp_path / "run", before.optimizer.state_dict())
    after = resumed(tmp_path / "run")
    assert_same_moments(after, before)
    assert advance(after, 2) == advance(before, 2)


def test_the_configurations_settings_replace_the_saved_ones(tmp_path: Path) -> None:
    before = trained(tmp_path / "run", 1)
    state = optimizer_state.by_name(before.optimizer, before.model)
    for group in state["param_groups"]:
        group |= {"weight_decay": 7.0, "lr_scale": 7.0, "betas": (0.7, 0.7)}
    rewritten(tmp_path / "run", state)
    settings = [{k: v for k, v in g.items() if k not in ("params", "lr")} for g in before.optimizer.param_groups]
    after = resumed(tmp_path / "run").optimizer.param_groups
    assert [{k: v for k, v in g.items() if k not in ("params", "lr")} for g in after] == settings


def test_a_missing_and_a_surplus_name_are_refused(tmp_path: Path) -> None:
    before = trained(tmp_path / "run", 1)
    state = optimizer_state.by_name(before.optimizer, before.model)
    params = state["param_groups"][0]["params"]
    gone = params[0]
    state["state"]["encoder.other"] = state["state"].pop(gone)
    params[0] = "encoder.other"
    rewritten(tmp_path / "run", state)
    message = rf"step-00000001/train_state\.pt: .* it lacks {gone} and it has encoder\.other, which this model does not"
    with pytest.raises(ValueError, match=message):
        resumed(tmp_path / "run")


def test_another_number_of_parameters_is_refused_by_position(tmp_path: Path) -> None:
    before = trained(tmp_path / "run", 1)
    state = before.optimizer.state_dict()
    state["param_groups"][0]["params"].pop()
    rewritten(tmp_path / "run", state)
    with pytest.raises(ValueError, match=r"train_state\.pt: it has \d+ trained parameters, this model \d+;"):
        resumed(tmp_path / "run")


@pytest.mark.parametrize("kind", ["missing", "surplus"])
def test_a_name_too_few_or_too_many_is_refused(tmp_path: Path, kind: str) -> None:
    before = trained(tmp_path / "run", 1)
    state = optimizer_state.by_name(before.optimizer, before.model)
    params = state["param_groups"][0]["params"]
    if kind == "missing":
        del state["state"][params[0]]
        message = f"does not fit: it lacks {params.pop(0)};"
    else:
        params.append("encoder.other")
        message = "does not fit: it has encoder.other, which this model does not train;"
    rewritten(tmp_path / "run", state)
    with pytest.raises(ValueError, match=message):
        resumed(tmp_path / "run")


def test_more_parameters_are_refused_by_position_too(tmp_path: Path) -> None:
    before = trained(tmp_path / "run", 1)
    state = before.optimizer.state_dict()
    state["param_groups"][0]["params"].append(sum(len(group["params"]) for group in state["param_groups"]))
    rewritten(tmp_path / "run", state)
    with pytest.raises(ValueError, match=r"train_state\.pt: it has \d+ trained parameters, this model \d+;"):
        resumed(tmp_path / "run")
