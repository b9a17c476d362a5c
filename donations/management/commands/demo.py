"""A demonstration campaign, and a staff login for it."""

import secrets
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError, CommandParser
from djmoney.money import Money

from donations.models import Campaign, Tier

TIERS = [
    (500, "Two days of a reporter in court"),
    (2500, "One investigation, from start to finish"),
    (5000, "A month of reports from the city hall"),
    (0, "Can’t pay now? Support us by following our updates."),
]
MONTHLY_TIERS = [
    (5, "A reader who stays"),
    (10, "An hour of reporting, every month"),
    (25, "A half-day in the archive"),
    (50, "A photographer for a day"),
]


class Command(BaseCommand):
    help = "Make the demo campaign if there is none. With --staff, also a staff login with a new password."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take --staff."""
        parser.add_argument("--staff", action="store_true", help="make or renew the login “staff”, and print it")

    def handle(self, *args: Any, **options: Any) -> None:
        """Make what is missing."""
        if not Campaign.objects.exists():
            self._make_campaign()
        if options["staff"]:
            if not settings.DEBUG:
                raise CommandError("--staff makes a superuser, for demonstrations only: it needs DEBUG=1.")
            self._renew_login()

    def _make_campaign(self) -> None:
        campaign = Campaign.objects.create(  # type: ignore[misc]  # django-money takes Money
            slug="general",
            name="Keep local news free for everyone",
            description="No paywall, no owner to please. Readers like you pay for the reporting.",
            default_goal=Money(5000, "USD"),
            time_zone="America/New_York",
            is_default=True,
        )
        for frequency, tiers in ((Tier.Frequency.ONCE, TIERS), (Tier.Frequency.MONTHLY, MONTHLY_TIERS)):
            for position, (amount, label) in enumerate(tiers):
                Tier.objects.create(  # type: ignore[misc]  # django-money takes Money
                    campaign=campaign, frequency=frequency, amount=Money(amount, "USD"), label=label, position=position
                )

    def _renew_login(self) -> None:
        password = secrets.token_urlsafe(12)
        user, _ = User.objects.get_or_create(username="staff", defaults={"is_staff": True, "is_superuser": True})
        user.set_password(password)
        user.save(update_fields=["password"])
        self.stdout.write(f"  Staff login        staff / {password}")
