"""The sandbox's controls, under /_control/: POST of a JSON object (or of a form, by our own dashboard).

    GET  state                       a summary: settings, counts, the latest objects, and how events were delivered
    POST deliveries                  {"mode": "normal" | "twice" | "never", "release": true}
                                     never: events are held, nothing is sent; twice: two deliveries of each event.
                                     Any other mode than never lets the held ones go, unless release is false
    POST trouble                     {"mode": "none" | "down" | "broken" | "429" | "refuse" | "slow" | "late" | "hang" |
                                     "drop" | "refused", "seconds": 10, "calls": 3, "per_second": 5, "status": 500,
                                     "path": "POST /v1/refunds"}: see `trouble`.
                                     seconds with slow, late and refused alone
    POST clock                       {"advance": "1mo"}, or 2w, 3d, 2h, 5m, 30s: what is due on the way happens
    POST account                     any of {"fee_basis_points": 290, "fee_fixed": 30, "dispute_fee": 1500,
                                     "available_after_days": 2, "capture": "async" | "sync", "capture_after": 0,
                                     "payouts": "daily" | "manual", "retry_days": "3,5,7", "settlement_currency": "usd",
                                     "exchange_rate": "1.08"}: see `account`
    POST seed                        {"payments": 1000, "seed": 1, "currency": "usd", "amount": 0, "first_days_ago": 29,
                                     "last_days_ago": 4, "refund_every": 0, "deliveries": "missed" | "delivered" |
                                     "queued", "gift": "gift_seeded_", "campaign": "general"}: see `seeding`
    POST sessions/<cs_…>/pay         {"card": "4242424242424242"} or {"method": "delayed"}; also "email", "name", and
                                     "authenticate": false for a card that asks for it.
                                     The answer's "declined" says why the card was declined; null: it was not
    POST sessions/<cs_…>/expire      {}
    POST payments/<pi_…>/settle      {}  a delayed payment's money arrives
    POST payments/<pi_…>/fail        {}  it does not
    POST refunds                     {"payment_intent": "pi_…", "amount": 500, "outcome": "succeed" | "pending" |
                                     "fail_later", "reason": "duplicate"}, as from Stripe's dashboard: by default all
                                     that is left, and succeed. "sum": "5.00" may stand for "amount"
    POST refunds/<re_…>/succeed      {}  a pending refund reaches the donor
    POST refunds/<re_…>/fail         {}  a pending or succeeded refund does not, after all
    POST refunds/<re_…>/cancel       {}  a pending refund is called off
    POST subscriptions/<sub_…>/card  {"card": "4000000000000341"}  it is paid by another card from now on
    POST subscriptions/<sub_…>/price  {"amount": 2000, "item": "si_…"}  an item asks another amount from the next
                                     invoice on, by default the first. "sum": "20.00" may stand for "amount"
    POST subscriptions/<sub_…>/cancel  {"at_period_end": false}
    POST subscriptions/<sub_…>/resume  {}  it does not end with its period after all
    POST invoices/<in_…>/pay         {"card": "4242424242424242", "authenticate": true}  as on the invoice's page
    POST disputes                    {"payment_intent": "pi_…", "amount": 500, "reason": "fraudulent",
                                     "inquiry": false}, or "charge", "sum"
    POST disputes/<du_…>/respond     {}  evidence is submitted
    POST disputes/<du_…>/win         {"amount": 500, "return_fee": false}  by default all of it is reinstated
    POST disputes/<du_…>/lose        {}  also one that was won
    POST disputes/<du_…>/escalate    {}  an inquiry becomes a dispute
    POST disputes/<du_…>/close       {}  an inquiry ends with nothing
    POST payouts                     {"currency": "usd", "hold": false}  all that is available; held: it stays pending
    POST payouts/<po_…>/pay          {}  it arrives, and is reconciled
    POST payouts/<po_…>/fail         {}  the bank sends it back, also after it was paid
    POST payouts/<po_…>/cancel       {}  a pending one
    POST events/<evt_…>/deliver      {}  deliver once more, whatever the mode

Answers are JSON, 200 with the object that changed, or an error of Stripe's shape. A browser's form is answered by a
303 to the dashboard. Requests that another site's page sends are refused.
"""

import dataclasses
import re
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any

from . import (
    account,
    amounts,
    cards,
    checkout,
    disputes,
    events,
    invoices,
    jobs,
    params,
    paying,
    payments,
    payouts,
    portal,
    refunds,
    seeding,
    state,
    subscriptions,
)
from .clock import duration
from .deliveries import Courier
from .errors import ApiError, missing, missing_parameter, unknown_url
from .paying import NotPayable
from .payments import Payer
from .store import Store, Tx
from .trouble import Trouble
from .web import Request, Response, as_json, see_other

Json = dict[str, Any]
Fields = dict[str, str]
LARGEST_SUM = Decimal(10) ** 9


