"""Erase a person."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from donations import erasure
from donations.models import Donor


class Command(BaseCommand):
    help = (
        "Erase a person for good: address, name, messages, and what was received about them. No figure changes. They "
        "are named by their number in the admin, under Donors, so that no address stands in the shell's history."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Take whom."""
        parser.add_argument("donor", type=int, help="the donor's number: the 12 of /admin/donations/donor/12/change/")
        parser.add_argument("--yes", action="store_true", help="do not ask whether that is meant")

    def handle(self, *args: Any, **options: Any) -> None:
        """Ask, erase, and say how much named them."""
        number: int = options["donor"]
        if not Donor.objects.filter(pk=number).exists():
            raise CommandError(f"There is no donor {number}. Search the admin's Donors by the address.")
        if not options["yes"] and input(f"Erase donor {number} for good? Type yes: ").strip() != "yes":
            raise CommandError("Nothing was erased.")
        try:
            erased = erasure.erase(number)
        except erasure.CannotErase as reason:
            raise CommandError(str(reason)) from reason
        self.stdout.write(
            f"Donor {number} is erased. Their name stood on gifts: {erased.gifts:,}; monthly gifts: "
            f"{erased.monthly_gifts:,}; followings: {erased.followings:,}; stored events: {erased.events:,}."
        )
