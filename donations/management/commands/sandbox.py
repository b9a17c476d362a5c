"""`manage.py sandbox`: the local payment sandbox, in which no money moves."""

import errno
import json
import signal
import threading
import urllib.error
import urllib.request
from argparse import ArgumentParser
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from donations.sandbox.clock import Clock, duration
from donations.sandbox.deliveries import Target
from donations.sandbox.errors import ApiError
from donations.sandbox.jobs import advance
from donations.sandbox.server import Running, serve
from donations.sandbox.store import StateUnusable, Store


class Command(BaseCommand):
    help = "Run the payment sandbox: a local stand-in for Stripe. No money moves."
    requires_system_checks: list[str] = []
    requires_migrations_checks = False

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
        parser.add_argument("--port", type=int, default=8001, help="port to listen on (8001); 0: any free one")
        parser.add_argument("--state", type=Path, help="file that the sandbox remembers in (var/sandbox.sqlite3)")
        parser.add_argument("--webhook-url", help="where events go (the site's /webhooks/stripe/)")
        parser.add_argument("--webhook-secret", help="what they are signed with (the first of STRIPE_WEBHOOK_SECRETS)")
        parser.add_argument("--retry-base", type=float, default=1.0, help="seconds before a delivery is tried again")
        parser.add_argument("--public-url", default="", help="origin that donors reach the payment page at, if another")
        parser.add_argument("--advance", help="move the sandbox's clock ahead, by 1mo, 2w, 3d, 2h, 5m or 30s, and end")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["advance"] is not None:
            self.stdout.write(moved(options))
            return
        stop = threading.Event()

        def on_signal(number: int, frame: FrameType | None) -> None:
            stop.set()

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, on_signal)
        running = start(options)
        self.stdout.write(f"sandbox: {running.url}/")
        self.stdout.flush()
        stop.wait()
        running.close()


def state_of(options: dict[str, Any]) -> Path:
    """The file that the sandbox remembers in."""
    return options["state"] or Path(settings.BASE_DIR) / "var" / "sandbox.sqlite3"


def moved(options: dict[str, Any]) -> str:
    """Move the clock of the sandbox that runs at this host and port, or of the state if none does. Says what it did."""
    try:
        done = advance_running(options) or advance_stored(options)
    except (ApiError, StateUnusable) as error:
        raise CommandError(str(error)) from error
    now = datetime.fromtimestamp(done["now"], UTC)
    return f"sandbox: it is now {now:%Y-%m-%d %H:%M:%S} UTC. Things done on the way: {done['done']}."


def advance_running(options: dict[str, Any]) -> dict[str, Any] | None:
    """Have the running sandbox do it. None: nothing listens there."""
    host = f"[{options['host']}]" if ":" in options["host"] else options["host"]
    request = urllib.request.Request(
        f"http://{host}:{options['port']}/_control/clock",
        json.dumps({"advance": options["advance"]}).encode(),
        {"Content-Type": "application/json"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request) as answer:
            found: dict[str, Any] = json.loads(answer.read())
            return found
    except urllib.error.HTTPError as error:
        raise CommandError(error_text(error)) from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, ConnectionRefusedError):
            return None
        raise CommandError(f"The sandbox at {request.full_url} does not answer: {error.reason}.") from error


def error_text(error: urllib.error.HTTPError) -> str:
    """What an error of the sandbox says; or that it is none of its."""
    try:
        return str(json.loads(error.read())["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"What answers at {error.url} is not the sandbox: name its --host and --port."


def advance_stored(options: dict[str, Any]) -> dict[str, Any]:
    """Move the clock that a sandbox will find when it starts."""
    store = Store(state_of(options), Clock())
    try:
        return advance(store, duration(options["advance"]))
    finally:
        store.close()


def start(options: dict[str, Any]) -> Running:
    """The sandbox that the options describe. Raises CommandError with one line that says what to do."""
    state = state_of(options)
    host, port = options["host"], options["port"]
    target = Target(
        url=options["webhook_url"] or f"{settings.SITE_URL}/webhooks/stripe/",
        secret=options["webhook_secret"] or settings.STRIPE_WEBHOOK_SECRETS[0],
        retry_base=options["retry_base"],
    )
    try:
        return serve(state, target, host=host, port=port, public_url=options["public_url"])
    except StateUnusable as error:
        raise CommandError(str(error)) from error
    except (OSError, OverflowError) as error:
        if getattr(error, "errno", None) == errno.EADDRINUSE:
            raise CommandError(f"Port {port} is in use: stop what uses it, or choose another with --port.") from error
        raise CommandError(f"The sandbox can't listen on {host}:{port}: {error}.") from error
