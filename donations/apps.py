"""The application's configuration, and the guards that every migrate puts back."""

from django.apps import AppConfig
from django.db.models.signals import post_migrate


class DonationsConfig(AppConfig):
    """Readers' gifts, the ledger, and what is shown of it."""

    name = "donations"
    verbose_name = "Reader support"

    def ready(self) -> None:
        """Have the ledger's triggers put back after each migrate: a rebuilt SQLite table loses them silently."""
        from donations.models.guards import install

        post_migrate.connect(install, sender=self, dispatch_uid="donations.guards")
