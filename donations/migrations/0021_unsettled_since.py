from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("donations", "0020_indexes_that_nobody_reads")]

    operations = [
        migrations.AlterField(
            model_name="inboxevent",
            name="waiting_since",
            field=models.DateTimeField(
                help_text="When it first waited or failed; its 72 hours begin there.",
                null=True,
                verbose_name="unsettled since",
            ),
        ),
    ]
