"""The SQL schema: one file a concern. Importing this package makes ``metadata`` complete."""

from catalog.tables import (
    access,
    curation,
    datasets,
    engine,
    label_errors,
    labeling,
    quality,
    schedules,
    training,
    webhooks,
)
from catalog.tables.base import Base

metadata = Base.metadata

__all__ = [
    "Base", "access", "curation", "datasets", "engine", "label_errors", "labeling", "metadata", "quality", "schedules",
    "training", "webhooks",
]  # fmt: skip
