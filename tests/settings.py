"""The site's settings in the environment that tests run in: the sandbox's keys, nothing from your own shell.

DATABASE_URL and REDIS_URL alone are the caller's: `./dev test` runs the same tests on SQLite and on PostgreSQL. Tests
that start processes of their own name their sandbox to them by TEST_STRIPE_API_BASE.
"""

import os
from pathlib import Path
from urllib.parse import quote

from tests.environment import CALLERS, settings_read

ROOT = Path(__file__).resolve().parent.parent

for name in settings_read():
    os.environ.pop(f"{name}_FILE", None)
    if name not in CALLERS:
        os.environ.pop(name, None)
os.environ.update(
    DEBUG="0",
    SECRET_KEY="tests-only-" + "k" * 50,
    SANDBOX="1",
    ALLOWED_HOSTS="*",
    SITE_URL="http://testserver",
    STRIPE_API_BASE=os.environ.get("TEST_STRIPE_API_BASE", ""),
    STRIPE_WEBHOOK_SECRETS="whsec_tests",
)
os.environ.setdefault("DATABASE_URL", f"sqlite:///{quote(str(ROOT / 'var/test.sqlite3'))}")

from supportsite.settings import *  # noqa: E402, F403

# Static files come from where they stand: nothing has collected them.
STORAGES["staticfiles"] = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}  # noqa: F405
STATIC_ROOT = None  # type: ignore[assignment]
WHITENOISE_USE_FINDERS = True
# Looked for when they are asked for: every new client of a test would list them all.
WHITENOISE_AUTOREFRESH = True

# The real hashers are slow on purpose; no test is about them.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
