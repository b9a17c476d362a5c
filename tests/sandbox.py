"""A sandbox in this process for tests, with a clock that they move and a webhook endpoint that remembers."""

import json
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import stripe

from donations.sandbox import jobs, seeding
from donations.sandbox.clock import Clock
from donations.sandbox.deliveries import Target
from donations.sandbox.server import Running, serve

Json = dict[str, Any]
KEY = "sk_test_x"
SECRET = "whsec_tests"
NOWHERE = "http://127.0.0.1:9/webhooks/stripe/"


@dataclass
class Answer:
    """One HTTP answer; `json` for those that are."""

    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any) -> None:
        return None


OPENER = urllib.request.build_opener(NoRedirect, urllib.request.ProxyHandler({}))


class Sandboxed:
    """A running sandbox: the official SDK's client, plain HTTP, and the controls."""

    def __init__(self, running: Running, clock: Clock) -> None:
        self.running = running
        self.clock = clock
        self.url = running.url
        self.sdk = stripe.StripeClient(KEY, base_addresses={"api": running.url}, max_network_retries=0).v1

    def http(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Answer:
        request = urllib.request.Request(self.url + path, body, headers or {}, method=method)
        try:
            with OPENER.open(request, timeout=20) as answer:
                return Answer(answer.status, _lower(answer.headers), answer.read().decode())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, _lower(error.headers), error.read().decode())

    def api(self, method: str, path: str, form: Json | None = None, **headers: str) -> Answer:
        """A call of the API; `form` has Stripe's bracketed names. Of headers, _ is -."""
        body = urllib.parse.urlencode(form).encode() if form is not None else None
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.http(method, path, body, {"Authorization": f"Bearer {KEY}"} | given)

    def form(self, path: str, **fields: str) -> Answer:
        """A form as a browser sends it from the sandbox's own page."""
        return self.http("POST", path, urllib.parse.urlencode(fields).encode(), {"Origin": self.url})

    def control(self, path: str, /, **body: Any) -> Json:
        answer = self.http("POST", f"/_control/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"})
        assert answer.status == 200, answer.text
        found: Json = answer.json
        return found

    def state(self) -> Json:
        found: Json = self.http("GET", "/_control/state").json
        return found

    def checkout(
        self, amount: int = 2500, currency: str = "usd", form: Json | None = None, *, replace: bool = False
    ) -> Json:
        """A new session's JSON; `form` adds to its parameters or replaces some, or all."""
        given = (form or {}) if replace else session_form(amount, currency) | (form or {})
        answer = self.api("POST", "/v1/checkout/sessions", given)
        assert answer.status == 200, answer.text
        found: Json = answer.json
        return found

    def paid(self, amount: int = 2500, **fields: str) -> Json:
        """A session that was paid, by card unless told otherwise."""
        return self.control(f"sessions/{self.checkout(amount)['id']}/pay", **fields)

    def subscribed(self, amount: int = 1000, **fields: str) -> Json:
        """A monthly gift's session, its first payment made: its `subscription`, `customer` and `invoice` are set."""
        form = subscription_form(amount)
        return self.control(f"sessions/{self.checkout(form=form, replace=True)['id']}/pay", **fields)

    def seed(self, payments: int, **plan: Any) -> list[seeding.Seeded]:
        """Many payments at once, by a plan of `seeding`: who paid what, by their ids."""
        return seeding.seed(self.running.sandbox.store, seeding.Plan(payments, **plan))

    def listed(self, path: str, **query: Any) -> list[Json]:
        """The whole of a list, the newest first, page by page."""
        found: list[Json] = []
        while True:
            after = {"starting_after": found[-1]["id"]} if found else {}
            page = self.api("GET", f"/v1/{path}?{urllib.parse.urlencode({'limit': 100} | query | after)}").json
            found += page["data"]
            if not page["has_more"]:
                return found

    def one(self, path: str) -> Json:
        """One object of the API."""
        answer = self.api("GET", f"/v1/{path}")
        assert answer.status == 200, answer.text
        found: Json = answer.json
        return found

    def events(self) -> list[Json]:
        """All events of the last 30 days, the oldest first."""
        return self.listed("events")[::-1]

    def all_events(self) -> list[Json]:
        """All events, also those that the API has forgotten, the oldest first."""
        with self.running.sandbox.store.transaction() as tx:
            rows = tx.db.execute("SELECT body FROM objects WHERE kind = 'event' ORDER BY created, seq").fetchall()
        return [json.loads(row[0]) for row in rows]

    def types(self) -> list[str]:
        return [event["type"] for event in self.events()]

    def later(self, seconds: float) -> None:
        """Move the clock, and let happen what happens by itself until then."""
        self.clock.ahead += seconds
        jobs.run_due(self.running.sandbox.store, self.clock.now())

    def forget_events(self) -> None:
        """Move the clock on by 31 days: the API lists none of the events so far.

        Nothing happens by itself from here on: in a short month a monthly gift would be renewed, sooner or later.
        """
        self.running.sandbox.ticker.stop()
        self.clock.ahead += timedelta(days=31).total_seconds()

    def advance(self, text: str) -> Json:
        """Move the clock by 1mo, 3d, 2h, as the command does, with everything on the way at its own time."""
        return self.control("clock", advance=text)


