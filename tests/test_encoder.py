"""Both doors to embeddings, `crossview.load` and `crossview embed`, give the same vectors, for every method."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
import resolved
import tiny_run
import torch
import videos

import crossview
from crossview.datasets.catalog import Catalog
from crossview.datasets.sampling.spec import View
from crossview.datasets.video.decode import read_clips
from crossview.datasets.video.source import Wanted
from crossview.platform.cli.main import main
from crossview.platform.config import Compute, Data, Experiment, method_names, preset
from crossview.platform.data.video_reader import in_rgb
from crossview.platform.encoder import Encoder, _of_frames
from crossview.platform.train.state import Training, Worker


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """One file of another shape than any method's frames."""
    root = tmp_path_factory.mktemp("clips")
    made = tiny_run.write_catalog(root)
    only = made.select("val").keep(lambda r: r.perspective == "exo" and r.scene == "wave2")
    only.save(root / "one")
    return only


@pytest.fixture(scope="module", params=method_names())
def run(request: pytest.FixtureRequest, catalog: Catalog, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint before the first step: what is compared is how frames reach the model."""
    recipe = preset(request.param, "debug")
    data, compute = Data(catalog=catalog.root / "one"), Compute(device="cpu", threads=1)
    experiment = Experiment(data=data, method=recipe.method, optim=recipe.optim, compute=compute, seed=1)
    folder = tmp_path_factory.mktemp("runs") / request.param
    Training(resolved.new_without_data(folder, request.param, experiment), Worker(torch.device("cpu"))).save()
    return folder


@pytest.fixture(scope="module")
def written(run: Path, catalog: Catalog) -> np.ndarray:
    """What `crossview embed` writes of the file, (T, D)."""
    out = run / "written.parquet"
    main(["embed", str(run), "--catalog", str(catalog.root / "one"), "--out", str(out), "--debug"])
    column = pq.read_table(out)["vector"].combine_chunks()
    return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)


def file_of(catalog: Catalog) -> Path:
    return catalog.file(catalog.recordings[0])


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.min((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)))


def read(encoder: Encoder, catalog: Catalog) -> tuple[torch.Tensor, View]:
    """The file's frames as a clip of the plan would be read, framed as in evaluation, uint8 (T, 3, H, W)."""
    view, (recording,) = encoder.experiment.method.sampling().view_for("exo"), catalog.recordings
    framing = view.centred(recording.height_px, recording.width_px)
    pixels = encoder.experiment.data.pixels(view)
    (clip,) = read_clips(catalog.source(recording), [Wanted(np.arange(recording.num_frames), framing)], pixels=pixels)
    return in_rgb(clip, pixels), view


def test_a_file_gives_the_written_vectors(run: Path, written: np.ndarray, catalog: Catalog) -> None:
    found = crossview.load(run).embed(file_of(catalog))
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), written, rtol=1e-5, atol=1e-6)


def test_decoded_frames_of_the_runs_size_give_the_written_vectors(
    run: Path, written: np.ndarray, catalog: Catalog
) -> None:
    encoder = crossview.load(run)
    frames, _ = read(encoder, catalog)
    assert frames.shape[-2:] == (encoder.size_px("exo"),) * 2
    np.testing.assert_allclose(encoder.embed(frames).numpy(), written, rtol=1e-5, atol=1e-6)
    batch = encoder.embed(torch.stack([frames, frames.flip(0)]))
    np.testing.assert_allclose(batch[0].numpy(), written, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(batch[0], batch[1])


def test_frames_of_any_decoder_give_nearly_the_written_vectors(
    run: Path, written: np.ndarray, catalog: Catalog
) -> None:
    """RGB at the file's own size was rounded to whole levels once more, and nothing else differs."""
    with av.open(str(file_of(catalog))) as container:
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    frames = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
    assert frames.shape[-2:] == (64, 96)
    encoder = crossview.load(run)
    direct, view = read(encoder, catalog)
    through_rgb = torch.cat(list(_of_frames(frames, view, encoder.experiment.data)))
    assert float((direct.int() - through_rgb.int()).abs().float().mean()) < 2  # of 255
    assert cosine(encoder.embed(frames).numpy(), written) > 0.98  # weights before the first step magnify a level


def test_other_frames_and_missing_files_are_refused(run: Path, tmp_path: Path) -> None:
    encoder = crossview.load(run)
    with pytest.raises(ValueError, match=r"frames are torch.float32 of shape \(4, 3, 8, 8\); give uint8"):
        encoder.embed(torch.zeros(4, 3, 8, 8))
    with pytest.raises(ValueError, match=r"uint8 of shape \(4, 8, 8, 3\); give uint8"):
        encoder.embed(np.zeros((4, 8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match=r"nowhere\.mp4: No such file"):
        encoder.embed(tmp_path / "nowhere.mp4")


def test_importing_the_package_is_quick_and_gives_the_version() -> None:
    code = "import sys, crossview; print(crossview.__version__, 'torch' in sys.modules, crossview.load.__module__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    version, torch_there, module = done.stdout.split()
    assert version[0].isdigit()
    assert torch_there == "False"
    assert module == "crossview.platform.encoder"
    with pytest.raises(AttributeError, match="no attribute 'lead'"):
        crossview.lead  # noqa: B018


def test_a_long_file_is_embedded_whole(run: Path, tmp_path: Path) -> None:
    """More frames than one pass of the frozen part takes."""
    file = videos.write(tmp_path / "long.mp4", frames=70)
    assert len(crossview.load(run).embed(file)) == 70
