"""PostgreSQL restarted and gone: a reader meets the page after all, or a sentence, and the bar stands."""

from pathlib import Path

import httpx

from tests.house import House, eventually, opened
from tests.services import postgres


def test_readers_meet_no_failure_when_the_database_restarts_and_a_sentence_while_it_is_away(tmp_path: Path) -> None:
    with postgres() as server, opened(House(tmp_path, database_url=server.url)) as home:
        home.pay(home.checkout())
        home.await_meter(raised=50000)
        bar = home.client.get("/embed/v1/meter").text
        for _ in range(8):  # each thread of the site has a connection of its own by then, most likely
            home.client.get("/give/general/").raise_for_status()
        token = home.page_token()

        server.stop()
        server.start()
        assert {home.give(page=token).status_code for _ in range(12)} == {303}
        server.stop()
        server.start()
        assert {home.client.get("/give/general/").status_code for _ in range(12)} == {200}

        server.stop()
        shown = home.client.get("/give/general/")
        told = home.give(page=token)
        for answer in (shown, told):
            assert answer.status_code == 503
            assert "Please try again in a moment" in answer.text
            assert "has charged nothing" in answer.text
            assert answer.headers["Retry-After"] == "5"
            assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
        assert home.client.get("/embed/v1/meter").text == bar
        assert home.meter()["raised"] == 50000
        never_read = home.client.get("/embed/v1/meter.json?month=2024-11")
        assert never_read.status_code == 503
        assert home.client.post("/webhooks/stripe/", content=b"{}").status_code == 400

        server.start()

        def goes_on() -> bool:
            answer: httpx.Response = home.give(page=token)
            return answer.status_code == 303

        eventually(goes_on, "the form that was refused leads to the payment page")
        home.pay(home.checkout())
        home.await_meter(raised=100000)
