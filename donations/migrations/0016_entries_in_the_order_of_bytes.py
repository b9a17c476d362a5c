from django.db import migrations

TABLE = "donations_ledgerentry"
IN_ORDER = f"CREATE INDEX entries_in_order ON {TABLE} (effective_at, {{}})"
COLUMNS = ("processor", "kind", "reference")


def make_anew(collation):
    """The index of finance's files in another order. SQLite's is by bytes already, and Django cannot say it of one."""

    def run(apps, schema_editor):
        if schema_editor.connection.vendor == "postgresql":
            schema_editor.execute("DROP INDEX entries_in_order", params=None)
            columns = ", ".join(f"{column}{collation}" for column in COLUMNS)
            schema_editor.execute(IN_ORDER.format(columns), params=None)

    return run


class Migration(migrations.Migration):
    dependencies = [("donations", "0015_references_by_mode")]

    operations = [migrations.RunPython(make_anew(' COLLATE "C"'), make_anew(""))]
