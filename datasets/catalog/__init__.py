"""The catalog: which recordings exist and what is known about them."""

from crossview.datasets.catalog.tables import (
    Catalog,
    Kind,
    Perspective,
    Quarantined,
    Recording,
    Segment,
)

__all__ = ["Catalog", "Kind", "Perspective", "Quarantined", "Recording", "Segment"]
