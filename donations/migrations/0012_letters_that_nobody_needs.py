from django.db import migrations, models

# What the outbox said of letters that were rightly not written, while these counted as failed.
REASONS = (
    "it was paid in the meantime",
    "its first payment is still open: the payment page tells the donor itself",
    "there is no address to send it to",
    "STAFF_MAIL names nobody any more",
    "it is over meanwhile",
)


def tell_apart(apps, schema_editor):
    """Give letters that were not needed their state; what a mail server refused stays failed."""
    messages = apps.get_model("donations", "OutboxMessage").objects.using(schema_editor.connection.alias)
    messages.filter(state="failed", last_error__in=REASONS).update(state="unneeded")


class Migration(migrations.Migration):
    dependencies = [("donations", "0011_monthly_gifts_by_status")]

    operations = [
        migrations.AlterField(
            model_name="outboxmessage",
            name="state",
            field=models.CharField(
                choices=[
                    ("queued", "queued"),
                    ("sending", "being sent"),
                    ("sent", "sent"),
                    ("failed", "failed"),
                    ("unsure", "unsure"),
                    ("unneeded", "not needed"),
                ],
                default="queued",
                max_length=8,
            ),
        ),
        migrations.AlterField(
            model_name="checkresult",
            name="unseen",
            field=models.IntegerField(
                help_text="What the last run fetched as it was not here; reconcile alone.", null=True
            ),
        ),
        migrations.RunPython(tell_apart, migrations.RunPython.noop),
    ]
