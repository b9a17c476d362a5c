"""Redis gone, hung and emptied: nothing is lost, and the web process steps in."""

from pathlib import Path

from tests.house import GrownHouse, opened
from tests.journeys.conftest import Servers
from tests.services import redis


def test_gifts_are_confirmed_while_redis_is_down(tmp_path: Path, servers: Servers) -> None:
    with (
        redis() as broker,
        opened(GrownHouse(tmp_path, database_url=servers.database(), redis_url=broker.url)) as home,
    ):
        home.pay(home.checkout())
        home.await_meter(raised=50000)
        broker.kill()
        home.pay(home.checkout())
        home.await_meter(raised=100000)
        broker.start()
        broker.pause()
        home.pay(home.checkout())
        home.await_meter(raised=150000)
        broker.resume()
        home.pay(home.checkout())
        home.await_meter(raised=200000)
