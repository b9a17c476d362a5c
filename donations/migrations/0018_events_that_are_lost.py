from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("donations", "0017_refunds_that_go_on")]

    operations = [
        migrations.AddField(
            model_name="checkresult",
            name="undelivered_at",
            field=models.DateTimeField(
                help_text="Of when the latest event is that was not delivered for an hour; reconcile alone.", null=True
            ),
        ),
    ]
