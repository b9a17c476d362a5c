"""What the dashboard and `/_control/state` show: settings, clock, balance, counts, and what is latest."""

from dataclasses import asdict
from typing import Any

from . import account, balance, events
from .store import Tx

Json = dict[str, Any]
KINDS = {
    "sessions": "checkout.session",
    "payments": "payment_intent",
    "refunds": "refund",
    "subscriptions": "subscription",
    "invoices": "invoice",
    "disputes": "dispute",
    "payouts": "payout",
    "events": "event",
}
LATEST = 20


def summary(tx: Tx, limit: int = LATEST) -> Json:
    """The whole, without the trouble, which is not the store's alone."""
    latest = {name: tx.latest(kind, limit) for name, kind in KINDS.items()}
    latest["events"] = [with_delivery(tx, event) for event in latest["events"]]
    counts = dict(tx.db.execute("SELECT kind, count(*) FROM objects GROUP BY kind").fetchall())
    return {
        "clock": {"now": tx.clock.seconds(), "ahead": tx.clock.ahead},
        "account": asdict(account.of(tx)),
        "balance": balance.held(tx),
        "deliveries": {"mode": tx.setting("deliveries", "normal")} | delivery_counts(tx),
        "counts": {name: counts.get(kind, 0) for name, kind in KINDS.items()},
        **latest,
    }


def delivery_counts(tx: Tx) -> Json:
    found = dict(tx.db.execute("SELECT state, count(*) FROM deliveries GROUP BY state").fetchall())
    return {name: found.get(name, 0) for name in ("queued", "held", "delivered", "missed")}


def with_delivery(tx: Tx, event: Json) -> Json:
    """An event with its `deliveries`, the first one first."""
    names = ("state", "attempts", "last_status", "last_error", "next_at", "delivered_at")
    rows = tx.db.execute(f"SELECT {', '.join(names)} FROM deliveries WHERE event = ? ORDER BY id", (event["id"],))  # noqa: S608
    return events.shown(tx, event) | {"deliveries": [dict(zip(names, row, strict=True)) for row in rows]}
