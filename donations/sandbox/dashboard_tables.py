"""The tables of the dashboard: one function a kind of object, from the state to its rows."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from . import amounts, pages
from .cards import CARDS, grouped
from .pages import Html

Json = dict[str, Any]
Row = dict[str, Html]
Rows = Callable[[Json], list[Row]]
GONE = ("failed", "canceled")
GOOD = {"paid", "succeeded", "delivered", "active", "won", "warning_closed"}
BAD = {"failed", "expired", "requires_payment_method", "lost", "past_due", "canceled", "uncollectible", "missed"}


def _sessions(state: Json) -> list[Row]:
    rows = []
    for item in state["sessions"]:
        is_open = item["status"] == "open"
        do = [pages.tag("a", "Payment page", href=f"/pay/{item['id']}")] if is_open else []
        do += [_button(f"sessions/{item['id']}/pay", "Pay", item["id"])] if is_open else []
        do += [_button(f"sessions/{item['id']}/expire", "Expire", item["id"])] if is_open else []
        status = item["payment_status"] if item["status"] == "complete" else item["status"]
        rows.append(_common(item, item["amount_total"]) | {"State": _state(status), "Do": pages.join(do)})
    return rows


def _payments(state: Json) -> list[Row]:
    rows = []
    for item in state["payments"]:
        do = []
        if item["status"] == "processing":
            do = [
                _button(f"payments/{item['id']}/{name}", name.capitalize(), item["id"]) for name in ("settle", "fail")
            ]
        elif item["status"] == "succeeded":
            left = _left(item, state)
            do = [pages.fill("refund.html", payment=item["id"], left=left)] if left.strip("0.") else []
            do += [pages.fill("dispute.html", payment=item["id"], amount=_typed(item["amount"], item["currency"]))]
        rows.append(_common(item, item["amount"]) | {"State": _state(item["status"]), "Do": pages.join(do)})
    return rows


def _left(item: Json, state: Json) -> str:
    """What is left of a payment after the refunds that are shown, as it is typed."""
    back = (r["amount"] for r in state["refunds"] if r["payment_intent"] == item["id"] and r["status"] not in GONE)
    return _typed(max(0, item["amount"] - sum(back)), item["currency"])


def _typed(amount: int, currency: str) -> str:
    """An amount as it is typed: 5.00."""
    places = amounts.exponent(currency)
    units, rest = divmod(amount, 10**places)
    return f"{units}.{rest:0{places}d}" if places else str(units)


def _refunds(state: Json) -> list[Row]:
    rows = []
    for item in state["refunds"]:
        names = {"pending": ("succeed", "fail", "cancel"), "succeeded": ("fail",)}.get(item["status"], ())
        do = [_button(f"refunds/{item['id']}/{name}", name.capitalize(), item["id"]) for name in names]
        rows.append(_common(item, item["amount"]) | {"State": _state(item["status"]), "Do": pages.join(do)})
    return rows


def _subscriptions(state: Json) -> list[Row]:
    rows = []
    for item in state["subscriptions"]:
        lines = item["items"]["data"]
        amount = sum(line["price"]["unit_amount"] * line["quantity"] for line in lines)
        path, ending = f"subscriptions/{item['id']}", item["cancel_at_period_end"]
        over = item["status"] == "canceled"
        do = [] if over else [_by_card(f"{path}/card", "Change card", item["id"])]
        do += [] if over else [_price_form(f"{path}/price", item)]
        do += [_button(f"{path}/resume", "Resume", item["id"])] if ending and not over else []
        do += [] if over else [_button(f"{path}/cancel", "Cancel now", item["id"])]
        state_words = f"{item['status'].replace('_', ' ')}, ending" if ending and not over else ""
        until = pages.text("") if over else when(lines[0]["current_period_end"])
        shown = {"State": _state(item["status"], state_words), "Period ends": until, "Do": pages.join(do)}
        rows.append(_common(item, amount) | shown)
    return rows


def _invoices(state: Json) -> list[Row]:
    rows = []
    for item in state["invoices"]:
        do = [_by_card(f"invoices/{item['id']}/pay", "Pay", item["id"])] if item["status"] == "open" else []
        tries = pages.text(str(item["attempt_count"]))
        rows.append(
            _common(item, item["amount_due"]) | {"State": _state(item["status"]), "Tries": tries, "Do": pages.join(do)}
        )
    return rows


STEPS = {
    "warning_needs_response": ("respond", "escalate", "close"),
    "warning_under_review": ("escalate", "close"),
    "needs_response": ("respond", "lose"),
    "under_review": ("lose",),
    "won": ("lose",),
}


def _disputes(state: Json) -> list[Row]:
    rows = []
    for item in state["disputes"]:
        names = STEPS.get(item["status"], ())
        do = [_button(f"disputes/{item['id']}/{name}", name.capitalize(), item["id"]) for name in names]
        if item["status"] in ("needs_response", "under_review"):
            do += [pages.fill("win.html", id=item["id"], amount=_typed(item["amount"], item["currency"]))]
        moved = amounts.written(sum(one["net"] for one in item["balance_transactions"]), item["currency"])
        rows.append(
            _common(item, item["amount"])
            | {"State": _state(item["status"]), "Moved": pages.text(moved), "Do": pages.join(do)}
        )
    return rows


def _payouts(state: Json) -> list[Row]:
    rows = []
    names = {"pending": ("pay", "fail", "cancel"), "in_transit": ("pay", "fail"), "paid": ("fail",)}
    for item in state["payouts"]:
        do = [
            _button(f"payouts/{item['id']}/{name}", name.capitalize(), item["id"])
            for name in names.get(item["status"], ())
        ]
        arrives = when(item["arrival_date"])
        rows.append(
            _common(item, item["amount"]) | {"State": _state(item["status"]), "Arrives": arrives, "Do": pages.join(do)}
        )
    return rows


def _price_form(path: str, item: Json) -> Html:
    """To have its first line ask another amount."""
    price = item["items"]["data"][0]["price"]
    return pages.fill("price.html", path=path, id=item["id"], amount=_typed(price["unit_amount"], price["currency"]))


def _by_card(path: str, words: str, what: str) -> Html:
    cards = [
        pages.tag("option", f"{grouped(number)} {card.does or card.message}", value=number)
        for number, card in CARDS.items()
    ]
    return pages.fill("card.html", path=path, words=words, what=what, cards=pages.join(cards))


def _events(state: Json) -> list[Row]:
    return [
        {
            "When (UTC)": when(item["created"]),
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


def _common(item: Json, amount: int) -> Row:
    return {
        "When (UTC)": when(item["created"]),
        "Id": pages.tag("code", item["id"]),
        "Amount": pages.text(amounts.written(amount, item["currency"])),
    }


def moment(seconds: int) -> str:
    """1 Nov 2026, 09:30, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%-d %b %Y, %H:%M")


def when(seconds: int) -> Html:
    """The same to the second, for a table."""
    at = datetime.fromtimestamp(seconds, UTC)
    return pages.tag("time", at.strftime("%-d %b %H:%M:%S"), datetime=at.isoformat())


def _state(name: str, words: str = "") -> Html:
    look = "good" if name in GOOD else "bad" if name in BAD else ""
    return pages.tag("span", words or name.replace("_", " "), class_=f"state {look}".strip())


def _button(path: str, words: str, what: str) -> Html:
    return pages.fill("button.html", action=f"/_control/{path}", words=words, what=what)


TABLES: tuple[tuple[str, str, str, Rows], ...] = (
    ("sessions", "Checkouts", "No checkout yet. Give something on the site.", _sessions),
    ("payments", "Payments", "No payment yet.", _payments),
    ("refunds", "Refunds", "No refund yet.", _refunds),
    ("subscriptions", "Monthly gifts", "No monthly gift yet.", _subscriptions),
    ("invoices", "Invoices", "No invoice yet.", _invoices),
    ("disputes", "Disputes", "No dispute yet. The second form of a payment makes one.", _disputes),
    ("payouts", "Payouts", "No payout yet.", _payouts),
    ("events", "Events", "No event yet.", _events),
)
