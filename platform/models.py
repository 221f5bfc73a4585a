"""What a run trains, by name: a method of `methods/`, or a trainer of `downstream/`."""

from __future__ import annotations

import importlib
from typing import Any

from crossview.downstream.encoder import ClipEncoder
from crossview.downstream.trainer import Trainer
from crossview.methods.method import build
from crossview.methods.trained import Trained
from crossview.platform.config import Encoder, Experiment, is_trainer


def build_model(
    name: str, experiment: Experiment[Any], *, pretrained: bool = False, encoder: ClipEncoder | None = None
) -> Trained:
    """The model of an experiment; `pretrained` fetches published weights of its parts, which a checkpoint replaces.

    `encoder` is the trainer's, with its weights; without it they are left random.
    """
    if not is_trainer(name):
        return build(name, experiment.method if pretrained else without_pretrained(experiment.method))
    return trainer_class(name)(experiment.method, encoder or bare_encoder(experiment.encoder))


def trainer_class(name: str) -> Any:
    """`Model` of `downstream/<name>/model.py`."""
    found: type[Trainer] = importlib.import_module(f"crossview.downstream.{name}.model").Model
    return found


def bare_encoder(encoder: Encoder) -> ClipEncoder | None:
    """The network of a trainer's encoder, without its weights; None where it has none."""
    if encoder.run is None:
        return None
    name, config = encoder.method()
    return ClipEncoder(build(name, without_pretrained(config)), encoder.weights)


def without_pretrained(config: Any) -> Any:
    """The configuration with pre-trained parts left random: their weights come from the checkpoint."""
    return config.without_pretrained() if hasattr(config, "without_pretrained") else config
