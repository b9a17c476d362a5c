"""The sandbox's dashboard, at /: what happened, and buttons for what `control` can do."""

from datetime import UTC, datetime
from typing import Any

from . import amounts, pages
from .pages import Html
from .web import Response

Json = dict[str, Any]
DELIVERIES = {"normal": "until it arrives", "twice": "twice", "never": "never: hold it"}
TROUBLES = {
    "none": "well",
    "down": "down (503)",
    "slow": "slow: waits, then works",
    "late": "late: works, then waits",
    "429": "limiting (429)",
    "refuse": "refusing every amount",
}
GOOD = {"paid", "succeeded", "delivered"}
BAD = {"failed", "expired", "requires_payment_method"}


def answer(state: Json, webhook_url: str) -> Response:
    """The page. `state` is what /_control/state shows."""
    tables = [
        _table("sessions", "Checkouts", "No checkout yet. Give something on the site.", _sessions(state)),
        _table("payments", "Payments", "No payment yet.", _payments(state)),
        _table("refunds", "Refunds", "No refund yet.", _refunds(state)),
        _table("events", "Events", "No event yet.", _events(state)),
    ]
    content = pages.fill(
        "dashboard.html",
        **{f"{name}_count": count for name, count in state["counts"].items()},
        **{name: state["deliveries"][name] for name in ("delivered", "queued", "held")},
        webhook_url=webhook_url,
        delivery_options=_options(DELIVERIES, state["deliveries"]["mode"]),
        trouble_options=_options(TROUBLES, state["trouble"]["mode"]),
        seconds=f"{state['trouble'].get('seconds', 10):g}",
        tables=pages.join(tables),
    )
    return pages.page("Dashboard", content)


def _sessions(state: Json) -> list[dict[str, Html]]:
    rows = []
    for item in state["sessions"]:
        is_open = item["status"] == "open"
        do = [pages.tag("a", "Payment page", href=f"/pay/{item['id']}")] if is_open else []
        do += [_button(f"sessions/{item['id']}/pay", "Pay", item["id"])] if is_open else []
        do += [_button(f"sessions/{item['id']}/expire", "Expire", item["id"])] if is_open else []
        status = item["payment_status"] if item["status"] == "complete" else item["status"]
        rows.append(_common(item, item["amount_total"]) | {"State": _state(status), "Do": pages.join(do)})
    return rows


def _payments(state: Json) -> list[dict[str, Html]]:
    rows = []
    for item in state["payments"]:
        do = []
        if item["status"] == "processing":
            do = [
                _button(f"payments/{item['id']}/{name}", name.capitalize(), item["id"]) for name in ("settle", "fail")
            ]
        elif item["status"] == "succeeded":
            do = [pages.fill("refund.html", payment=item["id"], left=_left(item, state))]
        rows.append(_common(item, item["amount"]) | {"State": _state(item["status"]), "Do": pages.join(do)})
    return rows


def _left(item: Json, state: Json) -> str:
    """What is left of a payment after the refunds that are shown, as it is typed."""
    back = (r["amount"] for r in state["refunds"] if r["payment_intent"] == item["id"] and r["status"] != "failed")
    left = max(0, item["amount"] - sum(back))
    places = amounts.exponent(item["currency"])
    units, rest = divmod(left, 10**places)
    return f"{units}.{rest:0{places}d}" if places else str(units)


def _refunds(state: Json) -> list[dict[str, Html]]:
    rows = []
    for item in state["refunds"]:
        names = {"pending": ("succeed", "fail"), "succeeded": ("fail",)}.get(item["status"], ())
        do = [_button(f"refunds/{item['id']}/{name}", name.capitalize(), item["id"]) for name in names]
        rows.append(_common(item, item["amount"]) | {"State": _state(item["status"]), "Do": pages.join(do)})
    return rows


def _events(state: Json) -> list[dict[str, Html]]:
    return [
        {
            "When (UTC)": _when(item["created"]),
            "Type": pages.tag("code", item["type"]),
            "About": pages.tag("code", item["data"]["object"]["id"]),
            "Deliveries": pages.join([_delivery(row) for row in item["deliveries"]]),
            "Do": _button(f"events/{item['id']}/deliver", "Deliver again", item["id"]),
        }
        for item in state["events"]
    ]


def _delivery(row: Json) -> Html:
    """How one delivery stands: `delivered`, `held`, `queued`, or what it is tried again for."""
    failing = row["state"] == "queued" and row["attempts"]
    if not failing:
        return _state(row["state"])
    return _state("failed", f"{row['attempts']} × {row['last_status'] or row['last_error']}, tried again")


def _common(item: Json, amount: int) -> dict[str, Html]:
    return {
        "When (UTC)": _when(item["created"]),
        "Id": pages.tag("code", item["id"]),
        "Amount": pages.text(amounts.written(amount, item["currency"])),
    }


def _when(seconds: int) -> Html:
    moment = datetime.fromtimestamp(seconds, UTC)
    return pages.tag("time", moment.strftime("%-d %b %H:%M:%S"), datetime=moment.isoformat())


def _state(name: str, words: str = "") -> Html:
    look = "good" if name in GOOD else "bad" if name in BAD else ""
    return pages.tag("span", words or name.replace("_", " "), class_=f"state {look}".strip())


def _button(path: str, words: str, what: str) -> Html:
    return pages.fill("button.html", action=f"/_control/{path}", words=words, what=what)


def _options(choices: dict[str, str], chosen: str) -> Html:
    return pages.join(
        [
            pages.tag("option", words, value=value, selected="selected" if value == chosen else "")
            for value, words in choices.items()
        ]
    )


def _table(key: str, title: str, empty: str, rows: list[dict[str, Html]]) -> Html:
    if not rows:
        body = pages.tag("p", empty, class_="none")
    else:
        heads = pages.join([pages.tag("th", name, scope="col") for name in rows[0]])
        lines = [pages.tag("tr", pages.join([pages.tag("td", cell) for cell in row.values()])) for row in rows]
        body = pages.fill("rows.html", key=key, heads=heads, rows=pages.join(lines))
    return pages.fill("table.html", key=key, title=title, body=body)
