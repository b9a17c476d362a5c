"""The site's settings, with the peers' addresses beside its own, and no log of every request."""

from tests.settings import *  # noqa: F403

ROOT_URLCONF = "tests.bench.peers"
LOGGING = {"version": 1, "disable_existing_loggers": True}
MIDDLEWARE.insert(  # noqa: F405
    MIDDLEWARE.index("donations.middleware.DeliveriesFirst"),  # noqa: F405
    "tests.bench.peers.InsertFirst",
)
