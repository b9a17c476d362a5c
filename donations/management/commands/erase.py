"""Erase a person."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from donations import erasure
from donations.models import Donor


class Command(BaseCommand):
    help = (
        "Erase a person for good: address, name, messages, and what was received about them. No figure changes. Who is "
        "a donor is named by the number in the admin, under Donors; without a number the address is asked for, as for "
        "what came about somebody erased before: so it stands in no shell's history."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Take whom."""
        number = "the donor's number: the 12 of /admin/donations/donor/12/change/; none: ask for the address"
        parser.add_argument("donor", type=int, nargs="?", help=number)
        parser.add_argument("--yes", action="store_true", help="do not ask whether that is meant")

    def handle(self, *args: Any, **options: Any) -> None:
        """Ask, erase, and say how much named them."""
        number: int | None = options["donor"]
        if number is not None and not Donor.objects.filter(pk=number).exists():
            raise CommandError(f"There is no donor {number}. Search the admin's Donors, or run it without a number.")
        address = "" if number is not None else input("Their email address: ").strip()
        if number is None and "@" not in address:
            raise CommandError("Nothing was erased: that is no email address.")
        who = f"donor {number}" if number is not None else "whoever has this address"
        if not options["yes"] and input(f"Erase {who} for good? Type yes: ").strip() != "yes":
            raise CommandError("Nothing was erased.")
        try:
            erased = erasure.erase(number) if number is not None else erasure.erase_traces(address)
        except erasure.CannotErase as reason:
            raise CommandError(str(reason)) from reason
        self.stdout.write(
            f"Erased {who}. What named them: gifts {erased.gifts:,}, monthly gifts {erased.monthly_gifts:,}, "
            f"followings {erased.followings:,}, stored events {erased.events:,}."
        )
