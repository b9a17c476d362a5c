"""The application's configuration, and what every migrate puts in place: the ledger's guards, the staff's groups."""

from django.apps import AppConfig
from django.db.models.signals import post_migrate


class DonationsConfig(AppConfig):
    """Readers' gifts, the ledger, and what is shown of it."""

    name = "donations"
    verbose_name = "Reader support"

    def ready(self) -> None:
        """Have the ledger's triggers put back after each migrate, as a rebuilt SQLite table loses them silently.

        And have the groups made that are missing: Django has made the permissions by then, since `auth` stands first.
        """
        from donations import groups
        from donations.models import guards

        post_migrate.connect(guards.install, sender=self, dispatch_uid="donations.guards")
        post_migrate.connect(groups.install, sender=self, dispatch_uid="donations.groups")
