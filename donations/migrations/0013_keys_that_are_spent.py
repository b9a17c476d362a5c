from django.db import migrations, models

TABLES = ("donations_gift", "donations_recurringgift")
WITHOUT_EMAIL = {
    "postgresql": (
        "UPDATE {table} SET checkout_parameters = checkout_parameters - 'customer_email' "
        "WHERE checkout_parameters ? 'customer_email'"
    ),
    "sqlite": (
        "UPDATE {table} SET checkout_parameters = json_remove(checkout_parameters, '$.customer_email') "
        "WHERE json_type(checkout_parameters, '$.customer_email') IS NOT NULL"
    ),
}


def forget_emails(apps, schema_editor):
    """Take the donor's email out of what is saved of a checkout: it stands with the donor alone, who can be erased."""
    statement = WITHOUT_EMAIL[schema_editor.connection.vendor]
    for table in TABLES:
        schema_editor.execute(statement.format(table=table), params=None)


def keys_spent():
    return models.PositiveSmallIntegerField(
        default=0, db_default=0, help_text="Idempotency keys under which the processor keeps a failure of its own."
    )


class Migration(migrations.Migration):
    dependencies = [("donations", "0012_letters_that_nobody_needs")]

    operations = [
        migrations.RunPython(forget_emails, migrations.RunPython.noop),
        migrations.AddField("gift", "checkout_keys_spent", keys_spent()),
        migrations.AddField("recurringgift", "checkout_keys_spent", keys_spent()),
    ]
