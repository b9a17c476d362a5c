"""Make the peer's tables and its webhook endpoint; prints the endpoint's path. Runs in the peer's environment."""

import sys

import django

django.setup()

from django.core.management import call_command  # noqa: E402  (needs Django)
from djstripe.models import WebhookEndpoint  # noqa: E402

call_command("migrate", verbosity=0)
endpoint = WebhookEndpoint(
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
