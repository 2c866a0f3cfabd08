"""Real brokers: the embedded one, Redis from a wheel, RabbitMQ from the system."""

from collections.abc import Iterator

import pytest

from tests.faults.world import Nursery
from tests.servers import RedisServer, rabbitmq_server


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Being traced takes half as long again, and what PostgreSQL runs SQLite has run, but for lines of catalog."""
    for item in items:
        if "tests/workers/" in item.nodeid and "[postgresql" in item.nodeid:
            item.add_marker(pytest.mark.no_cover)


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """The process that workers of these tests are forked from."""
    made = Nursery("cleaning")
    yield made
    made.close()


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis server of this test process."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    try:
        yield server.url
    finally:
        server.stop()


@pytest.fixture(scope="session")
def rabbitmq_url() -> Iterator[str]:
    """A RabbitMQ server of this test process."""
    with rabbitmq_server() as server:
        yield server.url


@pytest.fixture(params=["embedded", "redis", "rabbitmq"])
def broker_url(request: pytest.FixtureRequest) -> str:
    """Each broker in turn; the empty URL is the embedded one."""
    return "" if request.param == "embedded" else str(request.getfixturevalue(f"{request.param}_url"))
