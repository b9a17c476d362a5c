"""The site's settings in the environment that tests run in: the sandbox's keys, nothing from your own shell.

DATABASE_URL and REDIS_URL alone are the caller's: `./dev test` runs the same tests on SQLite and on PostgreSQL.
"""

import os
from pathlib import Path
from urllib.parse import quote

ROOT = Path(__file__).resolve().parent.parent

os.environ.update(
    DEBUG="0",
    SECRET_KEY="tests-only-" + "k" * 50,
    SANDBOX="1",
    ALLOWED_HOSTS="*",
    SITE_URL="http://testserver",
    STRIPE_WEBHOOK_SECRETS="whsec_tests",
)
os.environ.setdefault("DATABASE_URL", f"sqlite:///{quote(str(ROOT / 'var/test.sqlite3'))}")
for name in (
    "STRIPE_SECRET_KEY",
    "TRUSTED_PROXIES",
    "AMOUNT_STYLE",
    "SITE_NAME",
    "EMAIL_URL",
    "MAIL_FROM",
    "LOG_LEVEL",
    "FEE_COVER",
    "APPROVAL_LIMIT",
):
    os.environ.pop(name, None)

from supportsite.settings import *  # noqa: E402, F403

# Static files come from where they stand: nothing has collected them.
STORAGES["staticfiles"] = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}  # noqa: F405
STATIC_ROOT = None  # type: ignore[assignment]
WHITENOISE_USE_FINDERS = True
# Looked for when they are asked for: every new client of a test would list them all.
WHITENOISE_AUTOREFRESH = True

# The real hashers are slow on purpose; no test is about them.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
