"""Make the totals anew from the ledger, or only compare."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from donations import projections, recurring
from donations.invariants import one_snapshot


class Command(BaseCommand):
    help = "Rebuild every total from the ledger. With --check, change nothing; exit 1 and print what differs."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take --check."""
        parser.add_argument("--check", action="store_true", help="compare only; exit 1 if anything differs")

    def handle(self, *args: Any, **options: Any) -> None:
        """Rebuild or compare."""
        if not options["check"]:
            projections.rebuild()
            recurring.rebuild()
            self.stdout.write("every total was made anew from the ledger, every state from what was told")
            return
        with one_snapshot():
            found = [*map(str, projections.drift()), *map(str, recurring.drift())]
        for difference in found:
            self.stdout.write(difference)
        if found:
            raise CommandError(f"{len(found)} stored figures differ from the ledger. `manage.py rebuild` mends them.")
        self.stdout.write("every stored total is what the ledger says")
