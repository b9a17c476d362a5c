"""Offline gifts and adjustments: what staff enter, what a gift's state keeps of it, and who may."""

import django.db.models.deletion
import django.db.models.functions.text
from django.conf import settings
from django.db import migrations, models


RIGHTS = {
    "view_offlinerequest": "Can view offline gift or adjustment",
    "add_offlinerequest": "Can add offline gift or adjustment",
    "change_offlinerequest": "Can change offline gift or adjustment",
}


def give_rights(apps, schema_editor):
    """Give the rights that come with this version to a Finance group that stands already; once, so that taking one
    away stays. A new site's group is made with them afterwards. Django makes no permission before the last migration
    is through, so they are made here, as it would make them.
    """
    using = schema_editor.connection.alias
    group = apps.get_model("auth", "Group").objects.using(using).filter(name="Finance").first()
    if group is None:
        return
    types = apps.get_model("contenttypes", "ContentType").objects.using(using)
    permissions = apps.get_model("auth", "Permission").objects.using(using)
    kind, _ = types.get_or_create(app_label="donations", model="offlinerequest")
    for codename, name in RIGHTS.items():
        right, _ = permissions.get_or_create(content_type=kind, codename=codename, defaults={"name": name})
        group.permissions.add(right)


class Migration(migrations.Migration):

    dependencies = [
        ('donations', '0006_entries_that_change_a_gift'),
        ('auth', '0012_alter_user_first_name_max_length'),
        ('contenttypes', '0002_remove_content_type_name'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AddField(
            model_name='giftstate',
            name='adjusted',
            field=models.BigIntegerField(default=0, help_text='Signed: what adjustments by staff took or gave again.'),
        ),
        migrations.CreateModel(
            name='OfflineRequest',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('kind', models.CharField(choices=[('offline_gift', 'offline gift'), ('adjustment', 'adjustment')], max_length=12)),
                ('currency', models.CharField(max_length=3)),
                ('amount', models.BigIntegerField(help_text='Minor units; of an adjustment signed.')),
                ('day', models.DateField(help_text="When the money moved, by the campaign's calendar.")),
                ('method', models.CharField(blank=True, choices=[('bank_transfer', 'bank transfer'), ('cash', 'cash'), ('cheque', 'cheque')], max_length=13)),
                ('reference', models.CharField(help_text="The bank's, the cheque's or the receipt's.", max_length=100)),
                ('reason', models.CharField(max_length=200)),
                ('livemode', models.BooleanField()),
                ('requested_at', models.DateTimeField(auto_now_add=True)),
                ('status', models.CharField(choices=[('waiting', 'waiting for approval'), ('booked', 'booked'), ('rejected', 'rejected')], default='waiting', max_length=8)),
                ('decided_at', models.DateTimeField(null=True)),
                ('decision_reason', models.CharField(blank=True, max_length=200)),
                ('campaign', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='donations.campaign')),
                ('decided_by', models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('gift', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='offline_requests', to='donations.gift')),
                ('requested_by', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
            ],
            options={
                'verbose_name': 'offline gift or adjustment',
                'verbose_name_plural': 'offline gifts and adjustments',
                'indexes': [models.Index(condition=models.Q(('status', 'waiting')), fields=['status'], name='offline_to_approve')],
                'constraints': [models.UniqueConstraint(models.F('campaign'), models.F('kind'), django.db.models.functions.text.Lower('reference'), condition=models.Q(('status', 'rejected'), _negated=True), name='one_request_a_reference'), models.CheckConstraint(condition=models.Q(models.Q(('amount__gt', 0), ('kind', 'offline_gift')), models.Q(('kind', 'adjustment'), models.Q(('amount', 0), _negated=True)), _connector='OR'), name='offline_request_sign'), models.CheckConstraint(condition=models.Q(models.Q(('kind', 'offline_gift'), _negated=True), ('gift__isnull', False), ('status', 'rejected'), _connector='OR'), name='offline_gift_has_a_gift'), models.CheckConstraint(condition=models.Q(models.Q(('decided_at__isnull', True), ('decided_by__isnull', True), ('status__in', ['waiting', 'booked'])), models.Q(('decided_at__isnull', False), ('decided_by__isnull', False), ('status__in', ['booked', 'rejected'])), _connector='OR'), name='offline_request_decided'), models.CheckConstraint(condition=models.Q(('decided_by__isnull', True), ('status', 'rejected'), models.Q(('decided_by', models.F('requested_by')), _negated=True), _connector='OR'), name='approved_by_another_person')],
            },
        ),
        migrations.RunPython(give_rights, migrations.RunPython.noop, elidable=True),
    ]
