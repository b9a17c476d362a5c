"""The hosted payment page of a Checkout Session, at /pay/<cs_…>."""

from typing import Any

from . import amounts, checkout, pages, paying
from .cards import CARDS, digits, grouped
from .errors import ApiError
from .pages import Html
from .params import EMAIL
from .paying import NotPayable
from .payments import Payer
from .store import Store, Tx
from .web import Request, Response, origin_of, see_other

Json = dict[str, Any]
Fields = dict[str, str]
UNKNOWN_CARD = "The sandbox takes test cards only. 4242 4242 4242 4242 pays, 4000 0000 0000 0002 is declined."
HOW_OFTEN = {"day": "daily", "week": "weekly", "month": "monthly", "year": "yearly"}
ODD_EMAIL = "This does not look like an email address. Leave it empty, or write one such as name@example.org."
DONE = {
    "complete": ("This payment is done", "There is nothing more to pay here."),
    "expired": ("This payment page has expired", "Nothing was paid. You can go back and start again."),
}


def answer(store: Store, request: Request, session_id: str) -> Response:
    """Show the page, or try to pay."""
    try:
        with store.transaction() as tx:
            session = checkout.find(tx, session_id)
            items = checkout.line_items(tx, session_id)
    except ApiError:
        return _closed("There is no such payment page", "The address may have been cut short.", 404)
    if session["status"] != "open":
        return _over(session)
    if request.method != "POST":
        return _form(session, items, {})
    if not request.is_same_origin():
        return _closed("This was sent by another site", "Please pay on the sandbox's own page.", 403)
    try:
        return _pay(store, session, items, request.fields())
    except (NotPayable, ApiError):
        # Somebody else was faster.
        return answer(store, _as_get(request), session_id)


def _as_get(request: Request) -> Request:
    return Request("GET", request.path, request.query, b"", request.headers, request.own)


def _pay(store: Store, session: Json, items: list[Json], fields: Fields) -> Response:
    wrong = _mistakes(fields)
    if wrong:
        return _form(session, items, fields, wrong)
    if _must_authenticate(fields):
        amount = amounts.written(session["amount_total"], session["currency"])
        return challenge(amount, f"/pay/{session['id']}", fields, ("method", "card", "email", "name"))
    payer = Payer(fields.get("email", "").strip() or None, fields.get("name", "").strip() or None)
    with store.transaction() as tx:
        declined = _take(tx, session["id"], fields, payer)
    if declined:
        return _form(session, items, fields, {"card": declined})
    return see_other(session["success_url"].replace("{CHECKOUT_SESSION_ID}", session["id"]))


def _take(tx: Tx, session_id: str, fields: Fields, payer: Payer) -> str:
    """Pay as chosen. Returns why not, if so."""
    if fields.get("method") == "delayed":
        paying.pay_by_debit(tx, session_id, payer)
        return ""
    does = fields.get("authenticate") != "false"
    return paying.pay_by_card(tx, session_id, _number(fields), payer, authenticated=does).message


def _must_authenticate(fields: Fields) -> bool:
    by_card = fields.get("method") != "delayed"
    return by_card and CARDS[_number(fields)].authenticates and "authenticate" not in fields


def challenge(amount: str, action: str, fields: Fields, names: tuple[str, ...]) -> Response:
    """The bank's question: yes or no, with these of a form's fields kept."""
    kept = [pages.hidden(name, fields[name]) for name in names if name in fields]
    content = pages.fill("challenge.html", amount=amount, action=action, kept=pages.join(kept))
    return pages.page("Authentication", content)


def _mistakes(fields: Fields) -> dict[str, str]:
    """What is wrong with a form, by field."""
    wrong = {}
    if fields.get("method") != "delayed" and _number(fields) not in CARDS:
        wrong["card"] = UNKNOWN_CARD
    email = fields.get("email", "").strip()
    if email and not EMAIL.fullmatch(email):
        wrong["email"] = ODD_EMAIL
    return wrong


def _number(fields: Fields) -> str:
    return digits(fields.get("card", ""))


def _form(session: Json, items: list[Json], fields: Fields, wrong: dict[str, str] | None = None) -> Response:
    wrong = wrong or {}
    delayed = fields.get("method") == "delayed"
    amount = amounts.written(session["amount_total"], session["currency"])
    content = pages.fill(
        "pay.html",
        amount=amount,
        often=_often(items),
        action=f"/pay/{session['id']}",
        summary=_summary(items),
        alert=alert(wrong),
        cards=_cards(),
        card_chosen=Html("" if delayed else "checked"),
        debit_chosen=Html("checked" if delayed else ""),
        card=fields.get("card", "4242 4242 4242 4242"),
        card_wrong=invalid(wrong, "card"),
        email=fields.get("email", session["customer_email"] or ""),
        email_wrong=invalid(wrong, "email"),
        name=fields.get("name", ""),
        back=_back(session, "Go back without paying"),
    )
    title = f"Pay {amount}" if not wrong else f"Not paid yet: {amount}"
    return pages.page(title, content, form_origins=(origin_of(session["success_url"]),))


def _summary(items: list[Json]) -> Html:
    """What is paid for; with the parts if there are several."""
    if len(items) == 1:
        return pages.tag("p", items[0]["description"], class_="lede")
    return pages.tag("ul", pages.join([_part(item) for item in items]), class_="parts")


def _cards() -> Html:
    lines = [
        pages.tag("li", pages.join([pages.tag("code", grouped(number)), pages.text(card.does)]))
        for number, card in CARDS.items()
        if card.does
    ]
    return pages.tag("ul", pages.join(lines))


def _part(item: Json) -> Html:
    name = pages.tag("span", item["description"])
    amount = pages.tag("span", amounts.written(item["amount_total"], item["currency"]))
    return pages.tag("li", pages.join([name, amount]))


def alert(wrong: dict[str, str], title: str = "Not paid yet") -> Html:
    """What is wrong with a form, each with a link to its field."""
    lines = [pages.tag("li", pages.tag("a", text, href=f"#{name}")) for name, text in wrong.items()]
    return pages.fill("alert.html", title=title, lines=pages.join(lines)) if lines else Html("")


def invalid(wrong: dict[str, str], name: str) -> Html:
    return Html('aria-invalid="true"' if name in wrong else "")


def _often(items: list[Json]) -> Html:
    recurring = items[0]["price"]["recurring"]
    if not recurring:
        return Html("")
    count = recurring["interval_count"]
    often = HOW_OFTEN[recurring["interval"]] if count == 1 else f"every {count} {recurring['interval']}s"
    return pages.tag("small", f" {often}")


def _back(session: Json, words: str) -> Html:
    return _link(session["cancel_url"], words) if session["cancel_url"] else Html("")


def _link(url: str, words: str) -> Html:
    return pages.tag("p", pages.tag("a", words, href=url), class_="back")


def _over(session: Json) -> Response:
    title, text = DONE[session["status"]]
    if session["status"] == "complete":
        url = session["success_url"].replace("{CHECKOUT_SESSION_ID}", session["id"])
        back = _link(url, "Continue to the site")
    else:
        back = _back(session, "Go back to the site")
    return pages.page(title, pages.fill("closed.html", title=title, text=text, back=back))


def _closed(title: str, text: str, status: int) -> Response:
    content = pages.fill("closed.html", title=title, text=text, back=Html(""))
    return pages.page(title, content, status=status)
