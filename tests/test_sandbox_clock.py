"""The sandbox's clock: moved by its control and its command, kept over a restart, and never in the deliveries."""

import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import stripe
from django.core.management import CommandError, call_command

from tests.sandbox import SECRET, Sandboxed, endpoint, eventually, sandbox, session_form

DAY = 24 * 3600


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Sandboxed]:
    with sandbox(tmp_path) as running:
        yield running


def now(box: Sandboxed) -> float:
    return box.running.sandbox.store.clock.now()


def test_it_is_moved_and_stays_moved(tmp_path: Path) -> None:
    with sandbox(tmp_path) as box:
        box.advance("3d")
        moved = box.advance("2h")
        assert moved["now"] == pytest.approx(time.time() + 3 * DAY + 7200, abs=5)
        assert box.checkout()["created"] == pytest.approx(moved["now"], abs=5)
    with sandbox(tmp_path) as box:
        assert now(box) == pytest.approx(time.time() + 3 * DAY + 7200, abs=5)


def test_what_is_due_on_the_way_happens_in_order_and_at_its_time(box: Sandboxed) -> None:
    session = box.checkout()
    box.paid()
    done = box.advance("1w")
    assert done["done"] >= 3
    expired = next(event for event in box.events() if event["type"] == "checkout.session.expired")
    assert expired["created"] == session["expires_at"]
    times = [event["created"] for event in box.events()]
    assert times == sorted(times)
    assert box.types()[-4:] == ["payout.created", "payout.updated", "payout.paid", "payout.reconciliation_completed"]


def test_a_site_whose_clock_was_not_moved_can_still_open_checkouts(box: Sandboxed) -> None:
    box.advance("1mo")
    ends = int(time.time()) + 3600
    session = box.api("POST", "/v1/checkout/sessions", session_form() | {"expires_at": ends}).json
    assert (session["status"], session["expires_at"]) == ("open", ends)
    box.advance("59m")
    assert box.one(f"checkout/sessions/{session['id']}")["status"] == "open"
    box.advance("2m")
    assert box.one(f"checkout/sessions/{session['id']}")["status"] == "expired"


def test_events_are_forgotten_after_thirty_days(box: Sandboxed) -> None:
    box.control("account", payouts="manual")
    box.paid()
    event = box.events()[0]["id"]
    box.advance("29d")
    assert len(box.events()) == 5
    box.advance("1d")
    box.advance("5s")
    assert box.events() == []
    assert box.api("GET", f"/v1/events/{event}").status == 404
    assert len(box.all_events()) >= 5


def test_signatures_have_the_time_of_the_receiver(tmp_path: Path) -> None:
    with endpoint() as hooks, sandbox(tmp_path, url=hooks.url, threads=1) as box:
        box.advance("1mo")
        box.paid()
        eventually(lambda: len(hooks.got) == 5)
        for signature, body in hooks.got:
            stripe.WebhookSignature.verify_header(body.decode(), signature, SECRET, 300)
        assert hooks.events()[0]["created"] > time.time() + 27 * DAY


@pytest.mark.parametrize("text", ["", "soon", "-1d", "99999mo", "121mo", "9999d"])
def test_what_the_clock_can_not_be_moved_by(box: Sandboxed, text: str) -> None:
    answer = box.form("/_control/clock", advance=text)
    assert (answer.status, answer.json["error"]["param"]) == (400, "advance")


# ---- the command


def advance(folder: Path, text: str, port: int, capsys: pytest.CaptureFixture[str]) -> str:
    call_command("sandbox", "--advance", text, "--port", str(port), "--state", str(folder / "state.sqlite3"))
    return capsys.readouterr().out


def test_the_command_moves_a_running_sandbox(
    box: Sandboxed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session = box.checkout()["id"]
    port = urlsplit(box.url).port or 0
    said = advance(tmp_path, "2d", port, capsys)
    assert said.startswith("sandbox: it is now 20")
    assert "Things done on the way: 1." in said
    assert now(box) == pytest.approx(time.time() + 2 * DAY, abs=5)
    assert box.one(f"checkout/sessions/{session}")["status"] == "expired"
    with pytest.raises(CommandError, match="no length of time"):
        advance(tmp_path, "soon", port, capsys)


def test_the_command_moves_the_state_when_none_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with sandbox(tmp_path) as box:
        session = box.subscribed()["subscription"]
    advance(tmp_path, "1mo", 1, capsys)
    advance(tmp_path, "2h", 1, capsys)
    with sandbox(tmp_path) as box:
        assert len(box.listed("invoices", subscription=session, status="paid")) == 2
    with pytest.raises(CommandError, match="no length of time"):
        advance(tmp_path, "soon", 1, capsys)


def test_the_command_knows_what_is_not_the_sandbox(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with endpoint(404) as other, pytest.raises(CommandError, match="is not the sandbox"):
        advance(tmp_path, "1d", urlsplit(other.url).port or 0, capsys)
