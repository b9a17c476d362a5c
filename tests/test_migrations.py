"""What stood before an upgrade is right after it."""

import pytest
from django.core.management import call_command
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from donations import invariants, recurring
from donations.models import RecurringGift, guards
from donations.models.recurring import Terms
from tests.factories import make_campaign

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]
BEFORE = [("donations", "0013_keys_that_are_spent")]


def test_a_monthly_gift_of_an_earlier_version_asks_what_its_checkout_asked_for() -> None:
    campaign = make_campaign()
    executor = MigrationExecutor(connection)
    try:
        executor.migrate(BEFORE)
        older = executor.loader.project_state(BEFORE).apps.get_model("donations", "RecurringGift")
        older.objects.create(
            reference="recurring_1",
            campaign_id=campaign.pk,
            amount=1000,
            fee_cover=61,
            currency="USD",
            tier="custom",
            livemode=False,
            processor="stripe",
            status="pending",
        )
    finally:
        call_command("migrate", verbosity=0)
    monthly = RecurringGift.objects.get()
    assert (monthly.now_amount, monthly.terms) == (None, Terms(1000, 61, "USD", "month"))
    assert recurring.drift() == list(invariants.check()) == []
    assert guards.missing() == []
