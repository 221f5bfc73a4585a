"""The catalog: which recordings exist and what is known about them."""

from crossview.datasets.catalog.catalog import Catalog
from crossview.datasets.catalog.classes import Classes
from crossview.datasets.catalog.protocols import Protocols, one_protocol
from crossview.datasets.catalog.recording import Kind, Perspective, Quarantined, Recording, Segment

__all__ = [
    "Catalog",
    "Classes",
    "Kind",
    "Perspective",
    "Protocols",
    "Quarantined",
    "Recording",
    "Segment",
    "one_protocol",
]
