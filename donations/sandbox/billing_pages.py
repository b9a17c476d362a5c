"""What a donor of a monthly gift sees: an invoice that waits for them, at /invoice/<in_…>, and the billing portal."""

from datetime import UTC, datetime
from typing import Any

from . import amounts, invoices, pages, pay_page, subscriptions
from . import portal as portals
from .cards import CARDS, PLAIN, digits, grouped
from .errors import ApiError
from .pages import Html
from .store import Store, Tx
from .web import Request, Response, see_other

Json = dict[str, Any]
Fields = dict[str, str]
ELSEWHERE = ("This was sent by another site", "Please use the sandbox's own page.", 403)


def invoice(store: Store, request: Request, invoice_id: str) -> Response:
    """Show an invoice, or try to pay it."""
    if request.method == "POST" and not request.is_same_origin():
        return _closed(*ELSEWHERE)
    fields = request.fields() if request.method == "POST" else {}
    try:
        with store.transaction() as tx:
            found = invoices.find(tx, invoice_id)
            number = digits(fields.get("card", ""))
            wrong = {"card": pay_page.UNKNOWN_CARD} if fields and number not in CARDS else {}
            if not fields or wrong or found["status"] != "open":
                return _invoice(found, fields, wrong)
            if CARDS[number].authenticates and "authenticate" not in fields:
                return pay_page.challenge(_amount(found), f"/invoice/{invoice_id}", fields, ("card",))
            declined = invoices.pay_by_card(tx, invoice_id, number, authenticated=fields.get("authenticate") != "false")
            return _invoice(invoices.find(tx, invoice_id), fields, {"card": declined} if declined else {})
    except ApiError as error:
        return _closed("There is no such invoice", error.message, 404)


def _invoice(found: Json, fields: Fields, wrong: dict[str, str]) -> Response:
    amount = _amount(found)
    form = pages.fill(
        "invoice_form.html",
        action=f"/invoice/{found['id']}",
        amount=amount,
        card=fields.get("card", grouped(PLAIN)),
        card_wrong=pay_page.invalid(wrong, "card"),
    )
    tried = found["attempt_count"]
    content = pages.fill(
        "invoice.html",
        amount=amount,
        number=found["number"] or "not numbered yet",
        status=found["status"],
        attempts=f"Tried {tried} {'time' if tried == 1 else 'times'}.",
        alert=pay_page.alert(wrong),
        form=form if found["status"] == "open" else Html(""),
    )
    return pages.page(f"Invoice over {amount}", content)


def portal(store: Store, request: Request, session_id: str) -> Response:
    """Show a customer's monthly gifts, or change one."""
    if request.method == "POST" and not request.is_same_origin():
        return _closed(*ELSEWHERE)
    try:
        with store.transaction() as tx:
            session = portals.find(tx, session_id)
            if request.method != "POST":
                return _portal(tx, session, {})
            wrong = _change(tx, session, request.fields())
            if wrong:
                return _portal(tx, session, wrong)
    except ApiError as error:
        return _closed("This page is over", f"{error.message}. Ask the site for a new link.", 404)
    return see_other(f"/portal/{session_id}")


def _change(tx: Tx, session: Json, fields: Fields) -> dict[str, str]:
    """Do what a form asks for. Returns what is wrong with it, if so."""
    number = digits(fields.get("card", ""))
    if fields.get("action") == "card" and number not in CARDS:
        return {"main": pay_page.UNKNOWN_CARD}
    portals.act(tx, session["id"], fields.get("subscription", ""), fields.get("action", ""), number)
    return {}


def _portal(tx: Tx, session: Json, wrong: dict[str, str]) -> Response:
    customer = subscriptions.find_customer(tx, session["customer"])
    items = [_item(tx, found, session) for found in portals.subscriptions_of(tx, session)]
    back = pages.tag("p", pages.tag("a", "Back to the site", href=session["return_url"] or ""), class_="back")
    content = pages.fill(
        "portal.html",
        who=customer["email"] or customer["name"] or customer["id"],
        alert=pay_page.alert(wrong, "Not changed yet"),
        items=pages.join(items) if items else pages.tag("p", "There is none.", class_="none"),
        back=back if session["return_url"] else Html(""),
    )
    return pages.page("Your monthly gifts", content)


def _item(tx: Tx, found: Json, session: Json) -> Html:
    items = found["items"]["data"]
    total = sum(item["price"]["unit_amount"] * item["quantity"] for item in items)
    amount, ends = amounts.written(total, found["currency"]), found["cancel_at_period_end"]
    over = found["status"] in subscriptions.OVER
    card = tx.get("payment_method", found["default_payment_method"]) or {}
    do = pages.fill(
        "portal_do.html",
        action=f"/portal/{session['id']}",
        id=found["id"],
        amount=amount,
        card=grouped(PLAIN),
        end_action="resume" if ends else "cancel",
        end_words="Keep giving" if ends else "Stop when this month ends",
    )
    return pages.fill(
        "portal_item.html",
        id=found["id"],
        amount=amount,
        interval=items[0]["price"]["recurring"]["interval"],
        state=pages.tag("span", found["status"].replace("_", " "), class_="state"),
        words=f"{_when(found)} {_paid_by(card)}",
        do=Html("") if over else do,
    )


def _when(found: Json) -> str:
    if found["status"] in subscriptions.OVER:
        return f"It ended on {_day(found['ended_at'])}."
    day = _day(subscriptions.period_end(found))
    return f"It ends on {day}." if found["cancel_at_period_end"] else f"The next gift is on {day}."


def _paid_by(method: Json) -> str:
    kind = method.get("type", "")
    name = "card" if kind == "card" else "bank account"
    return f"It is paid by the {name} that ends in {method[kind]['last4']}." if kind else ""


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%-d %B %Y")


def _amount(found: Json) -> str:
    return amounts.written(found["amount_due"], found["currency"])


def _closed(title: str, text: str, status: int) -> Response:
    return pages.page(title, pages.fill("closed.html", title=title, text=text, back=Html("")), status=status)
