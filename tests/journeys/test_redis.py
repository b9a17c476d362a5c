"""Redis gone, hung and emptied: nothing is lost, and the web process steps in."""

from pathlib import Path

from tests.house import house
from tests.services import postgres, redis


def test_gifts_are_confirmed_while_redis_is_down(tmp_path: Path) -> None:
    with (
        postgres() as database,
        redis() as broker,
        house(tmp_path, database_url=database.url, redis_url=broker.url) as home,
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
