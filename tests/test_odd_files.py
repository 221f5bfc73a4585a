"""Files as people have them, from the CSV to clips and embeddings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import clock_videos
import numpy as np
import pyarrow.parquet as pq
import pytest
import videos

from crossview.datasets import folder
from crossview.datasets.catalog import Catalog
from crossview.datasets.sampling.geometry import SQUASH
from crossview.datasets.sampling.plan import Plan
from crossview.datasets.sampling.spec import Sampling, View
from crossview.platform.cli.main import main
from crossview.platform.config import Data
from crossview.platform.data.decoder import Shard
from crossview.platform.data.row_decoder import RowDecoder


def test_cameras_of_other_rates_and_offsets_show_the_same_instants(tmp_path: Path) -> None:
    """Within half a frame of the slower, 0.02 s, and a barcode's 0.01 s on either side."""
    clock_videos.write(tmp_path / "ego.mp4", np.arange(240) / 25, rate=25, scene_start_s=0.4)
    clock_videos.write(tmp_path / "exo.mp4", np.arange(300) * 1001 / 30000)
    (tmp_path / "v.csv").write_text(
        "path,split,scene,view,perspective,start_offset_s\nego.mp4,train,s,ego,ego,0.4\nexo.mp4,train,s,exo,exo,0\n"
    )
    catalog = folder.catalog(folder.Options(root=tmp_path, csv=tmp_path / "v.csv"))
    catalog.save(tmp_path / "catalog")
    view = View(perspective="ego", frames=6, fps=5.0, size_px=96, geometry=SQUASH)
    sampling = Sampling(views={"ego": view, "exo": replace(view, perspective="exo")}, pairing="synchronized")
    plan = Plan(catalog, sampling, 0)
    shard = Shard(start_step=0, stop_step=40, batch=1, micro_batch=1)
    out = RowDecoder(plan, Data(catalog=tmp_path / "catalog"), shard).decode(np.arange(40))
    assert not any(out["quarantine"])
    read = clock_videos.read
    ego, exo = (np.array([[read(f[:96]) for f in clips] for clips in out[name][:, 0]]) for name in ("ego", "exo"))
    assert len(np.unique(ego)) > 50
    assert np.abs(ego - exo).max() <= 4


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16"])
def test_a_csv_from_a_spreadsheet_is_read_or_its_remedy_printed(
    tmp_path: Path, encoding: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "ab":
        videos.write(tmp_path / f"{name}.mp4", frames=5)
    text = "path,split,scene,view,perspective,action\na.mp4,train,s,head,ego,café\nb.mp4,train,s,left,exo,café\n"
    (tmp_path / "v.csv").write_bytes(text.encode(encoding))
    command = ["prepare", "folder", "--root", str(tmp_path), "--csv", str(tmp_path / "v.csv"), "--out"]
    if encoding == "utf-16":
        main([*command, str(tmp_path / "catalog")])
        assert {r.action for r in Catalog.load(tmp_path / "catalog").recordings} == {"café"}
        return
    with pytest.raises(SystemExit):
        main([*command, str(tmp_path / "catalog")])
    said = " ".join("".join(capsys.readouterr()).split())
    assert "v.csv, line 2: the bytes e9 are not UTF-8; save the file as UTF-8" in said
    assert not (tmp_path / "catalog").exists()


@pytest.mark.long
def test_odd_names_links_and_blank_lines_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spaces, #, %, accents and brackets in names; a linked folder; a byte order mark, CRLF and blank lines."""
    root = tmp_path / "a place with spaces"
    real, link = root / "real disk" / "Vidéos #1", root / "link to videos"
    rows = ["path,split,scene,view,perspective,action", ""]
    for split in ("train", "val"):
        for view, perspective in (("head", "ego"), ("left", "exo")):
            name = f"GX [{split}] 100%20 {view}#é.mp4"
            videos.write(real / name, frames=20, fps=20)
            rows.append(f"{name},{split},s{'' if split == 'train' else '2'},{view},{perspective},tea")
    link.symlink_to(real, target_is_directory=True)
    (link / "v.csv").write_bytes(("\ufeff" + "\r\n".join([*rows, "", ""])).encode())
    monkeypatch.chdir(root)
    main(["prepare", "folder", "--root", link.name, "--csv", f"{link.name}/v.csv", "--out", "cat %1"])
    main(["view", "cat %1", "--out", "sheet #1.png"])
    assert Path("sheet #1.png").stat().st_size
    main(["prepare", "copies", "--catalog", "cat %1", "--out", "co pies", "--size-px", "64"])
    small = ["--optim.steps", "1", "--optim.batch", "1", "--optim.warmup-steps", "0", "--compute.device", "cpu"]
    main(["train", "byov", "--preset", "debug", "--data.catalog", "co pies", "--name", "é r", "--debug", *small])
    main(["embed", "runs/é r", "--device", "cpu", "--debug"])
    table = pq.read_table("runs/é r/embeddings/val/trained.parquet")
    assert table.num_rows == 40
    assert set(table["view"].to_pylist()) == {"head", "left"}
