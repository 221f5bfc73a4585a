from __future__ import annotations

from pathlib import Path

import pytest
import tiny_run

from crossview.datasets.catalog import Catalog
from crossview.platform.config import Data
from crossview.platform.loop import training_part


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    return tiny_run.write_catalog(tmp_path_factory.mktemp("part"), actions=("wave", "stir"))


def test_cameras_and_actions_can_be_left_out(catalog: Catalog) -> None:
    everything = training_part(catalog, Data(catalog=Path("c")))
    assert len(everything.recordings) == 8
    some = training_part(catalog, Data(catalog=Path("c"), views=("exo",), actions=("stir",)))
    assert {(r.split, r.view, r.action) for r in some.recordings} == {("train", "exo", "stir")}
    assert set(some.frame_labels["phase"]) == {r.id for r in some.recordings}


def test_unknown_ones_are_refused_with_the_known(catalog: Catalog) -> None:
    with pytest.raises(ValueError, match=r"data\.views is exo, left; .* has the views ego, exo"):
        training_part(catalog, Data(catalog=Path("c"), views=("exo", "left")))
    with pytest.raises(ValueError, match=r"data\.actions is jump; .* has the actions stir, wave"):
        training_part(catalog, Data(catalog=Path("c"), actions=("jump",)))
    with pytest.raises(ValueError, match=r"data\.actions is empty"):
        Data(catalog=Path("c"), actions=())
