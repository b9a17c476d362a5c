from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("donations", "0010_health")]

    operations = [
        migrations.AlterModelOptions(
            name="recurringgift", options={"ordering": ["-created_at"], "verbose_name": "monthly gift"}
        ),
        migrations.RemoveIndex(model_name="recurringgift", name="recurring_by_status"),
        migrations.AddIndex(
            model_name="recurringgift",
            index=models.Index(
                fields=["campaign", "livemode", "status", "currency", "amount"], name="recurring_sums"
            ),
        ),
        migrations.AddIndex(
            model_name="recurringgift",
            index=models.Index(
                condition=models.Q(("status__in", ["past_due", "unpaid"])),
                fields=["livemode"],
                name="recurring_in_trouble",
            ),
        ),
    ]
