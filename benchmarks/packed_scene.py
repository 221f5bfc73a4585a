"""A scene's views in one Parquet file, for `packing.py`: an experiment, no format of Crossview's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from av.video.frame import VideoFrame

from crossview import storage
from crossview.datasets.catalog import Catalog
from crossview.datasets.video.placing import placed
from crossview.datasets.video.source import Source, Wanted, frames_in_file

ROW_GROUP = 32
"""Frames."""
GOP = 8
"""Of the copies."""
Group = dict[int, list[Wanted]]
"""Clips by recording, which is an index into the catalog's."""


def pack(catalog: Catalog, file: Path) -> None:
    """One column per recording, one row per frame with its packet."""
    columns, fields = [], []
    for k, recording in enumerate(catalog.recordings):
        with av.open(str(catalog.file(recording))) as container:
            stream = container.streams.video[0]
            packets = [packet for packet in container.demux(stream) if packet.size]
            assert all(packet.is_keyframe == (n % GOP == 0) for n, packet in enumerate(packets))
            columns.append(pa.array([bytes(packet) for packet in packets], pa.binary()))
            head = stream.codec_context.extradata
            fields.append(pa.field(str(k), pa.binary(), metadata={"extradata": head}))
    table = pa.table(columns, schema=pa.schema(fields))
    pq.write_table(
        table, file, row_group_size=ROW_GROUP, compression="none", use_dictionary=False, write_statistics=False
    )


class Packed:
    """A packed file, whose footer is read once."""

    def __init__(self, file: Path) -> None:
        self.source = Source(file)
        opened: Any = str(file)
        if not storage.is_local(file):
            path, store = storage.filesystem(file)
            opened = store.open(path, cache_type="none")
        self.parquet = pq.ParquetFile(opened, pre_buffer=True)  # row groups side by side come in one request

    def read(self, group: Group) -> list[np.ndarray]:
        """The clips of a group from the row groups that hold them."""
        frames = {recording: frames_in_file(self.source, wanted) for recording, wanted in group.items()}
        row_groups = np.unique(np.concatenate(list(frames.values())) // ROW_GROUP).tolist()
        table = self.parquet.read_row_groups(row_groups, columns=[str(k) for k in group], use_threads=False)
        rows = {number: n * ROW_GROUP for n, number in enumerate(row_groups)}
        clips = []
        for recording, wanted in group.items():
            column = table[str(recording)].combine_chunks()
            head = self.parquet.schema_arrow.field(str(recording)).metadata[b"extradata"]
            found = self._decoded(column, rows, head, frames[recording].tolist())
            clips += placed(self.source, wanted, "yuv420", found)
        return clips

    @staticmethod
    def _decoded(
        column: pa.BinaryArray, rows: dict[int, int], head: bytes, frames: list[int]
    ) -> Iterator[tuple[int, VideoFrame]]:
        """Frames with their numbers, each decoded from its key frame or on from the frame before."""
        context = av.CodecContext.create("h264", "r")
        context.extradata, context.thread_count = head, 1
        context.open()
        at = 0
        for number in frames:
            key = number // GOP * GOP
            if key > at:
                context.flush_buffers()
            for n in range(max(at, key), number + 1):
                packet = av.Packet(column[rows[n // ROW_GROUP] + n % ROW_GROUP].as_py())
                packet.pts = n
                (frame,) = context.decode(packet)
            assert isinstance(frame, VideoFrame)
            assert frame.pts == number
            yield number, frame
            at = number + 1
