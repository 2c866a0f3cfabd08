"""Which query strategies hold for which task types."""

from catalog.errors import ConfigError
from labeling.schema import LabelSchema
from labeling.strategies import STRATEGIES


def fitting(schema: LabelSchema) -> list[str]:
    """Names of the strategies that hold for a schema, sorted.

    One that needs class probabilities holds where an answer is one class of several: a single choice, or a rating on a
    scale of few points. What needs no model holds everywhere.
    """
    return [name for name in STRATEGIES if _fits(name, schema)]


def _fits(strategy: str, schema: LabelSchema) -> bool:
    config = STRATEGIES[strategy].config
    if not hasattr(config, "tasks"):
        return bool(schema.classes)
    return config.tasks is None or schema.task in config.tasks


def check_fit(strategy: str, schema: LabelSchema) -> None:
    """Refuse a strategy that does not hold for the schema's task.

    Raises
    ------
    NotFoundError : no such strategy.
    ConfigError : it does not hold; the message names those that do.
    """
    if not _fits(strategy, schema):
        raise ConfigError(
            f"strategy {strategy!r} does not hold for {schema.task} answers; choose one of {', '.join(fitting(schema))}"
        )
