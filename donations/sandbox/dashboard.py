"""The sandbox's dashboard, at /: what happened, and buttons for what `control` can do."""

from typing import Any

from . import amounts, dashboard_tables, pages
from .dashboard_tables import moment
from .pages import Html
from .web import Response

Json = dict[str, Any]
DELIVERIES = {"normal": "until it arrives", "twice": "twice", "never": "never: hold it"}
TROUBLES = {
    "none": "well",
    "down": "down (503)",
    "broken": "failing (500), and keeping that for the key",
    "429": "limiting (429)",
    "slow": "slow: waits, then works",
    "late": "late: works, then waits",
    "hang": "hanging: never answers",
    "drop": "hanging up without an answer",
    "refused": "gone: nothing listens for some seconds",
    "refuse": "refusing every amount",
}
ADVANCES = {"1h": "an hour", "1d": "a day", "3d": "3 days", "1w": "a week", "1mo": "a month"}
CAPTURES = {"async": "follow the charge", "sync": "come with the charge"}
PAYOUTS = {"daily": "every day", "manual": "by hand"}


def answer(state: Json, webhook_url: str) -> Response:
    """The page. `state` is what /_control/state shows."""
    trouble, account = state["trouble"], state["account"]
    content = pages.fill(
        "dashboard.html",
        now=moment(state["clock"]["now"]),
        ahead=_ahead(state["clock"]["ahead"]),
        available=_sums(state["balance"]["available"]),
        pending=_sums(state["balance"]["pending"]),
        events_count=state["counts"]["events"],
        **{name: state["deliveries"][name] for name in ("delivered", "queued", "held", "missed")},
        webhook_url=webhook_url,
        delivery_options=_options(DELIVERIES, state["deliveries"]["mode"]),
        trouble_options=_options(TROUBLES, trouble["mode"]),
        seconds=f"{trouble['seconds']:g}" if "seconds" in trouble else "",
        calls=trouble.get("calls", ""),
        per_second=trouble.get("per_second", ""),
        advance_options=_options(ADVANCES, "1d"),
        capture_options=_options(CAPTURES, account["capture"]),
        payouts_options=_options(PAYOUTS, account["payouts"]),
        **{name: account[name] for name in ("fee_basis_points", "fee_fixed", "dispute_fee", "retry_days")},
        tables=pages.join([_table(state, *one) for one in dashboard_tables.TABLES]),
    )
    return pages.page("Dashboard", content)


def _ahead(seconds: float) -> str:
    return f", {seconds / 86_400:.1f} days ahead" if seconds >= 60 else ""


def _sums(held: list[Json]) -> str:
    return ", ".join(amounts.written(one["amount"], one["currency"]) for one in held)


def _options(choices: dict[str, str], chosen: str) -> Html:
    return pages.join(
        [
            pages.tag("option", words, value=value, selected="selected" if value == chosen else "")
            for value, words in choices.items()
        ]
    )


def _table(state: Json, key: str, title: str, empty: str, rows_of: dashboard_tables.Rows) -> Html:
    rows = rows_of(state)
    title = f"{title} ({state['counts'][key]:,})" if rows else title
    if not rows:
        body = pages.tag("p", empty, class_="none")
    else:
        heads = pages.join([pages.tag("th", name, scope="col") for name in rows[0]])
        lines = [pages.tag("tr", pages.join([pages.tag("td", cell) for cell in row.values()])) for row in rows]
        body = pages.fill("rows.html", key=key, heads=heads, rows=pages.join(lines))
    return pages.fill("table.html", key=key, title=title, body=body)
