"""What decodes the rows of each kind of plan."""

from __future__ import annotations

from crossview.datasets.sampling.feature_plan import FeaturePlan
from crossview.platform.config import Data
from crossview.platform.data.decoder import AnyPlan, Decoder, Shard
from crossview.platform.data.row_decoder import RowDecoder
from crossview.platform.data.sequence_reader import SequenceReader


def decoder_for(plan: AnyPlan, data: Data, shard: Shard) -> Decoder:
    """A decoder of the shard's rows."""
    if isinstance(plan, FeaturePlan):
        return SequenceReader(plan, data, shard)
    return RowDecoder(plan, data, shard)
