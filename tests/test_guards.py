"""The ledger is append-only, whoever writes to it and however, and every migrate puts its guards back."""

from collections.abc import Callable
from typing import Any

import pytest
from django.core.management import call_command
from django.db import DatabaseError, connection, transaction
from django.db.models import F, Model, ProtectedError

from donations.models import LedgerEntry, guards
from tests.factories import confirm, make_campaign, make_gift

pytestmark = pytest.mark.django_db
APPEND_ONLY = "the ledger is append-only"
ON_POSTGRESQL = connection.vendor == "postgresql"
GUARDS = [*guards.NAMES, *(guards.ON_POSTGRESQL_TOO if ON_POSTGRESQL else [])]
COLUMNS = ", ".join(f.column for f in LedgerEntry._meta.concrete_fields if f.name != "id")


@pytest.fixture
def entry() -> LedgerEntry:
    """One booked gift of 500."""
    confirm(make_gift(make_campaign()))
    return LedgerEntry.objects.get()


def ledger() -> list[dict[str, Any]]:
    return list(LedgerEntry.objects.order_by("pk").values())


def execute(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


def refused(change: Callable[[], Any], error: type[Exception] = DatabaseError, words: str = APPEND_ONLY) -> None:
    """Assert that a change is refused in these words, and that the ledger is as it was."""
    before = ledger()
    with pytest.raises(error, match=words), transaction.atomic():
        change()
    assert before
    assert ledger() == before


def drop(name: str) -> None:
    execute(f"DROP TRIGGER {name} ON {table_of(name)}" if ON_POSTGRESQL else f"DROP TRIGGER {name}")


def table_of(guard: str) -> str:
    return guards.LEDGER if guard.startswith("ledger") else guards.STATEMENTS


# ---- what is refused


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE donations_ledgerentry SET amount = 1",
        "UPDATE donations_ledgerentry SET amount = amount",
        "UPDATE donations_ledgerentry SET tier = '' WHERE kind = 'gift'",
        "DELETE FROM donations_ledgerentry",
        "DELETE FROM donations_ledgerentry WHERE kind = 'gift'",
        f"INSERT INTO donations_ledgerentry ({COLUMNS}) SELECT {COLUMNS} FROM donations_ledgerentry WHERE true "
        "ON CONFLICT (processor, kind, reference) DO UPDATE SET amount = 1",
    ],
)
def test_no_statement_changes_or_removes_an_entry(entry: LedgerEntry, statement: str) -> None:
    refused(lambda: execute(statement))


@pytest.mark.postgres
@pytest.mark.parametrize(
    "table", ["donations_ledgerentry", "donations_gift", "donations_campaign", "donations_inboxevent"]
)
def test_the_ledger_is_not_emptied_at_once_either(entry: LedgerEntry, table: str) -> None:
    # While checks are pending, PostgreSQL would refuse it for another reason.
    connection.check_constraints()
    refused(lambda: execute(f"TRUNCATE {table} CASCADE"))


@pytest.mark.postgres
def test_no_entry_is_merged_into_another(entry: LedgerEntry) -> None:
    source = "MERGE INTO donations_ledgerentry l USING donations_gift g ON l.gift = g.reference WHEN MATCHED THEN "
    refused(lambda: execute(source + "UPDATE SET amount = 1"))
    refused(lambda: execute(source + "DELETE"))


@pytest.mark.sqlite
@pytest.mark.parametrize("columns", [f"id, {COLUMNS}", COLUMNS])
@pytest.mark.parametrize("verb", ["INSERT OR REPLACE", "REPLACE"])
def test_no_entry_is_replaced(entry: LedgerEntry, verb: str, columns: str) -> None:
    selected = columns.replace(" amount,", " amount + 1,")
    assert selected != columns
    refused(
        lambda: execute(f"{verb} INTO donations_ledgerentry ({columns}) SELECT {selected} FROM donations_ledgerentry")
    )
    refused(lambda: execute("UPDATE OR REPLACE donations_ledgerentry SET id = id"))


@pytest.mark.sqlite
def test_the_guards_see_what_a_replacement_removes() -> None:
    with connection.cursor() as cursor:
        for pragma in ("recursive_triggers", "foreign_keys"):
            cursor.execute(f"PRAGMA {pragma}")
            assert cursor.fetchone() == (1,), pragma


def saved(entry: LedgerEntry) -> None:
    entry.amount = 1
    entry.save()


def saved_in_part(entry: LedgerEntry) -> None:
    entry.tier = "custom"
    entry.save(update_fields=["tier"])


def updated_in_bulk(entry: LedgerEntry) -> None:
    entry.amount = 1
    LedgerEntry.objects.bulk_update([entry], ["amount"])


