"""The site's health as metrics, in Prometheus' text format, version 0.0.4.

The format: https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from donations.selectors.health import Health, troubles

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Samples = dict[str, float | None]


@dataclass(frozen=True, slots=True)
class Gauge:
    """A metric that may go up and down; `samples` by their label's value, "" for the only one; None is left out."""

    name: str
    help: str
    samples: Samples
    label: str = ""


def plain(gauge: Gauge) -> float | Samples | None:
    """A gauge as a number, or as its numbers by label."""
    return gauge.samples if gauge.label else gauge.samples[""]


def gauges(health: Health) -> list[Gauge]:
    """What is told of the site's health; docs/operating.md has the same names."""
    checks = {"books": health.books, "reconcile": health.reconcile}
    events: Samples = {
        "ready": health.unprocessed,
        "waiting": health.waiting,
        "quarantined": health.quarantined,
        "wrong_mode": health.wrong_mode,
    }
    late = (health.now - health.oldest_unprocessed).total_seconds() if health.oldest_unprocessed else 0
    return [
        Gauge("supportsite_last_event_timestamp_seconds", "When the last event came.", _one(health.last_received)),
        Gauge("supportsite_oldest_unprocessed_seconds", "Age of the oldest unprocessed event.", {"": late}),
        Gauge("supportsite_inbox_events", "Events by state.", events, "state"),
        Gauge(
            "supportsite_paid_twice", "Quarantined payments for gifts that were paid already.", {"": health.paid_twice}
        ),
        Gauge("supportsite_dead_letters", "Quarantined after failures.", {"": health.dead_letters}),
        Gauge(
            "supportsite_mail_messages",
            "Mail of the last three days that could not be sent, or may not have been, by state.",
            {"unsure": health.mail_unsure, "failed": health.mail_failed},
            "state",
        ),
        Gauge("supportsite_refunds_unanswered", "Refunds without an answer.", {"": health.refunds_unanswered}),
        Gauge(
            "supportsite_unseen",
            "What the last reconciliation fetched, as it was not here.",
            {"": health.reconcile.unseen},
        ),
        Gauge(
            "supportsite_books_equal",
            "1 while nothing differs, by check.",
            {name: None if check.is_equal is None else int(check.is_equal) for name, check in checks.items()},
            "check",
        ),
        Gauge(
            "supportsite_books_findings",
            "What is wrong, by check.",
            {n: c.findings for n, c in checks.items()},
            "check",
        ),
        Gauge(
            "supportsite_books_since_timestamp_seconds",
            "Since when the answer is this one, by check.",
            {name: _seconds(check.since) for name, check in checks.items()},
            "check",
        ),
        Gauge(
            "supportsite_books_checked_timestamp_seconds",
            "When it was last checked, by check.",
            {name: _seconds(check.finished_at) for name, check in checks.items()},
            "check",
        ),
        Gauge("supportsite_troubles", "Kinds of trouble that need a person.", {"": len(troubles(health))}),
    ]


def _one(moment: datetime | None) -> Samples:
    return {"": _seconds(moment)}


def _seconds(moment: datetime | None) -> float | None:
    return moment.timestamp() if moment else None


def text(gauges: list[Gauge]) -> str:
    """The metrics as they are scraped. Names, help and labels are our own words: none needs escaping."""
    return "".join(f"{line}\n" for gauge in gauges for line in _lines(gauge))


def _lines(gauge: Gauge) -> Iterator[str]:
    yield f"# HELP {gauge.name} {gauge.help}"
    yield f"# TYPE {gauge.name} gauge"
    for value, sample in gauge.samples.items():
        if sample is not None:
            label = f'{{{gauge.label}="{value}"}}' if gauge.label else ""
            yield f"{gauge.name}{label} {sample:.15g}"
