"""Make the peer's tables, account, key and webhook endpoint; prints its path. Runs in the peer's environment."""

import sys

import django

django.setup()

from django.conf import settings  # noqa: E402  (needs Django)
from django.core.management import call_command  # noqa: E402
from djstripe.models import Account, APIKey, WebhookEndpoint  # noqa: E402

call_command("migrate", verbosity=0)
# As it is once the first event has had Stripe asked whose the key is.
account = Account(id="acct_peer", livemode=False)
account.save()
APIKey(secret=settings.STRIPE_TEST_SECRET_KEY, type="secret", livemode=False, djstripe_owner_account=account).save()
endpoint = WebhookEndpoint(
    djstripe_owner_account=account,
    id="we_peer",
    livemode=False,
    secret=sys.argv[1],
    url="http://127.0.0.1/stripe/webhook/",
    enabled_events=["*"],
    status="enabled",
    api_version="2026-10-28",
)
endpoint.save()
print(f"/stripe/webhook/{endpoint.djstripe_uuid}/")