def written_over(entry: LedgerEntry) -> None:
    entry.pk, entry.amount = None, entry.amount + 1
    LedgerEntry.objects.bulk_create(
        [entry],
        update_conflicts=True,
        unique_fields=["processor", "kind", "reference"],
        update_fields=["amount"],
    )


def found_and_updated(entry: LedgerEntry) -> None:
    LedgerEntry.objects.update_or_create(pk=entry.pk, defaults={"amount": 1})


def raised(entry: LedgerEntry) -> None:
    LedgerEntry.objects.filter(pk=entry.pk).update(amount=F("amount") + 1)


def deleted(entry: LedgerEntry) -> None:
    entry.delete()


def all_deleted(entry: LedgerEntry) -> None:
    LedgerEntry.objects.all().delete()


def deleted_without_a_look(entry: LedgerEntry) -> None:
    LedgerEntry.objects.all()._raw_delete(using="default")


WAYS = [saved, saved_in_part, updated_in_bulk, written_over, found_and_updated, raised]
WAYS += [deleted, all_deleted, deleted_without_a_look]


@pytest.mark.parametrize("way", WAYS)
def test_no_way_through_django_changes_or_removes_an_entry(
    entry: LedgerEntry, way: Callable[[LedgerEntry], None]
) -> None:
    refused(lambda: way(entry))


@pytest.mark.parametrize("owner", ["gift", "campaign", "inbox_event"])
def test_what_an_entry_belongs_to_cannot_be_removed(entry: LedgerEntry, owner: str) -> None:
    belongs_to: Model = getattr(entry, owner)
    refused(belongs_to.delete, ProtectedError, "protected")


def test_an_entry_of_another_currency_is_refused_however_it_is_written(entry: LedgerEntry) -> None:
    entry.pk, entry.reference, entry.kind, entry.currency = None, "re_1", "refund_reversal", "EUR"
    entry.goal_amount = 0
    refused(entry.save, words="an entry has its gift's currency and mode")


def test_a_new_entry_is_still_taken(entry: LedgerEntry) -> None:
    entry.pk, entry.reference, entry.kind, entry.goal_amount = None, "re_1", "refund_reversal", 0
    entry.save()
    assert LedgerEntry.objects.count() == 2


# ---- that the guards stand


def test_every_guard_stands_after_migrate() -> None:
    assert guards.missing() == []


@pytest.mark.parametrize("name", GUARDS)
def test_a_guard_that_is_gone_is_missed_and_put_back_by_migrate(entry: LedgerEntry, name: str) -> None:
    drop(name)
    assert guards.missing() == [name]
    call_command("migrate", verbosity=0)
    assert guards.missing() == []
    refused(lambda: LedgerEntry.objects.update(amount=1))
    refused(lambda: LedgerEntry.objects.all().delete())


def test_all_guards_that_are_gone_are_put_back_by_migrate() -> None:
    for name in GUARDS:
        drop(name)
    assert guards.missing() == GUARDS
    call_command("migrate", verbosity=0)
    assert guards.missing() == []


def test_a_guard_of_an_older_wording_is_replaced_by_migrate(entry: LedgerEntry) -> None:
    drop("ledger_no_update")
    if ON_POSTGRESQL:
        harmless = "BEFORE INSERT ON donations_ledgerentry FOR EACH ROW EXECUTE FUNCTION donations_like_its_gift()"
    else:
        harmless = "BEFORE INSERT ON donations_ledgerentry BEGIN SELECT 1; END"
    execute(f"CREATE TRIGGER ledger_no_update {harmless}")
    call_command("migrate", verbosity=0)
    refused(lambda: LedgerEntry.objects.update(amount=1))


@pytest.mark.postgres
@pytest.mark.parametrize("name", GUARDS)
def test_a_guard_that_is_switched_off_is_missed_and_put_back_by_migrate(name: str) -> None:
    execute(f"ALTER TABLE {table_of(name)} DISABLE TRIGGER {name}")
    assert guards.missing() == [name]
    call_command("migrate", verbosity=0)
    assert guards.missing() == []


@pytest.mark.sqlite
@pytest.mark.django_db(transaction=True)
def test_a_rebuilt_table_loses_its_guards_and_migrate_puts_them_back(entry: LedgerEntry) -> None:
    before = ledger()
    now = LedgerEntry._meta.get_field("tier")
    wider = now.clone()
    wider.max_length = 80
    wider.set_attributes_from_name("tier")
    for old, new in ((now, wider), (wider, now)):
        with connection.schema_editor() as editor:
            editor.alter_field(LedgerEntry, old, new)
        lost = guards.missing()
        call_command("migrate", verbosity=0)
        assert lost == [name for name in GUARDS if table_of(name) == guards.LEDGER]
        assert guards.missing() == []
    assert ledger() == before
    refused(lambda: LedgerEntry.objects.update(amount=1))
    refused(lambda: LedgerEntry.objects.all().delete())
