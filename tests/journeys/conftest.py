"""Two houses: the embedded default, and one grown to PostgreSQL, Redis and Celery."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from redis import Redis

from tests.house import EmbeddedHouse, GrownHouse, House, made_once, opened
from tests.services import postgres, redis


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(item.fspath).parent == Path(__file__).parent:
            item.add_marker(pytest.mark.journey)
            item.add_marker(pytest.mark.timeout(180))


@dataclass(frozen=True)
class Servers:
    """What a grown house stands on: a database server's address, with the name of our own there, and a Redis."""

    postgres: str
    story: str
    redis: str

    def prepare(self, folder: Path) -> None:
        """Make the database that every story begins with a copy of: all tables and the demo campaign."""
        self._run("DROP DATABASE IF EXISTS prepared WITH (FORCE)", "CREATE DATABASE prepared TEMPLATE template0")
        House(folder, database_url=f"{self.postgres}/prepared").prepare()

    def database(self) -> str:
        """The address of a fresh copy."""
        self._run(
            f"DROP DATABASE IF EXISTS {self.story} WITH (FORCE)", f"CREATE DATABASE {self.story} TEMPLATE prepared"
        )
        return f"{self.postgres}/{self.story}"

    def _run(self, *statements: str) -> None:
        with psycopg.connect(f"{self.postgres}/postgres", autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def servers(of_the_run: Path, tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[Servers]:
    """Both servers for all stories: those that `./dev test` has started, or our own."""
    own = int(worker_id.removeprefix("gw")) if worker_id != "master" else 0
    with ExitStack() as stack:
        if os.environ.get("TEST_POSTGRES_URL"):
            database, broker, shared = os.environ["TEST_POSTGRES_URL"], os.environ["TEST_REDIS_URL"], of_the_run
        else:
            database, broker = stack.enter_context(postgres()).url, stack.enter_context(redis()).url
            shared = tmp_path_factory.mktemp("servers")
        standing = Servers(database.rpartition("/")[0], f"story{own}", f"{broker.rpartition('/')[0]}/{own}")
        made_once(shared / "prepared_postgres", lambda: standing.prepare(shared))
        yield standing


@pytest.fixture(params=["embedded", "grown"])
def home(request: pytest.FixtureRequest, tmp_path: Path, prepared: Path) -> Iterator[House]:
    """A running house with the demo campaign."""
    if request.param == "embedded":
        with opened(EmbeddedHouse(tmp_path, prepared)) as built:
            yield built
        return
    standing: Servers = request.getfixturevalue("servers")
    Redis.from_url(standing.redis).flushdb()
    with opened(GrownHouse(tmp_path, database_url=standing.database(), redis_url=standing.redis)) as built:
        yield built