def session_form(amount: int = 2500, currency: str = "usd") -> Json:
    """The parameters of a gift's checkout, as Stripe spells them."""
    return {
        "mode": "payment",
        "submit_type": "donate",
        "success_url": "http://site.test/thanks?session={CHECKOUT_SESSION_ID}",
        "cancel_url": "http://site.test/give",
        "client_reference_id": "gift_1",
        "line_items[0][quantity]": 1,
        "line_items[0][price_data][currency]": currency,
        "line_items[0][price_data][unit_amount]": amount,
        "line_items[0][price_data][product_data][name]": "General fund",
        "metadata[gift]": "gift_1",
        "metadata[campaign]": "general",
        "payment_intent_data[metadata][gift]": "gift_1",
        "adaptive_pricing[enabled]": "false",
    }


def subscription_form(amount: int = 1000, currency: str = "usd") -> Json:
    """The parameters of a monthly gift's checkout, as Stripe spells them."""
    form = session_form(amount, currency)
    return {name: value for name, value in form.items() if not name.startswith(("payment_intent_data", "metadata"))} | {
        "mode": "subscription",
        "line_items[0][price_data][recurring][interval]": "month",
        "metadata[recurring_gift]": "recurring_1",
        "subscription_data[metadata][recurring_gift]": "recurring_1",
    }


def _lower(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


@contextmanager
def sandbox(folder: Path, *, url: str = NOWHERE, threads: int = 0, **target: Any) -> Iterator[Sandboxed]:
    """A sandbox for as long as the block lasts; without threads it delivers nothing."""
    clock = Clock()
    running = serve(folder / "state.sqlite3", Target(url, SECRET, threads=threads, **target), clock=clock, poll=0.005)
    try:
        yield Sandboxed(running, clock)
    finally:
        running.close()


@dataclass
class Endpoint:
    """A webhook endpoint: what came, and what it answers (the last answer stays)."""

    url: str
    answers: list[int]
    got: list[tuple[str, bytes]] = field(default_factory=list)

    def events(self) -> list[Json]:
        return [json.loads(body) for _, body in list(self.got)]


@contextmanager
def endpoint(*answers: int) -> Iterator[Endpoint]:
    """A webhook endpoint on a free port that answers these statuses in turn; 200 by default."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found.got.append((self.headers["Stripe-Signature"], body))
            self.send_response(found.answers.pop(0) if len(found.answers) > 1 else found.answers[0])
            self.send_header("Location", "/elsewhere")
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Endpoint(f"http://127.0.0.1:{server.server_port}/webhooks/stripe/", list(answers) or [200])
    thread = threading.Thread(target=server.serve_forever, args=(0.005,), daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def eventually(holds: Callable[[], bool], patience: float = 30.0) -> None:
    """Wait for what must become true."""
    end = time.monotonic() + patience
    while not holds():
        assert time.monotonic() < end, "it did not become true"
        time.sleep(0.01)