class Control:
    """Answers what is asked under /_control/."""

    def __init__(self, store: Store, trouble: Trouble, courier: Courier) -> None:
        self.store = store
        self.trouble = trouble
        self.courier = courier

    def answer(self, request: Request) -> Response:
        path = request.path.removeprefix("/_control/")
        try:
            if not request.is_same_origin():
                raise ApiError("Only the sandbox's own pages may do this in a browser.", status=403)
            if (request.method, path) == ("GET", "state"):
                return as_json(self.state())
            if request.method != "POST":
                raise unknown_url(request.method, request.path)
            done = self._do(path, request.fields())
        except ApiError as error:
            return as_json(error.body(), error.status)
        return as_json(done) if request.wants_json() else see_other("/")

    def state(self) -> Json:
        with self.store.transaction() as tx:
            return state.summary(tx) | {"trouble": self.trouble.now}

    def _do(self, path: str, fields: Fields) -> Json:
        if path == "trouble":
            return self.trouble.set(fields)
        if path == "clock":
            moved = jobs.advance(self.store, duration(fields.get("advance", "")))
            self.courier.wake()
            return moved
        if path == "seed":
            plan = _plan(fields)
            made = seeding.seed(self.store, plan)
            self.courier.wake()
            return seeding.summary(plan, made)
        for pattern, action in ACTIONS:
            match = re.fullmatch(pattern, path, re.ASCII)
            if match:
                with self.store.transaction() as tx:
                    done = action(tx, fields, *match.groups())
                self.courier.wake()
                return done
        raise unknown_url("POST", f"/_control/{path}")


def _plan(fields: Fields) -> seeding.Plan:
    known = {field.name: field.type for field in dataclasses.fields(seeding.Plan)}
    unknown = sorted(fields.keys() - known.keys())
    if unknown:
        raise ApiError(f"A plan has no {unknown[0]}: there are {', '.join(known)}", param=unknown[0])
    try:
        given: Json = {name: _of_type(fields[name], known[name]) for name in fields}
    except ValueError as error:
        raise ApiError("A number of the plan is none.") from error
    whole: Json = {"payments": 0} | given
    return seeding.Plan(**whole)


def _of_type(text: str, kind: Any) -> Any:
    return {"int": int, "float": float}.get(getattr(kind, "__name__", str(kind)), str)(text)


def _set_deliveries(tx: Tx, fields: Fields) -> Json:
    mode = fields.get("mode", "")
    if mode not in events.MODES:
        raise ApiError(f"mode must be one of {', '.join(events.MODES)}", param="mode")
    tx.set_setting("deliveries", mode)
    lets_go = mode != "never" and fields.get("release", "true") != "false"
    return {"mode": mode, "released": events.release(tx, twice=mode == "twice") if lets_go else 0}


def _pay(tx: Tx, fields: Fields, session_id: str) -> Json:
    payer = Payer(fields.get("email") or None, fields.get("name") or None)
    try:
        if fields.get("method") == "delayed":
            paying.pay_by_debit(tx, session_id, payer)
            declined = ""
        else:
            does = _flag(fields, "authenticate", default=True)
            declined = paying.pay_by_card(tx, session_id, _card(fields), payer, authenticated=does).message
    except NotPayable as problem:
        raise ApiError(f"This Checkout Session has a status of `{problem}`: it can't be paid.") from problem
    return checkout.find(tx, session_id) | {"declined": declined or None}


def _card(fields: Fields) -> str:
    return cards.number(fields.get("card") or cards.PLAIN)


def _flag(fields: Fields, name: str, *, default: bool = False) -> bool:
    """True or false; a box of a form that is ticked sends "on"."""
    text = fields.get(name, "")
    return default if not text else params.flag("true" if text == "on" else text, name)


def _refund(tx: Tx, fields: Fields) -> Json:
    outcome = fields.get("outcome") or "succeed"
    if outcome not in refunds.OUTCOMES:
        raise ApiError(f"outcome must be one of {', '.join(refunds.OUTCOMES)}", param="outcome")
    given = {name: fields[name] for name in ("payment_intent", "charge", "amount", "reason") if fields.get(name)}
    checked: Json = params.group(refunds.FIELDS)(given, "")
    if fields.get("sum", "").strip():
        checked["amount"] = _minor(fields["sum"], payments.find(tx, checked.get("payment_intent", ""))["currency"])
    return refunds.create(tx, checked, outcome=outcome)


def _dispute(tx: Tx, fields: Fields) -> Json:
    reason = fields.get("reason") or "fraudulent"
    if reason not in disputes.REASONS:
        raise ApiError(f"reason must be one of {', '.join(disputes.REASONS)}", param="reason")
    charge = fields.get("charge") or payments.find(tx, fields.get("payment_intent", ""))["latest_charge"] or ""
    inquiry = _flag(fields, "inquiry")
    amount = _amount(fields, payments.find_charge(tx, charge)["currency"])
    return disputes.create(tx, charge, amount=amount, reason=reason, inquiry=inquiry)


