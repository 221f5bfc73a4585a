"""Recordings of every kind that have pictures: whole videos, spans of files, folders of images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import image_folders
import videos

from crossview.datasets.catalog import Catalog
from crossview.datasets.catalog.probing import Prober
from crossview.datasets.folder import Options, catalog

HEADER = "path,split,scene,view,perspective,start_offset_s,first_frame,num_frames,start_s,end_s,fps,first_number"
LINES = (
    "whole.mp4,train,a,ego,ego,0,,,,,,",
    "long.mp4,train,b,ego,ego,0,40,30,,,,",
    "long.mp4,train,c,ego,ego,0,70,,,,,",
    "long.mp4,val,d,ego,ego,0,0,40,,,,",
    "timed.mp4,train,e,ego,ego,0,,,1.0,2.0,,",
    "timed.mp4,train,f,ego,ego,2.5,,,2.0,,,",
    "images,train,g,ego,ego,0,,,,,30,1",
    "shots/*_rgb.jpg,train,h,ego,ego,0,5,15,,,30,",
    "shots/*_rgb.jpg,train,i,ego,ego,0,20,20,,,30,",
)
FIRST = {"a": 0, "b": 40, "c": 70, "d": 0, "e": 30, "f": 60, "g": 0, "h": 5, "i": 20}
"""The number that the first frame of each scene shows."""


def write(root: Path) -> None:
    """The files that `LINES` list."""
    videos.write(root / "whole.mp4", frames=30)
    videos.write(root / "long.mp4", frames=110, b_frames=2)
    videos.write(root / "timed.mp4", frames=90)
    image_folders.write(root / "images", range(1, 31))
    image_folders.write(root / "shots", range(3, 43), name="frame_{}_tc_7_rgb.jpg")
    image_folders.write(root / "shots", range(3, 43), name="frame_{}_tc_7_depth.png")


def listed(root: Path, *lines: str, header: str = HEADER) -> Catalog:
    """The catalog of a CSV in `root`, with its indices there."""
    csv = root / "kinds.csv"
    csv.write_text("\n".join([header, *lines]) + "\n")
    found = catalog(Options(root=root, csv=csv), prober=Prober(root / "frame_index"))
    return replace(found, folder=root)
