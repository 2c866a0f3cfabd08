"""Which model says what a queue is unsure of."""

from catalog.errors import ConfigError, nearest
from labeling.schema import LabelSchema

LINEAR = "linear"
"""A head on the version's vectors, refitted by every choice; of spans the span model."""
CHECKPOINT = "checkpoint"
"""The newest training of the dataset; ``checkpoint:RUN`` is one training."""
SETFIT = "setfit"
"""A pretrained English encoder that is tuned on the answers, and a head on that."""
CHOICES = (LINEAR, CHECKPOINT, SETFIT)


def check_model(model: str, schema: LabelSchema) -> None:
    """Refuse a model that there is not, or that says nothing of the schema's answers.

    Parameters
    ----------
    model : ``linear``, ``setfit``, ``checkpoint`` or ``checkpoint:`` and the id of a training.

    Raises
    ------
    ConfigError : with those that there are.
    """
    kind, colon, run = model.partition(":")
    if kind not in CHOICES or (colon and (kind != CHECKPOINT or not run)):
        raise ConfigError(f"model={model!r} is unknown; {nearest(kind, CHOICES)}, or checkpoint:RUN")
    if kind != LINEAR and not schema.classes:
        raise ConfigError(
            f"model={model!r} does not hold for {schema.task} answers: a classifier needs answers that are one class "
            f"of several; use {LINEAR}"
        )


def trained_by(model: str) -> str | None:
    """The training that ``checkpoint:RUN`` names, else None.

    >>> trained_by("checkpoint:1a2b"), trained_by("checkpoint")
    ('1a2b', None)
    """
    return model.partition(":")[2] or None
