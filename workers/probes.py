"""Whether the parts that Winnow stands on answer: asked by ``/ready`` and by ``winnow doctor``."""

from collections.abc import Callable

from kombu.transport.virtual import Channel
from sqlalchemy.exc import SQLAlchemyError

from catalog.database import Catalog
from catalog.errors import ServiceError
from catalog.migrate import check_revision
from catalog.settings import Settings
from catalog.store import Store
from workers.app import CONNECT_SECONDS, BrokerAwayError, broker_name, make_app


def check_broker(settings: Settings) -> None:
    """Connect to the broker once.

    Raises
    ------
    BrokerAwayError : it does not answer. ConfigError : nobody knows its URL, or its driver is missing.
    """
    connection = make_app(settings).connection_for_read(connect_timeout=CONNECT_SECONDS)
    try:
        connection.ensure_connection(max_retries=1, interval_start=0, timeout=CONNECT_SECONDS)
        channel = connection.default_channel
        if not settings.broker_url:
            assert isinstance(channel, Channel)
            # The embedded one opens its file only when asked for something.
            channel._size("winnow")
    except Exception as error:
        # Whatever a driver raises: each transport has an error tree of its own.
        raise BrokerAwayError(f"the broker at {broker_name(settings)} does not answer ({error})") from error
    finally:
        connection.release()


def parts_away(catalog: Catalog) -> dict[str, str]:
    """Which of ``database``, ``store`` and ``broker`` do not answer, and why; empty when all is well.

    A database at another revision than this release needs counts as away.
    """
    settings = catalog.settings
    parts: dict[str, Callable[[], None]] = {
        "database": lambda: check_revision(catalog),
        "store": lambda: Store.of(settings).check(),
        "broker": lambda: check_broker(settings),
    }
    away = {}
    for name, check in parts.items():
        try:
            check()
        except (ServiceError, SQLAlchemyError, OSError) as error:
            away[name] = str(error)
    return away
