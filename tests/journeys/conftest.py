"""Two houses: the embedded default, and one grown to PostgreSQL, Redis and Celery."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from redis import Redis

from tests.house import House, house, opened
from tests.services import postgres, redis


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(item.fspath).parent == Path(__file__).parent:
            item.add_marker(pytest.mark.journey)
            item.add_marker(pytest.mark.timeout(180))


@dataclass(frozen=True)
class Servers:
    """What a grown house stands on; the server of `prepared` holds a database with all tables and the demo campaign."""

    prepared: str
    redis: str

    def database(self) -> str:
        """The address of a fresh copy of what was prepared."""
        server, _, template = self.prepared.rpartition("/")
        with psycopg.connect(f"{server}/template1", autocommit=True) as connection:
            connection.execute("DROP DATABASE IF EXISTS story WITH (FORCE)")
            connection.execute(f"CREATE DATABASE story TEMPLATE {template}")  # type: ignore[arg-type]
        return f"{server}/story"


class GrownHouse(House):
    """A house whose database was prepared already."""

    def prepare(self) -> None:
        pass


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Both servers, for all stories of a process: each has a database of its own, and an empty Redis."""
    with postgres() as database, redis() as broker:
        House(tmp_path_factory.mktemp("prepared"), database_url=database.url).prepare()
        yield Servers(database.url, broker.url)


@pytest.fixture(params=["embedded", "grown"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[House]:
    """A running house with the demo campaign."""
    if request.param == "embedded":
        with house(tmp_path) as built:
            yield built
        return
    standing: Servers = request.getfixturevalue("servers")
    Redis.from_url(standing.redis).flushall()
    with opened(GrownHouse(tmp_path, database_url=standing.database(), redis_url=standing.redis)) as built:
        yield built
