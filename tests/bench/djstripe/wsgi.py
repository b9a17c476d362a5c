"""dj-stripe for granian, with nobody to hear of an event: its own handlers would ask Stripe for what it is about."""

from django.core.wsgi import get_wsgi_application

application = get_wsgi_application()

from djstripe.signals import WEBHOOK_SIGNALS  # noqa: E402  (needs Django)

WEBHOOK_SIGNALS.clear()