def _win(tx: Tx, fields: Fields, dispute_id: str) -> Json:
    amount = _amount(fields, disputes.find(tx, dispute_id)["currency"])
    return disputes.win(tx, dispute_id, amount=amount, return_fee=_flag(fields, "return_fee"))


def _amount(fields: Fields, currency: str) -> int | None:
    """`amount` in minor units, or `sum` as people write it; None: neither was given."""
    if fields.get("sum", "").strip():
        return _minor(fields["sum"], currency)
    return params.whole(1)(fields["amount"], "amount") if fields.get("amount") else None


def _cancel_subscription(tx: Tx, fields: Fields, subscription_id: str) -> Json:
    if _flag(fields, "at_period_end"):
        return subscriptions.update(tx, subscription_id, {"cancel_at_period_end": True})
    return subscriptions.cancel(tx, subscription_id)


def _change_card(tx: Tx, fields: Fields, subscription_id: str) -> Json:
    return portal.change_card(tx, subscriptions.find(tx, subscription_id), _card(fields))


def _change_price(tx: Tx, fields: Fields, subscription_id: str) -> Json:
    amount = _amount(fields, subscriptions.find(tx, subscription_id)["currency"])
    if amount is None:
        raise missing_parameter("amount")
    return subscriptions.reprice(tx, subscription_id, amount, fields.get("item", ""))


def _pay_invoice(tx: Tx, fields: Fields, invoice_id: str) -> Json:
    does = _flag(fields, "authenticate", default=True)
    declined = invoices.pay_by_card(tx, invoice_id, _card(fields), authenticated=does)
    return invoices.find(tx, invoice_id) | {"declined": declined or None}


def _pay_out(tx: Tx, fields: Fields) -> Json:
    currency = amounts.currency(fields.get("currency") or "usd", "currency")
    return payouts.create(tx, currency, hold=_flag(fields, "hold"))


def _minor(text: str, currency: str) -> int:
    """A typed sum, such as 5.00, in minor units of a currency."""
    try:
        value = Decimal(text.strip().replace(",", ""))
        if not value.is_finite() or not 0 < value < LARGEST_SUM:
            raise InvalidOperation
    except InvalidOperation as error:
        raise ApiError(f"{text} is not an amount", param="sum") from error
    minor = value.scaleb(amounts.exponent(currency))
    if minor != int(minor):
        raise ApiError(f"{text} has too many decimal places", param="sum")
    return int(minor)


def _deliver(tx: Tx, fields: Fields, event_id: str) -> Json:
    event = tx.get("event", event_id)
    if event is None:
        raise missing("event", event_id)
    events.queue(tx, event_id, by_hand=True)
    return events.shown(tx, event)


ACTIONS: tuple[tuple[str, Callable[..., Json]], ...] = (
    ("deliveries", _set_deliveries),
    ("refunds", _refund),
    ("account", account.change),
    ("disputes", _dispute),
    ("payouts", _pay_out),
    (r"sessions/(\w+)/pay", _pay),
    (r"sessions/(\w+)/expire", lambda tx, fields, session: checkout.expire(tx, session)),
    (r"payments/(\w+)/settle", lambda tx, fields, intent: paying.settle(tx, intent)),
    (r"payments/(\w+)/fail", lambda tx, fields, intent: paying.fail(tx, intent)),
    (r"refunds/(\w+)/succeed", lambda tx, fields, refund: refunds.succeed(tx, refund)),
    (r"refunds/(\w+)/fail", lambda tx, fields, refund: refunds.fail(tx, refund)),
    (r"refunds/(\w+)/cancel", lambda tx, fields, refund: refunds.cancel(tx, refund)),
    (r"subscriptions/(\w+)/card", _change_card),
    (r"subscriptions/(\w+)/price", _change_price),
    (r"subscriptions/(\w+)/cancel", _cancel_subscription),
    (
        r"subscriptions/(\w+)/resume",
        lambda tx, fields, one: subscriptions.update(tx, one, {"cancel_at_period_end": False}),
    ),
    (r"invoices/(\w+)/pay", _pay_invoice),
    (r"disputes/(\w+)/respond", lambda tx, fields, dispute: disputes.respond(tx, dispute)),
    (r"disputes/(\w+)/win", _win),
    (r"disputes/(\w+)/lose", lambda tx, fields, dispute: disputes.lose(tx, dispute)),
    (r"disputes/(\w+)/escalate", lambda tx, fields, dispute: disputes.escalate(tx, dispute)),
    (r"disputes/(\w+)/close", lambda tx, fields, dispute: disputes.close(tx, dispute)),
    (r"payouts/(\w+)/pay", lambda tx, fields, payout: payouts.pay(tx, payout)),
    (r"payouts/(\w+)/fail", lambda tx, fields, payout: payouts.fail(tx, payout)),
    (r"payouts/(\w+)/cancel", lambda tx, fields, payout: payouts.cancel(tx, payout)),
    (r"events/(\w+)/deliver", _deliver),
)
