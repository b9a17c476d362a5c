"""Staff see a month's newest refunds first, and those of our own that got no answer; these can be given up."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("donations", "0007_offline")]

    operations = [
        migrations.AlterField(
            model_name="refundrequest",
            name="status",
            field=models.CharField(
                choices=[
                    ("sending", "being sent"),
                    ("accepted", "taken by the processor"),
                    ("refused", "refused by the processor"),
                    ("failed", "failed later: the money came back"),
                    ("given_up", "given up: it was not found at the processor"),
                ],
                default="sending",
                max_length=10,
            ),
        ),
        migrations.AddIndex(
            model_name="refundrequest",
            index=models.Index(
                condition=models.Q(("status", "sending")), fields=["requested_at"], name="refunds_unanswered"
            ),
        ),
        migrations.AddIndex(
            model_name="ledgerentry",
            index=models.Index(
                condition=models.Q(("kind", "refund")),
                fields=["campaign", "livemode", "campaign_month", "-effective_at"],
                name="refunds_of_a_month",
            ),
        ),
    ]
