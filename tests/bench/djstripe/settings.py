"""A site of nothing but dj-stripe, storing only: each event is verified and kept as its Event."""

import os
from urllib.parse import urlsplit

address = urlsplit(os.environ["DATABASE_URL"])
SECRET_KEY = "a-peer-under-measurement"
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "djstripe"]
ROOT_URLCONF = "djstripe_peer.urls"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": address.path[1:],
        "USER": address.username,
        "PASSWORD": address.password,
        "HOST": address.hostname,
        "PORT": address.port,
        "CONN_MAX_AGE": None,
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
LOGGING = {"version": 1, "disable_existing_loggers": True}
STRIPE_TEST_SECRET_KEY = "sk_test_" + 24 * "p"  # a key of Stripe's form
STRIPE_LIVE_MODE = False
DJSTRIPE_FOREIGN_KEY_TO_FIELD = "id"
