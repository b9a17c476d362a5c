"""What machines ask: a load balancer whether to send readers here, a monitor how the site is."""

import hmac
from datetime import timedelta

from django.conf import settings
from django.db import Error, connection
from django.db.migrations.executor import MigrationExecutor
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from donations import metrics
from donations.models import guards
from donations.selectors.health import Health, health

LATE = timedelta(minutes=5)
_migrated = False


@never_cache
def healthz(request: HttpRequest) -> HttpResponse:
    """Whether this process answers at all."""
    return HttpResponse("ok\n", content_type="text/plain")


@never_cache
def readyz(request: HttpRequest) -> HttpResponse:
    """Whether it can do its work: 503 without the database or its tables, else 200, with what is not as it should be.

    What another process would do no better is no reason to send readers away: it is told as `degraded`. Who sends
    METRICS_TOKEN is told the figures of `metrics_text`, too.
    """
    try:
        if not _is_migrated():
            return JsonResponse({"status": "unready", "problems": ["migrations are missing: migrate"]}, status=503)
        found = health()
        problems = _problems(found)
    except Error:
        connection.close()
        return JsonResponse({"status": "unready", "problems": ["the database is away"]}, status=503)
    answer: dict[str, object] = {"status": "degraded" if problems else "ready", "problems": problems}
    if _has_token(request):
        answer["figures"] = {gauge.name: metrics.plain(gauge) for gauge in metrics.gauges(found)}
    return JsonResponse(answer)


def _is_migrated() -> bool:
    """Whether every migration is applied. Once they are, they stay: it is not asked again."""
    global _migrated
    if not _migrated:
        executor = MigrationExecutor(connection)
        _migrated = not executor.migration_plan(executor.loader.graph.leaf_nodes())
    return _migrated


def _problems(found: Health) -> list[str]:
    checks = {
        "triggers of the ledger are missing: migrate": bool(guards.missing()),
        "events lie unprocessed": found.oldest_unprocessed is not None and found.now - found.oldest_unprocessed > LATE,
        "the books are not equal": found.books.is_equal is False or found.reconcile.findings > 0,
        "the books were not checked within an hour": found.is_unchecked(),
        "the processor was not reconciled with for three hours": found.is_unreconciled(),
    }
    return [words for words, is_so in checks.items() if is_so]


def _has_token(request: HttpRequest) -> bool:
    sent = request.headers.get("Authorization", "").encode()
    return bool(settings.METRICS_TOKEN) and hmac.compare_digest(sent, f"Bearer {settings.METRICS_TOKEN}".encode())


@never_cache
@require_safe
def metrics_text(request: HttpRequest) -> HttpResponse:
    """The site's health for Prometheus, for who sends METRICS_TOKEN as a bearer token; without the setting, nothing."""
    if not settings.METRICS_TOKEN:
        raise Http404("METRICS_TOKEN is not set.")
    if not _has_token(request):
        return HttpResponse(
            "Send the token.\n", status=401, headers={"WWW-Authenticate": "Bearer"}, content_type="text/plain"
        )
    return HttpResponse(metrics.text(metrics.gauges(health())), content_type=metrics.CONTENT_TYPE)
