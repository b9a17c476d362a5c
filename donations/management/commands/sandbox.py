"""`manage.py sandbox`: the local payment sandbox, in which no money moves."""

import errno
import signal
import threading
from argparse import ArgumentParser
from pathlib import Path
from types import FrameType
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from donations.sandbox.deliveries import Target
from donations.sandbox.server import Running, serve
from donations.sandbox.store import StateUnusable


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

    def handle(self, *args: Any, **options: Any) -> None:
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


def start(options: dict[str, Any]) -> Running:
    """The sandbox that the options describe. Raises CommandError with one line that says what to do."""
    state = options["state"] or Path(settings.BASE_DIR) / "var" / "sandbox.sqlite3"
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
