"""All settings, read from the environment. `.env.example` and docs/operating.md name each of them.

Every setting NAME may also come from a file that NAME_FILE names: for secrets mounted as files.
"""

from pathlib import Path
from urllib.parse import urlsplit

import environ
from csp.constants import NONE, SELF
from django.core.exceptions import ImproperlyConfigured

BASE_DIR = Path(__file__).resolve().parent.parent
env = environ.FileAwareEnv()


def text(name: str, default: str = "") -> str:
    """A setting as text; an empty one counts as unset."""
    return str(env.str(name, default="")).strip() or default


def texts(name: str) -> list[str]:
    """A comma-separated setting as a list without empty parts."""
    return [part.strip() for part in text(name).split(",") if part.strip()]


def flag(name: str) -> bool:
    """A setting that is on (1, true, yes, on) or off."""
    return text(name).lower() in {"1", "true", "yes", "on"}


def whole(name: str, default: int, *, most: int) -> int:
    """A setting that is a whole number from 1 to `most`."""
    value = text(name, str(default))
    if not value.isascii() or not value.isdigit() or len(value) > 9 or not 1 <= int(value) <= most:
        raise ImproperlyConfigured(f"{name} is {value[:20]}: write a whole number from 1 to {most}.")
    return int(value)


def origin(url: str) -> str:
    """The scheme and host of an address, as browsers write an origin."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


# ---- the site

DEBUG = flag("DEBUG")
# What projects and this one put where a real key belongs.
PLACEHOLDERS = ("django-insecure-", "only-for-debug-", "tests-only-", "changeme", "change-me")
SECRET_KEY = text("SECRET_KEY", "only-for-debug-" + "0" * 50 if DEBUG else "")
if not SECRET_KEY:
    raise ImproperlyConfigured("SECRET_KEY is not set: give the site a long random text, the same for every process.")
ALLOWED_HOSTS = texts("ALLOWED_HOSTS") or (["127.0.0.1", "localhost", "[::1]"] if DEBUG else [])
TRUSTED_PROXIES = texts("TRUSTED_PROXIES")
SITE_NAME = text("SITE_NAME", "The Daily Ledger" if DEBUG else "us")
SITE_URL = text("SITE_URL", "http://127.0.0.1:8000" if DEBUG else "").rstrip("/")
if not SITE_URL:
    raise ImproperlyConfigured("SITE_URL is not set: the public address, such as https://support.example.org.")
if urlsplit(SITE_URL).scheme not in {"http", "https"} or not urlsplit(SITE_URL).hostname:
    raise ImproperlyConfigured(f"SITE_URL is {SITE_URL}: write the whole address, such as https://support.example.org.")
METRICS_TOKEN = text("METRICS_TOKEN")
AMOUNT_STYLE = text("AMOUNT_STYLE", "suffix")
if AMOUNT_STYLE not in {"suffix", "locale"}:
    raise ImproperlyConfigured('AMOUNT_STYLE is "suffix" (2,500 $) or "locale" ($2,500.00).')

# Above it, whole units of a campaign's currency, a second person approves what staff enter by hand.
APPROVAL_LIMIT_TEXT = text("APPROVAL_LIMIT", "10000")
if not (APPROVAL_LIMIT_TEXT.isascii() and APPROVAL_LIMIT_TEXT.isdigit() and len(APPROVAL_LIMIT_TEXT) <= 12):
    raise ImproperlyConfigured(
        f"APPROVAL_LIMIT is {APPROVAL_LIMIT_TEXT}: write whole units of currency in digits, such as 10000; "
        "0 has everything approved by a second person."
    )
APPROVAL_LIMIT = int(APPROVAL_LIMIT_TEXT)

# ---- the processor

STRIPE_API = "https://api.stripe.com"
LIVE_KEYS = ("sk_live_", "rk_live_")
STRIPE_SECRET_KEY = text("STRIPE_SECRET_KEY")
SANDBOX = not STRIPE_SECRET_KEY
if SANDBOX and not DEBUG and not flag("SANDBOX"):
    raise ImproperlyConfigured(
        "STRIPE_SECRET_KEY is not set. Set it, or SANDBOX=1 for a demonstration in which no money moves."
    )
STRIPE_API_BASE = text("STRIPE_API_BASE", "http://127.0.0.1:8001" if SANDBOX else STRIPE_API).rstrip("/")
STRIPE_SECRET_KEY = STRIPE_SECRET_KEY or "sk_test_sandbox"
if not STRIPE_SECRET_KEY.startswith(("sk_test_", "rk_test_", *LIVE_KEYS)):
    raise ImproperlyConfigured(
        "STRIPE_SECRET_KEY is no secret key: one begins with sk_live_ or sk_test_, a restricted one with rk_live_ or "
        "rk_test_. It is in the processor's dashboard, under API keys."
    )
LIVEMODE = STRIPE_SECRET_KEY.startswith(LIVE_KEYS)
if LIVEMODE and STRIPE_API_BASE != STRIPE_API:
    raise ImproperlyConfigured(
        "STRIPE_API_BASE must not be set with a live key: live money goes to the processor only."
    )
STRIPE_WEBHOOK_SECRETS = texts("STRIPE_WEBHOOK_SECRETS") or (["whsec_sandbox"] if SANDBOX and DEBUG else [])
if not STRIPE_WEBHOOK_SECRETS:
    raise ImproperlyConfigured("STRIPE_WEBHOOK_SECRETS is not set: without it no payment can be confirmed.")
STRIPE_CHECKOUT_ORIGINS = texts("STRIPE_CHECKOUT_ORIGINS") or (
    [origin(STRIPE_API_BASE)] if SANDBOX else ["https://checkout.stripe.com", "https://billing.stripe.com"]
)
# Read strictly when the application starts; see `donations.fees`.
FEE_COVER = text("FEE_COVER")

# ---- Django

INSTALLED_APPS = [
    "whitenoise.runserver_nostatic",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "djmoney",
    "donations",
]
MIDDLEWARE = [
    "donations.middleware.TrustedProxies",
    "donations.middleware.BoundedBodies",
    "donations.middleware.Utf8Alone",
    "django.middleware.security.SecurityMiddleware",
    "donations.middleware.DeliveriesFirst",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "donations.middleware.ContentSecurityPolicy",
    "donations.middleware.DatabaseAway",
    "donations.middleware.AdminWithoutNul",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "supportsite.urls"
WSGI_APPLICATION = "supportsite.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "donations.views.context.site",
            ]
        },
    }
]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
LANGUAGE_CODE = "en"
USE_I18N = True
FORMAT_MODULE_PATH = "supportsite.formats"
USE_THOUSAND_SEPARATOR = True
TIME_ZONE = "UTC"
USE_TZ = True
STATIC_URL = "/static/"
STATIC_ROOT = BASE_DIR / "var" / "static"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"
        if DEBUG
        else "whitenoise.storage.CompressedManifestStaticFilesStorage"
    },
}
WHITENOISE_USE_FINDERS = DEBUG
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "admin:login"
LOGIN_REDIRECT_URL = "admin:index"

# ---- the database

DATABASES = {"default": env.db_url_config(text("DATABASE_URL", f"sqlite:///{BASE_DIR / 'var' / 'db.sqlite3'}"))}
# Connections stay open: a new one costs more than the rest of a request. Server threads bound their number.
DATABASES["default"] |= {"CONN_MAX_AGE": None, "CONN_HEALTH_CHECKS": False, "ATOMIC_REQUESTS": False}
ON_SQLITE = DATABASES["default"]["ENGINE"].endswith("sqlite3")
if ON_SQLITE:
    DATABASES["default"]["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
        # recursive_triggers: without it INSERT OR REPLACE deletes a row past the append-only triggers.
        "init_command": (
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA recursive_triggers=ON; PRAGMA foreign_keys=ON"
        ),
    }
else:
    # Only statements of donations.bulk are ever prepared. A pooler that hands a connection to others between
    # transactions and does not know prepared statements needs DATABASE_URL=…?prepare_threshold=none.
    options = DATABASES["default"].setdefault("OPTIONS", {})
    threshold = str(options.get("prepare_threshold", 2))
    options["prepare_threshold"] = None if threshold == "none" else int(threshold)

# ---- background work

REDIS_URL = text("REDIS_URL")
CELERY_BROKER_URL = REDIS_URL or "memory://"
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_SERIALIZER = "json"
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_BEAT_SCHEDULE = {
    # Expires at once: a drain that waited in the queue does nothing that the next one does not do.
    "drain": {"task": "donations.drain", "schedule": 1.0, "options": {"expires": 1.0}},
    "watch": {"task": "donations.watch", "schedule": 60.0, "options": {"expires": 60.0}},
    # It looks whether the check is due, which it is ten minutes after the last one ended.
    "check-books": {"task": "donations.check_books", "schedule": 60.0, "options": {"expires": 60.0}},
    "send-mail": {"task": "donations.send_mail", "schedule": 5.0, "options": {"expires": 5.0}},
    "look-up": {"task": "donations.look_up", "schedule": 30.0, "options": {"expires": 30.0}},
    # Each looks first whether a run is due; one that was killed is so taken up soon.
    "reconcile": {"task": "donations.reconcile", "schedule": 300.0, "options": {"expires": 300.0}},
}
CELERY_BEAT_SCHEDULE_FILENAME = str(BASE_DIR / "var" / "celerybeat-schedule")

# How often what was missed is fetched and both books are compared, and how far each run looks back.
RECONCILE_EVERY_MINUTES = whole("RECONCILE_EVERY_MINUTES", 60, most=1_440)
RECONCILE_OVERLAP_DAYS = whole("RECONCILE_OVERLAP_DAYS", 3, most=10_000)
RECONCILE_FIRST_DAYS = whole("RECONCILE_FIRST_DAYS", 30, most=10_000)

# ---- mail

EMAIL_CONFIG = env.email_url_config(text("EMAIL_URL", "consolemail://"))
EMAIL_BACKEND = EMAIL_CONFIG.pop("EMAIL_BACKEND")
vars().update(EMAIL_CONFIG)
EMAIL_TIMEOUT = 10
if LIVEMODE and EMAIL_BACKEND.endswith("console.EmailBackend"):
    raise ImproperlyConfigured(
        "EMAIL_URL is not set to a mail server: with a live key, mail that is printed would put donors' addresses into "
        "the log and reach nobody. Set it, such as EMAIL_URL=smtp+tls://user:password@mail.example.org:587."
    )
STAFF_MAIL = texts("STAFF_MAIL")
DEFAULT_FROM_EMAIL = text("MAIL_FROM", f"noreply@{urlsplit(SITE_URL).hostname}")

# ---- security

# A test runs the production rules over plain HTTP on loopback, as a demonstration with SANDBOX=1 may.
SECURE = urlsplit(SITE_URL).scheme == "https"
if LIVEMODE and (DEBUG or not SECURE):
    raise ImproperlyConfigured("With a live key, SITE_URL begins with https:// and DEBUG is off: this is real money.")
WEAK_KEY = len(SECRET_KEY) < 50 or len(set(SECRET_KEY)) < 5 or SECRET_KEY.startswith(PLACEHOLDERS)
if LIVEMODE and WEAK_KEY:
    raise ImproperlyConfigured(
        "SECRET_KEY can be guessed: it is shorter than 50 characters, made of few, or a placeholder. With a live key "
        'it must be random: python3 -c "import secrets; print(secrets.token_urlsafe(48))" prints one.'
    )
SECURE_SSL_REDIRECT = SECURE
SECURE_REDIRECT_EXEMPT = [r"^healthz$", r"^readyz$"]
SECURE_HSTS_SECONDS = 31_536_000 if SECURE else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE
SECURE_HSTS_PRELOAD = SECURE
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE
SESSION_COOKIE_HTTPONLY = CSRF_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_AGE = 12 * 3600
CSRF_TRUSTED_ORIGINS = [origin(SITE_URL)]
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
DATA_UPLOAD_MAX_MEMORY_SIZE = 300 * 1024
DATA_UPLOAD_MAX_NUMBER_FIELDS = 2000
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF, "data:"],
        "font-src": [SELF],
        "connect-src": [SELF],
        "frame-src": [SELF],
        "base-uri": [NONE],
        "frame-ancestors": [NONE],
        # The way to a hosted page is a redirect after a form: browsers check it against form-action.
        "form-action": [SELF, *STRIPE_CHECKOUT_ORIGINS],
    }
}

# ---- logs

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "{asctime} {levelname} {name} {message}", "style": "{"}},
    # Some addresses are keys to a page of a donor's, and a log is read by more people than may open it.
    "filters": {"routes": {"()": "supportsite.log_lines.RouteInPlaceOfPath"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line", "filters": ["routes"]}},
    "root": {"handlers": ["console"], "level": text("LOG_LEVEL", "INFO")},
    # Django's own handler would write each of its lines a second time.
    "loggers": {"stripe": {"level": "WARNING"}, "django": {"handlers": []}},
}
(BASE_DIR / "var").mkdir(exist_ok=True)
