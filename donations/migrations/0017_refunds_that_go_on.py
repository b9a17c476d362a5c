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
        migrations.AlterField(
            "refundrequest",
            "status",
            models.CharField(
                choices=[
                    ("sending", "being sent"),
                    ("accepted", "taken by the processor"),
                    ("refused", "refused by the processor"),
                    ("failed", "failed later: the money came back"),
                    ("canceled", "called off at the processor"),
                    ("given_up", "given up: it was not found at the processor"),
                ],
                default="sending",
                max_length=10,
            ),
        ),
    ]
