"""Closing a month from the command line, and proving later that its statement still holds."""

import argparse
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError, CommandParser

from donations import closing
from donations.charts import amount_text
from donations.models import Campaign, MonthStatement
from donations.periods import Month
from donations.selectors import statements


def month(text: str) -> Month:
    """A month such as 2024-11."""
    try:
        return Month.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError("write a month like 2024-11") from error


def closer(name: str) -> User:
    """Who closes it, by the name that they sign in with: it stays in the statement. Raises CommandError."""
    user = User.objects.filter(username=name).first()
    if user is None:
        raise CommandError("Name who closes it, by the name that they sign in with: --by NAME.")
    if not user.is_active:
        raise CommandError(
            f"“{name}” is switched off and signs in no more: nothing is closed in that name. "
            "Name somebody who may close months, or make the user active in the admin."
        )
    if not user.has_perm("donations.add_monthstatement"):
        raise CommandError(
            f"“{name}” may not close a month. Name somebody of the group Finance, "
            "or give the right “Can add month statement” in the admin."
        )
    return user


class Command(BaseCommand):
    help = "Close a month of a campaign's books for good; or, with --verify, make its file anew and compare."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the month, and who closes it."""
        parser.add_argument("--campaign", required=True, help="the campaign's name in addresses")
        parser.add_argument("--month", type=month, required=True, help="such as 2024-11")
        parser.add_argument(
            "--by", default="", help="the user name of who closes it and may do so; needed unless --verify"
        )
        parser.add_argument(
            "--in-spite", default="", help="close it though something of it is not settled, for this reason"
        )
        parser.add_argument(
            "--verify", action="store_true", help="close nothing: compare the statement; exit 1 if not equal"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Close, or verify."""
        campaign = Campaign.objects.filter(pk=options["campaign"]).first()
        if campaign is None:
            raise CommandError(f"There is no campaign “{options['campaign']}”.")
        if options["verify"]:
            self._verify(campaign, options["month"])
            return
        try:
            statement = closing.close(
                campaign=campaign,
                month=options["month"],
                user=closer(options["by"]),
                in_spite_because=options["in_spite"],
            )
        except closing.OpenEvents as refusal:
            raise CommandError(f"{refusal} Say it with --in-spite REASON.") from refusal
        except closing.CannotClose as refusal:
            raise CommandError(str(refusal)) from refusal
        self._tell(statement)

    def _verify(self, campaign: Campaign, month: Month) -> None:
        statement = statements.of_month(campaign=campaign.pk, month=month, livemode=settings.LIVEMODE)
        if statement is None:
            raise CommandError(f"{month.label} of “{campaign.name}” is not closed.")
        if differing := closing.verify(statement):
            raise CommandError(
                f"The ledger does not bear out the statement of {month.label}: {', '.join(differing)} differ. "
                "Somebody has changed entries or the statement past the database’s guards: compare with a backup."
            )
        self._tell(statement)
        self.stdout.write("Its file made anew is the same, byte for byte.")

    def _tell(self, statement: MonthStatement) -> None:
        closed = f"{statement.closed_at:%Y-%m-%d %H:%M} UTC by {statement.closed_by.get_username()}"
        self.stdout.write(f"{statement} was closed {closed}; rows {statement.rows:,}, SHA-256 {statement.sha256}")
        for total in closing.closed_totals(statement):
            self.stdout.write(f"  {total.kind}: rows {total.rows:,}, {amount_text(total.amount, total.currency)}")
