import django.db.models.deletion
from django.db import migrations, models

# Django gives each text column that is a key or has an index a second one, for searches by a prefix under a
# collation. Nobody searches so here, and a gift that is booked would be written into up to eight of them.
BY_PREFIX = """
SELECT index.relname FROM pg_index
JOIN pg_class index ON index.oid = pg_index.indexrelid
JOIN pg_class held ON held.oid = pg_index.indrelid
JOIN pg_opclass class ON class.oid = ANY(pg_index.indclass)
WHERE held.relname LIKE 'donations\\_%' AND pg_table_is_visible(held.oid)
  AND index.relname LIKE '%\\_like' AND class.opcname LIKE '%\\_pattern\\_ops'
"""


def drop_those_by_prefix(apps, schema_editor):
    connection = schema_editor.connection
    if connection.vendor != "postgresql":
        return
    with connection.cursor() as cursor:
        cursor.execute(BY_PREFIX)
        names = [name for (name,) in cursor.fetchall()]
    for name in names:
        schema_editor.execute(f"DROP INDEX IF EXISTS {schema_editor.quote_name(name)}")


def without_the_campaigns_own(model, related_name, index):
    """Another index of the table begins with the campaign. SQLite need not make the table anew to be rid of this one."""
    field = models.ForeignKey(
        db_index=False,
        on_delete=django.db.models.deletion.PROTECT,
        related_name=related_name,
        to="donations.campaign",
    )
    again = f'CREATE INDEX "{index}" ON donations_{model} (campaign_id)'
    return migrations.RunSQL(
        f'DROP INDEX IF EXISTS "{index}"', again, state_operations=[migrations.AlterField(model, "campaign", field)]
    )


class Migration(migrations.Migration):
    # Each by itself: all in one transaction would hold table after table while the site goes on, and wait for it.
    atomic = False
    dependencies = [("donations", "0019_bodies_by_lz4")]

    operations = [
        without_the_campaigns_own("gift", "%(class)ss", "donations_gift_campaign_id_d4349a6e"),
        without_the_campaigns_own("giftstate", "+", "donations_giftstate_campaign_id_245c265a"),
        without_the_campaigns_own("recurringgift", "%(class)ss", "donations_recurringgift_campaign_id_f1ceed31"),
        migrations.RunPython(drop_those_by_prefix, migrations.RunPython.noop),
    ]
