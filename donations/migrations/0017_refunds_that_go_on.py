from django.db import migrations, models


class Migration(migrations.Migration):
    # The database's own default lets processes of the version before go on asking for refunds during an upgrade.

    dependencies = [("donations", "0016_entries_in_the_order_of_bytes")]

    operations = [
        migrations.AddField(
            "refundrequest",
            "keys_spent",
            models.PositiveSmallIntegerField(
                default=0, db_default=0, help_text="Idempotency keys under which the processor keeps a failure of its own."
            ),
        ),
    ]
