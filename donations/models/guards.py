"""What the database itself refuses: changes to the ledger, and money in another currency or mode than its gift's.

Django cannot declare triggers, and a SQLite table rebuild drops them silently, so every migrate puts them back.
"""

from typing import Any

from django.db import connections

LEDGER = "donations_ledgerentry"
NAMES = ("ledger_no_update", "ledger_no_delete", "ledger_like_its_gift")

POSTGRESQL = f"""
CREATE OR REPLACE FUNCTION donations_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'the ledger is append-only'; END $$;
CREATE OR REPLACE FUNCTION donations_like_its_gift() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.gift IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM donations_gift g WHERE g.reference = NEW.gift AND g.livemode = NEW.livemode
      AND (g.currency = NEW.currency OR NEW.kind = 'fee')) THEN
    RAISE EXCEPTION 'an entry has its gift''s currency and mode';
  END IF;
  RETURN NEW;
END $$;
DROP TRIGGER IF EXISTS ledger_no_update ON {LEDGER};
CREATE TRIGGER ledger_no_update BEFORE UPDATE ON {LEDGER}
  FOR EACH ROW EXECUTE FUNCTION donations_append_only();
DROP TRIGGER IF EXISTS ledger_no_delete ON {LEDGER};
CREATE TRIGGER ledger_no_delete BEFORE DELETE ON {LEDGER}
  FOR EACH ROW EXECUTE FUNCTION donations_append_only();
DROP TRIGGER IF EXISTS ledger_no_truncate ON {LEDGER};
CREATE TRIGGER ledger_no_truncate BEFORE TRUNCATE ON {LEDGER}
  FOR EACH STATEMENT EXECUTE FUNCTION donations_append_only();
DROP TRIGGER IF EXISTS ledger_like_its_gift ON {LEDGER};
CREATE TRIGGER ledger_like_its_gift BEFORE INSERT ON {LEDGER}
  FOR EACH ROW EXECUTE FUNCTION donations_like_its_gift();
"""  # noqa: S608 (the only text put in is this module's own table name)

SQLITE = [  # the only text put in is this module's own table name
    "DROP TRIGGER IF EXISTS ledger_no_update",
    f"CREATE TRIGGER ledger_no_update BEFORE UPDATE ON {LEDGER} "
    "BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END",
    "DROP TRIGGER IF EXISTS ledger_no_delete",
    f"CREATE TRIGGER ledger_no_delete BEFORE DELETE ON {LEDGER} "
    "BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END",
    "DROP TRIGGER IF EXISTS ledger_like_its_gift",
    f"CREATE TRIGGER ledger_like_its_gift BEFORE INSERT ON {LEDGER} WHEN NEW.gift IS NOT NULL AND NOT EXISTS ("  # noqa: S608
    "SELECT 1 FROM donations_gift g WHERE g.reference = NEW.gift AND g.livemode = NEW.livemode "
    "AND (g.currency = NEW.currency OR NEW.kind = 'fee')) "
    "BEGIN SELECT RAISE(ABORT, 'an entry has its gift''s currency and mode'); END",
]


def install(using: str = "default", **signal: Any) -> None:
    """Put the triggers in place, replacing what is there. Does nothing before the ledger's table exists."""
    connection = connections[using]
    if LEDGER not in connection.introspection.table_names():
        return
    with connection.cursor() as cursor:
        for statement in [POSTGRESQL] if connection.vendor == "postgresql" else SQLITE:
            cursor.execute(statement)


def missing(using: str = "default") -> list[str]:
    """The names of triggers that do not stand, or are switched off."""
    connection = connections[using]
    names: tuple[str, ...] = NAMES
    source = "SELECT name FROM sqlite_master WHERE type = 'trigger'"
    if connection.vendor == "postgresql":
        names = (*NAMES, "ledger_no_truncate")
        source = "SELECT tgname FROM pg_trigger WHERE tgenabled <> 'D'"
    with connection.cursor() as cursor:
        cursor.execute(source)
        standing = {row[0] for row in cursor.fetchall()}
    return [name for name in names if name not in standing]
