"""Two houses: the embedded default, and one grown to PostgreSQL, Redis and Celery."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.house import House, house
from tests.services import postgres, redis


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(item.fspath).parent == Path(__file__).parent:
            item.add_marker(pytest.mark.journey)
            item.add_marker(pytest.mark.timeout(180))


@pytest.fixture(params=["embedded", "grown"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[House]:
    """A running house with the demo campaign."""
    if request.param == "embedded":
        with house(tmp_path) as built:
            yield built
        return
    with (
        postgres() as database,
        redis() as broker,
        house(tmp_path, database_url=database.url, redis_url=broker.url) as built,
    ):
        yield built
