"""Read again what the inbox holds, by what is known by now."""

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from donations import inbox
from donations.management.commands.reconcile import moment
from donations.models import InboxEvent

State = InboxEvent.State
STATES = [state.value for state in (State.NOTHING, State.FOREIGN, State.WRONG_MODE, State.QUARANTINED, State.PROCESSED)]


class Command(BaseCommand):
    help = (
        "Read again events that were kept as needing nothing (or as foreign, of the wrong mode, quarantined or "
        "processed), and book what can be. After an upgrade that happens by itself; what is booked already stays as "
        "it is."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Take which ones."""
        parser.add_argument(
            "--type", action="append", help="of this type alone, such as refund.updated; may be repeated"
        )
        parser.add_argument("--state", choices=STATES, default=STATES[0], help="in this state; unless told, nothing")
        parser.add_argument("--since", type=moment, help="received from then on: 2024-11-01, 40d or 72h")

    def handle(self, *args: Any, **options: Any) -> None:
        """Have them read again, and process what is due."""
        found = inbox.read_again(states=[options["state"]], types=options["type"], since=options["since"])
        self.stdout.write(f"{found:,} events are read again")
        self.stdout.write(f"{inbox.drain():,} events looked at")
