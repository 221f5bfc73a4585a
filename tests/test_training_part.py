from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import tiny_run

from crossview.datasets.catalog import Catalog, one_protocol
from crossview.datasets.sampling.mixture import Mixture
from crossview.platform.config import Data, Experiment, Source, from_dict, preset, to_dict
from crossview.platform.data.plan_builder import plan_for, training_part


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    return tiny_run.write_catalog(tmp_path_factory.mktemp("part"), actions=("wave", "stir"))


def test_cameras_and_actions_can_be_left_out(catalog: Catalog) -> None:
    everything = training_part(catalog, Data(catalog=Path("c")))
    assert len(everything.recordings) == 8
    some = training_part(catalog, Data(catalog=Path("c"), views=("exo",), actions=("stir",)))
    assert {(some.split_of(r), r.view, r.action) for r in some.recordings} == {("train", "exo", "stir")}
    assert set(some.frame_labels["phase"]) == {r.id for r in some.recordings}


def test_unknown_ones_are_refused_with_the_known(catalog: Catalog) -> None:
    with pytest.raises(ValueError, match=r"data\.views is exo, left; .* has the views ego, exo"):
        training_part(catalog, Data(catalog=Path("c"), views=("exo", "left")))
    with pytest.raises(ValueError, match=r"data\.actions is jump; .* has the actions stir, wave"):
        training_part(catalog, Data(catalog=Path("c"), actions=("jump",)))
    with pytest.raises(ValueError, match=r"data\.actions is empty"):
        Data(catalog=Path("c"), actions=())


def test_catalogs_mix_as_a_configuration_says(catalog: Catalog, tmp_path: Path) -> None:
    sparse = tiny_run.write_catalog(tmp_path)
    renamed = [(replace(r, scene=f"sparse-{r.scene}"), str(sparse.split_of(r))) for r in sparse.recordings]
    Catalog(tmp_path, tuple(r for r, _ in renamed), protocols=one_protocol(renamed)).save(tmp_path / "sparse")
    recipe = preset("evgap", "debug")
    source = Source(catalog=tmp_path / "sparse", share=0.25, pairing="paired")
    data = Data(catalog=catalog.root / "catalog", mix=(source,))
    asked = Experiment(data=data, method=recipe.method, optim=recipe.optim)
    name, experiment = from_dict(to_dict("evgap", asked))
    assert (name, experiment) == ("evgap", asked)
    plan = plan_for(experiment)
    assert isinstance(plan, Mixture)
    found = []
    for i in range(40):
        clips = [clip for clip in plan.row(i).clips[0] if clip]
        files = {str(plan.catalog.file(plan.catalog.recordings[clip.recording])) for clip in clips}
        assert len(files) == 2
        found.append(all(file.startswith(str(tmp_path)) for file in files))
    assert sum(found) == 10
