"""What stood before an upgrade is right after it."""

import json
import os
import subprocess
import sys
from pathlib import Path

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


FROM_THE_FIRST = """
import json
import django
django.setup()
from django.core.management import call_command
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from donations.models import LedgerEntry, guards
executor = MigrationExecutor(connection)
first, *later = sorted(name for app, name in executor.loader.disk_migrations if app == "donations")
call_command("migrate", "donations", first, verbosity=0)
call_command("migrate", "auth", verbosity=0)
tables = executor.loader.project_state([("donations", first)]).apps.get_model
campaign = tables("donations", "Campaign").objects.create(slug="general", name="Newsroom", default_goal=5000)
asked = {"campaign": campaign, "currency": "USD", "tier": "500.00", "livemode": False}
gift = tables("donations", "Gift").objects.create(reference="gift_1", amount=50000, processor="stripe", **asked)
dated = {"campaign_month": "2024-11", "local_date": "2024-11-05"}
tables("donations", "GiftState").objects.create(
    gift=gift, status="confirmed", payment="pi_1", charged=50000, counted=50000, **asked, **dated
)
tables("donations", "LedgerEntry").objects.create(
    gift=gift, kind="gift", processor="stripe", reference="pi_1", amount=50000, goal_amount=50000,
    effective_at="2024-11-05T12:00Z", booked_at="2024-11-05T12:00Z", time_zone="UTC", **asked, **dated
)
for name in later:
    call_command("migrate", "donations", name, verbosity=0)
    assert guards.missing() == [] or name < "0005", name
call_command("migrate", verbosity=0)
connection.check_constraints()
stood = LedgerEntry.objects.values_list("amount", "gift__state__counted")
print(json.dumps([guards.missing(), list(stood)]))
"""


@pytest.mark.sqlite  # which rebuilds a table to change it, at which triggers are in the way
def test_each_migration_goes_with_the_guards_of_the_one_before_in_place(tmp_path: Path) -> None:
    environment = {"DATABASE_URL": f"sqlite:///{tmp_path}/site.sqlite3", "DJANGO_SETTINGS_MODULE": "tests.settings"}
    command = [sys.executable, "-c", FROM_THE_FIRST]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == [[], [[50000, 50000]]]


@pytest.mark.postgres
def test_no_index_is_there_for_searches_by_a_prefix() -> None:
    """Django adds one to each text column that is a key or has an index, and each costs every gift that is booked."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT indexname FROM pg_indexes "
            "WHERE tablename LIKE 'donations\\_%' AND indexdef LIKE '%\\_pattern\\_ops%'"
        )
        assert cursor.fetchall() == []


def test_no_two_indexes_begin_with_a_gifts_campaign_alone() -> None:
    with connection.cursor() as cursor:
        for table in ("gift", "giftstate", "recurringgift"):
            found = connection.introspection.get_constraints(cursor, f"donations_{table}").values()
            indexes = [index["columns"] for index in found if index["index"] and index["columns"][0] == "campaign_id"]
            assert [len(columns) > 1 for columns in indexes] == [True], table
