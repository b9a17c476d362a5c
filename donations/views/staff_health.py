"""The page of the site's own health: `/staff/health/`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from django.contrib.auth.decorators import login_required, user_passes_test
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import cache_control
from django.views.decorators.http import require_safe

from donations.models import Alert
from donations.selectors.health import Check, Health, health, troubles, unanswered_refunds
from donations.views.context import banner
from donations.views.staff import ago, answer_words, count_text, may_see_totals

ALERTS_SHOWN = 20
BOOKS, RECONCILE = "The books in themselves", "The books against the processor’s"


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that is watched, in words, and whether it is as it should be."""

    name: str
    value: str
    is_well: bool = True


@dataclass(frozen=True, slots=True)
class Findings:
    """What a check found first, each with its remedy, and the command that prints all of it."""

    title: str
    words: Sequence[str]
    command: str


@cache_control(no_store=True)
@require_safe
@login_required(login_url="admin:login")
@user_passes_test(may_see_totals)
def page(request: HttpRequest) -> HttpResponse:
    """What is watched, what the checks found, and the latest alerts."""
    found = health()
    context = {
        "banner": banner(request.user, troubles(found)),
        "lines": [*_inbox_lines(found), *_mail_lines(found)],
        "checks": [_books(found), _reconcile(found)],
        "findings": [*_findings(found)],
        "unanswered": unanswered_refunds(found.now),
        "alerts": Alert.objects.order_by("-began_at")[:ALERTS_SHOWN],
    }
    return render(request, "donations/staff/health.html", context)


def _findings(found: Health) -> Iterator[Findings]:
    if found.books.words:
        yield Findings(BOOKS, found.books.words, "manage.py check_books")
    if found.reconcile.words:
        yield Findings(RECONCILE, found.reconcile.words, "manage.py reconcile --check")


def _inbox_lines(found: Health) -> Iterator[Line]:
    last = f"{ago(found.now - found.last_received)} ago" if found.last_received else "never"
    yield Line("Last event", last, not found.is_silent())
    if found.longest_gap is not None:
        yield Line("Longest usual silence", ago(found.longest_gap))
    oldest = f"{ago(found.now - found.oldest_unprocessed)} old" if found.oldest_unprocessed else "none"
    yield Line("Oldest unprocessed event", oldest, not found.is_late())
    yield Line("Unprocessed", f"{found.unprocessed:,}", not found.is_late())
    yield Line("Waiting for what they belong to", f"{found.waiting:,}")
    yield Line("Quarantined", f"{found.quarantined:,}", not found.quarantined)
    yield Line("Quarantined: paid twice", f"{found.paid_twice:,}", not found.paid_twice)
    yield Line("Quarantined after failures", f"{found.dead_letters:,}", not found.dead_letters)
    yield Line("Of the wrong mode, ever", f"{found.wrong_mode:,}", not found.wrong_mode_lately)


def _mail_lines(found: Health) -> Iterator[Line]:
    yield Line(
        "Mail that may or may not have been sent, last three days", f"{found.mail_unsure:,}", not found.mail_unsure
    )
    yield Line("Mail that could not be sent, last three days", f"{found.mail_failed:,}", not found.mail_given_up)
    yield Line("Refunds without an answer for an hour", f"{found.refunds_unanswered:,}", not found.refunds_unanswered)
    unseen = "not compared yet" if found.reconcile.unseen is None else f"{found.reconcile.unseen:,}"
    # Many are no trouble any more: they are here since.
    yield Line("Fetched by the last reconciliation, as it was not here", unseen)


def _reconcile(found: Health) -> Line:
    line = _check(RECONCILE, found.reconcile, found.now)
    if not found.is_unreconciled() and not found.reconcile_error:
        return line
    why = found.reconcile_error or "nobody goes on with it"
    words = "none has begun since" if found.reconciling_since is None else f"since then it stands still: {why}"
    return replace(line, value=f"{line.value}; {words}", is_well=line.is_well and not found.is_unreconciled())


def _check(name: str, check: Check, now: datetime) -> Line:
    if check.is_equal is None or check.finished_at is None or check.since is None:
        return Line(name, "not checked yet")
    answer = f"not equal: {count_text(check.findings, 'finding')}" if check.findings else answer_words(check)
    since, checked = ago(now - check.since), ago(now - check.finished_at)
    return Line(name, f"{answer}, for {since}; checked {checked} ago", not check.findings)


def _books(found: Health) -> Line:
    line = _check(BOOKS, found.books, found.now)
    return replace(line, is_well=False) if found.is_unchecked() else line
