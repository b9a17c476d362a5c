"""Check every invariant of the books."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from donations import watching


class Command(BaseCommand):
    help = (
        "Check every invariant of the books: events against entries, entries against totals, totals against what is "
        "shown. Changes nothing but the result that staff see; exits 1 and prints what is wrong."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        """Check, print each finding as it comes, and say how much was looked at."""
        result = watching.check_books(tell=lambda finding: self.stdout.write(str(finding)))
        looked_at = ", ".join(f"{number:,} {what}" for what, number in result.checked.items())
        if result.findings:
            raise CommandError(f"{result.findings:,} things are wrong with the books. Looked at: {looked_at}.")
        self.stdout.write(f"the books are whole. Looked at: {looked_at}.")
