"""The published presets of methods and of recognition, their catalogs, and their networks made small."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import layout_world
import torch
from resolved import new_without_data

from crossview.datasets.synthetic.stand_ins import SETS, stand_in
from crossview.downstream.recognition.config import Config as Recognition
from crossview.methods.byov.config import Config as Byov
from crossview.methods.byov.config import Decoder
from crossview.methods.byov.config import Encoder as ByovEncoder
from crossview.methods.egoexo.config import Config as EgoExo
from crossview.methods.evgap.config import Config as Evgap
from crossview.methods.evgap.config import Encoder as EvgapEncoder
from crossview.methods.mv2mae.config import Config as Mv2mae
from crossview.methods.mv2mae.config import Transformer
from crossview.methods.recipe import Optim
from crossview.platform.config import Data, Encoder, Experiment, preset
from crossview.platform.train.loop import training_of
from crossview.platform.train.state import Worker

CATALOGS: dict[str, tuple[str, dict[str, Any]]] = {
    "ntu60": ("ntu", {"version": 60}),
    "ntu120": ("ntu", {"version": 120}),
    "etri": ("etri", {}),
    "nucla": ("nucla", {}),
    "pku_mmd": ("pku_mmd", {}),
    "rocog": ("rocog", {}),
    "kinetics": ("kinetics", {}),
    "charades_ego": ("charades_ego", {}),
    "epic100": ("epic_kitchens", {}),
    "epic55": ("epic_kitchens", {"release": "55", "splits": None}),
    "assembly101": ("assembly101", {}),
    "assembly101-tsm": ("assembly101", {"root": None}),
    "egoexo4d": ("egoexo4d", {}),
}
"""Name of a catalog: its dataset, and what its options are beside those of the layout."""
PLACES: dict[str, dict[str, tuple[str, str | None]]] = {
    "mv2mae": {
        "ntu60": ("ntu60", "xview60"),
        "ntu120": ("ntu120", "xset120"),
        "etri": ("etri", "xsub"),
        "ntu120-vit-t": ("ntu120", "xsub120"),
        "ntu120-vit-b": ("ntu120", "xsub120"),
    },
    "recognition": {
        "ntu60": ("ntu60", "xsub60"),
        "ntu120": ("ntu120", "xsub120"),
        "ntu120-vit-t": ("ntu120", "xset120"),
        "ntu120-vit-b": ("ntu120", "xset120"),
        "etri": ("etri", "xsub"),
        "nucla": ("nucla", "xview3"),
        "pkummd2": ("pku_mmd", "xsub"),
        "rocog": ("rocog", "gr_whole"),
        "keystep": ("egoexo4d", "keystep"),
        "epic100": ("epic100", "recognition"),
        "charades_ego_probe": ("charades_ego", None),
    },
    "egoexo": {
        "kinetics400": ("kinetics", None),
        "kinetics400_slow_r50": ("kinetics", None),
        "kinetics400_r101": ("kinetics", None),
        "kinetics400_baseline": ("kinetics", None),
        "kinetics400_slow_r50_baseline": ("kinetics", None),
        "kinetics400_r101_baseline": ("kinetics", None),
        "charades_ego_slow_r50": ("charades_ego", None),
        "charades_ego": ("charades_ego", None),
        "charades_ego_star": ("charades_ego", None),
        "charades_ego_r101": ("charades_ego", None),
        "charades_ego_r101_star": ("charades_ego", None),
        "epic55": ("epic55", None),
        "epic55_star": ("epic55", None),
        "epic100": ("epic100", "recognition"),
        "epic100_star": ("epic100", "recognition"),
        "epic100_r101": ("epic100", "recognition"),
        "epic100_r101_star": ("epic100", "recognition"),
        "ego_teacher": ("charades_ego", None),
    },
    "byov": {name: (name, None) for name in SETS},
    "evgap": {
        "paper_step1": ("assembly101-tsm", None),
        "paper_step2": ("assembly101-tsm", None),
        "paper_literal_raw": ("assembly101-tsm", None),
        "paper_literal_exp": ("assembly101-tsm", None),
        "paper_literal_ten": ("assembly101-tsm", None),
        "paper_literal_clip": ("assembly101-tsm", None),
    },
}
"""By method and preset: the catalog that it is for, and a protocol of it."""
FEWER: dict[str, dict[str, Any]] = {"keystep": {"classes": {"keystep": 7}}}
"""Options of a preset for an export that has fewer classes than the dataset."""


def catalog_of(name: str, films: Path) -> Path:
    """The folder of a catalog, made once per process."""
    if name in SETS:
        return stand_in("ae2", {"set": name}, films)
    dataset, changes = CATALOGS[name]
    module, options = layout_world.exported(dataset, films)
    if name == "assembly101-tsm":
        changes = changes | {"features": options.root / "TSM_features", "packed": films / dataset / "packed"}
    folder = films / dataset / name
    layout_world.saved(module, replace(options, **changes), folder)
    return folder


def small(config: Any) -> Any:
    """The method with a network of few parameters, each of which has a gradient; what it asks of data stays."""
    match config:
        case Mv2mae():
            stack = Transformer(width=24, depth=1, heads=2)
            return replace(config, encoder=stack, same_decoder=stack, cross_decoder=stack)
        case EgoExo():
            once = (1, 1, 1, 1)
            sizes = {"width": 8, "beta_inverse": 4, "blocks": once, "temporal_blocks": once}
            return replace(config, backbone=replace(config.backbone, **sizes, zero_init_residual=False), map_width=16)
        case Byov():
            base = replace(config.base, model="vit_tiny_patch16_224", weights="random", width=24, depth=1, heads=2)
            encoder, decoder = ByovEncoder(width=16, depth=1, heads=2), Decoder(width=16, depth=1, heads=2)
            return replace(config, base=base, encoder=encoder, decoder=decoder)
        case Recognition():
            return config
        case Evgap():
            base = replace(config.base, model="vit_tiny_patch16_224", weights="random", width=24, depth=1, heads=2)
            return replace(config, base=base, encoder=EvgapEncoder(width=16, depth=2, heads=2, hidden=16))
    raise TypeError(config)


def encoder_of(config: Recognition, folder: Path) -> Encoder:
    """For a classifier: a run of a method on such clips, before its first step; BYOV's for its probe, else MV2MAE's."""
    method = "byov" if config.fps is None else "mv2mae"
    recipe = preset(method, "break_eggs" if method == "byov" else "ntu60")
    made = Experiment(data=Data(catalog=Path("unused")), method=small(recipe.method), optim=Optim(steps=1))
    training_of(new_without_data(folder, method, made), Worker(torch.device("cpu"))).save()
    return Encoder(run=folder)
