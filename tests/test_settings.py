"""The settings: what a site with a live key must have before it starts, and words for whoever left it out."""

import io
import logging
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.test import Client
from django.utils import timezone

from donations.reconcile import runs
from tests.environment import CALLERS, SETTINGS, settings_read

LIVE = {
    "DEBUG": "0",
    "SANDBOX": "0",
    "SECRET_KEY": "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMN",
    "SITE_URL": "https://support.example.org",
    "STRIPE_SECRET_KEY": "sk_live_abc",
    "STRIPE_WEBHOOK_SECRETS": "whsec_abc",
    "EMAIL_URL": "smtp+tls://user:password@mail.example.org:587",
}


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Read the settings in this environment, as a process does when it starts."""

    def read(environment: dict[str, str]) -> dict[str, Any]:
        for name in settings_read():
            if name != "DATABASE_URL":
                monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        return runpy.run_path(str(SETTINGS))

    return read


@pytest.mark.parametrize("key", ["sk_live_abc", "rk_live_abc"])
def test_a_live_site_with_all_it_needs_starts(start: Any, key: str) -> None:
    settings = start(LIVE | {"STRIPE_SECRET_KEY": key})
    assert (settings["LIVEMODE"], settings["DEBUG"], settings["SESSION_COOKIE_SECURE"]) == (True, False, True)
    assert settings["EMAIL_HOST"] == "mail.example.org"
    assert settings["STRIPE_CHECKOUT_ORIGINS"] == ["https://checkout.stripe.com", "https://billing.stripe.com"]


@pytest.mark.parametrize(
    ("fields", "said", "remedy"),
    [
        ({"SITE_URL": "http://support.example.org"}, "SITE_URL", "begins with https://"),
        ({"DEBUG": "1"}, "DEBUG", "DEBUG is off"),
        ({"SITE_URL": "support.example.org"}, "SITE_URL is support.example.org", "write the whole address"),
        ({"SITE_URL": "//support.example.org"}, "SITE_URL", "write the whole address"),
        ({"SITE_URL": "ftp://support.example.org"}, "SITE_URL", "write the whole address"),
        ({"SITE_URL": "https://"}, "SITE_URL", "write the whole address"),
        ({"SITE_URL": ""}, "SITE_URL is not set", "such as https://"),
        ({"EMAIL_URL": ""}, "EMAIL_URL is not set", "EMAIL_URL=smtp+tls://"),
        ({"EMAIL_URL": "consolemail://"}, "EMAIL_URL is not set to a mail server", "EMAIL_URL=smtp+tls://"),
        ({"SECRET_KEY": ""}, "SECRET_KEY is not set", "long random text"),
        ({"SECRET_KEY": LIVE["SECRET_KEY"][:49]}, "shorter than 50", "secrets.token_urlsafe"),
        ({"SECRET_KEY": "abcd" * 20}, "made of few", "secrets.token_urlsafe"),
        ({"SECRET_KEY": "django-insecure-" + LIVE["SECRET_KEY"]}, "a placeholder", "secrets.token_urlsafe"),
        ({"SECRET_KEY": "only-for-debug-" + LIVE["SECRET_KEY"]}, "a placeholder", "secrets.token_urlsafe"),
        ({"STRIPE_API_BASE": "https://elsewhere.example.org"}, "STRIPE_API_BASE", "must not be set"),
        ({"STRIPE_WEBHOOK_SECRETS": ""}, "STRIPE_WEBHOOK_SECRETS is not set", "no payment can be confirmed"),
    ],
    ids=lambda value: str(value)[:60] if isinstance(value, dict) else "",
)
def test_a_live_site_that_lacks_something_does_not_start_and_says_what(
    start: Any, fields: dict[str, str], said: str, remedy: str
) -> None:
    with pytest.raises(ImproperlyConfigured) as refusal:
        start(LIVE | fields)
    assert said in str(refusal.value)
    assert remedy in str(refusal.value)
    for secret in ("sk_live_abc", "whsec_abc", LIVE["SECRET_KEY"][:40]):
        assert secret not in str(refusal.value)


@pytest.mark.parametrize("key", ["pk_live_abc", "whsec_abc", "SK_LIVE_abc", "sk_living_abc"])
def test_a_key_that_is_no_secret_key_is_not_taken_for_one_of_test_mode(start: Any, key: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="STRIPE_SECRET_KEY is no secret key") as refusal:
        start(LIVE | {"STRIPE_SECRET_KEY": key})
    assert key not in str(refusal.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"STRIPE_SECRET_KEY": "rk_test_abc"},
        {"EMAIL_URL": ""},
        {"SECRET_KEY": "short"},
        {"SITE_URL": "http://support.example.org"},
    ],
    ids=str,
)
def test_a_site_in_test_mode_may_do_with_less(start: Any, fields: dict[str, str]) -> None:
    assert not start(LIVE | {"STRIPE_SECRET_KEY": "sk_test_abc"} | fields)["LIVEMODE"]


@pytest.mark.parametrize("value", ["stripe=2.9", "stripe=60%", "strip=2.9%+0.30"])
def test_nothing_starts_with_a_fee_cover_that_cannot_be_read(settings: Any, value: str) -> None:
    settings.FEE_COVER = value
    with pytest.raises(ImproperlyConfigured, match="Write it like stripe"):
        apps.get_app_config("donations").ready()


@pytest.mark.parametrize("name", ["RECONCILE_EVERY_MINUTES", "RECONCILE_OVERLAP_DAYS", "RECONCILE_FIRST_DAYS"])
@pytest.mark.parametrize("value", ["0", "-1", "1.5", "1e3", "10001", "800000", "9" * 5000, "³"], ids=lambda v: v[:9])
def test_a_number_that_no_clock_can_go_back_by_is_refused_at_the_start(start: Any, name: str, value: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=rf"^{name} is .*: write a whole number from 1 to \d+\.$"):
        start(LIVE | {name: value})


@pytest.mark.django_db
def test_the_first_reconciliation_may_look_back_over_all_that_there_is(start: Any, settings: Any) -> None:
    settings.RECONCILE_FIRST_DAYS = start(LIVE | {"RECONCILE_FIRST_DAYS": "10000"})["RECONCILE_FIRST_DAYS"]
    assert runs.window("stripe", timezone.now()).year < 2000


@pytest.mark.parametrize(("written", "limit"), [("", 10000), ("0", 0), (" 250 ", 250)])
def test_the_limit_of_what_one_person_enters_alone_is_whole_units(start: Any, written: str, limit: int) -> None:
    assert start(LIVE | {"APPROVAL_LIMIT": written})["APPROVAL_LIMIT"] == limit


@pytest.mark.parametrize("written", ["-1", "10.5", "1,000", "many", "٣", "9" * 13])
def test_a_limit_that_is_no_whole_number_is_refused(start: Any, written: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=r"APPROVAL_LIMIT is .*: write whole units"):
        start(LIVE | {"APPROVAL_LIMIT": written})


@pytest.mark.django_db
@pytest.mark.parametrize("page", ["thanks", "manage", "follow"])
def test_no_line_of_the_log_has_the_key_to_a_donors_page(client: Client, page: str) -> None:
    handler = logging.getHandlerByName("console") if sys.version_info >= (3, 12) else logging.getLogger().handlers[0]
    assert isinstance(handler, logging.StreamHandler)
    before = handler.setStream(io.StringIO())
    try:
        client.post(f"/{page}/recurring_1:key/")
        lines = handler.stream.getvalue()
    finally:
        handler.setStream(before)
    assert f"/{page}/<str:token>/" in lines
    assert "key" not in lines


@pytest.mark.slow
@pytest.mark.parametrize("debug", ["0", "1"])
def test_what_django_warns_of_is_logged_once(debug: str) -> None:
    code = "import django, logging; django.setup(); logging.getLogger('django.request').warning('only once')"
    environment = {name: os.environ[name] for name in ("PATH", "DATABASE_URL") if name in os.environ} | LIVE
    environment |= {"DJANGO_SETTINGS_MODULE": "supportsite.settings", "STRIPE_SECRET_KEY": "sk_test_abc"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=SETTINGS.parent.parent,
        env=environment | {"DEBUG": debug},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout + done.stderr).count("only once") == 1


# ---- what else has to know them all


def read_by_tests(**environment: str) -> str:
    """All settings that tests run with, started from a shell with this environment."""
    code = (
        "from tests import settings; print({name: getattr(settings, name) for name in dir(settings) if name.isupper()})"
    )
    inherited = {name: os.environ[name] for name in ("PATH", "DATABASE_URL")}
    root = SETTINGS.parent.parent
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, env=inherited | environment, capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.mark.slow
def test_tests_have_no_setting_from_the_shell_that_started_them(tmp_path: Path) -> None:
    names, mounted = settings_read(), tmp_path / "mounted"
    mounted.write_text("sk_test_of_the_shell")
    shells = {name: "sk_test_of_the_shell" for name in names if name not in CALLERS}
    files = {f"{name}_FILE": str(mounted) for name in names}
    assert read_by_tests(**shells, **files) == read_by_tests()


def test_dev_unsets_every_setting_before_it_starts_a_site() -> None:
    [unset] = re.findall(r"for name in ([A-Z_ \\\n]+); do\n +unset", (SETTINGS.parent.parent / "dev").read_text())
    assert sorted(unset.replace("\\", "").split()) == settings_read()
