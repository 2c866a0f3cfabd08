"""Quality models: scorers that were trained from the user's own examples or reference."""

from datetime import datetime
from typing import Any

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from catalog.tables.base import Base, Json, Moment


class QualityModel(Base):
    """A trained scorer; never changed: a new training of the same name is a new version."""

    __tablename__ = "quality_models"

    name: Mapped[str] = mapped_column(String(40), primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    scorer: Mapped[str] = mapped_column(String(40))
    """``classifier`` or ``perplexity``."""
    file: Mapped[dict[str, Any]] = mapped_column(Json)
    """Where its bytes are in the store."""
    summary: Mapped[dict[str, Any]] = mapped_column(Json)
    """What it was trained on and how well it did."""
    created_at: Mapped[datetime] = mapped_column(Moment)
