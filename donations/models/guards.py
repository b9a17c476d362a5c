"""What the database itself refuses: changes to the ledger and to closed months, money unlike its gift's.

An entry has its gift's currency and mode, and a statement of a closed month is written once.
Django cannot declare triggers, and a SQLite table rebuild drops them silently or fails at them: there every migrate
takes them away, and any migrate puts them back.
"""

from collections.abc import Sequence
from typing import Any

from django.db import connections

LEDGER = "donations_ledgerentry"
STATEMENTS = "donations_monthstatement"
NAMES = (
    "ledger_no_update",
    "ledger_no_delete",
    "ledger_like_its_gift",
    "statements_no_update",
    "statements_no_delete",
)
ON_POSTGRESQL_TOO = ("ledger_no_truncate", "statements_no_truncate")

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

STATEMENTS_POSTGRESQL = f"""
CREATE OR REPLACE FUNCTION donations_closed_for_good() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'a closed month stays closed'; END $$;
DROP TRIGGER IF EXISTS statements_no_update ON {STATEMENTS};
CREATE TRIGGER statements_no_update BEFORE UPDATE ON {STATEMENTS}
  FOR EACH ROW EXECUTE FUNCTION donations_closed_for_good();
DROP TRIGGER IF EXISTS statements_no_delete ON {STATEMENTS};
CREATE TRIGGER statements_no_delete BEFORE DELETE ON {STATEMENTS}
  FOR EACH ROW EXECUTE FUNCTION donations_closed_for_good();
DROP TRIGGER IF EXISTS statements_no_truncate ON {STATEMENTS};
CREATE TRIGGER statements_no_truncate BEFORE TRUNCATE ON {STATEMENTS}
  FOR EACH STATEMENT EXECUTE FUNCTION donations_closed_for_good();
"""  # the only text put in is this module's own table name

STATEMENTS_SQLITE = [
    "DROP TRIGGER IF EXISTS statements_no_update",
    f"CREATE TRIGGER statements_no_update BEFORE UPDATE ON {STATEMENTS} "
    "BEGIN SELECT RAISE(ABORT, 'a closed month stays closed'); END",
    "DROP TRIGGER IF EXISTS statements_no_delete",
    f"CREATE TRIGGER statements_no_delete BEFORE DELETE ON {STATEMENTS} "
    "BEGIN SELECT RAISE(ABORT, 'a closed month stays closed'); END",
]

GUARDED = {
    "postgresql": {LEDGER: [POSTGRESQL], STATEMENTS: [STATEMENTS_POSTGRESQL]},
    "sqlite": {LEDGER: SQLITE, STATEMENTS: STATEMENTS_SQLITE},
}


def install(using: str = "default", **signal: Any) -> None:
    """Put the triggers in place, replacing what is there. Does nothing to a table that does not exist yet."""
    connection = connections[using]
    tables = connection.introspection.table_names()
    with connection.cursor() as cursor:
        for table, statements in GUARDED[connection.vendor].items():
            for statement in statements if table in tables else ():
                cursor.execute(statement)


def make_way(using: str = "default", plan: Sequence[Any] = (), **signal: Any) -> None:
    """Before a migrate that has a plan, take the triggers away on SQLite; `install` puts them back after it.

    SQLite rebuilds a table to change it, and lets no table be renamed that a trigger of another one reads.
    """
    connection = connections[using]
    if plan and connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            for name in NAMES:
                cursor.execute(f"DROP TRIGGER IF EXISTS {name}")


def missing(using: str = "default") -> list[str]:
    """The names of triggers that do not stand, or are switched off."""
    connection = connections[using]
    names: tuple[str, ...] = NAMES
    source = "SELECT name FROM sqlite_master WHERE type = 'trigger'"
    if connection.vendor == "postgresql":
        names = (*NAMES, *ON_POSTGRESQL_TOO)
        source = "SELECT tgname FROM pg_trigger WHERE tgenabled <> 'D'"
    with connection.cursor() as cursor:
        cursor.execute(source)
        standing = {row[0] for row in cursor.fetchall()}
    return [name for name in names if name not in standing]
