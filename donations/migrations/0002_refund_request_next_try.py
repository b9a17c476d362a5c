"""A refund that was not answered is sent again ever later, by one process at a time."""

import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("donations", "0001_initial")]

    operations = [
        migrations.AddField(
            model_name="refundrequest",
            name="next_try_at",
            field=models.DateTimeField(
                default=django.utils.timezone.now,
                help_text="When it may be sent again; whoever sends it moves this forward first.",
            ),
        ),
        migrations.RemoveIndex(model_name="refundrequest", name="refunds_to_send"),
        migrations.AddIndex(
            model_name="refundrequest",
            index=models.Index(
                condition=models.Q(("status", "sending")), fields=["next_try_at"], name="refunds_to_send_again"
            ),
        ),
    ]
