from django.db import migrations, models


class Migration(migrations.Migration):
    # Nothing is filled in: until the processor tells of a monthly gift once more, what its checkout asked for is shown.

    dependencies = [("donations", "0013_keys_that_are_spent")]

    operations = [
        migrations.RemoveIndex(model_name="recurringgift", name="recurring_sums"),
        migrations.AddField(
            model_name="recurringgift",
            name="now_amount",
            field=models.BigIntegerField(
                blank=True,
                help_text="Minor units that it asks each period now, without the cover. None: not told.",
                null=True,
            ),
        ),
        migrations.AddField(
            model_name="recurringgift",
            name="now_fee_cover",
            field=models.BigIntegerField(default=0, db_default=0, help_text="Minor units that it asks besides, for the fee."),
        ),
        migrations.AddField(
            model_name="recurringgift",
            name="now_currency",
            field=models.CharField(blank=True, db_default="", default="", max_length=3),
        ),
        migrations.AddField(
            model_name="recurringgift",
            name="now_interval",
            field=models.CharField(blank=True, db_default="", default="", help_text="How long a period is: month, 3 months.", max_length=20),
        ),
        migrations.AddIndex(
            model_name="recurringgift",
            index=models.Index(
                fields=[
                    "campaign",
                    "livemode",
                    "status",
                    "now_interval",
                    "now_currency",
                    "currency",
                    "now_amount",
                    "amount",
                ],
                name="recurring_sums",
            ),
        ),
        migrations.AddConstraint(
            model_name="recurringgift",
            constraint=models.CheckConstraint(
                condition=models.Q(now_amount=None, now_fee_cover=0, now_currency="", now_interval="")
                | models.Q(now_amount__gte=0, now_fee_cover__gte=0, now_currency__gt="", now_interval__gt=""),
                name="recurring_now_is_told_as_a_whole",
            ),
        ),
    ]
