"""References of what staff enter: each once a mode, and compared alike on both databases."""

from unicodedata import normalize

from django.db import migrations, models


def write_keys(apps, schema_editor):
    """Write the key that references are compared by. Of those that the database let stand beside one another though
    their letters differ in case or form alone, the first has the key; the others have one that nobody can type.
    """
    asked = apps.get_model("donations", "OfflineRequest").objects.using(schema_editor.connection.alias)
    taken = set()
    for row in asked.order_by("pk").iterator():
        key = normalize("NFC", normalize("NFC", row.reference).casefold())
        place = (row.campaign_id, row.kind, row.livemode, key)
        row.reference_key = f"{key}\n{row.pk}" if place in taken else key
        row.save(update_fields=["reference_key"])
        if row.status != "rejected":
            taken.add(place)


class Migration(migrations.Migration):

    dependencies = [("donations", "0014_what_monthly_gifts_ask_now")]

    operations = [
        migrations.RemoveConstraint(model_name="offlinerequest", name="one_request_a_reference"),
        migrations.AddField(
            model_name="offlinerequest",
            name="reference_key",
            field=models.CharField(
                default="", help_text="It, however its letters are written; see `key_of`.", max_length=300
            ),
            preserve_default=False,
        ),
        migrations.RunPython(write_keys, migrations.RunPython.noop, elidable=True),
        migrations.AddConstraint(
            model_name="offlinerequest",
            constraint=models.UniqueConstraint(
                condition=models.Q(("status", "rejected"), _negated=True),
                fields=("campaign", "kind", "livemode", "reference_key"),
                name="one_request_a_reference",
            ),
        ),
    ]
