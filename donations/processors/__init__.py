"""Who moves the money: processors by name, imported when first asked for."""

from functools import lru_cache

from django.conf import settings
from django.utils.module_loading import import_string

from donations.processors.base import Processor

OFFLINE = "offline"
PROCESSORS = {
    "stripe": "donations.processors.stripe.StripeProcessor",
    OFFLINE: "donations.processors.offline.OfflineProcessor",
}


@lru_cache
def get(name: str) -> Processor:
    """The processor of this name, made from the settings. Raises KeyError for a name that is not known."""
    made: Processor = import_string(PROCESSORS[name]).from_settings(settings)
    return made


def default() -> Processor:
    """The processor that new gifts are paid through."""
    return get("stripe")
