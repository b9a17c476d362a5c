"""Process what the inbox holds, here and now."""

from typing import Any

from django.core.management.base import BaseCommand

from donations import inbox


class Command(BaseCommand):
    help = "Process every inbox event that is due. Safe at any time, beside any number of workers."

    def handle(self, *args: Any, **options: Any) -> None:
        """Drain, and say how many events were looked at."""
        self.stdout.write(f"{inbox.drain()} events looked at")
