"""The application's configuration, and what every migrate puts in place: the ledger's guards, the staff's groups."""

from django.apps import AppConfig
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db.models.signals import post_migrate, pre_migrate


class DonationsConfig(AppConfig):
    """Readers' gifts, the ledger, and what is shown of it."""

    name = "donations"
    verbose_name = "Reader support"

    def ready(self) -> None:
        """Have the ledger's triggers put back after each migrate, as a rebuilt SQLite table loses them silently.

        And taken away before it, where there is anything to migrate: SQLite rebuilds no table that a trigger reads.

        And have the groups made that are missing: Django has made the permissions by then, since `auth` stands first.
        Nothing starts with a FEE_COVER that cannot be read. Raises ImproperlyConfigured.
        """
        from donations import fees, groups, processors
        from donations.models import guards

        try:
            fees.check(settings.FEE_COVER, processors=processors.PROCESSORS)
        except fees.FormulaError as error:
            raise ImproperlyConfigured(str(error)) from error
        pre_migrate.connect(guards.make_way, sender=self, dispatch_uid="donations.guards")
        post_migrate.connect(guards.install, sender=self, dispatch_uid="donations.guards")
        post_migrate.connect(groups.install, sender=self, dispatch_uid="donations.groups")
